/*
 * test_index_killed.c: `embedmill index` killed at any time, and told to stop: what it writes in
 * the end is what one undisturbed run writes.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/index_rig.h"

#define SEED 20261124u

/*
 * Kill it again and again, and tear what was not confirmed as a lost power supply might. In the end
 * all is, byte for byte, what one undisturbed run writes.
 */
static void killed(const char *options, const char *output, size_t n, unsigned seed)
{
    static const char *const parts[] = {"", ".ids.jsonl", ".errors.jsonl"};
    char line[300], whole[100], state[120];
    unsigned long long done = 0;
    size_t n_kills = 0;
    struct timespec began, ended;
    srand(seed);
    snprintf(whole, sizeof whole, "whole.%s", output);
    snprintf(line, sizeof line, "%s -o @%s --batch-texts 8 --dtype f2", options, whole);
    clock_gettime(CLOCK_MONOTONIC, &began);
    index_expect_run(line, 65);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    assert_int_equal(index_records_done(whole), n);
    unsigned took_us = (unsigned)((ended.tv_sec - began.tv_sec) * 1000000 +
                                  (ended.tv_nsec - began.tv_nsec) / 1000);
    snprintf(state, sizeof state, "%s.state", output);
    snprintf(line, sizeof line, "%s -o @%s --batch-texts 8 --dtype f2", options, output);
    for (;;) {
        /* Ever later, for a build that is slow to start must also get done. */
        unsigned kill_us = (took_us / 3 + 1) * (1 + (unsigned)n_kills / 8);
        int code = index_finish(index_start(line), 1 + (unsigned)rand() % kill_us);
        assert_true(index_records_done(output) >= done);
        done = index_records_done(output);
        if (code == 65) {
            if (n_kills > 0)
                break;
            unlink(index_path_of(state));
            unlink(
                index_path_of(output)); /* the machine has become faster: once more, and sooner */
            took_us /= 2;
            done = 0;
            continue;
        }
        if (code != 1000 + SIGKILL)
            fail_msg("seed %u: exit code %d: %s", seed, code, index_last_err);
        assert_true(++n_kills < 500);
        for (size_t i = 0; done > 0 && i < 3; i++) {
            char name[120];
            struct stat about;
            snprintf(name, sizeof name, "%s%s", output, parts[i]);
            if (rand() % 2 && stat(index_path_of(name), &about) == 0)
                index_write_file(name, "torn\n", (size_t)(rand() % 6), "a");
        }
    }
    printf("seed %u: %zu kills\n", seed, n_kills);
    index_expect_equal_outputs(whole, output);
}

static void killed_at_any_time(void **state)
{
    (void)state;
    index_write_corpus("killed.jsonl", 1500);
    killed("@killed.jsonl", "killed.npy", 1500, SEED);
    killed("@killed.jsonl", "killed.out.jsonl", 1500, SEED + 1);
}

/* Every fifth record is a text of some ten chunks, every 50th cannot be embedded. */
static void killed_with_chunks(void **state)
{
    static const char options[] =
        "@long.jsonl --prompt none --too-long chunk --chunk-tokens 32 --chunk-overlap 4";
    char line[1000];
    (void)state;
    index_write_file("long.jsonl", "", 0, "w");
    for (size_t i = 0; i < 300; i++) {
        int len = snprintf(line, sizeof line, "{\"id\":%zu,\"text\":%s", i, i % 50 ? "\"" : "7}\n");
        for (size_t n = i % 5 ? 1 : 40; i % 50 && n > 0; n--)
            len += snprintf(line + len, sizeof line - (size_t)len, "the text %zu%s", i + n,
                            n > 1 ? ". " : "\"}\n");
        index_write_file("long.jsonl", line, (size_t)len, "a");
    }
    killed(options, "chunks.npy", 300, SEED + 2);
    killed(options, "chunks.out.jsonl", 300, SEED + 3);
    assert_true(index_count_lines("chunks.npy.ids.jsonl") > 294 + 54 * 5);
    char *ids = index_read_file("chunks.npy.ids.jsonl", NULL);
    assert_memory_equal(ids, "\"1\"\n\"2\"\n", 8);
    assert_non_null(
        strstr(ids, "{\"id\":\"5#0\",\"parent\":\"5\",\"chunk\":0,\"start\":0,\"end\":"));
    free(ids);
    snprintf(line, sizeof line, "%s0 -o @chunks.npy --dtype f2", options); /* 40 of overlap */
    index_expect_run(line, 78);
    assert_non_null(strstr(index_last_err, "chunk_tokens: 32, 4 repeated"));
}

/* Told to stop, it finishes what it took and says so; started again, it goes on. */
static void stopped(void **state)
{
    (void)state;
    index_write_corpus("stopped.jsonl", 3000);
    index_expect_run("@stopped.jsonl -o @stopped.whole.npy --batch-texts 8", 65);
    pid_t pid = index_start("@stopped.jsonl -o @stopped.npy --batch-texts 8");
    while (index_records_done("stopped.npy") == 0)
        usleep(1000);
    kill(pid, SIGTERM);
    int code = index_finish(pid, 0);
    assert_true(code == 128 + SIGTERM || code == 65);
    assert_int_equal(code, 143);
    index_expect_run("@stopped.jsonl -o @stopped.npy --batch-texts 8", 65);
    index_expect_equal_outputs("stopped.whole.npy", "stopped.npy");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(stopped),
                                       cmocka_unit_test(killed_at_any_time),
                                       cmocka_unit_test(killed_with_chunks)};
    return cmocka_run_group_tests(tests, index_open_folder, index_close_folder);
}
