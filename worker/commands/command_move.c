/*
 * command_move.c: `embedmill push` and `pull`: a corpus into a queue, outputs out of one.
 *
 * Owns:    what a URL says of a connector, the form that a gathered output gets in a file, the end.
 * Refuses: inference: no model is opened.
 * Why:     so that a corpus can be spread over workers and gathered again, with the promises of the
 *          connectors: what is killed loses nothing, a full queue holds the reader back.
 */
#define _GNU_SOURCE /* memmem */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "worker/codec/codec.h"
#include "connectors/dead_letter_codes.h"
#include "worker/commands/command.h"
#include "worker/commands/command_line.h"
#include "worker/commands/queue_target.h"
#include "worker/index/manifest.h"
#include "worker/telemetry/log.h"
#include "worker/config/name.h"
#include "worker/config/options.h"
#include "worker/telemetry/progress.h"
#include "worker/telemetry/reports.h"
#include "worker/commands/stop_signals.h"
#include "worker/commands/transfer.h"

static const struct command_ending push_endings[] = {
    {COMMAND_OK, "All records are pushed."},
    {COMMAND_USAGE, NULL},
    {COMMAND_DATA, "Some records could not be read and went to the dead letters."},
    {COMMAND_UNAVAILABLE, "The queue refuses, and retrying would not help."},
    {COMMAND_INTERNAL, NULL},
    {COMMAND_IO, "Reading failed."},
    {COMMAND_CONFIG, NULL},
    COMMAND_SIGNALLED,
    COMMAND_END,
};

static const struct command_ending pull_endings[] = {
    {COMMAND_OK, "All outputs are gathered."},
    {COMMAND_USAGE, NULL},
    {COMMAND_DATA, "Some messages were not outputs; OUT.errors.jsonl says which."},
    {COMMAND_UNAVAILABLE, "The queue refuses, and retrying would not help."},
    {COMMAND_INTERNAL, NULL},
    {COMMAND_IO, "Writing failed."},
    {COMMAND_CONFIG, NULL},
    COMMAND_SIGNALLED,
    COMMAND_END,
};

static const struct option push_options[] = {
    {"push.to", OPTION_SECRET, NULL, NULL, 0, 0, "URL", "The server, and perhaps the queue."},
    {"push.stream", OPTION_TEXT, NULL, NULL, 0, 0, "NAME",
     "The stream, topic or queue there that workers read, where the URL names none."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL},
};

static const struct option pull_options[] = {
    {"pull.from", OPTION_SECRET, NULL, NULL, 0, 0, "URL", "The server, and perhaps the queue."},
    {"pull.stream", OPTION_TEXT, NULL, NULL, 0, 0, "NAME",
     "The stream, topic or queue there that workers write, where the URL names none."},
    {"pull.idle", OPTION_DURATION, "10s", NULL, 0, 24 * 3600 * 1000, "TIME",
     "End when nothing has come for so long; 0: go on until a signal stops it."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL},
};

enum form { FORM_NPY, FORM_JSONL, FORM_CSV, FORM_MSGPACK };

struct move {
    bool is_push;
    void (*leave)(int code);
    const struct settings *settings;
    uv_loop_t loop;
    struct stop_signals stop;
    struct transfer *transfer;
    struct progress *progress;
    struct progress_input input;
    enum form form;
    const char *dtype;        /* its name on the wire */
    struct manifest manifest; /* of a pulled OUT: what its vectors are made with; empty: none is */
    enum pipeline_end how;
};

static int fail(const struct move *move, int code, const char *why)
{
    return command_line_fail(move->is_push ? "push" : "pull", code, why);
}

/* Pulled outputs, each in the form of the file. */

static int dead_letter(struct record *record, struct arena *arena, const char *code,
                       const char *reason)
{
    record->dead_code = code;
    record->dead_reason = arena_copy(arena, reason, strlen(reason) + 1);
    return record->dead_reason ? 0 : -ENOMEM;
}

static int shape_rows(const struct codec_output *output, struct record *record, struct arena *arena)
{
    size_t row = codec_dtype_bytes(output->dtype, output->dim);
    struct part *parts = arena_alloc(arena, output->n * sizeof *parts);
    struct chunk *chunks =
        output->has_chunks ? arena_alloc(arena, output->n * sizeof *chunks) : NULL;
    const char *at = output->ids, *at_chunk[4];
    memcpy(at_chunk, output->chunked, sizeof at_chunk);
    if (!parts || (output->has_chunks && !chunks))
        return -ENOMEM;
    for (size_t i = 0; i < output->n; i++) {
        /* Digits of a number are in here, and ids are needed until the record is written:
         * copied. */
        char number[32];
        struct bytes id = codec_output_id(output, &at, number);
        char *kept = arena_copy(arena, id.ptr, id.len);
        if (!kept)
            return -ENOMEM;
        parts[i] = (struct part){.id = {kept, id.len}, .vector = {output->vectors + i * row, row}};
        if (codec_output_chunk(output, at_chunk, number, chunks ? &chunks[i] : NULL)) {
            struct bytes *parent = &chunks[i].parent;
            parent->ptr = arena_copy(arena, parent->ptr, parent->len);
            if (!parent->ptr)
                return -ENOMEM;
            parts[i].chunk = &chunks[i];
        }
    }
    record->parts = parts;
    record->n_parts = output->n;
    return 0;
}

static int shape_text(enum form form, const struct codec_output *output, struct record *record,
                      struct arena *arena)
{
    struct buffer text = {0};
    int rc = form == FORM_CSV ? codec_output_csv(output, &text) : codec_output_json(output, &text);
    char *kept = rc == 0 ? arena_copy(arena, text.ptr, text.len) : NULL;
    struct part *part = arena_alloc(arena, sizeof *part);
    if (kept && part) {
        *part = (struct part){.id = record->parts[0].id, .value = {kept, text.len}};
        record->parts = part;
    }
    buffer_close(&text);
    return kept && part ? 0 : -ENOMEM;
}

static void manifest_add_bytes(struct manifest *manifest, const char *name, struct bytes value)
{
    char text[256];
    snprintf(text, sizeof text, "%.*s", (int)value.len, value.ptr ? value.ptr : "");
    manifest_add(manifest, name, text);
}

static const struct bytes exact = {"exact", 5};

/* A manifest without a precision is from before there was another one. */
static bool is_same(const struct manifest *manifest, const char *name, struct bytes value)
{
    char there[256] = "";
    if (!manifest_get(manifest, name, there, sizeof there) && strcmp(name, "precision") == 0)
        return bytes_equal(value, exact);
    return bytes_are(value, there);
}

/*
 * The first output says of which model OUT is, so that `search` can compare; those of another one
 * do not get into it. 0, -EXDEV, or another negative errno and a sentence.
 */
static int check_model(struct move *move, const struct codec_output *output, char *err,
                       size_t err_size)
{
    struct manifest *manifest = &move->manifest;
    struct bytes precision = output->precision.ptr ? output->precision : exact;
    const char *path = settings_text(move->settings, "file.output");
    /* Compared by what decides the vectors: a model's name may differ, its fingerprint may not. */
    if (manifest->len > 0)
        return is_same(manifest, "model_fingerprint", output->fingerprint) &&
                       is_same(manifest, "precision", precision)
                   ? 0
                   : -EXDEV;
    manifest_add_bytes(manifest, "model", output->model);
    manifest_add_bytes(manifest, "model_fingerprint", output->fingerprint);
    manifest_add_bytes(manifest, "precision", precision);
    return path ? manifest_write(manifest, path, err, err_size) : 0;
}

/* The string behind `"name":"` in the head of an output in JSON, as it is escaped there. An id may
 * hold anything, but no quotes without a backslash before them. */
static struct bytes json_word(struct bytes head, const char *name)
{
    const char *at = memmem(head.ptr, head.len, name, strlen(name)), *end = head.ptr + head.len;
    if (!at)
        return (struct bytes){NULL, 0};
    at += strlen(name);
    size_t n = 0;
    while (at + n < end && at[n] != '"')
        n += at[n] == '\\' && at + n + 1 < end ? 2 : 1;
    return (struct bytes){at, n};
}

/* Of an output in JSON, what check_model looks at. False: it does not say of which model it is. */
static bool read_json_model(struct bytes json, struct codec_output *output)
{
    static const char vectors[] = "\"embedding\":";
    const char *end = memmem(json.ptr, json.len, vectors, sizeof vectors - 1);
    struct bytes head = {json.ptr, end ? (size_t)(end - json.ptr) : 0};
    *output = (struct codec_output){
        .model = json_word(head, "\"model\":\""),
        .fingerprint = json_word(head, "\"model_fingerprint\":\""),
        .precision = json_word(head, "\"precision\":\""),
    };
    return output->fingerprint.ptr;
}

/* What an OUT of before says of itself; one without is of any model. */
static int read_manifest(struct move *move)
{
    const char *path = settings_text(move->settings, "file.output");
    struct stat about;
    char err[600];
    if (move->is_push || !path || stat(path, &about) != 0 || about.st_size == 0)
        return COMMAND_OK;
    int rc = manifest_read(&move->manifest, path, err, sizeof err);
    if (rc == -ENOENT)
        move->manifest.len = 0;
    return rc == 0 || rc == -ENOENT ? COMMAND_OK : fail(move, COMMAND_DATA, err);
}

/* Headers by which sinks without keys say that a text is gone: docs/wire-format.md. */
static bool is_said_deleted(const struct message *message)
{
    for (size_t i = 0; i < message->n_headers; i++) {
        struct bytes name = message->headers[i].name, value = message->headers[i].value;
        if (name.len == 7 && memcmp(name.ptr, "deleted", 7) == 0 && value.len == 1 &&
            *value.ptr == '1')
            return true;
    }
    return false;
}

/* A text is gone: OUT.deleted.jsonl gets its id. */
static int shape_delete(const struct move *move, const struct message *message,
                        struct record *record, struct arena *arena)
{
    const struct decode_options options = {.max_texts = 1,
                                           .id_field = settings_text(move->settings, "id_field")};
    struct request request;
    struct refusal why;
    struct part *part = arena_alloc(arena, sizeof *part);
    struct document *document = arena_alloc(arena, sizeof *document);
    if (!part || !document)
        return -ENOMEM;
    /* Gone is what has that header, or a key and no value at all (a tombstone). */
    if (!is_said_deleted(message) && (message->value.ptr || !message->key.ptr))
        return dead_letter(record, arena, DEAD_LETTER(empty_text), "the message is empty");
    int rc = codec_tombstone(message, &options, arena, &request, &why);
    if (rc != 0)
        return rc == -EINVAL ? dead_letter(record, arena, why.code, why.reason) : rc;
    *document = (struct document){
        .id = request.id, .id_is_number = request.id_is_number, .is_deleted = true};
    *part = (struct part){.id = request.id, .document = document};
    record->parts = part;
    record->documents = document;
    record->n_documents = 1;
    return 0;
}

/* One that check_model has not taken. */
static int other_model(int rc, struct record *record, struct arena *arena)
{
    return rc != -EXDEV
               ? rc
               : dead_letter(record, arena, DEAD_LETTER(wrong_model),
                             "its model_fingerprint or precision is not that of the outputs in "
                             "OUT, and their vectors do not compare; gather it into another OUT");
}

/* 0; -ENOMEM; or another negative errno and a sentence. */
static int shape_output(struct move *move, const struct message *message, struct record *record,
                        struct arena *arena, char *err, size_t err_size)
{
    struct codec_output output;
    struct refusal why;
    int rc = 0;
    /* Of a msgpack map the first byte is 0x80 or more. */
    bool is_json = message->value.ptr[0] == '{';
    if (is_json && move->form == FORM_JSONL) {
        if (read_json_model(message->value, &output))
            rc = check_model(move, &output, err, err_size);
        return other_model(rc, record, arena);
    }
    if (codec_output_read(message->value, &output, &why) != 0)
        return dead_letter(record, arena, why.code,
                           is_json ? "the output is JSON, which is gathered in a .jsonl only"
                                   : why.reason);
    if (move->form == FORM_NPY && strcmp(codec_dtype_name(output.dtype), move->dtype) != 0)
        return dead_letter(record, arena, DEAD_LETTER(wrong_dtype),
                           "its numbers are of another type than the option dtype says");
    rc = check_model(move, &output, err, err_size);
    if (rc != 0 || move->form == FORM_MSGPACK)
        return other_model(rc, record, arena);
    if (move->form == FORM_JSONL || move->form == FORM_CSV)
        return shape_text(move->form, &output, record, arena);
    return shape_rows(&output, record, arena);
}

static int shape(void *ctx, const struct message *message, struct record *record,
                 struct arena *arena, char *err, size_t err_size)
{
    struct move *move = ctx;
    /* What -ENOMEM says; all else has a sentence of its own. */
    snprintf(err, err_size, "out of memory");
    return message->value.len == 0 ? shape_delete(move, message, record, arena)
                                   : shape_output(move, message, record, arena, err, err_size);
}

/* Events. */

static void on_link(void *ctx, enum side side, enum link_state state, const char *why)
{
    (void)ctx;
    reports_link(side, state, why);
}

static void on_count(void *ctx, enum counter what, uint64_t n)
{
    struct move *move = ctx;
    progress_input_count(&move->input, what, n);
}

static void on_skipped(void *ctx, const struct skipped *skipped)
{
    (void)ctx;
    reports_skipped(skipped);
}

static void on_notice(void *ctx, enum side side, enum notice level, const char *code,
                      const char *text)
{
    (void)ctx;
    reports_notice(side, level, code, text);
}

static void on_ended(void *ctx, enum pipeline_end how)
{
    struct move *move = ctx;
    move->how = how;
    progress_log(move->progress, "stopped");
    progress_close(move->progress);
    stop_signals_close(&move->stop);
}

static void on_stop(void *ctx, const char *name, int number, bool again)
{
    struct move *move = ctx;
    stop_signals_log(name, number, again, transfer_stats(move->transfer)->inflight_texts,
                     move->leave);
    transfer_drain(move->transfer);
}

/* The command. */

/* Of runs before this one that wrote the same file. */
static bool has_old_errors(const struct move *move)
{
    char errors[4200];
    const char *output = settings_text(move->settings, "file.output");
    return !move->is_push && name_has_errors(output, errors, sizeof errors);
}

static int report_end(const struct move *move)
{
    if (move->how == PIPELINE_FAILED) {
        enum side file = move->is_push ? SIDE_INPUT : SIDE_OUTPUT;
        bool is_file = transfer_failed_side(move->transfer) == file;
        log_event(LOG_ERROR, "failed", LOG_TEXT("error", transfer_failure(move->transfer)));
        return is_file ? COMMAND_IO : COMMAND_UNAVAILABLE;
    }
    if (move->how == PIPELINE_UNFLUSHED)
        log_event(LOG_WARN, "what was finished last comes again",
                  LOG_TEXT("why", transfer_failure(move->transfer)));
    if (move->how == PIPELINE_DEADLINE || move->how == PIPELINE_UNFLUSHED)
        return COMMAND_DEADLINE;
    if (move->stop.number != 0)
        return 128 + move->stop.number;
    bool has_errors = transfer_stats(move->transfer)->dead_letters > 0 || has_old_errors(move);
    return has_errors ? COMMAND_DATA : COMMAND_OK;
}

static void open_progress(struct move *move)
{
    int when = settings_choice(move->settings, "progress"); /* auto on off */
    struct progress_options options = {
        .status_line = when != 2 && log_is_terminal(),
        .interval_ms = (uint64_t)settings_number(move->settings, "progress_interval"),
        .total_texts = (uint64_t)settings_number(move->settings, "total"),
        .input = &move->input,
    };
    options.log_lines = !options.status_line && when != 2;
    if (progress_open(&move->progress, &move->loop, transfer_stats(move->transfer), &options) !=
        0) {
        log_event(LOG_ERROR, "out of memory");
        move->leave(COMMAND_INTERNAL);
    }
}

static int run(struct move *move)
{
    const struct settings *settings = move->settings;
    struct transfer_options options = {
        /* Some batches of every sink; 16 MiB bound what is held when messages are large. */
        .max_messages = 1024,
        .max_bytes = 16 << 20,
        .total = move->is_push ? 0 : (uint64_t)settings_number(settings, "total"),
        .idle_ms = move->is_push ? 0 : (uint64_t)settings_number(settings, "pull.idle"),
        .drain_ms = (uint64_t)settings_number(settings, "drain_timeout"),
        .shape = move->is_push ? NULL : shape,
        .shape_ctx = move,
        .takes_empty = !move->is_push, /* it may say that a text is gone */
        .observer = {.on_link = on_link,
                     .on_count = on_count,
                     .on_skipped = on_skipped,
                     .on_notice = on_notice},
    };
    char err[600] = "";
    if (uv_loop_init(&move->loop) != 0)
        return fail(move, COMMAND_INTERNAL, "cannot open an event loop");
    stop_signals_open(&move->stop, &move->loop, on_stop, move);
    int rc =
        transfer_open(&move->transfer, &move->loop, source_find(settings_text(settings, "source")),
                      sink_find(settings_text(settings, "sink")), settings, &options, on_ended,
                      move, err, sizeof err);
    int code = COMMAND_OK;
    if (rc == 0) {
        open_progress(move);
    } else {
        log_event(LOG_ERROR, "cannot start", LOG_TEXT("error", err));
        code = rc == -ENOMEM ? COMMAND_INTERNAL : rc == -EINVAL ? COMMAND_CONFIG : COMMAND_IO;
        stop_signals_close(&move->stop);
    }
    /* Also when it did not open: what was half open closes in the loop. */
    uv_run(&move->loop, UV_RUN_DEFAULT);
    if (rc == 0)
        code = report_end(move);
    transfer_close(move->transfer);
    uv_loop_close(&move->loop);
    return code;
}

static int run_configured(struct move *move)
{
    const char *output = settings_text(move->settings, "file.output");
    move->form = output && name_ends_with(output, ".npy")     ? FORM_NPY
                 : output && name_ends_with(output, ".jsonl") ? FORM_JSONL
                 : output && name_ends_with(output, ".csv")   ? FORM_CSV
                                                              : FORM_MSGPACK;
    move->dtype = codec_dtype_name((enum output_dtype)settings_choice(move->settings, "dtype"));
    /* A broker that closes its socket is an error of the connector, not the end of the process. */
    signal(SIGPIPE, SIG_IGN);
    command_line_log(move->settings);
    int code = read_manifest(move);
    if (code == COMMAND_OK)
        code = run(move);
    log_close();
    return code;
}

/* The file on one side, and the connector that the URL names on the other. 0; -EINVAL and a
 * sentence; -ENOMEM. */
static int set_ends(bool is_push, struct options *options, char *err, size_t err_size)
{
    const struct settings *settings = options_settings(options);
    const struct queue_target target = {
        settings_text(settings, is_push ? "push.to" : "pull.from"),
        settings_text(settings, is_push ? "push.stream" : "pull.stream"),
        is_push ? "--to" : "--from", !is_push};
    const struct connector *connector = queue_target_find(&target, err, err_size);
    if (!connector)
        return -EINVAL;
    if (strstr(target.url, SETTINGS_MODEL) ||
        settings_has_model(settings, is_push ? "push.stream" : "pull.stream") ||
        (options_origin(options, connector->queue->place) == ORIGIN_FLAG &&
         settings_has_model(settings, connector->queue->place))) {
        snprintf(err, err_size,
                 "%s: " SETTINGS_MODEL " stands for each of several models: name "
                 "the stream, topic or queue of one",
                 target.flag);
        return -EINVAL;
    }
    /* What workers promise of delivery is between their two ends, and not these. */
    const struct queue_option ends[] = {{"source", is_push ? "file" : connector->name},
                                        {"sink", is_push ? connector->name : "file"},
                                        {"delivery", "at-least-once"}};
    return queue_target_set(options, connector, &target, ends, sizeof ends / sizeof ends[0], err,
                            err_size);
}

static int prepare(const struct invocation *invocation)
{
    const struct move move = {.is_push = invocation->command == &command_push};
    char err[1200] = "out of memory";
    int rc = set_ends(move.is_push, invocation->options, err, sizeof err);
    return rc == 0 ? COMMAND_OK
                   : fail(&move, rc == -ENOMEM ? COMMAND_INTERNAL : COMMAND_USAGE, err);
}

static int start(const struct invocation *invocation)
{
    struct move move = {.is_push = invocation->command == &command_push,
                        .leave = invocation->leave,
                        .settings = invocation->settings};
    return run_configured(&move);
}

static void print_urls(char *out, size_t size)
{
    char forms[400];
    queue_target_forms(forms, sizeof forms);
    snprintf(out, size,
             "URL is %s. Where it names no stream, topic or queue, --stream does; without either "
             "it is the one that workers have by default.",
             forms);
}

static const struct flag_alias push_aliases[] = {{"--to", "push.to"},
                                                 {"--stream", "push.stream"},
                                                 {"--shard", "file.shard"},
                                                 {"--column", "file.column"},
                                                 {NULL, NULL}};
static const char *const push_positionals[] = {"file.path", NULL};

const struct command command_push = {
    .name = "push",
    .summary = "puts a file or a folder of texts into a message queue",
    .synopsis = "CORPUS --to URL [OPTION...]",
    .text =
        "Put the records of CORPUS (as in `embedmill index`) into a queue that workers read. "
        "It reads no faster than the queue takes them. Records that are pushed twice are in the "
        "queue twice; with ids that does no harm in a store.\n\n"
        "Only flags say where the records go, so environment and file may be those of the "
        "workers.",
    .details = print_urls,
    .endings = push_endings,
    .own = push_options,
    .syntax = {.aliases = push_aliases, .positionals = push_positionals},
    .prepare = prepare,
    .run = start,
};

static const struct flag_alias pull_aliases[] = {
    {"--from", "pull.from"}, {"--idle", "pull.idle"},     {"--stream", "pull.stream"},
    {"-o", "file.output"},   {"--output", "file.output"}, {NULL, NULL}};

const struct command command_pull = {
    .name = "pull",
    .summary = "collects embeddings from a message queue into a file",
    .synopsis = "--from URL -o OUT [OPTION...]",
    .text = "Collect the outputs of workers in a file. The name of OUT decides its format: .npy "
            "(of the --dtype that the workers have), .jsonl, .csv (rows for pgvector), or msgpack. "
            "It ends when nothing has come for --idle, or after --total outputs. An output is "
            "acknowledged, for the group embedmill-pull, once it is on disk.\n\n"
            "Only flags say where they come from, so environment and file may be those of the "
            "workers.",
    .details = print_urls,
    .endings = pull_endings,
    .own = pull_options,
    .syntax = {.aliases = pull_aliases},
    .prepare = prepare,
    .run = start,
};
