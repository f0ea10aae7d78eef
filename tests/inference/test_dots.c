/*
 * test_dots.c: dot products of search by every kernel table this CPU has, against plain sums;
 * `--bench` times them.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "inference/kernels.h"

static const char *const names[] = {"generic", "avx2", "avxvnni", "avx512", "avx512-bf16", "neon"};

static float *random_floats(size_t n)
{
    float *x = aligned_alloc(64, (n * sizeof *x + 63) / 64 * 64);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    return x;
}

static void check(const struct kernels *kernels, size_t n, size_t k)
{
    /* The rows begin off any alignment, as they may in a mapped file. */
    float *all = random_floats(n * k + 1), *rows = all + 1;
    float *queries = random_floats(k * DOTS_QUERIES);
    float *out = random_floats((n + 1) * DOTS_QUERIES);
    float guard = out[n * DOTS_QUERIES];
    kernels->dots(out, rows, n, queries, k);
    for (size_t r = 0; r < n; r++)
        for (size_t q = 0; q < DOTS_QUERIES; q++) {
            double wanted = 0;
            for (size_t i = 0; i < k; i++)
                wanted += (double)rows[r * k + i] * (double)queries[i * DOTS_QUERIES + q];
            if (fabs(wanted - (double)out[r * DOTS_QUERIES + q]) > 1e-4)
                fail_msg("%s: %zu rows of %zu: row %zu, query %zu is %g and not %g", kernels->name,
                         n, k, r, q, (double)out[r * DOTS_QUERIES + q], wanted);
        }
    assert_true(out[n * DOTS_QUERIES] == guard);
    free(all);
    free(queries);
    free(out);
}

static void right(void **state)
{
    (void)state;
    srand(5);
    for (size_t t = 0; t < sizeof names / sizeof names[0]; t++) {
        const struct kernels *kernels = kernels_find(names[t]);
        for (size_t n = 1; kernels && n <= 26; n++) {
            check(kernels, n, 32);
            check(kernels, n, 768);
        }
    }
}

static int bench(void)
{
    enum { ROWS = 48, K = 768, BLOCKS = 40 };
    float *rows = random_floats((size_t)ROWS * K * BLOCKS);
    float *queries = random_floats(K * DOTS_QUERIES), *out = random_floats(ROWS * DOTS_QUERIES);
    for (size_t t = 0; t < sizeof names / sizeof names[0]; t++) {
        const struct kernels *kernels = kernels_find(names[t]);
        struct timespec a, b;
        if (!kernels)
            continue;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
        for (size_t block = 0; block < BLOCKS; block++)
            for (size_t i = 0; i < 16; i++)
                kernels->dots(out, rows + block * ROWS * K, ROWS, queries, K);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
        double s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9;
        printf("dots %-8s %6.1f Gmac/s\n", kernels->name,
               16.0 * BLOCKS * ROWS * K * DOTS_QUERIES / s * 1e-9);
    }
    free(rows);
    free(queries);
    free(out);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(right)};
    if (argc > 1 && strcmp(argv[1], "--bench") == 0)
        return bench();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
