/*
 * test_command_ends.c: run, embed, index, push and pull end alike: by each signal, by one that is
 * sent twice at once, and by a second one; with a broker that is away, and on a disk that is full.
 */
#define _GNU_SOURCE /* pipe2 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/support/program.h"

/* No one listens at port 1. */
#define AWAY "redis://127.0.0.1:1/0"

enum { FOLDERS = 5, NO_DRAIN = -1 };

/* %s: the folder. Each has something under way, and cannot end by itself: its input stays open, or
 * its broker is away. */
static const struct {
    const char *line;
    const char *busy; /* what the log says once it is so far */
    int drained;      /* the exit code; NO_DRAIN: 128 + the signal */
} commands[] = {
    {"run --log-level info --redis-url " AWAY, "source waits", 0},
    {"embed --log-level info", "started", NO_DRAIN},
    {"index - -o %s/index.npy --log-level info", "started", NO_DRAIN},
    {"push %s/corpus.txt --to " AWAY " --drain-timeout 300ms", "sink waits", 75},
    {"pull --from " AWAY " -o %s/pulled.jsonl --idle 0", "source waits", NO_DRAIN},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static char *path_of(const char *name, char path[300])
{
    snprintf(path, 300, "%s/%s", program_folder, name);
    return path;
}

static int setup(void **state)
{
    char path[300];
    int rc = program_setup(state);
    FILE *corpus = fopen(path_of("corpus.txt", path), "w");
    if (rc || !corpus)
        return -1;
    for (int i = 0; i < 2000; i++)
        fprintf(corpus, "line %d of the corpus\n", i);
    return fclose(corpus);
}

static int teardown(void **state)
{
    char command[400];
    snprintf(command, sizeof command, "rm -f %s/[!t]*", program_folder);
    return system(command) ? -1 : program_teardown(state);
}

static void await_line(int fd, const char *line)
{
    char log[20000] = "";
    for (int waited = 0; !strstr(log, line) && waited < PROGRAM_DEADLINE_MS; waited += 5) {
        usleep(5000);
        ssize_t n = pread(fd, log, sizeof log - 1, 0);
        log[n > 0 ? n : 0] = '\0';
    }
    if (!strstr(log, line))
        fail_msg("no '%s' in: %s", line, log);
}

/* input: stays open. */
static pid_t start_busy(size_t i, int input, int err)
{
    char line[600];
    snprintf(line, sizeof line, commands[i].line, program_folder);
    pid_t pid = program_start(line, NULL, dup(input), open("/dev/null", O_WRONLY | O_CLOEXEC), err);
    await_line(err, commands[i].busy);
    return pid;
}

/* All commands at once, so that those which wait for their deadline wait together. False: one of
 * them took what was sent twice for two requests. */
static bool stop_all(const int *signals, size_t n_signals)
{
    int input[2], errs[N_COMMANDS];
    bool was_one = true;
    pid_t pids[N_COMMANDS];
    assert_int_equal(pipe2(input, O_CLOEXEC), 0);
    for (size_t i = 0; i < N_COMMANDS; i++)
        pids[i] = start_busy(i, input[0], errs[i] = program_scratch());
    for (size_t i = 0; i < N_COMMANDS; i++) /* what a process has pending twice comes once */
        for (size_t k = 0; k < n_signals; k++)
            kill(pids[i], signals[k]);
    for (size_t i = 0; i < N_COMMANDS; i++) {
        int code = program_wait(pids[i]);
        char *said = program_said(errs[i], NULL);
        int wanted = commands[i].drained == NO_DRAIN ? 128 + signals[0] : commands[i].drained;
        bool was_two = n_signals > 1 && strstr(said, "second signal: exiting");
        was_one &= !was_two;
        if (!was_two && (code != wanted || !strstr(said, "\"stopping: finishing what was taken") ||
                         !strstr(said, "\"stopped\"") || strstr(said, "second signal: exiting")))
            fail_msg("%s: exit code %d and not %d: %s", commands[i].line, code, wanted, said);
        free(said);
    }
    close(input[0]);
    close(input[1]);
    return was_one;
}

static void signals_are_one_request(void **state)
{
    (void)state;
    signal(SIGHUP, SIG_DFL); /* the tests may run under nohup */
    stop_all((const int[]){SIGTERM}, 1);
    stop_all((const int[]){SIGINT}, 1);
    stop_all((const int[]){SIGHUP}, 1);
    /* Two that a busy machine keeps apart are two requests: tried again. */
    size_t n_tries = 0;
    while (n_tries < 5 && !stop_all((const int[]){SIGTERM, SIGTERM}, 2))
        n_tries++;
    assert_in_range(n_tries, 0, 4);
}

/* Files may grow to so many bytes, as on a disk that is full then. */
static void full_disks(void **state)
{
    (void)state;
    static const struct {
        const char *line, *out, *says;
    } cases[] = {
        {"embed", "/dev/full", "No space left|no space left"},
        {"index %s/corpus.txt -o %s/full.npy", "/dev/null", "full.npy"},
        {"index %s/corpus.txt -o %s/full.out.jsonl", "/dev/null", "full.out.jsonl"},
    };
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 20000;
    signal(SIGXFSZ, SIG_IGN); /* EFBIG */
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char line[900], path[300];
        int in = open(path_of("corpus.txt", path), O_RDONLY | O_CLOEXEC);
        int out = open(cases[i].out, O_WRONLY | O_CLOEXEC), err = program_scratch();
        snprintf(line, sizeof line, cases[i].line, program_folder, program_folder);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        pid_t pid = program_start(line, NULL, in, out, err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        int code = program_wait(pid);
        char *said = program_said(err, NULL);
        if (code != 74)
            fail_msg("%s: exit code %d: %s", line, code, said);
        free(said);
    }
    signal(SIGXFSZ, SIG_DFL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signals_are_one_request),
        cmocka_unit_test(full_disks),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
