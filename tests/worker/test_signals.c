/*
 * test_signals.c: how the program ends when it is told to, and what it does not end for.
 *
 * The model is the tiny one of tiny_model.h, so nothing is fetched.
 */
#define _GNU_SOURCE /* pipe2 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/program.h"

/* Interactively: each line is answered although the input stays open. */
static pid_t start_waiting(const char *line, int in[2], int out[2], int err)
{
    char answer[4];
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    pid_t pid = program_start(line, NULL, in[0], out[1], err);
    assert_int_equal(write(in[1], "hello\n", 6), 6);
    struct pollfd readable = {.fd = out[0], .events = POLLIN};
    assert_int_equal(poll(&readable, 1, PROGRAM_DEADLINE_MS), 1);
    assert_true(read(out[0], answer, sizeof answer) > 0);
    return pid;
}

static void signals_stop_the_filter(void **state)
{
    (void)state;
    const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    const char *const names[] = {"SIGTERM", "SIGINT", "SIGHUP"};
    signal(SIGHUP, SIG_DFL); /* the tests may run under nohup */
    for (int i = 0; i < 3; i++) {
        int in[2], out[2], err = program_scratch();
        pid_t pid = start_waiting("embed --log-level info", in, out, err);
        kill(pid, SIGUSR1);
        usleep(50000);
        kill(pid, signals[i]);
        int code = program_wait(pid);
        char *errors = program_said(err, NULL);
        close(in[1]);
        close(out[0]);
        assert_int_equal(code, 128 + signals[i]);
        assert_non_null(strstr(errors, "\"msg\":\"counters\",\"texts\":1,"));
        assert_non_null(strstr(errors, names[i]));
        free(errors);
    }
}

/* Under nohup a terminal that closes does not end it. */
static void hangup_may_be_ignored(void **state)
{
    (void)state;
    int in[2], out[2], err = program_scratch();
    signal(SIGHUP, SIG_IGN);
    pid_t pid = start_waiting("embed --log-level info", in, out, err);
    signal(SIGHUP, SIG_DFL);
    kill(pid, SIGHUP);
    usleep(50000);
    close(in[1]);
    assert_int_equal(program_wait(pid), 0);
    close(out[0]);
    close(err);
}

/*
 * Nobody reads the output, so the drain cannot end: its deadline does (75), or a second signal
 * (128 + its number).
 */
static void stuck_drains(void **state)
{
    (void)state;
    for (int second = 0; second < 2; second++) {
        int in[2], out[2], err = program_scratch();
        pid_t pid = start_waiting(second ? "embed --log-level info --drain-timeout 1h"
                                         : "embed --log-level info --drain-timeout 1s",
                                  in, out, err);
        char lines[2000];
        memset(lines, '\n', sizeof lines);
        for (size_t i = 0; i < sizeof lines; i += 2)
            lines[i] = 'x';
        assert_int_equal(write(in[1], lines, sizeof lines), sizeof lines);
        int held = 0;
        for (int waited = 0; held < 60000 && waited < PROGRAM_DEADLINE_MS; waited += 10) {
            usleep(10000);
            assert_int_equal(ioctl(out[0], FIONREAD, &held), 0);
        }
        assert_true(held >= 60000); /* the pipe is full */
        kill(pid, SIGTERM);
        if (second) {
            usleep(300000);
            siginfo_t about = {0};
            assert_int_equal(waitid(P_PID, (id_t)pid, &about, WEXITED | WNOHANG | WNOWAIT), 0);
            assert_int_equal(about.si_pid, 0); /* it does wait */
            /* One that comes when the first has only just been heard is taken for a part of it. */
            for (int waited = 0; about.si_pid == 0 && waited < PROGRAM_DEADLINE_MS; waited += 300) {
                kill(pid, SIGINT);
                usleep(300000);
                assert_int_equal(waitid(P_PID, (id_t)pid, &about, WEXITED | WNOHANG | WNOWAIT), 0);
            }
        }
        int code = program_wait(pid);
        char *errors = program_said(err, NULL);
        close(in[1]);
        close(out[0]);
        if (code != (second ? 130 : 75) ||
            !strstr(errors, second ? "second signal: exiting at once" : "drain_timeout passed"))
            fail_msg("exit code %d; stderr: %s", code, errors);
        free(errors);
    }
}

static void read_log(int fd, char *log, size_t size)
{
    ssize_t n = pread(fd, log, size - 1, 0);
    log[n > 0 ? n : 0] = '\0';
}

static void await_line(int fd, const char *line, char *log, size_t size)
{
    for (int waited = 0; !strstr(log, line) && waited < PROGRAM_DEADLINE_MS; waited += 10) {
        usleep(10000);
        read_log(fd, log, size);
    }
}

static void run_without_a_broker_waits_and_stops(void **state)
{
    (void)state;
    int err = program_scratch(), in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    pid_t pid = program_start("run --redis-url redis://127.0.0.1:1/0", NULL, in,
                              open("/dev/null", O_WRONLY | O_CLOEXEC), err);
    char log[4096] = "";
    await_line(err, "model is ready", log, sizeof log);
    kill(pid, SIGUSR1); /* there are no counters yet, and it goes on all the same */
    await_line(err, "source waits", log, sizeof log);
    kill(pid, SIGTERM); /* as a supervisor does for the process and for its group: one request */
    kill(pid, SIGINT);
    int code = program_wait(pid);
    read_log(err, log, sizeof log);
    close(err);
    if (!strstr(log, "source waits") || strstr(log, "second signal: exiting") || code != 0)
        fail_msg("exit code %d; stderr: %s", code, log);
}

/* Handlers are there: bit SIGTERM of what the process catches. */
static void await_handlers(pid_t pid)
{
    char path[64], status[4096];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    for (int waited = 0; waited < PROGRAM_DEADLINE_MS; waited += 5) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        read_log(fd, status, sizeof status);
        close(fd);
        const char *caught = strstr(status, "SigCgt:");
        if (caught && strtoull(caught + 7, NULL, 16) >> (SIGTERM - 1) & 1)
            return;
        usleep(5000);
    }
    fail_msg("the program never caught SIGTERM");
}

/* A disk that does not answer: whoever opens the file waits for a permission that never comes. -1:
 * this user may not hold others up so. */
static int hold_file(const char *path)
{
    int fd = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, O_RDONLY);
    if (fd >= 0 && fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN_PERM, AT_FDCWD, path) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void stops_while_the_model_loads(void **state)
{
    (void)state;
    static const struct {
        const char *line;
        int signal, code;
    } cases[] = {{"run --redis-url redis://127.0.0.1:1/0", SIGTERM, 0},
                 {"run --redis-url redis://127.0.0.1:1/0", SIGHUP, 0},
                 {"embed --log-level info", SIGTERM, 128 + SIGTERM},
                 {"embed --log-level info", SIGINT, 128 + SIGINT}};
    char variable[200], *path = variable + strlen("EMBEDMILL_MODEL=");
    snprintf(variable, sizeof variable, "EMBEDMILL_MODEL=%s/slow.gguf", program_folder);
    close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    int held = hold_file(path);
    if (held < 0) {
        unlink(path);
        print_message("skipped: needs root, to make a file slow\n");
        skip();
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int err = program_scratch();
        pid_t pid = program_start(cases[i].line, variable, open("/dev/null", O_RDONLY | O_CLOEXEC),
                                  open("/dev/null", O_WRONLY | O_CLOEXEC), err);
        await_handlers(pid);
        usleep(20000);
        kill(pid, SIGUSR1); /* no counters yet: no reason to end */
        kill(pid, cases[i].signal);
        int code = program_wait(pid);
        char *errors = program_said(err, NULL);
        if (code != cases[i].code || !strstr(errors, "stopped before the model was loaded"))
            fail_msg("%s: exit code %d; stderr: %s", cases[i].line, code, errors);
        free(errors);
    }
    close(held);
    unlink(path);
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* push and pull, as run: one request however often it is sent at once, and a closed terminal is one
 * too. */
static void push_and_pull_drain(void **state)
{
    (void)state;
    static const struct {
        const char *line, *waits;
        int first, second;
    } cases[] = {
        {"pull --from redis://127.0.0.1:1/0 -o %s/out.jsonl --idle 0", "source waits", SIGTERM,
         SIGTERM},
        {"pull --from redis://127.0.0.1:1/0 -o %s/out.jsonl --idle 0", "source waits", SIGHUP, 0},
        {"push %s/corpus.txt --to redis://127.0.0.1:1/0 --drain-timeout 1s", "sink waits", SIGTERM,
         SIGINT},
        {"push %s/corpus.txt --to redis://127.0.0.1:1/0 --drain-timeout 1s", "sink waits", SIGHUP,
         SIGTERM},
    };
    char line[400], log[4096], path[200];
    snprintf(path, sizeof path, "%s/corpus.txt", program_folder);
    FILE *corpus = fopen(path, "w");
    assert_non_null(corpus);
    fputs("one\ntwo\n", corpus);
    fclose(corpus);
    /* Repeated, since the second signal may meet the program anywhere on its way out. */
    for (size_t round = 0; round < 10 * sizeof cases / sizeof cases[0]; round++) {
        size_t i = round % (sizeof cases / sizeof cases[0]);
        if (round >= sizeof cases / sizeof cases[0] && strncmp(cases[i].line, "push", 4) == 0)
            continue; /* which waits for its deadline each time */
        int err = program_scratch();
        snprintf(line, sizeof line, cases[i].line, program_folder);
        pid_t pid = program_start(line, NULL, open("/dev/null", O_RDONLY | O_CLOEXEC),
                                  open("/dev/null", O_WRONLY | O_CLOEXEC), err);
        log[0] = '\0';
        await_line(err, cases[i].waits, log, sizeof log);
        uint64_t began = now_ms();
        kill(pid, cases[i].first);
        usleep((unsigned)(round * 100));
        if (cases[i].second)
            kill(pid, cases[i].second);
        bool was_one = now_ms() - began < 50; /* a busy machine makes it two requests */
        int code = program_wait(pid);
        read_log(err, log, sizeof log);
        close(err);
        /* What a broker that is away has not taken by the deadline goes back. */
        bool is_push = strncmp(line, "push", 4) == 0;
        if (!was_one)
            continue;
        if (code != (is_push ? 75 : 128 + cases[i].first) || !strstr(log, "\"stopped\"") ||
            strstr(log, "second signal: exiting"))
            fail_msg("%s: exit code %d; stderr: %s", line, code, log);
    }
    unlink(path);
    static const char *const outputs[] = {"out.jsonl", "out.jsonl.state"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", program_folder, outputs[i]);
        unlink(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signals_stop_the_filter),
        cmocka_unit_test(hangup_may_be_ignored),
        cmocka_unit_test(stuck_drains),
        cmocka_unit_test(run_without_a_broker_waits_and_stops),
        cmocka_unit_test(stops_while_the_model_loads),
        cmocka_unit_test(push_and_pull_drain),
    };
    return cmocka_run_group_tests(tests, program_setup, program_teardown);
}
