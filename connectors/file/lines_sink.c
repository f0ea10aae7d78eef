/*
 * lines_sink.c: the sink `stdout`: records to standard output, dead letters to standard error.
 *
 * Owns:    the order of lines (lines.h), writing without blocking the loop, reporting dead letters.
 * Refuses: formats: a payload that begins like a JSON object gets a newline behind it, any other
 *          (msgpack, which knows its own end) is written as it is.
 * Threads: the loop thread; libuv's threads write files out of the buffer while nothing moves it.
 * Why:     a record is confirmed when its last byte was taken by the kernel, never before, so a
 *          reader that is gone costs no more than what it had not read.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "connectors/endpoint.h"
#include "connectors/file/lines.h"

#define BUFFER   (64 * 1024)
#define MAX_DONE 256

struct stdout_writer {
    struct sink sink; /* first member */
    struct endpoint end;
    uv_poll_t poll;
    uv_fs_t write; /* held while it goes on */
    bool pollable, writing;

    /* Records by place: the one at next is written next, NULL: not here yet. */
    struct record **slots; /* [room], room a power of two */
    size_t room;
    uint64_t next, behind; /* places in use are [next, behind) */

    size_t part, offset;           /* of the record at next: what is in the buffer already */
    size_t len, written;           /* of buffer */
    struct record *done[MAX_DONE]; /* confirmed when the buffer is written */
    size_t n_done;
    char buffer[BUFFER];
};

static void fail(struct stdout_writer *writer, int err)
{
    char why[160];
    if (err == UV_EPIPE)
        snprintf(why, sizeof why, "standard output was closed by its reader");
    else
        snprintf(why, sizeof why, "writing standard output: %s", uv_strerror(err));
    endpoint_fail(&writer->end, err, why);
}

/* One line; the code and the reason hold no text of the message (codec.h). */
static void tell(const struct record *record, const char *code, const char *reason)
{
    char line[600];
    const struct bytes *position = &record->origin->position;
    /* A status line may stand there. */
    const char *erase = isatty(STDERR_FILENO) ? "\r\x1b[K" : "";
    int n = snprintf(line, sizeof line - 1, "%s%.*s: %s: %s", erase, (int)position->len,
                     position->ptr, code, reason ? reason : "");
    size_t len = n < (int)sizeof line - 1 ? (size_t)n : sizeof line - 2;
    line[len++] = '\n';
    /* One write for a line: other processes write to the same terminal. */
    while (write(STDERR_FILENO, line, len) < 0 && errno == EINTR)
        ;
}

/* Who pairs lines with outputs has to know which have none. */
static void report_no_output(const struct record *record)
{
    bool is_deleted = record->n_documents && record->documents->is_deleted;
    tell(record, is_deleted ? "deleted" : "unchanged",
         is_deleted ? "the line deletes a text, which standard output cannot; nothing is written"
                    : "the line leaves its text as it was; nothing is written");
}

static bool wants_newline(const struct bytes *value)
{
    return value->len > 0 && value->ptr[0] == '{'; /* no msgpack map begins with 0x7b */
}

/* Copy as much of the record as fits. True when all of it is in the buffer. */
static bool fill_record(struct stdout_writer *writer, const struct record *record)
{
    for (; writer->part < record->n_parts; writer->part++, writer->offset = 0) {
        const struct bytes *value = &record->parts[writer->part].value;
        size_t whole = value->ptr ? value->len + wants_newline(value) : 0; /* absent: tombstone */
        while (writer->offset < whole) {
            size_t room = BUFFER - writer->len;
            if (room == 0)
                return false;
            /* The payload is out, and only its newline is due. */
            if (writer->offset == value->len) {
                writer->buffer[writer->len++] = '\n';
                writer->offset++;
                continue;
            }
            size_t n = value->len - writer->offset;
            n = n < room ? n : room;
            memcpy(writer->buffer + writer->len, value->ptr + writer->offset, n);
            writer->len += n;
            writer->offset += n;
        }
    }
    writer->part = writer->offset = 0;
    return true;
}

/* Fill the buffer from the records that are next in line. */
static void fill(struct stdout_writer *writer)
{
    writer->len = writer->written = writer->n_done = 0;
    while (writer->next < writer->behind && writer->n_done < MAX_DONE && writer->len < BUFFER) {
        struct record **slot = &writer->slots[writer->next & (writer->room - 1)];
        struct record *record = *slot;
        if (!record && !writer->end.closing)
            return; /* an earlier line is still being embedded */
        if (record) {
            if (record->dead_code)
                tell(record, record->dead_code, record->dead_reason);
            else if (!record->n_parts || (record->n_documents && record->documents->is_deleted))
                report_no_output(record);
            else if (!fill_record(writer, record))
                return;
            writer->done[writer->n_done++] = record;
        }
        /* Before the place is passed: it is used again for the one `room` further on. */
        *slot = NULL;
        writer->next++;
    }
}

static void confirm(struct stdout_writer *writer)
{
    size_t n = writer->n_done;
    /* Before the events, in which the sink may fail or close: none is confirmed twice. */
    writer->n_done = 0;
    for (size_t i = 0; i < n && !writer->end.failed; i++)
        writer->sink.events->on_published(writer->sink.ctx, writer->done[i], PUBLISHED);
}

static void on_written(uv_fs_t *request)
{
    struct stdout_writer *writer = request->data;
    ssize_t n = request->result;
    uv_fs_req_cleanup(request);
    writer->writing = false;
    if (n >= 0)
        writer->written += (size_t)n;
    else if (n != UV_EAGAIN && n != UV_EINTR)
        fail(writer, (int)n);
    endpoint_pump(&writer->end);
    /* Last: a sink whose deadline has passed is freed here. */
    endpoint_drop(&writer->end);
}

static bool is_writable(void)
{
    struct pollfd fd = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&fd, 1, 0) == 1;
}

/*
 * PIPE_BUF bytes at a time: the descriptor may be a blocking one, and a pipe that polls writable
 * has room for that much and no more.
 */
static int write_some(struct stdout_writer *writer)
{
    while (writer->written < writer->len && is_writable()) {
        size_t left = writer->len - writer->written;
        ssize_t n = write(STDOUT_FILENO, writer->buffer + writer->written,
                          left < PIPE_BUF ? left : PIPE_BUF);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return 0;
        if (n < 0)
            return -errno;
        writer->written += (size_t)n;
    }
    return 0;
}

static void on_writable(uv_poll_t *poll, int status, int events)
{
    struct stdout_writer *writer = poll->data;
    (void)status; /* write() says it better */
    (void)events;
    /* write_more starts it again when there is something to write: else the loop would spin. */
    uv_poll_stop(poll);
    writer->writing = false;
    int rc = write_some(writer);
    if (rc != 0)
        fail(writer, rc);
    endpoint_pump(&writer->end);
}

static void write_more(struct stdout_writer *writer)
{
    int rc;
    if (writer->pollable) {
        rc = uv_poll_start(&writer->poll, UV_WRITABLE, on_writable);
    } else {
        uv_buf_t bytes = uv_buf_init(writer->buffer + writer->written,
                                     (unsigned int)(writer->len - writer->written));
        writer->write.data = writer;
        rc =
            uv_fs_write(writer->end.loop, &writer->write, STDOUT_FILENO, &bytes, 1, -1, on_written);
        if (rc == 0)
            endpoint_hold(&writer->end);
    }
    if (rc != 0)
        fail(writer, rc);
    else
        writer->writing = true;
}

/* The one step of the machine: confirm what is written, fill, write. */
static void writer_pump(void *owner)
{
    struct stdout_writer *writer = owner;
    /* The buffer is being read, by the kernel or by a thread. */
    if (writer->writing)
        return;
    /* Again when there was nothing to write: dead letters are confirmed without a byte. */
    while (!writer->end.failed && writer->written == writer->len) {
        confirm(writer);
        fill(writer);
        if (writer->len == 0 && writer->n_done == 0)
            break;
    }
    if (!writer->end.failed && writer->written < writer->len)
        write_more(writer);
    if (writer->end.closing && !writer->writing)
        endpoint_finish(&writer->end);
}

static void writer_finish(void *owner, bool is_late)
{
    struct stdout_writer *writer = owner;
    (void)is_late;
    if (writer->pollable)
        endpoint_close_handle(&writer->end, (uv_handle_t *)&writer->poll);
}

static void writer_free(void *owner)
{
    struct stdout_writer *writer = owner;
    free(writer->slots);
    free(writer);
}

static const struct endpoint_ops endpoint_ops = {writer_pump, NULL, writer_finish, writer_free};

static int stdout_open(struct sink **out, uv_loop_t *loop, const struct settings *settings,
                       struct source *peer, const struct sink_events *events, void *ctx, char *err,
                       size_t err_size)
{
    (void)settings;
    (void)peer; /* lines_place finds it through each message */
    struct stdout_writer *writer = calloc(1, sizeof *writer);
    if (!writer) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    writer->sink =
        (struct sink){.ops = &stdout_sink, .events = events, .ctx = ctx, .layout = SINK_LINES};
    int rc = lines_watch(loop, &writer->poll, STDOUT_FILENO, &writer->pollable);
    if (rc != 0) {
        snprintf(err, err_size, "standard output cannot be written: %s", uv_strerror(rc));
        free(writer);
        return rc;
    }
    writer->poll.data = writer;
    endpoint_open_sink(&writer->end, loop, &writer->sink, 0, &endpoint_ops, writer);
    if (writer->pollable)
        endpoint_hold(&writer->end);
    *out = &writer->sink;
    return 0;
}

/* Make room for one more place; places keep their slots modulo the room. */
static int grow(struct stdout_writer *writer, uint64_t place)
{
    size_t room = writer->room ? writer->room : 64;
    while (place - writer->next >= room)
        room *= 2;
    if (room == writer->room)
        return 0;
    struct record **slots = calloc(room, sizeof slots[0]);
    if (!slots)
        return -ENOMEM;
    for (uint64_t at = writer->next; at < writer->behind; at++)
        /* Same place, other modulus: every record moves by its number. */
        slots[at & (room - 1)] = writer->slots[at & (writer->room - 1)];
    free(writer->slots);
    writer->slots = slots;
    writer->room = room;
    return 0;
}

static void stdout_publish(struct sink *sink, struct record **records, size_t n)
{
    struct stdout_writer *writer = (struct stdout_writer *)sink;
    for (size_t i = 0; i < n; i++) {
        /* Of another source there are no lines to pair: in the order in which they come. */
        uint64_t place = writer->behind;
        lines_place(records[i]->origin, &place);
        if (grow(writer, place) != 0) {
            endpoint_fail_soon(&writer->end);
            break;
        }
        writer->slots[place & (writer->room - 1)] = records[i];
        if (place >= writer->behind)
            writer->behind = place + 1;
    }
    endpoint_pump_soon(&writer->end);
}

static void stdout_close(struct sink *sink, uint64_t deadline_ms, void (*closed)(void *ctx),
                         void *ctx)
{
    endpoint_close(&((struct stdout_writer *)sink)->end, deadline_ms, closed, ctx);
}

static enum sink_layout stdout_layout(const struct settings *settings)
{
    (void)settings;
    return SINK_LINES;
}

const struct sink_ops stdout_sink = {
    .open = stdout_open,
    .publish = stdout_publish,
    .close = stdout_close,
    .layout = stdout_layout,
};
