/*
 * test_lines_source.c: lines of files, pipes, sockets, terminals and devices, with little credit.
 */
#define _GNU_SOURCE /* posix_openpt */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/lines_rig.h"

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

static void expect_line(const struct lines_rig *rig, size_t i, const char *key, const char *value,
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

static void expect_mixed(struct lines_rig *rig)
{
    lines_rig_turn(rig, &rig->ended);
    assert_int_equal(rig->n_messages, 5);
    expect_line(rig, 0, "1", "one", 3);
    expect_line(rig, 1, "2", "two", 3);
    expect_line(rig, 2, "5", "five\0nul", 8);
    expect_line(rig, 3, "6", " ", 1);
    expect_line(rig, 4, "7", "last without end", 16);
    for (size_t i = 0; i < 2; i++)
        rig->source->ops->ack(rig->source, rig->messages[i]);
    rig->source->ops->release(rig->source, rig->messages[3]);
    lines_rig_close(rig); /* the other two are released by it */
}

static void lines_of_a_file(void **state)
{
    (void)state;
    struct lines_rig rig;
    lines_rig_open(&rig, NULL);
    lines_rig_redirect(lines_rig_file(mixed, sizeof mixed - 1), 0);
    lines_rig_open_source(&rig);
    expect_mixed(&rig);
}

static void lines_of_pipes_and_sockets_byte_by_byte(void **state)
{
    (void)state;
    for (int use_socket = 0; use_socket < 2; use_socket++)
        for (size_t chunk = 1; chunk < 40; chunk += 19) {
            struct lines_rig rig;
            pid_t child;
            lines_rig_open(&rig, NULL);
            lines_rig_redirect(open_writer(mixed, sizeof mixed - 1, chunk, use_socket, &child), 0);
            lines_rig_open_source(&rig);
            expect_mixed(&rig);
            waitpid(child, NULL, 0);
        }
}

static void carriage_returns(void **state)
{
    (void)state;
    static const char bytes[] = "one\rtwo\r\rfour";
    for (size_t chunk = 1; chunk < sizeof bytes; chunk++) {
        struct lines_rig rig;
        pid_t child;
        lines_rig_open(&rig, NULL);
        lines_rig_redirect(open_writer(bytes, sizeof bytes - 1, chunk, false, &child), 0);
        lines_rig_open_source(&rig);
        lines_rig_turn(&rig, &rig.ended);
        assert_int_equal(rig.n_messages, 3);
        expect_line(&rig, 0, "1", "one", 3);
        expect_line(&rig, 1, "2", "two", 3);
        expect_line(&rig, 2, "4", "four", 4);
        lines_rig_close(&rig);
        waitpid(child, NULL, 0);
    }
}

static void nothing_at_all(void **state)
{
    (void)state;
    const char *const inputs[] = {"", "\n", "\n\r\n\n"};
    for (size_t i = 0; i < 3; i++) {
        struct lines_rig rig;
        lines_rig_open(&rig, NULL);
        lines_rig_redirect(lines_rig_file(inputs[i], strlen(inputs[i])), 0);
        lines_rig_open_source(&rig);
        lines_rig_turn(&rig, &rig.ended);
        assert_int_equal(rig.n_messages, 0);
        lines_rig_close(&rig);
    }
    struct lines_rig rig;
    lines_rig_open(&rig, NULL);
    lines_rig_redirect(open("/dev/null", O_RDONLY), 0);
    lines_rig_open_source(&rig);
    lines_rig_turn(&rig, &rig.ended);
    assert_int_equal(rig.n_messages, 0);
    lines_rig_close(&rig);
}

static void a_terminal(void **state)
{
    (void)state;
    struct lines_rig rig;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(master >= 0);
    assert_int_equal(grantpt(master), 0);
    assert_int_equal(unlockpt(master), 0);
    lines_rig_open(&rig, NULL);
    lines_rig_redirect(open(ptsname(master), O_RDWR | O_NOCTTY), 0);
    int flags = fcntl(0, F_GETFL);
    lines_rig_open_source(&rig);
    assert_int_equal(fcntl(0, F_GETFL), flags); /* not made non-blocking */
    lines_rig_turn(&rig, NULL);
    assert_int_equal(rig.n_messages, 0);
    assert_int_equal(write(master, "typed\n\x04", 7), 7);
    lines_rig_turn(&rig, &rig.ended);
    assert_int_equal(rig.n_messages, 1);
    expect_line(&rig, 0, "1", "typed", 5);
    lines_rig_close(&rig);
    close(master);
}

static void a_folder_cannot_be_read(void **state)
{
    (void)state;
    struct lines_rig rig;
    lines_rig_open(&rig, NULL);
    lines_rig_redirect(open("/", O_RDONLY), 0);
    lines_rig_open_source(&rig);
    lines_rig_turn(&rig, &rig.ended);
    assert_int_equal(rig.failed, -EISDIR);
    assert_non_null(strstr(rig.why, "standard input"));
    lines_rig_close(&rig);
}

static void a_closed_descriptor_is_refused(void **state)
{
    (void)state;
    struct lines_rig rig;
    static const struct source_events none; /* nothing must fire */
    char err[200] = "";
    lines_rig_open(&rig, NULL);
    close(0);
    int rc = stdin_source.open(&rig.source, &rig.loop, rig.settings, &none, &rig, err, sizeof err);
    lines_rig_restore(&rig);
    assert_int_equal(rc, -EBADF);
    assert_non_null(strstr(err, "standard input cannot be read"));
    lines_rig_close(&rig);
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
            struct lines_rig rig;
            pid_t child;
            lines_rig_open(&rig, "1KiB");
            lines_rig_redirect(open_writer(bytes, len, 100000, false, &child), 0);
            lines_rig_open_source(&rig);
            lines_rig_turn(&rig, &rig.ended);
            assert_int_equal(rig.n_messages, n);
            for (size_t i = 0; i < n; i++) {
                uint64_t place;
                struct problem problem = rig.messages[i]->problem;
                assert_true(lines_place(rig.messages[i], &place));
                assert_int_equal(place, i);
                bool fits = lengths[i] <= 1024;
                assert_int_equal(rig.messages[i]->value.len, fits ? lengths[i] : 0);
                if (fits)
                    assert_null(problem.code);
                if (fits)
                    continue;
                assert_string_equal(problem.code, "line_too_long");
                assert_string_equal(problem.reason, "longer than stdin.max_line, 1024 bytes");
            }
            lines_rig_close(&rig);
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
    struct lines_rig rig;
    lines_rig_open(&rig, NULL);
    lines_rig_redirect(lines_rig_file(bytes, len + 1), 0);
    lines_rig_open_source(&rig);
    lines_rig_turn(&rig, &rig.ended);
    assert_int_equal(rig.n_messages, 1);
    expect_line(&rig, 0, "1", bytes, len);
    lines_rig_close(&rig);
    free(bytes);
}

static void credit_is_honoured(void **state)
{
    (void)state;
    char bytes[100 * 11 + 1];
    for (int i = 0; i < 100; i++)
        snprintf(bytes + i * 11, 12, "line %05d\n", i);
    for (int as_pipe = 0; as_pipe < 2; as_pipe++) {
        struct lines_rig rig;
        pid_t child = 0;
        lines_rig_open(&rig, NULL);
        rig.credit_each = 0;
        lines_rig_redirect(as_pipe ? open_writer(bytes, 1100, 1100, false, &child)
                                   : lines_rig_file(bytes, 1100),
                           0);
        lines_rig_open_source(&rig);
        lines_rig_turn(&rig, NULL);
        assert_int_equal(rig.n_messages, 0);
        const struct source_ops *ops = rig.source->ops;
        rig.in_call = true;
        ops->request(rig.source, 3, 1000);
        rig.in_call = false;
        lines_rig_turn(&rig, NULL);
        assert_int_equal(rig.n_messages, 3);
        ops->request(rig.source, 50, 25); /* 10 bytes each: the third goes over */
        lines_rig_turn(&rig, NULL);
        assert_int_equal(rig.n_messages, 6);
        ops->request(rig.source, 50, 0);
        ops->request(rig.source, 0, 1000);
        lines_rig_turn(&rig, NULL);
        assert_int_equal(rig.n_messages, 6);
        ops->request(rig.source, 5, 1000);
        ops->request(rig.source, 1, 1000); /* in place of the other, not beside it */
        lines_rig_turn(&rig, NULL);
        assert_int_equal(rig.n_messages, 7);
        assert_false(rig.ended);
        rig.credit_each = 64;
        ops->request(rig.source, 64, 1 << 20);
        lines_rig_turn(&rig, &rig.ended);
        assert_int_equal(rig.n_messages, 100);
        expect_line(&rig, 99, "100", "line 00099", 10);
        lines_rig_close(&rig);
        if (child)
            waitpid(child, NULL, 0);
    }
}

/* A source without credit leaves the bytes in the pipe, so the writer waits. */
static void a_writer_is_held_back(void **state)
{
    (void)state;
    struct lines_rig rig;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    lines_rig_open(&rig, NULL);
    rig.credit_each = 0;
    lines_rig_redirect(ends[0], 0);
    lines_rig_open_source(&rig);
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
    lines_rig_close(&rig);
}

static void close_while_waiting(void **state)
{
    (void)state;
    struct lines_rig rig;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    lines_rig_open(&rig, NULL);
    lines_rig_redirect(ends[0], 0);
    lines_rig_open_source(&rig);
    assert_int_equal(write(ends[1], "a\nunfinished", 12), 12);
    lines_rig_turn(&rig, NULL);
    assert_int_equal(rig.n_messages, 1);
    uint64_t began = uv_hrtime();
    lines_rig_close(&rig);
    assert_true(uv_hrtime() - began < 500000000);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_of_a_file),
        cmocka_unit_test(lines_of_pipes_and_sockets_byte_by_byte),
        cmocka_unit_test(carriage_returns),
        cmocka_unit_test(nothing_at_all),
        cmocka_unit_test(a_terminal),
        cmocka_unit_test(a_folder_cannot_be_read),
        cmocka_unit_test(a_closed_descriptor_is_refused),
        cmocka_unit_test(long_lines),
        cmocka_unit_test(one_huge_line),
        cmocka_unit_test(credit_is_honoured),
        cmocka_unit_test(a_writer_is_held_back),
        cmocka_unit_test(close_while_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
