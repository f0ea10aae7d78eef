/*
 * test_lines_sink.c: records to files, pipes and devices, slow readers, and readers that leave.
 */
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
#include <unistd.h>

#include "tests/support/lines_rig.h"

/* Records for the lines the source gave; value i is printed by `print`. */
struct batch {
    struct record *records;
    struct part *parts;
};

static void make_records(struct lines_rig *rig, struct batch *batch, const char *format,
                         size_t size)
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

static void give_lines(struct lines_rig *rig, size_t n)
{
    char *bytes = malloc(n * 2);
    for (size_t i = 0; i < n; i++)
        memcpy(bytes + 2 * i, "x\n", 2);
    lines_rig_redirect(lines_rig_file(bytes, n * 2), 0);
    free(bytes);
    lines_rig_open_source(rig);
    lines_rig_turn(rig, &rig->ended);
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
    struct lines_rig rig;
    struct batch batch;
    char expected[20000] = "", out[20000];
    uint64_t seed = 7;
    print_message("seed %llu\n", (unsigned long long)seed);
    lines_rig_open(&rig, NULL);
    give_lines(&rig, 1000);
    int file = lines_rig_file("", 0);
    lines_rig_redirect(dup(file), 1);
    lines_rig_open_sink(&rig);
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
        lines_rig_publish(&rig, &batch.records[order[i]]);
        if (i % 10 == 0)
            uv_run(&rig.loop, UV_RUN_NOWAIT);
    }
    lines_rig_wait_published(&rig, 1000);
    lines_rig_close(&rig);
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
    struct lines_rig rig;
    struct batch batch;
    char out[100];
    lines_rig_open(&rig, NULL);
    give_lines(&rig, 3);
    int file = lines_rig_file("", 0);
    lines_rig_redirect(dup(file), 1);
    lines_rig_open_sink(&rig);
    make_records(&rig, &batch, "{%d}", 0);
    lines_rig_publish(&rig, &batch.records[2]);
    lines_rig_publish(&rig, &batch.records[0]);
    lines_rig_turn(&rig, NULL);
    size_t published_before = rig.n_published;
    lines_rig_close(&rig);
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
    struct lines_rig rig;
    struct batch batch;
    char out[100];
    lines_rig_open(&rig, NULL);
    give_lines(&rig, 2);
    int file = lines_rig_file("", 0);
    lines_rig_redirect(dup(file), 1);
    lines_rig_open_sink(&rig);
    make_records(&rig, &batch,
                 "\x81\xa1"
                 "a%d",
                 0);
    batch.records[1].n_parts = 0;
    lines_rig_publish(&rig, &batch.records[0]);
    struct part parts[2] = {{.value = {"\x80", 1}}, {.value = {NULL, 0}}}; /* and a tombstone */
    batch.records[1].parts = parts;
    batch.records[1].n_parts = 2;
    lines_rig_publish(&rig, &batch.records[1]);
    lines_rig_turn(&rig, NULL);
    lines_rig_close(&rig);
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
    struct lines_rig rig;
    struct batch batch;
    int ends[2];
    enum { N = 6, SIZE = 300000 };
    lines_rig_open(&rig, NULL);
    give_lines(&rig, N);
    assert_int_equal(pipe(ends), 0);
    lines_rig_redirect(ends[1], 1);
    int flags = fcntl(1, F_GETFL);
    lines_rig_open_sink(&rig);
    assert_int_equal(fcntl(1, F_GETFL), flags);
    make_records(&rig, &batch, "{%d", SIZE);
    for (size_t i = 0; i < N; i++)
        lines_rig_publish(&rig, &batch.records[i]);
    lines_rig_turn(&rig, NULL);
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
    lines_rig_wait_published(&rig, N);
    lines_rig_close(&rig);
    close(ends[0]);
    assert_int_equal(wrong, 0);
    assert_int_equal(early, 0);
    assert_int_equal(rig.n_published, N);
    free_records(&batch, N);
}

static void a_reader_that_leaves(void **state)
{
    (void)state;
    struct lines_rig rig;
    struct batch batch;
    int ends[2];
    signal(SIGPIPE, SIG_IGN);
    lines_rig_open(&rig, NULL);
    give_lines(&rig, 2);
    assert_int_equal(pipe(ends), 0);
    close(ends[0]);
    lines_rig_redirect(ends[1], 1);
    lines_rig_open_sink(&rig);
    make_records(&rig, &batch, "{%d}", 0);
    lines_rig_publish(&rig, &batch.records[0]);
    lines_rig_turn(&rig, NULL);
    lines_rig_publish(&rig, &batch.records[1]); /* after the end: no event, no crash */
    lines_rig_turn(&rig, NULL);
    lines_rig_close(&rig);
    assert_int_equal(rig.failed, -EPIPE);
    assert_int_equal(rig.n_published, 0);
    free_records(&batch, 2);
}

static void a_full_disk(void **state)
{
    (void)state;
    struct lines_rig rig;
    struct batch batch;
    lines_rig_open(&rig, NULL);
    give_lines(&rig, 1);
    lines_rig_redirect(open("/dev/full", O_WRONLY), 1);
    lines_rig_open_sink(&rig);
    make_records(&rig, &batch, "{%d}", 0);
    lines_rig_publish(&rig, &batch.records[0]);
    lines_rig_turn(&rig, &rig.ended);
    while (!rig.failed && !rig.timed_out)
        uv_run(&rig.loop, UV_RUN_ONCE);
    lines_rig_close(&rig);
    assert_int_equal(rig.failed, -ENOSPC);
    assert_non_null(strstr(rig.why, "standard output"));
    assert_int_equal(rig.n_published, 0);
    free_records(&batch, 1);
}

/* The deadline of close ends it when nobody reads. */
static void close_with_a_stuck_reader(void **state)
{
    (void)state;
    struct lines_rig rig;
    struct batch batch;
    int ends[2];
    lines_rig_open(&rig, NULL);
    give_lines(&rig, 1);
    assert_int_equal(pipe(ends), 0);
    lines_rig_redirect(ends[1], 1);
    lines_rig_open_sink(&rig);
    make_records(&rig, &batch, "{%d", 200000);
    lines_rig_publish(&rig, &batch.records[0]);
    lines_rig_turn(&rig, NULL);
    uint64_t began = uv_hrtime();
    lines_rig_close(&rig);
    uint64_t took_ms = (uv_hrtime() - began) / 1000000;
    close(ends[0]);
    assert_true(took_ms >= 900 && took_ms < 5000);
    assert_int_equal(rig.n_published, 0);
    free_records(&batch, 1);
}

static void dead_letters_go_to_stderr(void **state)
{
    (void)state;
    struct lines_rig rig;
    struct batch batch;
    char out[1000] = "", errors[1000] = "", lines[3000];
    memset(lines, 'y', sizeof lines);
    memcpy(lines, "a\nb\n", 4);
    lines[2999] = '\n';
    lines_rig_open(&rig, "1KiB");
    lines_rig_redirect(lines_rig_file(lines, sizeof lines), 0);
    lines_rig_open_source(&rig);
    lines_rig_turn(&rig, &rig.ended);
    assert_int_equal(rig.n_messages, 3);
    int file = lines_rig_file("", 0), error_file = lines_rig_file("", 0);
    lines_rig_redirect(dup(file), 1);
    lines_rig_redirect(dup(error_file), 2);
    lines_rig_open_sink(&rig);
    make_records(&rig, &batch, "{%d}", 0);
    batch.records[1].dead_code = "empty_text";
    batch.records[1].dead_reason = "there is nothing to embed";
    batch.records[2].dead_code = "line_too_long";
    batch.records[2].dead_reason = rig.messages[2]->problem.reason;
    for (size_t i = 3; i-- > 0;)
        lines_rig_publish(&rig, &batch.records[i]);
    lines_rig_wait_published(&rig, 3);
    lines_rig_close(&rig);
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
    static const struct source_ops other_ops = {0};
    struct source other = {.ops = &other_ops};
    struct message message = {.source = &other, .position = {"texts 1-0", 9}};
    struct part parts[2] = {{.value = {"{b}", 3}}, {.value = {"{a}", 3}}};
    struct record records[2] = {{.origin = &message, .parts = &parts[0], .n_parts = 1},
                                {.origin = &message, .parts = &parts[1], .n_parts = 1}};
    struct lines_rig rig;
    char out[100] = "";
    lines_rig_open(&rig, NULL);
    int file = lines_rig_file("", 0);
    lines_rig_redirect(dup(file), 1);
    lines_rig_open_sink(&rig);
    lines_rig_publish(&rig, &records[1]);
    lines_rig_publish(&rig, &records[0]);
    lines_rig_wait_published(&rig, 2);
    lines_rig_close(&rig);
    read_back(file, out, sizeof out - 1);
    assert_string_equal(out, "{a}\n{b}\n");
    close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
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
