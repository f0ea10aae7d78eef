/*
 * file_source.c: the source `file`: the records of a file, of standard input or of a folder.
 *
 * Owns:    one file open at a time, places (file.h), shards, beginning again at a place.
 * Refuses: what a record means; watching for more: a corpus has an end.
 * Threads: the loop thread; read_work runs on libuv's threads, and while it does nothing else
 *          touches bytes, chunk, got and err.
 * Why:     a place is a number of records and a digest of their bytes, not an offset: it is the
 *          same for packed files and for pipes, and beginning again reads the corpus anew, which
 *          takes seconds where embedding took hours, and proves that it is still the same.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"
#include "connectors/endpoint.h"
#include "connectors/intake.h"
#include "connectors/file/file.h"
#include "connectors/file/file_bytes.h"
#include "connectors/file/file_corpus.h"

#define IO_BLOCK    (64 * 1024)
#define MAX_AT_ONCE 64

struct file_message {
    struct message message; /* first member */
    struct file_message *previous, *next;
    struct file_place behind;
    uint64_t input_at;
    bool is_open;
    struct header id;
    char bytes[]; /* value, key, position, reason */
};

struct file_source {
    struct source source; /* first member */
    struct endpoint end;
    uv_work_t work; /* held while it goes on */
    bool reading, reported_end, reported_total;

    struct file_corpus corpus;
    size_t at; /* of corpus.paths */
    struct file_bytes *bytes;
    struct file_records *records;
    bool file_ended;      /* all bytes of the file were fed */
    char delimiter;       /* of CSV; 0: see file_corpus_delimiter */
    struct problem fault; /* what is wrong with this file, to be given; reason: fault_reason */
    char fault_reason[1024];
    /* How far, in bytes of the files as they are: of those before, of this one as far as it was
     * read; and of this one, unpacked, what was read and what of it was cut into records. */
    uint64_t bytes_before, bytes_read, unpacked_read, unpacked_split;
    uint64_t bytes_taken,
        bytes_reported; /* behind the last record taken; as far as on_count knows */
    ssize_t got;
    char err[900]; /* not empty: what is to be told once all messages given are taken */
    int err_code;

    struct file_place place, resume;
    uint64_t shard, n_shards; /* shard from 0 */
    struct credit_left credit;
    struct file_message *messages; /* given and not yet taken */
    char block[IO_BLOCK];
};

/* FNV-1a, as long as the states of outputs that people have hold it: by another hash they could not
 * go on. A zero byte cannot stand for the end of a record, so the length goes in, too. */
static uint64_t digest_record(uint64_t digest, struct bytes value)
{
    for (size_t i = 0; i < value.len; i++)
        digest = (digest ^ (unsigned char)value.ptr[i]) * 0x100000001b3u;
    return (digest ^ value.len) * 0x100000001b3u;
}

static void break_off(struct file_source *file, int err_code)
{
    if (file->err_code == 0)
        file->err_code = err_code;
}

/* Where in the input the last record cut ends, were the file packed evenly. */
static uint64_t input_at(const struct file_source *file)
{
    /* An estimate for the progress bar: packed bytes and unpacked ones do not correspond. */
    double share =
        file->unpacked_read > 0 ? (double)file->unpacked_split / (double)file->unpacked_read : 0;
    return file->bytes_before + (uint64_t)((share < 1 ? share : 1) * (double)file->bytes_read);
}

/* Value, key, position and reason lie behind the message. A record of line 0 is a whole file. */
static struct file_message *message_open(struct file_source *file, const struct file_record *record)
{
    const struct file_corpus *corpus = &file->corpus;
    const char *path = corpus->paths[file->at], *inner = path + corpus->root_len;
    const char *reason = record->problem.code ? record->problem.reason : "";
    bool whole = corpus->format == FILE_TEXT || record->line == 0;
    size_t names = strlen(path) + strlen(inner) + strlen(reason) + 60;
    /* 60: three NULs, and twice a colon and a number of up to 20 digits. */
    struct file_message *message = malloc(sizeof *message + record->value.len + names);
    if (!message)
        return NULL;
    memset(message, 0, sizeof *message);
    char *key = message->bytes + record->value.len, *position;
    int key_len, position_len;
    memcpy(message->bytes, record->value.ptr, record->value.len);
    if (whole)
        key_len = sprintf(key, "%s", inner);
    else
        key_len = sprintf(key, "%s%s%" PRIu64, corpus->root_len ? inner : "",
                          corpus->root_len ? ":" : "", record->line);
    position = key + key_len + 1;
    if (whole)
        position_len = sprintf(position, "%s", path);
    else
        position_len = sprintf(position, "%s:%" PRIu64, path, record->line);
    message->id = (struct header){{"id", 2}, {key, (size_t)key_len}};
    message->behind = file->place;
    message->input_at = input_at(file);
    message->is_open = record->is_open;
    char *own = strcpy(position + position_len + 1, reason);
    message->message = (struct message){
        .source = &file->source,
        .problem = {record->problem.code, record->problem.code ? own : NULL},
        .key = message->id.value,
        .key_is_place = !whole,
        .value = {message->bytes, record->value.len},
        .headers = &message->id,
        .n_headers = 1,
        .position = {position, (size_t)position_len},
        .timestamp_ms = -1,
        .deliveries = 1,
    };
    /* At the front of the list: order does not matter, it is for freeing what is left. */
    message->next = file->messages;
    if (message->next)
        message->next->previous = message;
    file->messages = message;
    return message;
}

static void message_close(struct file_source *file, struct file_message *message)
{
    if (message->previous)
        message->previous->next = message->next;
    else
        file->messages = message->next;
    if (message->next)
        message->next->previous = message->previous;
    free(message);
}

static void refuse_corpus(struct file_source *file)
{
    snprintf(file->err, sizeof file->err,
             "the corpus is not what it was: its first %" PRIu64 " records, which the output "
             "already has, have changed; write to another output, or remove this one to start over",
             file->resume.records);
    break_off(file, -EINVAL);
}

/* Count a record in. True when it is to be given: it is behind the place to begin at, and ours. */
static bool count_record(struct file_source *file, const struct file_record *record)
{
    struct file_place *place = &file->place;
    bool is_ours = place->records % file->n_shards == file->shard;
    /* Every record is counted and digested, also those of other shards: the place is one for
     * all. */
    bool is_new = place->records >= file->resume.records;
    place->digest = digest_record(place->digest, record->value);
    place->records++;
    /* Compared once, at the place itself: the digest is of all records up to there. */
    if (place->records == file->resume.records && place->digest != file->resume.digest)
        refuse_corpus(file);
    return is_new && is_ours;
}

/* Something is wrong with this file, and file->err says what. In a folder it is passed over, as an
 * error in place of what it still held; alone it ends the reading. */
static void fail_file(struct file_source *file, int rc, const char *code)
{
    if (file->corpus.root_len == 0) {
        break_off(file, rc);
        return;
    }
    snprintf(file->fault_reason, sizeof file->fault_reason, "%s", file->err);
    assert(file->at < file->corpus.n);
    file->fault = (struct problem){code, file->fault_reason};
    /* Nothing is wrong with the reading as a whole. */
    file->err[0] = '\0';
    file_bytes_close(file->bytes);
    file->bytes = NULL;
    file->file_ended = true;
}

static void begin_records(struct file_source *file)
{
    char delimiter = file->delimiter;
    if (!delimiter && file->at < file->corpus.n)
        delimiter = file_corpus_delimiter(file->corpus.paths[file->at]);
    file_records_begin(file->records, delimiter);
}

/* The bytes were read, and are not what the name or the format promise. */
static void refuse_form(struct file_source *file, int rc)
{
    char why[sizeof file->err];
    const char *path = file->corpus.paths[file->at];
    /* The sentence is printed into the buffer that it comes from. */
    strcpy(why, file->err);
    snprintf(file->err, sizeof file->err, "%.200s: %.*s",
             strcmp(path, "-") == 0 ? "standard input" : path, (int)sizeof file->err - 210, why);
    fail_file(file, rc,
              file->corpus.format == FILE_CSV ? DEAD_LETTER(bad_csv) : DEAD_LETTER(bad_json));
    begin_records(file); /* what there is of it */
}

/* The next record of this file. 1: *out, which may be a blank line; 0; -ENOMEM. */
static int next_record(struct file_source *file, struct file_record *out)
{
    int rc = file_records_next(file->records, out, file->err, sizeof file->err);
    if (rc == -EINVAL) {
        refuse_form(file, rc);
        rc = file->err_code;
    } else if (rc < 0) {
        break_off(file, rc);
    }
    /* The fault comes last of its file, behind the records that were whole. */
    if (rc != 0 || !file->fault.code || !file->file_ended)
        return rc;
    *out = (struct file_record){.value = {"", 0}, .problem = file->fault};
    return 1;
}

/* The next record to give. 1; 0: none in what was read; negative: told by break_off. */
static int next_message(struct file_source *file, struct file_message **out)
{
    struct file_record record;
    for (;;) {
        int rc = next_record(file, &record);
        if (rc <= 0)
            return rc;
        bool is_fault = record.problem.reason == file->fault_reason;
        /* And the end of its line; near enough, for it is only shown as progress. */
        file->unpacked_split += record.value.len + 1;
        /* A blank line, or a header of CSV. */
        if (!record.value.ptr)
            continue;
        bool wanted = count_record(file, &record);
        if (file->err_code != 0)
            return file->err_code;
        if (wanted) {
            *out = message_open(file, &record);
            if (!*out)
                break_off(file, -ENOMEM);
            /* Nothing is out that will report it when it is taken. */
        } else if (!file->messages) {
            file->bytes_taken = input_at(file);
        }
        /* Given, or another shard's: either way it is over. */
        if (is_fault)
            file->fault = (struct problem){NULL, NULL};
        if (wanted)
            return *out ? 1 : -ENOMEM;
    }
}

/* Give what records there are and credit allows. False when there is nothing more to do now. */
static bool give(struct file_source *file)
{
    struct message *given[MAX_AT_ONCE];
    size_t n = 0;
    int rc = 1;
    while (n < MAX_AT_ONCE && credit_left_any(&file->credit)) {
        struct file_message *message = NULL;
        rc = next_message(file, &message);
        if (rc <= 0)
            break;
        given[n++] = &message->message;
        /* A record is given whole even where it is larger than the credit left. */
        credit_left_spend(&file->credit, message->message.value.len);
    }
    if (n > 0)
        file->source.events->on_messages(file->source.ctx, given, n);
    return rc > 0 && n > 0;
}

/* On one of libuv's threads. */
static void read_work(uv_work_t *work)
{
    struct file_source *file = work->data;
    if (!file->bytes) {
        int rc = file_bytes_open(&file->bytes, file->corpus.paths[file->at], file->err,
                                 sizeof file->err);
        if (rc != 0) {
            /* `bytes` stays NULL: on_bytes tells by it that opening was what failed. */
            file->got = rc;
            return;
        }
    }
    file->got = file_bytes_read(file->bytes, file->block, IO_BLOCK, file->err, sizeof file->err);
}

static void on_bytes(struct file_source *file)
{
    if (file->bytes)
        file->bytes_read = file_bytes_consumed(file->bytes);
    if (file->got > 0) {
        file->unpacked_read += (uint64_t)file->got;
        int rc = file_records_feed(file->records, file->block, (size_t)file->got);
        if (rc != 0)
            break_off(file, rc);
    } else if (file->got == 0) {
        file_records_end(file->records);
        file_bytes_close(file->bytes);
        file->bytes = NULL;
        file->file_ended = true;
    } else if (file->got == -EINVAL && file->bytes) {
        fail_file(file, -EINVAL, DEAD_LETTER(not_text));
    } else if (file->got == -EBADMSG) {
        fail_file(file, -EBADMSG, DEAD_LETTER(damaged_file));
    } else if (!file->bytes && file_is_unreadable((int)file->got)) {
        fail_file(file, (int)file->got, DEAD_LETTER(unreadable_file));
    } else if (file->got != -EAGAIN) {
        break_off(file, (int)file->got);
    }
}

static void on_read(uv_work_t *work, int status)
{
    struct file_source *file = work->data;
    (void)status; /* it is never cancelled */
    file->reading = false;
    /* What was read is dropped with the source: nothing of it was given. */
    if (!file->end.closing)
        on_bytes(file);
    endpoint_pump(&file->end);
    endpoint_drop(&file->end);
}

/* The file's last record was cut off: go on to the next file, or end. */
static void next_file(struct file_source *file)
{
    if (file->at < file->corpus.n) {
        file->at++;
        file->file_ended = false;
        file->bytes_before += file->bytes_read;
        file->bytes_read = file->unpacked_read = file->unpacked_split = 0;
        begin_records(file);
    }
    if (file->at < file->corpus.n || file->reported_end)
        return;
    /* The corpus has become shorter than what the output has of it. */
    if (file->place.records < file->resume.records) {
        refuse_corpus(file);
        return;
    }
    file->reported_end = true;
    file->source.events->on_end(file->source.ctx);
}

/* Of a folder: who has lines or rows in it rarely wants a vector for a whole file. */
static void warn_of_whole_files(struct file_source *file)
{
    const struct file_corpus *corpus = &file->corpus;
    char text[200];
    if (!corpus->is_guessed || corpus->n_of_records == 0)
        return;
    snprintf(
        text, sizeof text,
        "%zu files of this folder have lines or rows by their names (.jsonl, .csv), and each is "
        "embedded as one text; --file-format jsonl or csv reads what is in them",
        corpus->n_of_records);
    endpoint_notice(&file->end, NOTICE_OWN, "whole_files", text);
}

static void read_more(struct file_source *file)
{
    if (!file->reported_total) {
        file->reported_total = true;
        source_count(&file->source, COUNTER_INPUT_SIZE, file->corpus.bytes);
        warn_of_whole_files(file);
    }
    int rc = uv_queue_work(file->end.loop, &file->work, read_work, on_read);
    file->reading = rc == 0;
    if (rc == 0)
        endpoint_hold(&file->end);
    else
        break_off(file, rc);
}

/* The one step of the machine: give, else read, else end. */
static void file_pump(void *owner)
{
    struct file_source *file = owner;
    if (file->end.closing) {
        endpoint_finish(&file->end); /* there is nothing to flush, and a read ends by itself */
        return;
    }
    if (file->bytes_taken > file->bytes_reported) {
        source_count(&file->source, COUNTER_INPUT_DONE, file->bytes_taken - file->bytes_reported);
        file->bytes_reported = file->bytes_taken;
    }
    while (!file->end.closing && !file->reading && file->err_code == 0 && !file->reported_end) {
        /* request pumps again; on_end, too, waits for it. */
        if (!credit_left_any(&file->credit))
            return;
        /* Giving may have closed us: the pipeline ends within its events. */
        if (give(file) || !credit_left_any(&file->credit) || file->end.closing)
            continue;
        if (file->err_code != 0)
            break;
        if (file->file_ended)
            next_file(file);
        else
            read_more(file);
    }
    /* Only when all that was given is done: what was read before the fault is not lost to it. */
    if (file->err_code != 0 && !file->messages && !file->end.failed)
        endpoint_fail(&file->end, file->err_code, file->err[0] ? file->err : "out of memory");
}

static void file_free(void *owner)
{
    struct file_source *file = owner;
    while (file->messages)
        message_close(file, file->messages);
    file_bytes_close(file->bytes);
    file_records_close(file->records);
    file_corpus_close(&file->corpus);
    free(file);
}

static const struct endpoint_ops endpoint_ops = {.pump = file_pump, .free = file_free};

static int read_shard(struct file_source *file, const char *text, char *err, size_t err_size)
{
    unsigned long long i, n;
    int end = 0;
    if (sscanf(text, "%llu/%llu%n", &i, &n, &end) != 2 || text[end] || i < 1 || i > n) {
        snprintf(err, err_size,
                 "file.shard: %.40s: expected I/N, with I from 1 to N: 1/4, 2/4, 3/4 and 4/4 are "
                 "the whole",
                 text);
        return -EINVAL;
    }
    file->shard = i - 1;
    file->n_shards = n;
    return 0;
}

static int read_delimiter(struct file_source *file, const char *text, char *err, size_t err_size)
{
    bool is_tab = strcmp(text, "tab") == 0 || strcmp(text, "\\t") == 0;
    if (strcmp(text, "auto") == 0 || is_tab) {
        file->delimiter = is_tab ? '\t' : '\0';
        return 0;
    }
    if (strlen(text) != 1 || strchr("\"\r\n", text[0])) {
        snprintf(err, err_size,
                 "file.delimiter: %.40s: expected auto, tab or one character (no quote)", text);
        return -EINVAL;
    }
    file->delimiter = text[0];
    return 0;
}

static int prepare(struct file_source *file, const struct settings *settings, char *err,
                   size_t err_size)
{
    const char *path = settings_text(settings, "file.path");
    if (!path || !*path) {
        snprintf(err, err_size, "file.path: expected a file, a folder, or - for standard input");
        return -EINVAL;
    }
    int rc = read_shard(file, settings_text(settings, "file.shard"), err, err_size);
    if (rc == 0)
        rc = read_delimiter(file, settings_text(settings, "file.delimiter"), err, err_size);
    if (rc == 0)
        rc = file_corpus_open(&file->corpus, path, settings_text(settings, "file.format"), err,
                              err_size);
    if (rc != 0)
        return rc;
    struct file_records_options options = {
        .format = file->corpus.format,
        .max_record = (size_t)settings_number(settings, "file.max_record"),
        .maybe_json =
            strcmp(path, "-") == 0 && file->corpus.format == FILE_LINES && file->corpus.is_guessed,
        .is_guessed = file->corpus.is_guessed,
        .text_field =
            settings_find(settings, "text_field") ? settings_text(settings, "text_field") : "text",
        .csv.column = settings_text(settings, "file.column"),
        .csv.id = settings_text(settings, "file.id"),
        .csv.refuse_bad_utf8 = settings_find(settings, "bad_utf8") &&
                               strcmp(settings_text(settings, "bad_utf8"), "error") == 0,
    };
    rc = file_records_open(&file->records, &options);
    if (rc != 0)
        snprintf(err, err_size, "out of memory");
    else
        begin_records(file);
    return rc;
}

static int file_open(struct source **out, uv_loop_t *loop, const struct settings *settings,
                     const struct source_events *events, void *ctx, char *err, size_t err_size)
{
    struct file_source *file = calloc(1, sizeof *file);
    if (!file) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    file->source = (struct source){.ops = &file_source, .events = events, .ctx = ctx};
    file->work.data = file;
    int rc = prepare(file, settings, err, err_size);
    if (rc != 0) {
        file_corpus_close(&file->corpus);
        free(file);
        return rc;
    }
    /* Nothing fails behind this: from here on only the loop frees us. */
    endpoint_open_source(&file->end, loop, &file->source, 0, &endpoint_ops, file);
    *out = &file->source;
    return 0;
}

static void file_request(struct source *source, size_t n, size_t n_bytes)
{
    struct file_source *file = (struct file_source *)source;
    file->credit = (struct credit_left){n, n_bytes};
    if (n > 0)
        endpoint_pump_soon(&file->end);
}

static void file_take(struct source *source, struct message *message)
{
    struct file_source *file = (struct file_source *)source;
    uint64_t at = ((struct file_message *)message)->input_at;
    message_close(file, (struct file_message *)message);
    /* Messages are done in any order; the bar goes forward only. */
    if (at > file->bytes_taken)
        file->bytes_taken = at;
    endpoint_pump_soon(&file->end);
}

static void file_close(struct source *source, uint64_t deadline_ms, void (*closed)(void *ctx),
                       void *ctx)
{
    endpoint_close(&((struct file_source *)source)->end, deadline_ms, closed, ctx);
}

bool file_message_place(const struct message *message, struct file_place *behind, bool *is_open)
{
    if (message->source->ops != &file_source)
        return false;
    const struct file_message *record = (const struct file_message *)message;
    *behind = record->behind;
    *is_open = record->is_open;
    return true;
}

bool file_source_resume(struct source *source, struct file_place from)
{
    if (!source || source->ops != &file_source)
        return false;
    ((struct file_source *)source)->resume = from;
    return true;
}

const struct source_ops file_source = {
    .open = file_open,
    .request = file_request,
    .ack = file_take,
    .release = file_take,
    .close = file_close,
};
