/*
 * spans.c: see spans.h. Format: OpenTelemetry's protocol (OTLP) 1, JSON Protobuf Encoding: one
 * ExportTraceServiceRequest a line. Names of attributes: its semantic conventions for messaging and
 * generative AI; those it has no name for begin with "embedmill.".
 */
#include "worker/telemetry/spans.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "connectors/buffer.h"
#include "connectors/json.h"
#include "worker/telemetry/log.h"
#include "worker/telemetry/traceparent.h"

enum {
    WAITING_MOST = 4 << 20, /* bytes that wait for a slow disk; more are lost */
    KIND_CONSUMER = 5,
    RETRY_MS = 20,        /* a pipe that is full is tried again */
    CLOSING_RETRIES = 50, /* in a row, and the worker ends without it */
};

struct spans {
    uv_loop_t *loop;
    uv_fs_t write;
    struct spans_about about;
    struct buffer waiting, writing;
    size_t written; /* of writing */
    int fd;
    bool is_writing, is_closing;
    bool is_torn; /* what was written last is the beginning of a line */
    uv_timer_t retry;
    unsigned n_retries;            /* since something was written */
    uint64_t n_waiting, n_writing; /* lines */
    uint64_t n_lost;
};

/* Does the file end in the middle of a line, as a full disk or a death leaves it? */
static bool ends_torn(const char *path)
{
    struct stat is;
    char last = '\n';
    int fd = stat(path, &is) == 0 && S_ISREG(is.st_mode) && is.st_size > 0
                 ? open(path, O_RDONLY | O_CLOEXEC)
                 : -1;
    if (fd < 0)
        return false;
    /* A reader takes lines: what is appended to half of one would be lost with it. */
    bool torn = pread(fd, &last, 1, is.st_size - 1) == 1 && last != '\n';
    close(fd);
    return torn;
}

int spans_open(struct spans **out, uv_loop_t *loop, const char *path,
               const struct spans_about *about, char *err, size_t err_size)
{
    struct spans *spans = calloc(1, sizeof *spans);
    if (!spans) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    spans->loop = loop;
    spans->about = *about;
    spans->write.data = spans;
    /* Not to wait for the reader of a pipe. Of standard error a copy: spans_close closes it. */
    spans->fd = strcmp(path, "-") == 0
                    ? dup(STDERR_FILENO)
                    : open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0644);
    if (spans->fd < 0) {
        int rc = -errno;
        snprintf(err, err_size, "%s cannot be written: %s", path, strerror(errno));
        free(spans);
        return rc;
    }
    spans->is_torn = strcmp(path, "-") != 0 && ends_torn(path);
    uv_timer_init(loop, &spans->retry);
    spans->retry.data = spans;
    *out = spans;
    return 0;
}

static void on_closed(uv_handle_t *retry)
{
    struct spans *spans = retry->data;
    close(spans->fd);
    buffer_close(&spans->waiting);
    buffer_close(&spans->writing);
    free(spans);
}

static void destroy(struct spans *spans)
{
    uv_close((uv_handle_t *)&spans->retry, on_closed);
}

/* The log holds back repeats, so the count is of all. */
static void lose(struct spans *spans, uint64_t n, const char *why)
{
    spans->n_lost += n;
    log_event(LOG_WARN, "spans are lost", LOG_INTEGER("lost", spans->n_lost), LOG_TEXT("why", why));
}

/* What is being written is given up: the lines that are not there as a whole are lost. */
static void drop_rest(struct spans *spans, const char *why)
{
    uint64_t n_whole = 0;
    for (size_t i = 0; i < spans->written; i++)
        n_whole += spans->writing.ptr[i] == '\n';
    if (spans->written > 0)
        spans->is_torn = spans->writing.ptr[spans->written - 1] != '\n';
    lose(spans, spans->n_writing - n_whole, why);
    spans->writing.len = spans->written = 0;
}

static void write_next(struct spans *spans);

static void on_retry(uv_timer_t *retry)
{
    struct spans *spans = retry->data;
    /* It stood while the timer ran, so that nobody else wrote the rest. */
    spans->is_writing = false;
    write_next(spans);
}

static void on_written(uv_fs_t *request)
{
    struct spans *spans = request->data;
    ssize_t n = request->result;
    uv_fs_req_cleanup(request);
    /* A full pipe: wait for its reader, but let no reader keep the worker from ending. */
    if (n == UV_EAGAIN && !(spans->is_closing && spans->n_retries >= CLOSING_RETRIES)) {
        spans->n_retries++;
        uv_timer_start(&spans->retry, on_retry, RETRY_MS, 0);
        return;
    }
    spans->is_writing = false;
    if (n <= 0) {
        drop_rest(spans, n < 0 ? uv_strerror((int)n) : "nothing is taken");
    } else {
        spans->written += (size_t)n - spans->is_torn; /* its newline came first */
        spans->is_torn = false;
        spans->n_retries = 0;
    }
    write_next(spans);
}

/* The rest of what is being written, else what waits. */
static void write_next(struct spans *spans)
{
    if (spans->is_writing)
        return;
    if (spans->written >= spans->writing.len) {
        /* Both buffers keep their memory: they change places, and spans are added while one is
         * written. */
        struct buffer empty = spans->writing;
        empty.len = 0;
        spans->writing = spans->waiting;
        spans->waiting = empty;
        spans->n_writing = spans->n_waiting;
        spans->n_waiting = 0;
        spans->written = 0;
    }
    if (spans->writing.len == 0) {
        if (spans->is_closing)
            destroy(spans);
        return;
    }
    static char newline[] = "\n"; /* libuv reads it later */
    uv_buf_t parts[] = {uv_buf_init(newline, 1),
                        uv_buf_init(spans->writing.ptr + spans->written,
                                    (unsigned)(spans->writing.len - spans->written))};
    size_t first = spans->is_torn ? 0 : 1;
    spans->is_writing = true;
    int err = uv_fs_write(spans->loop, &spans->write, spans->fd, parts + first,
                          (unsigned)(2 - first), -1, on_written);
    if (err) { /* no memory for a request: as if it had failed */
        spans->is_writing = false;
        drop_rest(spans, uv_strerror(err));
        if (spans->is_closing)
            destroy(spans);
    }
}

/* A random id: 2 * n hex digits, not all zeros. */
static void put_id(struct buffer *to, size_t n)
{
    unsigned char bytes[16] = {0};
    char text[33];
    if (getrandom(bytes, n, 0) != (ssize_t)n || (bytes[0] | bytes[n - 1]) == 0)
        bytes[0] = 1;
    for (size_t i = 0; i < n; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    json_put_text(to, text);
}

static void put_attribute(struct buffer *to, const char *name, const char *text, uint64_t number)
{
    if (to->len > 0 && to->ptr[to->len - 1] != '[')
        buffer_put_text(to, ",");
    buffer_put_text(to, "{\"key\":\"");
    buffer_put_text(to, name);
    buffer_put_text(to, text ? "\",\"value\":{\"stringValue\":" : "\",\"value\":{\"intValue\":\"");
    if (text)
        json_put_text(to, text);
    else
        json_put_natural(to, number);
    buffer_put_text(to, text ? "}}" : "\"}}");
}

static void put_links(struct buffer *to, const struct batch *batch)
{
    struct traceparent parent;
    bool is_first = true;
    buffer_put_text(to, "\"links\":[");
    for (size_t i = 0; i < batch->n_entries; i++) {
        if (!traceparent_read(batch->entries[i].message, &parent))
            continue;
        char link[120];
        snprintf(link, sizeof link, "%s{\"traceId\":\"%s\",\"spanId\":\"%s\",\"flags\":%u}",
                 is_first ? "" : ",", parent.trace_id, parent.span_id, parent.flags);
        buffer_put_text(to, link);
        is_first = false;
    }
    buffer_put_text(to, "]");
}

static void put_attributes(struct buffer *to, const struct spans *spans, const struct batch *batch)
{
    size_t n_dead = 0;
    for (size_t i = 0; i < batch->n_entries; i++)
        n_dead += batch->entries[i].dead_code != NULL;
    buffer_put_text(to, "\"attributes\":[");
    put_attribute(to, "messaging.system", spans->about.source, 0);
    put_attribute(to, "messaging.operation.type", "process", 0);
    put_attribute(to, "messaging.batch.message_count", NULL, batch->n_entries);
    put_attribute(to, "gen_ai.operation.name", "embeddings", 0);
    put_attribute(to, "gen_ai.request.model", spans->about.model, 0);
    put_attribute(to, "embedmill.texts", NULL, batch->n_texts);
    put_attribute(to, "embedmill.dead_letters", NULL, n_dead);
    buffer_put_text(to, "],");
}

/* Nanoseconds since 1970 of a time of uv_hrtime. */
static uint64_t wall_ns(uint64_t hrtime_ns)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    /* The two clocks are read one after the other, so a span may be a microsecond off; its length
     * is exact. */
    uint64_t ago = uv_hrtime() - hrtime_ns;
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec - ago;
}

/* Not now: a batch waits for those before it, to be published in order. */
static uint64_t embedded_ns(const struct batch *batch)
{
    uint64_t last_ns = batch->n_slices > 0 ? 0 : uv_hrtime();
    for (size_t i = 0; i < batch->n_slices; i++)
        if (batch->slices[i].ended_ns > last_ns)
            last_ns = batch->slices[i].ended_ns;
    return last_ns;
}

static void put_span(struct buffer *to, const struct spans *spans, const struct batch *batch)
{
    char times[120];
    buffer_put_text(to, "{\"resourceSpans\":[{\"resource\":{\"attributes\":[");
    put_attribute(to, "service.name", "embedmill", 0);
    put_attribute(to, "service.version", EMBEDMILL_VERSION, 0);
    put_attribute(to, "process.pid", NULL, (uint64_t)getpid());
    buffer_put_text(to, "]},\"scopeSpans\":[{\"scope\":{\"name\":\"embedmill\"},\"spans\":[{");
    buffer_put_text(to, "\"traceId\":");
    put_id(to, 16);
    buffer_put_text(to, ",\"spanId\":");
    put_id(to, 8);
    uint64_t begin_ns = wall_ns(batch->taken_ns), took_ns = embedded_ns(batch) - batch->taken_ns;
    snprintf(times, sizeof times,
             ",\"name\":\"embed batch\",\"kind\":%d,\"startTimeUnixNano\":\"%" PRIu64
             "\",\"endTimeUnixNano\":\"%" PRIu64 "\",",
             KIND_CONSUMER, begin_ns, begin_ns + took_ns);
    buffer_put_text(to, times);
    put_attributes(to, spans, batch);
    put_links(to, batch);
    buffer_put_text(to, "}]}]}]}\n");
}

void spans_model(struct spans *spans, const char *name)
{
    spans->about.model = name;
}

void spans_add(struct spans *spans, const struct batch *batch)
{
    size_t before = spans->waiting.len;
    /* The worker's memory is bounded and the trace is not its work: it loses spans rather than
     * wait. */
    if (before > WAITING_MOST)
        return lose(spans, 1, "the file is written too slowly");
    put_span(&spans->waiting, spans, batch);
    if (buffer_settle(&spans->waiting, before))
        return lose(spans, 1, "out of memory");
    spans->n_waiting++;
    write_next(spans);
}

void spans_close(struct spans *spans)
{
    if (!spans)
        return;
    spans->is_closing = true;
    write_next(spans);
}
