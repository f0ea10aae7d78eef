/*
 * test_kernels_fast.c: the tables of precision "fast": each gives the bits of the generic one, and
 * that is as near to plain arithmetic as 8 bits can be.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/kernels_rig.h"

static void check_same(const struct q8_matrix *w, const float *x, size_t n, size_t ld,
                       const char *what)
{
    const struct kernels *tables[KERNELS_RIG_TABLES];
    size_t n_tables = kernels_rig_every(tables);
    float *expected = kernels_rig_multiply(&kernels_generic_fast, x, n, w, ld);
    for (size_t t = 0; t < n_tables; t++) {
        if (tables[t]->precision != PRECISION_FAST)
            continue;
        float *got = kernels_rig_multiply(tables[t], x, n, w, ld);
        kernels_rig_close(expected, got, n * ld, 0, tables[t]->name, what);
        assert_memory_equal(expected, got, n * ld * sizeof *got);
        free(got);
    }
    free(expected);
}

static void test_same_bits(void **state)
{
    (void)state;
    static const size_t token_counts[] = {1,  2,  3,  4,  5,  6,  7,  8,   9,   10, 11,
                                          12, 13, 16, 23, 25, 37, 61, 100, 255, 256};
    static const size_t sizes[][2] = {{32, 32}, {64, 96}, {96, 64}, {768, 128}, {1152, 32}};
    for (size_t c = 0; c < sizeof token_counts / sizeof *token_counts; c++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            struct q8_matrix w;
            size_t n = token_counts[c], ld = sizes[s][1] + (s % 2) * 16;
            uint8_t *blocks = kernels_rig_matrix(&w, sizes[s][0], sizes[s][1], (c + s) % 3 == 0);
            enum shape shape = (enum shape)((c * 5 + s) % N_SHAPES);
            float *x = malloc(n * w.n_in * sizeof *x);
            assert_non_null(x);
            kernels_rig_fill(x, n * w.n_in, shape);
            check_same(&w, x, n, ld, kernels_rig_shapes[shape]);
            free(x);
            free(blocks);
        }
}

/* Row r of w times x in double, and how far precision "fast" may be off: half a step of each digit,
 * a step being at most a 127th of the reach. Values beyond that are not off at all. */
static double fast_expect(const struct q8_matrix *w, size_t r, const float *x, double *allowed)
{
    float weight[ROW_MAX];
    const struct matrix whole = {w->blocks, w->n_in, w->n_out, MATRIX_Q8_0};
    double sum = 0, squares = 0;
    kernels_generic.embed_row(weight, &whole, r, 1.0f);
    for (size_t i = 0; i < w->n_in; i++)
        squares += (double)x[i] * (double)x[i];
    double reach = 6 * sqrt(squares / (double)w->n_in);
    *allowed = 0;
    for (size_t i = 0; i < w->n_in; i++) {
        double top = 0, product = (double)weight[i] * (double)x[i];
        for (size_t j = i / Q8_BLOCK * Q8_BLOCK; j < (i / Q8_BLOCK + 1) * Q8_BLOCK; j++)
            top = fmax(top, fabs((double)x[j]));
        sum += product;
        *allowed += fabs(product) * 1e-6;
        if (fabs((double)x[i]) < reach)
            *allowed += fabs((double)weight[i]) * fmin(top, reach) / 127 / 2;
    }
    return sum;
}

/* Ordinary rows, and rows with as many outliers as there can be. */
static void test_is_near(void **state)
{
    (void)state;
    enum { N = 2, IN = 2304, OUT = 32, MOST = IN / 36 - 2 };
    struct q8_matrix w;
    uint8_t *blocks = kernels_rig_matrix(&w, IN, OUT, false);
    static float x[N * IN];
    for (int shape = ORDINARY; shape <= N_SHAPES; shape++) {
        kernels_rig_fill(x, N * IN, shape < N_SHAPES ? (enum shape)shape : ORDINARY);
        for (size_t i = 0; shape == N_SHAPES && i < N * IN; i++)
            x[i] = i % IN * 71 % IN < MOST ? 50 - x[i] : x[i] / 8;
        float *got = kernels_rig_multiply(&kernels_generic_fast, x, N, &w, OUT);
        for (size_t at = 0; at < N * OUT; at++) {
            double allowed, sum = fast_expect(&w, at % OUT, x + at / OUT * IN, &allowed);
            if (!(fabs(sum - (double)got[at]) <= allowed))
                fail_msg("shape %d: value %zu is %g, not %g +- %g", shape, at, (double)got[at], sum,
                         allowed);
        }
        free(got);
        check_same(&w, x, N, OUT, "outliers");
    }
    free(blocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_is_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
