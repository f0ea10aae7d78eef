/*
 * lines_source.c: the source `stdin`: one message per line of standard input.
 *
 * Owns:    cutting bytes into lines of any length up to stdin.max_line, and their numbers.
 * Refuses: what a line means. NUL bytes are data; where lines end: file_lines.h; a last line needs
 *          no end. Empty lines are not messages but are counted, so that numbers match an editor's.
 * Threads: the loop thread; libuv's threads read files into the buffer while nothing else moves it.
 * Why:     a line is read only when there is credit for it, so a pipe holds back its writer.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "connectors/dead_letter_codes.h"
#include "connectors/endpoint.h"
#include "connectors/intake.h"
#include "connectors/file/file_lines.h"
#include "connectors/file/lines.h"

#define IO_BLOCK    (64 * 1024)
#define MAX_AT_ONCE 64

struct stdin_message {
    struct message message; /* first member */
    struct stdin_message *previous, *next;
    uint64_t place;
    char key[24], position[32];
    char bytes[];
};

struct stdin_reader {
    struct source source; /* first member */
    struct endpoint end;
    uv_poll_t poll;
    uv_fs_t read; /* held while it goes on */
    bool pollable, reading, eof, reported_end;

    char *buffer; /* [room] */
    /* Unread bytes are [start, filled); no end of a line before scanned. */
    size_t start, scanned, filled, room;
    enum line_ends ends;
    size_t max_line;
    bool skipping; /* inside a line that was too long */

    uint64_t line, place;
    struct credit_left credit;
    struct stdin_message *messages; /* given and not yet taken */
    char problem[96];
};

static void fail(struct stdin_reader *reader, int err, const char *doing)
{
    char why[160];
    snprintf(why, sizeof why, "%s standard input: %s", doing, uv_strerror(err));
    endpoint_fail(&reader->end, err, why);
}

static struct stdin_message *message_open(struct stdin_reader *reader, const char *bytes,
                                          size_t len)
{
    struct stdin_message *message = malloc(sizeof *message + len);
    if (!message)
        return NULL;
    memset(message, 0, sizeof *message);
    memcpy(message->bytes, bytes, len);
    int key_len = snprintf(message->key, sizeof message->key, "%" PRIu64, reader->line);
    int position_len =
        snprintf(message->position, sizeof message->position, "line %" PRIu64, reader->line);
    /* Blank lines have a number but no place: nothing is waited for there. */
    message->place = reader->place++;
    message->message = (struct message){
        .source = &reader->source,
        .key = {message->key, (size_t)key_len},
        .key_is_place = true,
        .value = {message->bytes, len},
        .position = {message->position, (size_t)position_len},
        .timestamp_ms = -1,
        .deliveries = 1,
    };
    message->next = reader->messages;
    if (message->next)
        message->next->previous = message;
    reader->messages = message;
    return message;
}

static void message_close(struct stdin_reader *reader, struct stdin_message *message)
{
    if (message->previous)
        message->previous->next = message->next;
    else
        reader->messages = message->next;
    if (message->next)
        message->next->previous = message->previous;
    free(message);
}

/* What is wrong goes with an empty value, so that nothing can take it for a text. */
static struct stdin_message *message_too_long(struct stdin_reader *reader)
{
    struct stdin_message *message = message_open(reader, "", 0);
    if (message)
        message->message.problem = (struct problem){DEAD_LETTER(line_too_long), reader->problem};
    return message;
}

/* Where the line at start ends, and in *len how long that end is. NULL: not in the buffer. */
static const char *find_end(struct stdin_reader *reader, size_t *len)
{
    const char *at = reader->buffer + reader->scanned, *end = reader->buffer + reader->filled;
    if (reader->ends == ENDS_UNKNOWN && reader->filled > reader->start)
        reader->ends =
            file_lines_ends(reader->buffer + reader->start, reader->filled - reader->start,
                            reader->max_line, reader->eof);
    if (reader->ends == ENDS_UNKNOWN || at == end)
        return NULL;
    const char *found = file_lines_next(reader->ends, &at, end, reader->eof, len);
    /* Kept: a line of 16 MiB that comes in pieces is searched once. */
    reader->scanned = (size_t)(at - reader->buffer);
    return found;
}

/*
 * Take the next line out of the buffer. 1: *out is a message, or NULL for a line that is none;
 * 0: no whole line there; -ENOMEM.
 */
static int next_line(struct stdin_reader *reader, struct stdin_message **out)
{
    size_t end_len = 0;
    const char *newline = find_end(reader, &end_len);
    *out = NULL;
    if (!newline) {
        if (reader->skipping ||
            reader->filled - reader->start > reader->max_line + 1) { /* + 1: a \r may come last */
            reader->skipping = true;
            reader->start = reader->scanned;
        }
        /* The last line needs no end; one whose rest was skipped is still a line. */
        if (!reader->eof || (reader->start == reader->filled && !reader->skipping))
            return 0;
    }
    char *line = reader->buffer + reader->start;
    size_t len = newline ? (size_t)(newline - line) : reader->filled - reader->start;
    reader->start = reader->scanned = newline ? reader->start + len + end_len : reader->filled;
    reader->line++;
    /* A CRLF that file_lines_next reads as LF alone. */
    if (newline && len > 0 && line[len - 1] == '\r')
        len--;
    if (reader->line == 1 && len >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
        line += 3; /* the byte order mark some editors begin a file with */
        len -= 3;
    }
    bool too_long = reader->skipping || len > reader->max_line;
    reader->skipping = false;
    if (len == 0 && !too_long)
        return 1;
    *out = too_long ? message_too_long(reader) : message_open(reader, line, len);
    return *out ? 1 : -ENOMEM;
}

/* Give what lines there are and credit allows. False when there is nothing more to do now. */
static bool give(struct stdin_reader *reader)
{
    struct message *given[MAX_AT_ONCE];
    size_t n = 0;
    int rc = 1;
    while (n < MAX_AT_ONCE && credit_left_any(&reader->credit)) {
        struct stdin_message *message;
        rc = next_line(reader, &message);
        if (rc <= 0)
            break;
        if (!message)
            continue;
        given[n++] = &message->message;
        credit_left_spend(&reader->credit, message->message.value.len);
    }
    /* Also when memory ended: those before it are whole. */
    if (n > 0)
        reader->source.events->on_messages(reader->source.ctx, given, n);
    if (rc < 0 && !reader->end.closing)
        fail(reader, rc, "reading");
    return rc > 0 && n > 0;
}

static void on_bytes(struct stdin_reader *reader, ssize_t n)
{
    if (n == UV_EAGAIN || n == UV_EINTR)
        return;
    if (n < 0)
        fail(reader, (int)n, "reading");
    else if (n == 0)
        reader->eof = true;
    else
        reader->filled += (size_t)n;
}

static void on_read(uv_fs_t *request)
{
    struct stdin_reader *reader = request->data;
    ssize_t n = request->result;
    uv_fs_req_cleanup(request);
    reader->reading = false;
    if (!reader->end.closing)
        on_bytes(reader, n);
    endpoint_pump(&reader->end);
    endpoint_drop(&reader->end);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct stdin_reader *reader = poll->data;
    (void)status; /* read() says it better */
    (void)events;
    ssize_t n = read(STDIN_FILENO, reader->buffer + reader->filled, reader->room - reader->filled);
    /* Started again when there is credit: else the loop would spin on a pipe
     * that stays readable. */
    uv_poll_stop(poll);
    reader->reading = false;
    on_bytes(reader, n < 0 ? -errno : n);
    endpoint_pump(&reader->end);
}

/* Room for another chunk behind the unread bytes. The buffer holds at most a line and a chunk. */
static int make_room(struct stdin_reader *reader)
{
    if (reader->start > 0) {
        size_t unread = reader->filled - reader->start;
        if (unread > 0)
            memmove(reader->buffer, reader->buffer + reader->start, unread);
        reader->scanned -= reader->start;
        reader->filled = unread;
        reader->start = 0;
    }
    if (reader->room - reader->filled >= IO_BLOCK)
        return 0;
    /* Doubled up to the longest line that is allowed, and a chunk. */
    size_t room = reader->room < 2 * IO_BLOCK ? 2 * IO_BLOCK : reader->room * 2;
    char *buffer = realloc(reader->buffer, room);
    if (!buffer)
        return -ENOMEM;
    reader->buffer = buffer;
    reader->room = room;
    return 0;
}

static void read_more(struct stdin_reader *reader)
{
    int rc = make_room(reader);
    if (rc == 0 && reader->pollable) {
        rc = uv_poll_start(&reader->poll, UV_READABLE, on_readable);
    } else if (rc == 0) {
        uv_buf_t room = uv_buf_init(reader->buffer + reader->filled,
                                    (unsigned int)(reader->room - reader->filled));
        reader->read.data = reader;
        rc = uv_fs_read(reader->end.loop, &reader->read, STDIN_FILENO, &room, 1, -1, on_read);
        if (rc == 0)
            endpoint_hold(&reader->end);
    }
    if (rc != 0)
        fail(reader, rc, "reading");
    else
        reader->reading = true;
}

/* The one step of the machine: give, else read, else end. */
static void reader_pump(void *owner)
{
    struct stdin_reader *reader = owner;
    if (reader->end.closing) {
        endpoint_finish(&reader->end); /* there is nothing to flush */
        return;
    }
    while (!reader->end.closing && !reader->end.failed && give(reader))
        ;
    /* The events above may have closed us. */
    if (reader->end.closing || reader->end.failed || reader->reading)
        return;
    if (reader->eof) {
        bool all_given = reader->start == reader->filled && !reader->skipping;
        if (all_given && !reader->reported_end) {
            reader->reported_end = true;
            reader->source.events->on_end(reader->source.ctx);
        }
    } else if (credit_left_any(&reader->credit)) {
        read_more(reader);
    }
}

static void reader_finish(void *owner, bool is_late)
{
    struct stdin_reader *reader = owner;
    (void)is_late;
    if (reader->pollable)
        endpoint_close_handle(&reader->end, (uv_handle_t *)&reader->poll);
}

static void reader_free(void *owner)
{
    struct stdin_reader *reader = owner;
    while (reader->messages)
        message_close(reader, reader->messages);
    free(reader->buffer);
    free(reader);
}

static const struct endpoint_ops endpoint_ops = {reader_pump, NULL, reader_finish, reader_free};

static int stdin_open(struct source **out, uv_loop_t *loop, const struct settings *settings,
                      const struct source_events *events, void *ctx, char *err, size_t err_size)
{
    struct stdin_reader *reader = calloc(1, sizeof *reader);
    if (!reader) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    reader->source = (struct source){.ops = &stdin_source, .events = events, .ctx = ctx};
    reader->max_line = (size_t)settings_number(settings, "stdin.max_line");
    snprintf(reader->problem, sizeof reader->problem, "longer than stdin.max_line, %zu bytes",
             reader->max_line);
    int rc = lines_watch(loop, &reader->poll, STDIN_FILENO, &reader->pollable);
    if (rc != 0) {
        snprintf(err, err_size, "standard input cannot be read: %s", uv_strerror(rc));
        free(reader);
        return rc;
    }
    reader->poll.data = reader;
    endpoint_open_source(&reader->end, loop, &reader->source, 0, &endpoint_ops, reader);
    /* The poll handle, which reader_finish closes. */
    if (reader->pollable)
        endpoint_hold(&reader->end);
    *out = &reader->source;
    return 0;
}

static void stdin_request(struct source *source, size_t n, size_t n_bytes)
{
    struct stdin_reader *reader = (struct stdin_reader *)source;
    reader->credit = (struct credit_left){n, n_bytes};
    if (n > 0)
        endpoint_pump_soon(&reader->end);
}

static void stdin_take(struct source *source, struct message *message)
{
    message_close((struct stdin_reader *)source, (struct stdin_message *)message);
}

static void stdin_close(struct source *source, uint64_t deadline_ms, void (*closed)(void *ctx),
                        void *ctx)
{
    endpoint_close(&((struct stdin_reader *)source)->end, deadline_ms, closed, ctx);
}

bool lines_place(const struct message *message, uint64_t *place)
{
    if (message->source->ops != &stdin_source)
        return false;
    const struct stdin_message *line = (const struct stdin_message *)message;
    *place = line->place;
    return true;
}

const struct source_ops stdin_source = {
    .open = stdin_open,
    .request = stdin_request,
    .ack = stdin_take,
    .release = stdin_take,
    .close = stdin_close,
};
