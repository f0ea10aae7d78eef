/*
 * index_rig.c: see index_rig.h.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/index_rig.h"
#include "tests/support/tiny_model.h"

#define DEADLINE_MS 120000

static char folder[] = "/tmp/embedmill-test-XXXXXX";
char index_last_err[20000];

char *index_path_of(const char *name)
{
    static char paths[8][200];
    static unsigned at;
    char *path = paths[at++ % 8];
    snprintf(path, 200, "%s/%s", folder, name);
    return path;
}

int index_open_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? tiny_model_write(index_path_of("tiny.gguf"), NULL) : -1;
}

int index_close_folder(void **state)
{
    (void)state;
    char command[200];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

void index_write_file(const char *name, const char *bytes, size_t n, const char *mode)
{
    FILE *file = fopen(index_path_of(name), mode);
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

char *index_read_file(const char *name, size_t *len)
{
    FILE *file = fopen(index_path_of(name), "r");
    size_t room = 1 << 20, n = 0;
    char *bytes = calloc(1, room);
    assert_non_null(bytes);
    while (file && (n += fread(bytes + n, 1, room - n - 1, file)) == room - 1) {
        bytes = realloc(bytes, room *= 2);
        assert_non_null(bytes);
    }
    if (file)
        fclose(file);
    bytes[n] = '\0';
    if (len)
        *len = n;
    return bytes;
}

void index_expect_same(const char *a, const char *b)
{
    size_t len_a, len_b;
    char *bytes_a = index_read_file(a, &len_a), *bytes_b = index_read_file(b, &len_b);
    assert_int_equal(len_a, len_b);
    assert_memory_equal(bytes_a, bytes_b, len_a);
    free(bytes_a);
    free(bytes_b);
}

size_t index_count_lines(const char *name)
{
    char *bytes = index_read_file(name, NULL);
    size_t n = 0;
    for (char *at = bytes; (at = strchr(at, '\n')); at++)
        n++;
    free(bytes);
    return n;
}

pid_t index_start(const char *line)
{
    char copy[1000], words[40][200];
    char *argv[48] = {EMBEDMILL_BINARY, "index"};
    size_t argc = 2;
    snprintf(copy, sizeof copy, "--threads 2 --model @tiny.gguf %s", line);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "), argc++) {
        argv[argc] = words[argc];
        snprintf(words[argc], sizeof words[argc], "%s%s%s", word[0] == '@' ? folder : "",
                 word[0] == '@' ? "/" : "", word + (word[0] == '@'));
    }
    fflush(stdout);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int err = open(index_path_of("stderr"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(err, 2);
        dup2(err, 1);
        execv(EMBEDMILL_BINARY, argv);
        _exit(127);
    }
    return pid;
}

int index_finish(pid_t pid, unsigned kill_us)
{
    int status;
    struct timespec pause = {0, 200000};
    for (uint64_t us = 0; waitpid(pid, &status, WNOHANG) == 0; us += 200) {
        if (kill_us && us >= kill_us)
            kill(pid, SIGKILL);
        assert_true(us < DEADLINE_MS * UINT64_C(1000));
        nanosleep(&pause, NULL);
    }
    char *err = index_read_file("stderr", NULL);
    snprintf(index_last_err, sizeof index_last_err, "%s", err);
    free(err);
    return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

int index_run(const char *line)
{
    return index_finish(index_start(line), 0);
}

void index_expect_run(const char *line, int code)
{
    int got = index_run(line);
    if (got != code)
        fprintf(stderr, "index %s: %d and not %d: %s\n", line, got, code, index_last_err);
    assert_int_equal(got, code);
}

void index_write_corpus(const char *name, size_t n)
{
    char *bytes = malloc(n * 100);
    size_t len = 0;
    assert_non_null(bytes);
    for (size_t i = 0; i < n; i++)
        if (i % 50 == 49)
            len += (size_t)sprintf(bytes + len, "{\"id\":%zu,\"text\":7}\n", i);
        else
            len += (size_t)sprintf(bytes + len,
                                   "{\"id\":%zu,\"text\":\"the text %zu %zu\",\"n\":%zu}\n", i,
                                   i % 7 ? i : 3, i % 5, i * i);
    index_write_file(name, bytes, len, "w");
    free(bytes);
}

void index_expect_equal_outputs(const char *wanted, const char *got)
{
    static const char *const parts[] = {"", ".ids.jsonl", ".errors.jsonl", ".state"};
    for (size_t i = 0; i < 4; i++) {
        char a[120], b[120];
        snprintf(a, sizeof a, "%s%s", wanted, parts[i]);
        snprintf(b, sizeof b, "%s%s", got, parts[i]);
        index_expect_same(a, b);
    }
}

unsigned long long index_records_done(const char *output)
{
    char name[120];
    unsigned long long n = 0;
    snprintf(name, sizeof name, "%s.state", output);
    char *bytes = index_read_file(name, NULL);
    sscanf(bytes, "embedmill-state 1 records %llu", &n);
    free(bytes);
    return n;
}
