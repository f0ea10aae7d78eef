/*
 * program.c: see program.h.
 */
#define _GNU_SOURCE /* mkostemp */
#include "tests/support/program.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/tiny_model.h"

char program_folder[] = "/tmp/embedmill-test-XXXXXX";
static char model[100];

int program_setup(void **state)
{
    (void)state;
    if (!mkdtemp(program_folder))
        return -1;
    snprintf(model, sizeof model, "%s/tiny.gguf", program_folder);
    return tiny_model_write(model, NULL);
}

int program_teardown(void **state)
{
    (void)state;
    unlink(model);
    return rmdir(program_folder);
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int program_scratch(void)
{
    char path[] = "/tmp/embedmill-test-XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    assert_true(fd >= 0);
    unlink(path);
    return fd;
}

char *program_said(int fd, size_t *len)
{
    off_t size = lseek(fd, 0, SEEK_END);
    char *bytes = malloc((size_t)size + 1);
    assert_int_equal(pread(fd, bytes, (size_t)size, 0), size);
    bytes[size] = '\0';
    if (len)
        *len = (size_t)size;
    close(fd);
    return bytes;
}

pid_t program_start(const char *line, const char *variable, int in, int out, int err)
{
    char copy[1000], home[150], path[200], model_variable[150];
    char *argv[40] = {EMBEDMILL_BINARY}, *environment[8];
    size_t argc = 1, n = 0;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    snprintf(home, sizeof home, "HOME=%s", program_folder);
    snprintf(path, sizeof path, "PATH=%.150s", getenv("PATH") ? getenv("PATH") : "/bin");
    snprintf(model_variable, sizeof model_variable, "EMBEDMILL_MODEL=%s", model);
    environment[n++] = home;
    environment[n++] = path;
    environment[n++] = model_variable;
    environment[n++] = "EMBEDMILL_THREADS=2";
    if (variable)
        environment[n++] = (char *)variable;
    environment[n] = NULL;
    fflush(stdout);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(in, 0);
        dup2(out, 1);
        dup2(err, 2);
        for (int fd = 3; fd < 64; fd++)
            close(fd);
        execve(EMBEDMILL_BINARY, argv, environment);
        _exit(127);
    }
    close(in);
    if (out != in)
        close(out);
    return pid;
}

int program_wait(pid_t pid)
{
    int status = 0;
    uint64_t deadline = now_ms() + PROGRAM_DEADLINE_MS;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (now_ms() > deadline) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            fail_msg("the program did not end within %d ms", PROGRAM_DEADLINE_MS);
        }
        usleep(2000);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}
