/*
 * test_matrix.c: weights of every type through the products of every kernel table this CPU has, and
 * the kernels of BERT, against plain arithmetic in double.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "inference/matrix.h"
#include "tests/support/weights.h"

/* N_IN: a block of the K types and not a multiple of those 512 values take. */
enum { SEED = 20262, N_IN = 768, N_OUT = 96, N_TOKENS = 23, LD = N_OUT + 16 };

static const char *const names[] = {"generic",     "avx2", "avx512",
                                    "avx512-bf16", "neon", "neon-i8mm"};

static uint64_t random_state = SEED;

static uint64_t random_next(void) /* xorshift64*, Vigna 2016 */
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 2685821657736338717ull;
}

static float random_unit(void) /* [-1, 1) */
{
    return (float)(random_next() >> 40) / 8388608.0f - 1.0f;
}

/* Tables of this CPU; says which it lacks. */
static size_t tables_list(const struct kernels *tables[8])
{
    size_t n = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct kernels *k = kernels_find(names[i]);
        if (k)
            tables[n++] = k;
        else
            print_message("this CPU or build has no '%s' table: not tested here\n", names[i]);
    }
    return n;
}

/* A matrix of random bytes that make finite values, and these values. */
struct sample {
    struct matrix matrix;
    uint8_t *bytes;
    double *values; /* [N_OUT][N_IN] */
};

/* Blocks of all sizes: ordinary, small, zero, one large value among small ones. */
static void floats_fill(struct sample *s)
{
    for (size_t i = 0; i < N_OUT * N_IN; i++) {
        size_t kind = i / Q8_BLOCK % 5;
        float value = random_unit() * (kind == 1 ? 1e-3f : kind == 2 ? 0 : 0.3f);
        if (kind == 3 && i % Q8_BLOCK != 7)
            value *= 1e-3f;
        uint16_t half = (uint16_t)((random_next() & 0x8000) | random_next() % 0x3000);
        if (kind == 2)
            half &= 0x83ff; /* subnormal */
        if (s->matrix.type == MATRIX_BF16) {
            uint32_t bits;
            memcpy(&bits, &value, 4);
            half = (uint16_t)(bits >> 16);
            bits &= 0xffff0000;
            memcpy(&value, &bits, 4);
        }
        if (s->matrix.type == MATRIX_F32)
            memcpy(s->bytes + i * 4, &value, 4);
        else
            memcpy(s->bytes + i * 2, &half, 2);
        s->values[i] = s->matrix.type == MATRIX_F16 ? weights_half(half) : (double)value;
    }
}

static bool is_float(enum matrix_type type)
{
    return type == MATRIX_F32 || type == MATRIX_F16 || type == MATRIX_BF16;
}

static bool has_two_digits(enum matrix_type type)
{
    return type != MATRIX_Q8_0 && type != MATRIX_Q4_0 && type != MATRIX_Q5_0 &&
           type != MATRIX_IQ4_NL;
}

static struct sample sample_make(enum matrix_type type)
{
    struct sample s = {.matrix = {NULL, N_IN, N_OUT, type}};
    s.bytes = aligned_alloc(64, (matrix_size(&s.matrix) + 63) / 64 * 64);
    s.values = calloc(N_OUT * N_IN, sizeof *s.values);
    assert_non_null(s.bytes);
    assert_non_null(s.values);
    s.matrix.data = s.bytes;
    if (is_float(type))
        floats_fill(&s);
    else
        weights_fill(s.bytes, s.values, N_OUT * N_IN, type, random_next);
    return s;
}

static void sample_free(struct sample *s)
{
    free(s->bytes);
    free(s->values);
}

static void *buffer(size_t size)
{
    void *p = aligned_alloc(64, (size + 63) / 64 * 64);
    assert_non_null(p);
    return p;
}

/* In two shares, as threads may. */
static void multiply(const struct kernels *k, const struct matrix *w, const float *x, float *out)
{
    void *packed = buffer(k->packed_size(N_TOKENS, N_IN)), *panel = buffer(k->panel_size(N_IN));
    const struct matrix_scratch scratch = {buffer(matrix_widened_size(N_IN)),
                                           buffer(N_TOKENS * MATRIX_ROWS * sizeof(float))};
    k->quantize(packed, x, N_IN, N_TOKENS, N_IN, (struct span){0, N_TOKENS});
    matrix_multiply(k, out, LD, packed, N_TOKENS, w, (struct span){MATRIX_ROWS, N_OUT}, panel,
                    &scratch);
    matrix_multiply(k, out, LD, packed, N_TOKENS, w, (struct span){0, MATRIX_ROWS}, panel,
                    &scratch);
    free(packed);
    free(panel);
    free(scratch.widened);
    free(scratch.rest);
}

/* Row r times x. Allowed is half a step of each activation, of which the largest is 1, what float32
 * sums lose, and for types of two digits half a step of each weight. */
static void row_expect(const struct sample *s, size_t r, const float *x, double *expected,
                       double *allowed)
{
    const double *row = s->values + r * N_IN;
    for (size_t block = 0; block < N_IN; block += Q8_BLOCK) {
        double top = 0;
        for (size_t i = block; i < block + Q8_BLOCK; i++)
            top = fmax(top, fabs(row[i]));
        for (size_t i = block; i < block + Q8_BLOCK; i++) {
            *expected += row[i] * (double)x[i];
            *allowed += fabs(row[i]) * 2e-5;
            if (has_two_digits(s->matrix.type))
                *allowed += fabs((double)x[i]) * (top / 64000 + 3e-8);
        }
    }
}

static void check_product(const struct kernels *k, const struct sample *s)
{
    static float x[N_TOKENS * N_IN], out[N_TOKENS * LD];
    for (size_t i = 0; i < N_TOKENS * N_IN; i++)
        x[i] = random_unit();
    for (size_t i = 0; i < N_TOKENS * LD; i++)
        out[i] = 77;
    multiply(k, &s->matrix, x, out);
    for (size_t t = 0; t < N_TOKENS; t++)
        for (size_t r = 0; r < LD; r++) {
            double expected = 0, allowed = 0, got = (double)out[t * LD + r];
            if (r < N_OUT)
                row_expect(s, r, x + t * N_IN, &expected, &allowed);
            else
                expected = 77; /* what lies beside the product is left alone */
            if (!(fabs(got - expected) <= allowed))
                fail_msg("%s, type %d (seed %d): token %zu row %zu is %.9g, not %.9g +- %.3g",
                         k->name, (int)s->matrix.type, SEED, t, r, got, expected, allowed);
        }
}

static void test_products(void **state)
{
    (void)state;
    const struct kernels *tables[8];
    size_t n = tables_list(tables);
    for (enum matrix_type type = MATRIX_Q8_0; type < MATRIX_TYPES; type++) {
        struct sample s = sample_make(type);
        for (size_t i = 0; i < n; i++)
            check_product(tables[i], &s);
        sample_free(&s);
    }
}

static void test_rows(void **state)
{
    (void)state;
    const struct kernels *tables[8];
    size_t n = tables_list(tables);
    for (enum matrix_type type = MATRIX_Q8_0; type < MATRIX_TYPES; type++) {
        struct sample s = sample_make(type);
        for (size_t k = 0; k < n; k++)
            for (size_t r = 0; r < N_OUT; r++) {
                float row[N_IN];
                tables[k]->embed_row(row, &s.matrix, r, 2);
                for (size_t i = 0; i < N_IN; i++)
                    assert_true(row[i] == 2 * (float)s.values[r * N_IN + i]);
            }
        sample_free(&s);
    }
}

/* Every table reads the same bytes out of a matrix. */
static void test_tables_agree(void **state)
{
    (void)state;
    const struct kernels *tables[8];
    size_t n = tables_list(tables), size = matrix_widened_size(N_IN);
    for (enum matrix_type type = MATRIX_Q4_0; type < MATRIX_TYPES; type++) {
        struct sample s = sample_make(type);
        uint8_t *first = buffer(size), *other = buffer(size);
        memset(first, 0, size);
        memset(other, 0, size);
        tables[0]->widen(first, first + size / 2, &s.matrix, MATRIX_ROWS);
        for (size_t k = 1; k < n; k++) {
            float rows[2][N_IN];
            tables[k]->widen(other, other + size / 2, &s.matrix, MATRIX_ROWS);
            assert_memory_equal(first, other, size);
            tables[0]->embed_row(rows[0], &s.matrix, 5, 0.7f);
            tables[k]->embed_row(rows[1], &s.matrix, 5, 0.7f);
            assert_memory_equal(rows[0], rows[1], sizeof rows[0]);
        }
        free(first);
        free(other);
        sample_free(&s);
    }
}

/* Some types' values are Q8_0 values; others are the sum of two digits but for 1/32768 of their
 * block's largest, or for the smallest step that a half has. */
static void test_widen(void **state)
{
    (void)state;
    const struct kernels *tables[8];
    size_t n = tables_list(tables), size = matrix_widened_size(N_IN) / 2;
    for (enum matrix_type type = MATRIX_Q4_0; type < MATRIX_TYPES; type++) {
        struct sample s = sample_make(type);
        for (size_t k = 0; k < n; k++) {
            uint8_t *high = buffer(size), *low = buffer(size);
            memset(low, 0, size);
            tables[k]->widen(high, low, &s.matrix, MATRIX_ROWS);
            const double *values = s.values + MATRIX_ROWS * N_IN;
            for (size_t b = 0; b < MATRIX_ROWS * N_IN / Q8_BLOCK; b++) {
                uint16_t halves[2];
                double top = 0;
                memcpy(&halves[0], high + b * Q8_BLOCK_BYTES, 2);
                memcpy(&halves[1], low + b * Q8_BLOCK_BYTES, 2);
                for (size_t i = 0; i < Q8_BLOCK; i++)
                    top = fmax(top, fabs(values[b * Q8_BLOCK + i]));
                for (size_t i = 0; i < Q8_BLOCK; i++) {
                    size_t at = b * Q8_BLOCK_BYTES + 2 + i;
                    double sum = weights_half(halves[0]) * (int8_t)high[at] +
                                 weights_half(halves[1]) * (int8_t)low[at];
                    double allowed = has_two_digits(type) ? top / 32768 + 6e-8 : 0;
                    assert_true(fabs(sum - values[b * Q8_BLOCK + i]) <= allowed);
                }
            }
            free(high);
            free(low);
        }
        sample_free(&s);
    }
}

/* gelu + quantize, seen through a product that picks single values. */
static void test_gelu(void **state)
{
    (void)state;
    const struct kernels *tables[8];
    size_t n = tables_list(tables);
    uint8_t blocks[Q8_BLOCK_BYTES * MATRIX_ROWS] = {0};
    const struct q8_matrix w = {blocks, Q8_BLOCK, MATRIX_ROWS};
    uint16_t one = 0x3c00;
    for (size_t r = 0; r < MATRIX_ROWS; r++) { /* row r picks value r */
        memcpy(blocks + r * Q8_BLOCK_BYTES, &one, 2);
        blocks[r * Q8_BLOCK_BYTES + 2 + r] = 1;
    }
    for (size_t k = 0; k < n; k++)
        for (float value = -30; value < 30; value += 0.0317f) {
            float x[Q8_BLOCK] = {0}, bias[Q8_BLOCK] = {0}, out[MATRIX_ROWS];
            void *packed = buffer(tables[k]->packed_size(1, Q8_BLOCK));
            void *panel = buffer(tables[k]->panel_size(Q8_BLOCK));
            x[3] = value - 0.5f;
            bias[3] = 0.5f;
            tables[k]->gelu_quantize(packed, x, bias, 1, Q8_BLOCK, (struct span){0, 1});
            tables[k]->matmul(out, MATRIX_ROWS, packed, 1, &w, (struct span){0, MATRIX_ROWS},
                              panel);
            double v = (double)(x[3] + 0.5f), expected = v * 0.5 * erfc(-v / sqrt(2));
            if (!(fabs(expected - (double)out[3]) <= 5e-7 * fabs(v)))
                fail_msg("%s: gelu(%g) is %.9g, not %.9g", tables[k]->name, v, (double)out[3],
                         expected);
            free(packed);
            free(panel);
        }
}

static void test_layer_norm(void **state)
{
    (void)state;
    enum { K = 64, N = 3 };
    const struct kernels *tables[8];
    size_t n = tables_list(tables);
    float x[N * K], y[N * K], bias[K], weight[K], shift[K];
    for (size_t k = 0; k < n; k++) {
        double sum[N * K];
        for (size_t i = 0; i < N * K; i++) {
            x[i] = random_unit() * 3 + 5;
            y[i] = random_unit();
            bias[i % K] = random_unit();
            weight[i % K] = random_unit();
            shift[i % K] = random_unit();
        }
        for (size_t i = 0; i < N * K; i++)
            sum[i] = (double)x[i] + (double)y[i] + (double)bias[i % K];
        tables[k]->add_layer_norm(x, y, bias, weight, shift, 1e-5f, N, K);
        for (size_t t = 0; t < N; t++) {
            double mean = 0, square = 0;
            for (size_t i = 0; i < K; i++)
                mean += sum[t * K + i] / K;
            for (size_t i = 0; i < K; i++)
                square += pow(sum[t * K + i] - mean, 2) / K;
            for (size_t i = 0; i < K; i++) {
                double expected =
                    (sum[t * K + i] - mean) / sqrt(square + 1e-5) * (double)weight[i] +
                    (double)shift[i];
                assert_true(fabs((double)x[t * K + i] - expected) < 1e-5);
            }
        }
    }
}

static void test_bias(void **state)
{
    (void)state;
    enum { K = 32, N = 3, ROW = 80 };
    const struct kernels *tables[8];
    size_t n = tables_list(tables);
    for (size_t k = 0; k < n; k++) {
        float x[N * ROW], before[N * ROW], bias[K];
        for (size_t i = 0; i < N * ROW; i++)
            before[i] = x[i] = random_unit();
        for (size_t i = 0; i < K; i++)
            bias[i] = random_unit();
        tables[k]->bias_scale(x, ROW, N, bias, K, 0.25f);
        for (size_t i = 0; i < N * ROW; i++)
            assert_true(x[i] == (i % ROW < K ? (before[i] + bias[i % ROW]) * 0.25f : before[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),     cmocka_unit_test(test_rows),
        cmocka_unit_test(test_widen),        cmocka_unit_test(test_gelu),
        cmocka_unit_test(test_tables_agree), cmocka_unit_test(test_layer_norm),
        cmocka_unit_test(test_bias),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
