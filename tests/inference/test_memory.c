/*
 * test_memory.c: what a worker keeps beside the model file, and that embedding allocates nothing.
 *
 * Why:     both are promises of the README, and nothing else would notice when they are broken.
 *          Under a sanitizer every number is another one: there this test says so and is skipped.
 */
#define _GNU_SOURCE /* pipe2 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "inference/embed.h"
#include "tests/support/assert_between.h"
#include "tests/support/tiny_model.h"
#include "tests/support/tokenizer_toy.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)

int main(void)
{
    print_message("[  SKIPPED ] memory is measured in builds without a sanitizer, on glibc\n");
    return 0;
}

#else

/* ---- every allocation is counted; glibc's own names for what it would do otherwise */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static atomic_size_t n_allocations;

void *malloc(size_t size)
{
    n_allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    n_allocations++;
    return __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    n_allocations++;
    return __libc_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    n_allocations++;
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    n_allocations++;
    void *memory = __libc_memalign(alignment, size);
    if (memory)
        *out = memory;
    return memory ? 0 : ENOMEM;
}

static void test_embedding_allocates_nothing(void **state)
{
    static const struct text texts[] = {{"the weather in June", 19},
                                        {"caf\xc3\xa9 \xe2\x98\x83 \xff", 11},
                                        {"", 0},
                                        {"x", 1},
                                        {"and again the stream, and again the stream", 42}};
    enum { N = sizeof texts / sizeof texts[0] };
    static float vectors[N][TINY_MODEL_DIM];
    float *rows[N];
    struct embed_result results[N];
    struct tiny_model_options tiny = TINY_MODEL_DEFAULTS;
    struct session_options options = {0};
    struct model *model = NULL;
    struct session *session = NULL;
    char path[] = "/tmp/embedmill-memory-XXXXXX", err[400] = "";
    (void)state;

    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(tiny_model_write(path, &tiny), 0);
    int rc = model_open(&model, path, NULL, PRECISION_EXACT, err, sizeof err);
    unlink(path);
    if (rc)
        fail_msg("%s", err);
    assert_int_equal(session_open(&session, model, &options), 0);
    for (size_t i = 0; i < N; i++)
        rows[i] = vectors[i];
    size_t before = n_allocations;
    assert_true(before > 0); /* else nothing is counted at all */
    for (size_t n = 1; n <= N; n++)
        session_embed(session, texts, n, rows, results);
    assert_int_equal(n_allocations - before, 0);
    session_close(session);
    model_close(model);
}

/* ---- a worker on the real model */

enum { PATIENCE_MS = 240000, N_SHORT = 64, LIMIT_KB = 120 * 1024 };

/* Texts of a few words, and one that fills the model's whole context. */
static size_t send_texts(int to)
{
    static char line[12000];
    for (size_t i = 0; i < N_SHORT; i++) {
        int len = snprintf(line, sizeof line, "Note %zu: the ferry leaves at seven.\n", i);
        assert_int_equal(write(to, line, (size_t)len), len);
    }
    for (size_t at = 0; at < sizeof line; at += 6)
        memcpy(line + at, "ferry ", 6);
    line[sizeof line - 1] = '\n';
    assert_int_equal(write(to, line, sizeof line), sizeof line);
    return N_SHORT + 1;
}

static void await_lines(int from, size_t n)
{
    static char bytes[65536];
    while (n > 0) {
        struct pollfd fd = {.fd = from, .events = POLLIN};
        if (poll(&fd, 1, PATIENCE_MS) != 1)
            fail_msg("%zu embeddings have not come after %d ms", n, PATIENCE_MS);
        ssize_t got = read(from, bytes, sizeof bytes);
        assert_true(got > 0);
        for (ssize_t i = 0; i < got; i++)
            n -= bytes[i] == '\n';
    }
}

/* Kilobytes that the process has for itself, the mapped model file left out. */
static size_t private_kb(pid_t pid, const char *model)
{
    char path[64], line[4352];
    size_t sum = 0, kb;
    bool is_model = false, has_model = false;
    snprintf(path, sizeof path, "/proc/%d/smaps", (int)pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
            line[strcspn(line, "\n")] = '\0';
            is_model = strstr(line, model) != NULL;
            has_model |= is_model;
        } else if (!is_model && (sscanf(line, "Private_Clean: %zu", &kb) == 1 ||
                                 sscanf(line, "Private_Dirty: %zu", &kb) == 1)) {
            sum += kb;
        }
    }
    fclose(file);
    assert_true(has_model); /* mapped, not copied */
    return sum;
}

static void test_a_worker_is_small(void **state)
{
    char model[1024], real[4096];
    int in[2], out[2];
    (void)state;

    if (!real_model_path(model, sizeof model))
        skip();
    assert_non_null(realpath(model, real));
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        execl(EMBEDMILL_BINARY, "embedmill", "embed", "--threads", "2", "--model", real, NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    await_lines(out[0], send_texts(in[1]));
    size_t kb = private_kb(pid, real);
    close(in[1]);
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    close(out[0]);
    print_message("a worker of 2 threads keeps %zu.%zu MB beside the model file\n", kb / 1024,
                  kb % 1024 * 10 / 1024);
    assert_int_equal(status, 0);
    assert_between(kb, 1, LIMIT_KB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embedding_allocates_nothing),
        cmocka_unit_test(test_a_worker_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
