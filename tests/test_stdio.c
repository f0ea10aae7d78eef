/*
 * test_stdio.c: the source stdin and the sink stdout on files, pipes, sockets, terminals and
 * devices, with little credit, slow readers, and readers that leave.
 */
#define _GNU_SOURCE /* posix_openpt */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "connectors/connector.h"
#include "connectors/stdio.h"

#define DEADLINE_MS 20000

/* What the source gave and what became of the sink's records. */
struct rig {
    uv_loop_t loop;
    uv_timer_t watchdog;
    struct settings *settings;
    struct source *source;
    struct sink *sink;
    int saved[3]; /* descriptors 0, 1, 2 before redirect */
    struct message **messages;
    size_t n_messages, room;
    size_t credit_each; /* asked for again after each event; 0: only what the test asks */
    size_t credit_bytes;
    size_t most_at_once;
    bool ended, in_call, closed, timed_out;
    int failed;
    char why[300];
    struct record *published[4096];
    size_t n_published;
};

static void on_messages(void *ctx, struct message **messages, size_t n)
{
    struct rig *rig = ctx;
    assert_false(rig->in_call);
    if (rig->n_messages + n > rig->room) {
        rig->room = (rig->n_messages + n) * 2;
        rig->messages = realloc(rig->messages, rig->room * sizeof rig->messages[0]);
    }
    memcpy(rig->messages + rig->n_messages, messages, n * sizeof messages[0]);
    rig->n_messages += n;
    if (n > rig->most_at_once)
        rig->most_at_once = n;
    if (rig->credit_each)
        rig->source->ops->request(rig->source, rig->credit_each, rig->credit_bytes);
}

static void on_state(void *ctx, enum link_state state, const char *why)
{
    (void)ctx;
    (void)state;
    (void)why;
}

static void on_end(void *ctx)
{
    struct rig *rig = ctx;
    assert_false(rig->in_call || rig->ended);
    rig->ended = true;
}

static void on_failed(void *ctx, int err, const char *why)
{
    struct rig *rig = ctx;
    assert_false(rig->in_call);
    assert_int_equal(rig->failed, 0);
    rig->failed = err;
    snprintf(rig->why, sizeof rig->why, "%s", why);
}

static void on_published(void *ctx, struct record *record, enum published how)
{
    struct rig *rig = ctx;
    assert_false(rig->in_call);
    assert_int_equal(how, PUBLISHED);
    rig->published[rig->n_published++] = record;
}

static const struct source_events source_events = {on_messages, on_state, on_end, on_failed};
static const struct sink_events sink_events = {on_published, on_state, on_failed};

static void on_watchdog(uv_timer_t *timer)
{
    ((struct rig *)timer->data)->timed_out = true;
}

static void on_closed(void *ctx)
{
    ((struct rig *)ctx)->closed = true;
}

static void rig_open(struct rig *rig, const char *max_line)
{
    static const struct option *tables[2];
    char err[200];
    memset(rig, 0, sizeof *rig);
    tables[0] = stdin_source.options;
    assert_int_equal(settings_open(&rig->settings, tables), 0);
    if (max_line)
        assert_int_equal(settings_set(rig->settings, "stdin.max_line", max_line, err, sizeof err),
                         0);
    uv_loop_init(&rig->loop);
    uv_timer_init(&rig->loop, &rig->watchdog);
    rig->watchdog.data = rig;
    uv_timer_start(&rig->watchdog, on_watchdog, DEADLINE_MS, 0);
    rig->credit_each = 1000;
    rig->credit_bytes = 1 << 30;
    for (int fd = 0; fd < 3; fd++)
        rig->saved[fd] = dup(fd);
}

/* The rig takes fd over as its descriptor 0, 1 or 2 until rig_close. */
static void redirect(int fd, int to)
{
    fflush(stdout);
    assert_int_equal(dup2(fd, to), to);
    close(fd);
}

static void restore(struct rig *rig)
{
    fflush(stdout);
    for (int fd = 0; fd < 3; fd++)
        dup2(rig->saved[fd], fd);
}

static void open_source(struct rig *rig)
{
    char err[200] = "";
    rig->in_call = true;
    int rc = stdin_source.open(&rig->source, &rig->loop, rig->settings, &source_events, rig, err,
                               sizeof err);
    assert_int_equal(rc, 0);
    if (rig->credit_each)
        rig->source->ops->request(rig->source, rig->credit_each, rig->credit_bytes);
    rig->in_call = false;
}

static void open_sink(struct rig *rig)
{
    char err[200] = "";
    int rc = stdout_sink.open(&rig->sink, &rig->loop, rig->settings, rig->source, &sink_events, rig,
                              err, sizeof err);
    assert_int_equal(rc, 0);
}

static void publish(struct rig *rig, struct record *record)
{
    rig->in_call = true;
    rig->sink->ops->publish(rig->sink, &record, 1);
    rig->in_call = false;
}

/* Turn the loop until *done or for a while when done is NULL. */
static void turn(struct rig *rig, const bool *done)
{
    for (int i = 0; done ? !*done && !rig->timed_out && !rig->failed : i < 30; i++) {
        uv_run(&rig->loop, done ? UV_RUN_ONCE : UV_RUN_NOWAIT);
        if (!done)
            usleep(2000);
    }
}

static void rig_close(struct rig *rig)
{
    if (rig->sink) {
        rig->closed = false;
        rig->in_call = true;
        rig->sink->ops->close(rig->sink, 1000, on_closed, rig);
        rig->in_call = false;
        while (!rig->closed && !rig->timed_out)
            uv_run(&rig->loop, UV_RUN_ONCE);
    }
    if (rig->source) {
        rig->closed = false;
        rig->in_call = true;
        rig->source->ops->close(rig->source, 1000, on_closed, rig);
        rig->in_call = false;
        while (!rig->closed && !rig->timed_out)
            uv_run(&rig->loop, UV_RUN_ONCE);
    }
    restore(rig);
    bool timed_out = rig->timed_out;
    for (int fd = 0; fd < 3; fd++)
        close(rig->saved[fd]);
    uv_close((uv_handle_t *)&rig->watchdog, NULL);
    uv_run(&rig->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&rig->loop), 0);
    settings_close(rig->settings);
    free(rig->messages);
    assert_false(timed_out);
}

static int open_file(const char *bytes, size_t len)
{
    char path[] = "/tmp/embedmill-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    for (size_t at = 0; at < len;) {
        ssize_t n = write(fd, bytes + at, len - at);
        assert_true(n > 0);
        at += (size_t)n;
    }
    lseek(fd, 0, SEEK_SET);
    return fd;
}

/* A child writes bytes into the returned end, `chunk` at a time. */
static int open_writer(const char *bytes, size_t len, size_t chunk, bool use_socket, pid_t *child)
{
    int ends[2];
    assert_int_equal(use_socket ? socketpair(AF_UNIX, SOCK_STREAM, 0, ends) : pipe(ends), 0);
    *child = fork();
    if (*child == 0) {
        close(ends[0]);
        for (size_t at = 0; at < len;) {
            ssize_t n = write(ends[1], bytes + at, len - at < chunk ? len - at : chunk);
            if (n < 0)
                _exit(1);
            at += (size_t)n;
        }
        _exit(0);
    }
    close(ends[1]);
    return ends[0];
}

static void expect_line(const struct rig *rig, size_t i, const char *key, const char *value,
                        size_t len)
{
    const struct message *message = rig->messages[i];
    assert_int_equal(message->key.len, strlen(key));
    assert_memory_equal(message->key.ptr, key, strlen(key));
    assert_int_equal(message->value.len, len);
    assert_non_null(message->value.ptr);
    assert_memory_equal(message->value.ptr, value, len);
    char position[50];
    snprintf(position, sizeof position, "line %s", key);
    assert_int_equal(message->position.len, strlen(position));
    assert_memory_equal(message->position.ptr, position, strlen(position));
    assert_int_equal(message->deliveries, 1);
    assert_ptr_equal(message->source, rig->source);
}

static const char mixed[] = "\xef\xbb\xbf"
                            "one\r\ntwo\n\n\r\nfive\0nul\n \nlast without end";

static void expect_mixed(struct rig *rig)
{
    turn(rig, &rig->ended);
    assert_int_equal(rig->n_messages, 5);
    expect_line(rig, 0, "1", "one", 3);
    expect_line(rig, 1, "2", "two", 3);
    expect_line(rig, 2, "5", "five\0nul", 8);
    expect_line(rig, 3, "6", " ", 1);
    expect_line(rig, 4, "7", "last without end", 16);
    for (size_t i = 0; i < 2; i++)
        rig->source->ops->ack(rig->source, rig->messages[i]);
    rig->source->ops->release(rig->source, rig->messages[3]);
    rig_close(rig); /* the other two are released by it */
}

static void lines_of_a_file(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, NULL);
    redirect(open_file(mixed, sizeof mixed - 1), 0);
    open_source(&rig);
    expect_mixed(&rig);
}

static void lines_of_pipes_and_sockets_byte_by_byte(void **state)
{
    (void)state;
    for (int use_socket = 0; use_socket < 2; use_socket++)
        for (size_t chunk = 1; chunk < 40; chunk += 19) {
            struct rig rig;
            pid_t child;
            rig_open(&rig, NULL);
            redirect(open_writer(mixed, sizeof mixed - 1, chunk, use_socket, &child), 0);
            open_source(&rig);
            expect_mixed(&rig);
            waitpid(child, NULL, 0);
        }
}

static void nothing_at_all(void **state)
{
    (void)state;
    const char *const inputs[] = {"", "\n", "\n\r\n\n"};
    for (size_t i = 0; i < 3; i++) {
        struct rig rig;
        rig_open(&rig, NULL);
        redirect(open_file(inputs[i], strlen(inputs[i])), 0);
        open_source(&rig);
        turn(&rig, &rig.ended);
        assert_int_equal(rig.n_messages, 0);
        rig_close(&rig);
    }
    struct rig rig;
    rig_open(&rig, NULL);
    redirect(open("/dev/null", O_RDONLY), 0);
    open_source(&rig);
    turn(&rig, &rig.ended);
    assert_int_equal(rig.n_messages, 0);
    rig_close(&rig);
}

static void a_terminal(void **state)
{
    (void)state;
    struct rig rig;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(master >= 0);
    assert_int_equal(grantpt(master), 0);
    assert_int_equal(unlockpt(master), 0);
    rig_open(&rig, NULL);
    redirect(open(ptsname(master), O_RDWR | O_NOCTTY), 0);
    int flags = fcntl(0, F_GETFL);
    open_source(&rig);
    assert_int_equal(fcntl(0, F_GETFL), flags); /* not made non-blocking */
    turn(&rig, NULL);
    assert_int_equal(rig.n_messages, 0);
    assert_int_equal(write(master, "typed\n\x04", 7), 7);
    turn(&rig, &rig.ended);
    assert_int_equal(rig.n_messages, 1);
    expect_line(&rig, 0, "1", "typed", 5);
    rig_close(&rig);
    close(master);
}

static void a_folder_cannot_be_read(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, NULL);
    redirect(open("/", O_RDONLY), 0);
    open_source(&rig);
    turn(&rig, &rig.ended);
    assert_int_equal(rig.failed, -EISDIR);
    assert_non_null(strstr(rig.why, "standard input"));
    rig_close(&rig);
}

static void a_closed_descriptor_is_refused(void **state)
{
    (void)state;
    struct rig rig;
    char err[200] = "";
    rig_open(&rig, NULL);
    close(0);
    int rc = stdin_source.open(&rig.source, &rig.loop, rig.settings, &source_events, &rig, err,
                               sizeof err);
    restore(&rig);
    assert_int_equal(rc, -EBADF);
    assert_non_null(strstr(err, "standard input cannot be read"));
    rig_close(&rig);
}

/* Lines around the limit, the reading chunk and far beyond both. */
static void long_lines(void **state)
{
    (void)state;
    static const size_t lengths[] = {1023,  1024,  1025,  1026,   65534,   65535,
                                     65536, 65537, 70000, 131072, 3000000, 1024};
    size_t n = sizeof lengths / sizeof lengths[0];
    char *bytes = malloc(5000000);
    for (int crlf = 0; crlf < 2; crlf++)
        for (int ended = 0; ended < 2; ended++) {
            size_t len = 0;
            for (size_t i = 0; i < n; i++) {
                memset(bytes + len, 'a' + (int)i, lengths[i]);
                len += lengths[i];
                if (i + 1 == n && !ended)
                    break;
                if (crlf)
                    bytes[len++] = '\r';
                bytes[len++] = '\n';
            }
            struct rig rig;
            pid_t child;
            rig_open(&rig, "1KiB");
            redirect(open_writer(bytes, len, 100000, false, &child), 0);
            open_source(&rig);
            turn(&rig, &rig.ended);
            assert_int_equal(rig.n_messages, n);
            for (size_t i = 0; i < n; i++) {
                uint64_t place;
                const char *problem;
                assert_true(stdio_place(rig.messages[i], &place, &problem));
                assert_int_equal(place, i);
                bool fits = lengths[i] <= 1024;
                assert_int_equal(rig.messages[i]->value.len, fits ? lengths[i] : 0);
                if (fits)
                    assert_null(problem);
                else
                    assert_string_equal(problem, "line_too_long: longer than stdin.max_line, 1024 "
                                                 "bytes");
            }
            rig_close(&rig);
            waitpid(child, NULL, 0);
        }
    free(bytes);
}

static void one_huge_line(void **state)
{
    (void)state;
    size_t len = 16 << 20;
    char *bytes = malloc(len + 1);
    memset(bytes, 'x', len);
    bytes[len] = '\n';
    struct rig rig;
    rig_open(&rig, NULL);
    redirect(open_file(bytes, len + 1), 0);
    open_source(&rig);
    turn(&rig, &rig.ended);
    assert_int_equal(rig.n_messages, 1);
    expect_line(&rig, 0, "1", bytes, len);
    rig_close(&rig);
    free(bytes);
}

static void credit_is_honoured(void **state)
{
    (void)state;
    char bytes[100 * 11 + 1];
    for (int i = 0; i < 100; i++)
        snprintf(bytes + i * 11, 12, "line %05d\n", i);
    for (int as_pipe = 0; as_pipe < 2; as_pipe++) {
        struct rig rig;
        pid_t child = 0;
        rig_open(&rig, NULL);
        rig.credit_each = 0;
        redirect(as_pipe ? open_writer(bytes, 1100, 1100, false, &child) : open_file(bytes, 1100),
                 0);
        open_source(&rig);
        turn(&rig, NULL);
        assert_int_equal(rig.n_messages, 0);
        const struct source_ops *ops = rig.source->ops;
        rig.in_call = true;
        ops->request(rig.source, 3, 1000);
        rig.in_call = false;
        turn(&rig, NULL);
        assert_int_equal(rig.n_messages, 3);
        ops->request(rig.source, 50, 25); /* 10 bytes each: the third goes over */
        turn(&rig, NULL);
        assert_int_equal(rig.n_messages, 6);
        ops->request(rig.source, 50, 0);
        ops->request(rig.source, 0, 1000);
        turn(&rig, NULL);
        assert_int_equal(rig.n_messages, 6);
        ops->request(rig.source, 5, 1000);
        ops->request(rig.source, 1, 1000); /* in place of the other, not beside it */
        turn(&rig, NULL);
        assert_int_equal(rig.n_messages, 7);
        assert_false(rig.ended);
        rig.credit_each = 64;
        ops->request(rig.source, 64, 1 << 20);
        turn(&rig, &rig.ended);
        assert_int_equal(rig.n_messages, 100);
        expect_line(&rig, 99, "100", "line 00099", 10);
        rig_close(&rig);
        if (child)
            waitpid(child, NULL, 0);
    }
}

/* A source without credit leaves the bytes in the pipe, so the writer waits. */
static void a_writer_is_held_back(void **state)
{
    (void)state;
    struct rig rig;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    rig_open(&rig, NULL);
    rig.credit_each = 0;
    redirect(ends[0], 0);
    open_source(&rig);
    rig.source->ops->request(rig.source, 1, 1 << 20);
    char bytes[4096];
    memset(bytes, '\n', sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i += 2)
        bytes[i] = 'x';
    size_t written = 0;
    for (int i = 0; i < 200; i++) {
        ssize_t n = write(ends[1], bytes, sizeof bytes);
        written += n > 0 ? (size_t)n : 0;
        uv_run(&rig.loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(rig.n_messages, 1);
    assert_true(written <= 3 * 65536 + 8192);
    close(ends[1]);
    rig_close(&rig);
}

static void close_while_waiting(void **state)
{
    (void)state;
    struct rig rig;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    rig_open(&rig, NULL);
    redirect(ends[0], 0);
    open_source(&rig);
    assert_int_equal(write(ends[1], "a\nunfinished", 12), 12);
    turn(&rig, NULL);
    assert_int_equal(rig.n_messages, 1);
    uint64_t began = uv_hrtime();
    rig_close(&rig);
    assert_true(uv_hrtime() - began < 500000000);
    close(ends[1]);
}

/* Records for the lines the source gave; value i is printed by `print`. */
struct batch {
    struct record *records;
    struct part *parts;
};

static void make_records(struct rig *rig, struct batch *batch, const char *format, size_t size)
{
    batch->records = calloc(rig->n_messages, sizeof batch->records[0]);
    batch->parts = calloc(rig->n_messages, sizeof batch->parts[0]);
    for (size_t i = 0; i < rig->n_messages; i++) {
        char *value = malloc(size + 50);
        int n = snprintf(value, 50, format, (int)i);
        if ((size_t)n < size)
            memset(value + n, 'x', size - (size_t)n);
        batch->parts[i].value = (struct bytes){value, (size_t)n < size ? size : (size_t)n};
        batch->records[i] =
            (struct record){.origin = rig->messages[i], .parts = &batch->parts[i], .n_parts = 1};
    }
}

static void free_records(struct batch *batch, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free((char *)batch->parts[i].value.ptr);
    free(batch->parts);
    free(batch->records);
}

static void give_lines(struct rig *rig, size_t n)
{
    char *bytes = malloc(n * 2);
    for (size_t i = 0; i < n; i++)
        memcpy(bytes + 2 * i, "x\n", 2);
    redirect(open_file(bytes, n * 2), 0);
    free(bytes);
    open_source(rig);
    turn(rig, &rig->ended);
    assert_int_equal(rig->n_messages, n);
}

static size_t read_back(int fd, char *out, size_t size)
{
    size_t len = 0;
    ssize_t n;
    lseek(fd, 0, SEEK_SET);
    while ((n = read(fd, out + len, size - len)) > 0)
        len += (size_t)n;
    return len;
}

static void output_in_the_order_of_lines(void **state)
{
    (void)state;
    struct rig rig;
    struct batch batch;
    char expected[20000] = "", out[20000];
    uint64_t seed = 7;
    print_message("seed %llu\n", (unsigned long long)seed);
    rig_open(&rig, NULL);
    give_lines(&rig, 1000);
    int file = open_file("", 0);
    redirect(dup(file), 1);
    open_sink(&rig);
    make_records(&rig, &batch, "{\"i\":%d}", 0);
    size_t order[1000];
    for (size_t i = 0; i < 1000; i++) {
        order[i] = i;
        snprintf(expected + strlen(expected), 20, "{\"i\":%d}\n", (int)i);
    }
    for (size_t i = 999; i > 0; i--) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        size_t j = (seed >> 33) % (i + 1), swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
    for (size_t i = 0; i < 1000; i++) {
        publish(&rig, &batch.records[order[i]]);
        if (i % 10 == 0)
            uv_run(&rig.loop, UV_RUN_NOWAIT);
    }
    while (rig.n_published < 1000 && !rig.timed_out)
        uv_run(&rig.loop, UV_RUN_ONCE);
    rig_close(&rig);
    for (size_t i = 0; i < rig.n_published; i++)
        assert_ptr_equal(rig.published[i], &batch.records[i]);
    assert_int_equal(read_back(file, out, sizeof out), strlen(expected));
    assert_memory_equal(out, expected, strlen(expected));
    close(file);
    free_records(&batch, 1000);
}

/* A line that never comes holds the others back only until the sink is closed. */
static void a_gap_is_skipped_at_the_end(void **state)
{
    (void)state;
    struct rig rig;
    struct batch batch;
    char out[100];
    rig_open(&rig, NULL);
    give_lines(&rig, 3);
    int file = open_file("", 0);
    redirect(dup(file), 1);
    open_sink(&rig);
    make_records(&rig, &batch, "{%d}", 0);
    publish(&rig, &batch.records[2]);
    publish(&rig, &batch.records[0]);
    turn(&rig, NULL);
    size_t published_before = rig.n_published;
    rig_close(&rig);
    assert_int_equal(published_before, 1);
    assert_int_equal(rig.n_published, 2);
    assert_int_equal(read_back(file, out, sizeof out), 8);
    assert_memory_equal(out, "{0}\n{2}\n", 8);
    close(file);
    free_records(&batch, 3);
}

static void msgpack_stands_without_separators(void **state)
{
    (void)state;
    struct rig rig;
    struct batch batch;
    char out[100];
    rig_open(&rig, NULL);
    give_lines(&rig, 2);
    int file = open_file("", 0);
    redirect(dup(file), 1);
    open_sink(&rig);
    make_records(&rig, &batch,
                 "\x81\xa1"
                 "a%d",
                 0);
    batch.records[1].n_parts = 0;
    publish(&rig, &batch.records[0]);
    struct part parts[2] = {{.value = {"\x80", 1}}, {.value = {NULL, 0}}}; /* and a tombstone */
    batch.records[1].parts = parts;
    batch.records[1].n_parts = 2;
    publish(&rig, &batch.records[1]);
    turn(&rig, NULL);
    rig_close(&rig);
    assert_int_equal(rig.n_published, 2);
    assert_int_equal(read_back(file, out, sizeof out), 5);
    assert_memory_equal(out,
                        "\x81\xa1"
                        "a0\x80",
                        5);
    close(file);
    free_records(&batch, 2);
}

/* Nothing is confirmed that is not in the pipe; the loop never blocks. */
static void a_slow_reader(void **state)
{
    (void)state;
    struct rig rig;
    struct batch batch;
    int ends[2];
    enum { N = 6, SIZE = 300000 };
    rig_open(&rig, NULL);
    give_lines(&rig, N);
    assert_int_equal(pipe(ends), 0);
    redirect(ends[1], 1);
    int flags = fcntl(1, F_GETFL);
    open_sink(&rig);
    assert_int_equal(fcntl(1, F_GETFL), flags);
    make_records(&rig, &batch, "{%d", SIZE);
    for (size_t i = 0; i < N; i++)
        publish(&rig, &batch.records[i]);
    turn(&rig, NULL);
    assert_int_equal(rig.n_published, 0);
    size_t got = 0, whole = (size_t)N * (SIZE + 1), wrong = 0, early = 0;
    char bytes[5000];
    while (got < whole && !rig.timed_out) {
        uv_run(&rig.loop, UV_RUN_NOWAIT);
        ssize_t n = read(ends[0], bytes, sizeof bytes);
        for (ssize_t i = 0; i < n; i++, got++) {
            size_t at = got % (SIZE + 1);
            char wanted = at == 0 ? '{' : at == 1 ? (char)('0' + got / (SIZE + 1)) : 'x';
            wrong += bytes[i] != (at == SIZE ? '\n' : wanted);
        }
        /* In the pipe are at most 64 KiB beyond what was read. */
        early += rig.n_published * (SIZE + 1) > got + 65536;
    }
    while (rig.n_published < N && !rig.timed_out)
        uv_run(&rig.loop, UV_RUN_ONCE);
    rig_close(&rig);
    close(ends[0]);
    assert_int_equal(wrong, 0);
    assert_int_equal(early, 0);
    assert_int_equal(rig.n_published, N);
    free_records(&batch, N);
}

static void a_reader_that_leaves(void **state)
{
    (void)state;
    struct rig rig;
    struct batch batch;
    int ends[2];
    signal(SIGPIPE, SIG_IGN);
    rig_open(&rig, NULL);
    give_lines(&rig, 2);
    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    redirect(ends[1], 1);
    open_sink(&rig);
    make_records(&rig, &batch, "{%d}", 0);
    publish(&rig, &batch.records[0]);
    turn(&rig, NULL);
    publish(&rig, &batch.records[1]); /* after the end: no event, no crash */
    turn(&rig, NULL);
    rig_close(&rig);
    assert_int_equal(rig.failed, -EPIPE);
    assert_int_equal(rig.n_published, 0);
    free_records(&batch, 2);
}

static void a_full_disk(void **state)
{
    (void)state;
    struct rig rig;
    struct batch batch;
    rig_open(&rig, NULL);
    give_lines(&rig, 1);
    redirect(open("/dev/full", O_WRONLY), 1);
    open_sink(&rig);
    make_records(&rig, &batch, "{%d}", 0);
    publish(&rig, &batch.records[0]);
    turn(&rig, &rig.ended);
    while (!rig.failed && !rig.timed_out)
        uv_run(&rig.loop, UV_RUN_ONCE);
    rig_close(&rig);
    assert_int_equal(rig.failed, -ENOSPC);
    assert_non_null(strstr(rig.why, "standard output"));
    assert_int_equal(rig.n_published, 0);
    free_records(&batch, 1);
}

/* The deadline of close ends it when nobody reads. */
static void close_with_a_stuck_reader(void **state)
{
    (void)state;
    struct rig rig;
    struct batch batch;
    int ends[2];
    rig_open(&rig, NULL);
    give_lines(&rig, 1);
    assert_int_equal(pipe(ends), 0);
    redirect(ends[1], 1);
    open_sink(&rig);
    make_records(&rig, &batch, "{%d", 200000);
    publish(&rig, &batch.records[0]);
    turn(&rig, NULL);
    uint64_t began = uv_hrtime();
    rig_close(&rig);
    uint64_t took_ms = (uv_hrtime() - began) / 1000000;
    close(ends[0]);
    assert_true(took_ms >= 900 && took_ms < 5000);
    assert_int_equal(rig.n_published, 0);
    free_records(&batch, 1);
}

static void dead_letters_go_to_stderr(void **state)
{
    (void)state;
    struct rig rig;
    struct batch batch;
    char out[1000] = "", errors[1000] = "", lines[3000];
    memset(lines, 'y', sizeof lines);
    memcpy(lines, "a\nb\n", 4);
    lines[2999] = '\n';
    rig_open(&rig, "1KiB");
    redirect(open_file(lines, sizeof lines), 0);
    open_source(&rig);
    turn(&rig, &rig.ended);
    assert_int_equal(rig.n_messages, 3);
    int file = open_file("", 0), error_file = open_file("", 0);
    redirect(dup(file), 1);
    redirect(dup(error_file), 2);
    open_sink(&rig);
    make_records(&rig, &batch, "{%d}", 0);
    batch.records[1].dead_code = "empty_text";
    batch.records[1].dead_reason = "there is nothing to embed";
    batch.records[2].dead_code = "empty_text"; /* what the codec makes of a line too long */
    for (size_t i = 3; i-- > 0;)
        publish(&rig, &batch.records[i]);
    while (rig.n_published < 3 && !rig.timed_out)
        uv_run(&rig.loop, UV_RUN_ONCE);
    rig_close(&rig);
    out[read_back(file, out, sizeof out - 1)] = '\0';
    errors[read_back(error_file, errors, sizeof errors - 1)] = '\0';
    assert_string_equal(out, "{0}\n");
    assert_string_equal(errors, "line 2: empty_text: there is nothing to embed\n"
                                "line 3: line_too_long: longer than stdin.max_line, 1024 bytes\n");
    close(file);
    close(error_file);
    free_records(&batch, 3);
}

/* Messages of another source have no lines: records are written as they come. */
static void other_sources(void **state)
{
    (void)state;
    static const struct source_ops other_ops = {.name = "other"};
    struct source other = {&other_ops, NULL, NULL};
    struct message message = {.source = &other, .position = {"texts 1-0", 9}};
    struct part parts[2] = {{.value = {"{b}", 3}}, {.value = {"{a}", 3}}};
    struct record records[2] = {{.origin = &message, .parts = &parts[0], .n_parts = 1},
                                {.origin = &message, .parts = &parts[1], .n_parts = 1}};
    struct rig rig;
    char out[100] = "";
    rig_open(&rig, NULL);
    int file = open_file("", 0);
    redirect(dup(file), 1);
    open_sink(&rig);
    publish(&rig, &records[1]);
    publish(&rig, &records[0]);
    while (rig.n_published < 2 && !rig.timed_out)
        uv_run(&rig.loop, UV_RUN_ONCE);
    rig_close(&rig);
    read_back(file, out, sizeof out - 1);
    assert_string_equal(out, "{a}\n{b}\n");
    close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_of_a_file),
        cmocka_unit_test(lines_of_pipes_and_sockets_byte_by_byte),
        cmocka_unit_test(nothing_at_all),
        cmocka_unit_test(a_terminal),
        cmocka_unit_test(a_folder_cannot_be_read),
        cmocka_unit_test(a_closed_descriptor_is_refused),
        cmocka_unit_test(long_lines),
        cmocka_unit_test(one_huge_line),
        cmocka_unit_test(credit_is_honoured),
        cmocka_unit_test(a_writer_is_held_back),
        cmocka_unit_test(close_while_waiting),
        cmocka_unit_test(output_in_the_order_of_lines),
        cmocka_unit_test(a_gap_is_skipped_at_the_end),
        cmocka_unit_test(msgpack_stands_without_separators),
        cmocka_unit_test(a_slow_reader),
        cmocka_unit_test(a_reader_that_leaves),
        cmocka_unit_test(a_full_disk),
        cmocka_unit_test(close_with_a_stuck_reader),
        cmocka_unit_test(dead_letters_go_to_stderr),
        cmocka_unit_test(other_sources),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
