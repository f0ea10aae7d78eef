/*
 * test_kernels.c: every kernel table this CPU has, against the generic one; `--bench` times them.
 *
 * Inputs: tiny, ordinary, huge, uniform, with one outlier, all zero. Sizes: every number of tokens
 * a tile can have and then some. Outputs stand between guard bytes.
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

#include "inference/kernels.h"
#include "tests/support/kernels_bench.h"
#include "tests/support/kernels_rig.h"

static void test_matmul(void **state)
{
    (void)state;
    static const size_t token_counts[] = {1,  2,  3,  4,  5,  6,  7,  8,   9,   10, 11,
                                          12, 13, 16, 23, 25, 37, 61, 100, 255, 256};
    static const size_t sizes[][2] = {{32, 32}, {64, 96}, {96, 64}, {768, 128}, {1152, 32}};
    const struct kernels *tables[KERNELS_RIG_TABLES];
    size_t n_tables = kernels_rig_tables(tables);
    for (size_t c = 0; c < sizeof token_counts / sizeof *token_counts; c++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            struct q8_matrix w;
            size_t n = token_counts[c], ld = sizes[s][1] + (s % 2) * 16;
            uint8_t *blocks = kernels_rig_matrix(&w, sizes[s][0], sizes[s][1], (c + s) % 3 == 0);
            enum shape shape = (enum shape)((c * 5 + s) % N_SHAPES);
            float *x = malloc(n * w.n_in * sizeof *x);
            assert_non_null(x);
            kernels_rig_fill(x, n * w.n_in, shape);
            float *expected = kernels_rig_multiply(&kernels_generic, x, n, &w, ld);
            for (size_t t = 0; t < n_tables; t++) {
                float *got = kernels_rig_multiply(tables[t], x, n, &w, ld);
                kernels_rig_close(expected, got, n * ld, 3e-5, tables[t]->name,
                                  kernels_rig_shapes[shape]);
                free(got);
            }
            free(expected);
            free(x);
            free(blocks);
        }
}

/* Generic itself against plain arithmetic in double: the quantised product is near the real one. */
static void test_matmul_generic_is_right(void **state)
{
    (void)state;
    struct q8_matrix w;
    size_t n = 5;
    uint8_t *blocks = kernels_rig_matrix(&w, 768, 32, false);
    float x[5 * 768], weight[768];
    kernels_rig_fill(x, n * w.n_in, ORDINARY);
    float *got = kernels_rig_multiply(&kernels_generic, x, n, &w, w.n_out);
    for (size_t r = 0; r < w.n_out; r++) {
        const struct matrix whole = {w.blocks, w.n_in, w.n_out, MATRIX_Q8_0};
        kernels_generic.embed_row(weight, &whole, r, 1.0f);
        for (size_t t = 0; t < n; t++) {
            double sum = 0;
            for (size_t i = 0; i < w.n_in; i++)
                sum += (double)weight[i] * (double)x[t * w.n_in + i];
            assert_true(fabs(sum - (double)got[t * w.n_out + r]) < 1e-3);
        }
    }
    free(got);
    free(blocks);
}

/* The same token gives the same bits whatever its neighbours and its place. */
static void test_matmul_place(void **state)
{
    (void)state;
    const struct kernels *tables[KERNELS_RIG_TABLES];
    size_t n_tables = kernels_rig_every(tables);
    struct q8_matrix w;
    uint8_t *blocks = kernels_rig_matrix(&w, 768, 96, false);
    float *x = malloc(256 * 768 * sizeof *x);
    assert_non_null(x);
    kernels_rig_fill(x, 256 * 768, OUTLIER);
    for (size_t k = 0; k < n_tables; k++) {
        float *all = kernels_rig_multiply(tables[k], x, 256, &w, 96);
        for (size_t t = 0; t < 256; t += 17) {
            float *alone = kernels_rig_multiply(tables[k], x + t * 768, 1, &w, 96);
            assert_memory_equal(all + t * 96, alone, 96 * sizeof *alone);
            free(alone);
        }
        free(all);
    }
    free(x);
    free(blocks);
}

/* The two NEON tables sum the same integers in the same order: the same bits. */
static void test_neon_tables_agree(void **state)
{
    (void)state;
    const struct kernels *sdot = kernels_find("neon"), *smmla = kernels_find("neon-i8mm");
    if (!sdot || !smmla) {
        print_message("this CPU or build has not both of 'neon' and 'neon-i8mm'\n");
        return;
    }
    struct q8_matrix w;
    uint8_t *blocks = kernels_rig_matrix(&w, 768, 96, false);
    float *x = malloc(23 * 768 * sizeof *x);
    assert_non_null(x);
    kernels_rig_fill(x, 23 * 768, OUTLIER);
    for (size_t n = 1; n <= 23; n++) {
        float *a = kernels_rig_multiply(sdot, x, n, &w, 96),
              *b = kernels_rig_multiply(smmla, x, n, &w, 96);
        assert_memory_equal(a, b, n * 96 * sizeof *a);
        free(a);
        free(b);
    }
    free(x);
    free(blocks);
}

/* norm + quantize and GELU + quantize, seen through a product with a known matrix. Digits of 8 bits
 * may differ by one where a norm or a GELU did by a rounding. */
static void check_fused(const struct kernels *const *tables, size_t n_tables,
                        const struct kernels *expected, double relative)
{
    size_t n = 7, k_in = 96;
    struct q8_matrix w;
    uint8_t *blocks = kernels_rig_matrix(&w, k_in, 32, false);
    struct span all = {0, n};
    float x[7 * 192], norm[96], out[2][7 * 32];
    for (int shape = 0; shape < N_SHAPES; shape++)
        for (int gelu = 0; gelu < 2; gelu++) {
            kernels_rig_fill(x, 7 * 192, (enum shape)shape);
            kernels_rig_fill(norm, 96, ORDINARY);
            for (size_t t = 0; t <= n_tables; t++) {
                const struct kernels *k = t ? tables[t - 1] : expected;
                struct guarded packed = kernels_rig_open(k->packed_size(n, k_in));
                struct guarded panel = kernels_rig_open(k->panel_size(k_in));
                if (gelu)
                    k->geglu_quantize(packed.data, x, n, k_in, all);
                else
                    k->rms_norm_quantize(packed.data, x, norm, 1e-6f, n, k_in, all);
                k->matmul(out[t > 0], 32, packed.data, n, &w, (struct span){0, 32}, panel.data);
                if (t)
                    kernels_rig_close(out[0], out[1], n * 32, relative, k->name,
                                      kernels_rig_shapes[shape]);
                kernels_rig_shut(packed);
                kernels_rig_shut(panel);
            }
        }
    free(blocks);
}

static void test_fused(void **state)
{
    (void)state;
    const struct kernels *tables[KERNELS_RIG_TABLES], *fast[KERNELS_RIG_TABLES];
    size_t n_tables = kernels_rig_tables(tables), n_fast = 0;
    for (size_t i = 0; i < n_tables; i++)
        if (tables[i]->fast)
            fast[n_fast++] = tables[i]->fast;
    check_fused(tables, n_tables, &kernels_generic, 1e-4);
    check_fused(fast, n_fast, &kernels_generic_fast, 3e-3);
}

static void test_gelu_is_right(void **state)
{
    (void)state;
    const struct kernels *tables[KERNELS_RIG_TABLES];
    size_t n_tables = kernels_rig_tables(tables);
    tables[n_tables++] = &kernels_generic;
    uint8_t block[Q8_BLOCK_BYTES * MATRIX_ROWS] = {0};
    struct q8_matrix w = {block, Q8_BLOCK, MATRIX_ROWS};
    uint16_t one = 0x3c00;
    for (size_t r = 0; r < MATRIX_ROWS; r++) { /* row r picks value r */
        memcpy(block + r * Q8_BLOCK_BYTES, &one, 2);
        block[r * Q8_BLOCK_BYTES + 2 + r] = 1;
    }
    for (size_t k = 0; k < n_tables; k++)
        for (float value = -30; value < 30; value += 0.37f) {
            float gate_up[2 * Q8_BLOCK] = {0}, out[MATRIX_ROWS];
            struct guarded packed = kernels_rig_open(tables[k]->packed_size(1, Q8_BLOCK));
            struct guarded panel = kernels_rig_open(tables[k]->panel_size(Q8_BLOCK));
            gate_up[3] = value;
            gate_up[Q8_BLOCK + 3] = 2;
            double v = (double)value;
            const double expected[3] = {
                v * (1 + tanh(0.7978845608028654 * (v + 0.044715 * v * v * v))),
                v * (1 + erf(v / sqrt(2))), 2 * v / (1 + exp(-v))};
            for (int what = 0; what < 3; what++) {
                struct span token = {0, 1};
                if (what == 0)
                    tables[k]->geglu_quantize(packed.data, gate_up, 1, Q8_BLOCK, token);
                else
                    tables[k]->glu_quantize(packed.data, gate_up, 1, Q8_BLOCK,
                                            what == 1 ? GLU_GELU : GLU_SILU, token);
                tables[k]->matmul(out, MATRIX_ROWS, packed.data, 1, &w,
                                  (struct span){0, MATRIX_ROWS}, panel.data);
                assert_true(fabs(expected[what] - (double)out[3]) <= 2e-6 * fabs(v) + 1e-9);
            }
            kernels_rig_shut(packed);
            kernels_rig_shut(panel);
        }
}

static void test_rows(void **state)
{
    (void)state;
    const struct kernels *tables[KERNELS_RIG_TABLES];
    size_t n_tables = kernels_rig_tables(tables);
    float base[5 * 64], y[5 * 64], weight[64], out[2][5 * 64];
    for (int shape = 0; shape < N_SHAPES; shape++) {
        kernels_rig_fill(base, 5 * 64, (enum shape)shape);
        kernels_rig_fill(y, 5 * 64, ORDINARY);
        kernels_rig_fill(weight, 64, ORDINARY);
        for (int what = 0; what < 4; what++)
            for (size_t t = 0; t <= n_tables; t++) {
                const struct kernels *k = t ? tables[t - 1] : &kernels_generic;
                struct guarded g = kernels_rig_open(sizeof base);
                float *x = (float *)g.data;
                memcpy(x, base, sizeof base);
                if (what == 0)
                    k->add_rms_norm(x, y, weight, 1e-6f, 5, 64);
                else if (what == 1)
                    k->rms_norm(x, weight, 1e-6f, 5, 64);
                else if (what == 2)
                    k->mean_rows(x, y, 5, 64);
                else
                    k->unit(x, 64);
                memcpy(out[t > 0], x, sizeof base);
                if (t)
                    kernels_rig_close(out[0], out[1], 5 * 64, 2e-6, k->name,
                                      kernels_rig_shapes[shape]);
                kernels_rig_shut(g);
            }
    }
}

/* Attention in double, straight from its definition. */
static void attention_plain(double *out, const float *qkv, size_t n, size_t reach,
                            const struct attention_shape *a)
{
    size_t d = a->head_dim, group = a->n_heads / a->n_kv_heads;
    double *weight = malloc(n * sizeof *weight);
    assert_non_null(weight);
    for (size_t i = 0; i < n; i++)
        for (size_t h = 0; h < a->n_heads; h++) {
            const float *q = qkv + i * a->ld + h * d;
            double top = -INFINITY, sum = 0;
            for (size_t j = 0; j < n; j++) {
                const float *k = qkv + j * a->ld + (a->n_heads + h / group) * d;
                weight[j] = 0;
                for (size_t c = 0; c < d; c++)
                    weight[j] += (double)q[c] * (double)k[c];
                if (a->bias)
                    weight[j] += (double)a->bias[h * a->bias_ld + a->bias_ld / 2 + i - j];
                if ((i > j ? i - j : j - i) > reach || (a->is_causal && j > i))
                    weight[j] = -INFINITY;
                top = fmax(top, weight[j]);
            }
            for (size_t j = 0; j < n; j++)
                sum += weight[j] = exp(weight[j] - top);
            for (size_t c = 0; c < d; c++) {
                double o = 0;
                for (size_t j = 0; j < n; j++)
                    o += weight[j] / sum *
                         (double)qkv[j * a->ld + (a->n_heads + a->n_kv_heads + h / group) * d + c];
                out[(i * a->n_heads + h) * d + c] = o;
            }
        }
    free(weight);
}

/* All tokens but in two shares, which meet at `cut`. */
static float *attention_run(const struct kernels *k, const float *qkv, size_t n, size_t reach,
                            const struct attention_shape *a, size_t cut)
{
    struct guarded g = kernels_rig_open(n * a->ld * sizeof(float));
    void *scratch = aligned_alloc(64, (k->attention_size(a) + 63) / 64 * 64);
    float *out = malloc(g.size), *q = (float *)g.data;
    assert_non_null(scratch);
    assert_non_null(out);
    memcpy(q, qkv, g.size);
    const float *keys = q + a->n_heads * a->head_dim, *values = keys + a->n_kv_heads * a->head_dim;
    k->attention(q, keys, values, n, reach, a, (struct span){cut, n}, scratch);
    k->attention(q, keys, values, n, reach, a, (struct span){0, cut}, scratch);
    memcpy(out, q, g.size);
    free(scratch);
    kernels_rig_shut(g);
    return out;
}

/* Weights are bfloat16, 8 bits, in "fast" and for long texts; scores of `scale` squared as well. */
static void attention_check(const struct kernels *k, size_t n, size_t reach,
                            const struct attention_shape *a, float scale)
{
    size_t d = a->head_dim;
    bool is_bf16 = strcmp(k->name, "avx512-bf16") == 0 &&
                   (k->precision == PRECISION_FAST || n > 512) && !a->bias;
    double allowed = is_bf16 ? 0.02 * (double)scale * (double)scale : 2e-5;
    double *expected = malloc(n * a->n_heads * d * sizeof *expected);
    float *qkv = malloc(n * a->ld * sizeof *qkv);
    assert_non_null(expected);
    assert_non_null(qkv);
    for (size_t i = 0; i < n * a->ld; i++)
        qkv[i] = kernels_rig_unit() * scale;
    attention_plain(expected, qkv, n, reach, a);
    float *got = attention_run(k, qkv, n, reach, a, n / 3);
    for (size_t i = 0; i < n; i++)
        for (size_t c = 0; c < a->n_heads * d; c++) {
            double want = expected[i * a->n_heads * d + c], is = (double)got[i * a->ld + c];
            if (!(fabs(want - is) <= allowed * (double)scale))
                fail_msg(
                    "%s: attention of %zu tokens, reach %zu: token %zu value %zu is %g, not %g",
                    k->name, n, reach, i, c, is, want);
        }
    float *same = attention_run(k, qkv, n, reach, a, n / 2); /* shares change nothing */
    assert_memory_equal(got, same, n * a->ld * sizeof *got);
    free(expected);
    free(qkv);
    free(got);
    free(same);
}

static void test_attention(void **state)
{
    (void)state;
    static const size_t lengths[] = {1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 64, 77};
    enum { SHAPES = 6, BIASED = SHAPES - 1, MIDDLE = 531 + BIAS_ROOM };
    static float bias[2 * 2 * MIDDLE];
    static const struct attention_shape shapes[SHAPES] = {
        {3, 1, 32, 160, false, NULL, 0},     {2, 1, 64, 256, false, NULL, 0},
        {4, 2, 32, 256 + 16, true, NULL, 0}, {1, 1, 96, 288, false, NULL, 0},
        {2, 2, 64, 384, true, NULL, 0},      {2, 2, 64, 384, false, bias, 2 * MIDDLE}};
    kernels_rig_fill(bias, sizeof bias / sizeof *bias, ORDINARY);
    const struct kernels *tables[KERNELS_RIG_TABLES];
    size_t n_tables = kernels_rig_every(tables);
    for (size_t t = 0; t < n_tables; t++) {
        for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
            for (size_t s = 0; s < SHAPES; s++) {
                attention_check(tables[t], lengths[l], lengths[l], &shapes[s], 1);
                attention_check(tables[t], lengths[l], 5, &shapes[s], 1);
                attention_check(tables[t], lengths[l], 0, &shapes[s], 4);
            }
        attention_check(tables[t], 531, 531, &shapes[0], 1);
        attention_check(tables[t], 513, 100, &shapes[0], 1);
        attention_check(tables[t], 531, 531, &shapes[4], 1);
        attention_check(tables[t], 531, 531, &shapes[BIASED], 1);
    }
}

static void test_norm_rope(void **state)
{
    (void)state;
    const struct kernels *tables[KERNELS_RIG_TABLES];
    size_t n_tables = kernels_rig_tables(tables);
    tables[n_tables++] = &kernels_generic;
    enum { D = 64, HEADS = 3, N = 4, LD = 256 };
    static const uint32_t positions[N] = {0, 1, 5, 9};
    float table[10 * D], weight[D];
    kernels_rig_fill(weight, D, ORDINARY);
    for (size_t p = 0; p < 10; p++)
        for (size_t i = 0; i < D / 2; i++) {
            double angle = (double)p * pow(10000, -2.0 * (double)i / D);
            table[p * D + i] = (float)cos(angle);
            table[p * D + D / 2 + i] = (float)sin(angle);
        }
    for (size_t k = 0; k < 2 * n_tables; k++) {
        bool is_normed = k < n_tables;
        struct guarded g = kernels_rig_open(N * LD * sizeof(float));
        float *x = (float *)g.data, before[N * LD];
        kernels_rig_fill(x, N * LD, ORDINARY);
        memcpy(before, x, sizeof before);
        tables[k % n_tables]->norm_rope(x, LD, N, HEADS, D, is_normed ? weight : NULL, 1e-6f, table,
                                        positions, 0.5f);
        for (size_t t = 0; t < N; t++)
            for (size_t h = 0; h < HEADS; h++) {
                const float *v = before + t * LD + h * D;
                double sum = 0;
                for (size_t i = 0; i < D; i++)
                    sum += (double)v[i] * (double)v[i];
                double inverse = is_normed ? 0.5 / sqrt(sum / D + 1e-6) : 0.5;
                for (size_t i = 0; i < D / 2; i++) {
                    double angle = positions[t] * pow(10000, -2.0 * (double)i / D);
                    double a = (double)v[i] * inverse, b = (double)v[i + D / 2] * inverse;
                    if (is_normed) {
                        a *= (double)weight[i];
                        b *= (double)weight[i + D / 2];
                    }
                    const float *got = x + t * LD + h * D;
                    assert_true(fabs(a * cos(angle) - b * sin(angle) - (double)got[i]) < 1e-5);
                    assert_true(fabs(b * cos(angle) + a * sin(angle) - (double)got[i + D / 2]) <
                                1e-5);
                }
            }
        for (size_t t = 0; t < N; t++) /* what is not a head stays */
            assert_memory_equal(x + t * LD + HEADS * D, before + t * LD + HEADS * D,
                                (LD - HEADS * D) * sizeof(float));
        kernels_rig_shut(g);
    }
}

static void test_find(void **state)
{
    (void)state;
    char names[64];
    assert_null(kernels_find("no such table"));
    assert_ptr_equal(kernels_find("generic"), &kernels_generic);
    assert_non_null(kernels_find(NULL));
    assert_non_null(strstr(kernels_list(names, sizeof names), "generic"));
}

static int bench(void)
{
    const struct kernels *tables[KERNELS_RIG_TABLES];
    size_t n_tables = kernels_rig_every(tables);
    for (size_t k = 0; k < n_tables; k++)
        kernels_bench(tables[k]);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_matmul_generic_is_right),
        cmocka_unit_test(test_matmul_place),
        cmocka_unit_test(test_neon_tables_agree),
        cmocka_unit_test(test_fused),
        cmocka_unit_test(test_gelu_is_right),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_norm_rope),
    };
    if (argc > 1 && strcmp(argv[1], "--bench") == 0)
        return bench();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
