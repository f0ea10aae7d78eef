/*
 * kernels_rig.c: see kernels_rig.h.
 */
#include "tests/support/kernels_rig.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { GUARD = 64 };

static uint64_t random_state = KERNELS_RIG_SEED;

static uint64_t random_next(void) /* xorshift64*, Vigna 2016 */
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 2685821657736338717ull;
}

float kernels_rig_unit(void) /* [-1, 1) */
{
    return (float)(random_next() >> 40) / 8388608.0f - 1.0f;
}

struct guarded kernels_rig_open(size_t size)
{
    struct guarded g;
    g.size = size;
    size_t whole = (size + 2 * GUARD + 63) / 64 * 64;
    g.base = aligned_alloc(64, whole);
    assert_non_null(g.base);
    memset(g.base, 0xa5, whole);
    g.data = g.base + GUARD;
    return g;
}

void kernels_rig_shut(struct guarded g)
{
    for (size_t i = 0; i < GUARD; i++) {
        assert_int_equal(g.base[i], 0xa5);
        assert_int_equal(g.data[g.size + i], 0xa5);
    }
    free(g.base);
}

const char *const kernels_rig_shapes[N_SHAPES] = {"tiny",    "ordinary", "huge",
                                                  "uniform", "outlier",  "zero"};

void kernels_rig_fill(float *x, size_t n, enum shape shape)
{
    for (size_t i = 0; i < n; i++) {
        float r = kernels_rig_unit();
        switch (shape) {
        case TINY:
            x[i] = r * 1e-20f;
            break;
        case HUGE_VALUES:
            x[i] = r * 1e12f;
            break;
        case UNIFORM:
            x[i] = 0.25f;
            break;
        case OUTLIER:
            x[i] = i % 97 == 5 ? r * 500 : r;
            break;
        case ZERO:
            x[i] = 0;
            break;
        default:
            x[i] = r;
        }
    }
}

uint8_t *kernels_rig_matrix(struct q8_matrix *w, size_t n_in, size_t n_out, bool extreme)
{
    size_t n_blocks = n_in / Q8_BLOCK * n_out;
    uint8_t *blocks = malloc(n_blocks * Q8_BLOCK_BYTES);
    assert_non_null(blocks);
    for (size_t b = 0; b < n_blocks; b++) {
        uint16_t half = (uint16_t)(0x1c00 + random_next() % 0x400); /* about 0.004 to 0.008 */
        if (extreme && b % 7 == 0)
            half = (uint16_t)(b % 3 ? 0x0001 : 0x0000); /* subnormal, zero */
        memcpy(blocks + b * Q8_BLOCK_BYTES, &half, 2);
        for (size_t i = 0; i < Q8_BLOCK; i++)
            blocks[b * Q8_BLOCK_BYTES + 2 + i] =
                extreme ? (i % 2 ? 0x80 : 0x7f) : (uint8_t)random_next();
    }
    *w = (struct q8_matrix){blocks, n_in, n_out};
    return blocks;
}

/* The tables to test against the generic one. A value on the edge between two integers may be
 * rounded either way, with and without a fused multiply-add: 1 in 32639 of a token's largest. */
size_t kernels_rig_tables(const struct kernels *tables[KERNELS_RIG_TABLES])
{
    static const char *const names[] = {"avx512-bf16", "avx512",    "avxvnni",
                                        "avx2",        "neon-i8mm", "neon"};
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

/* Every table there is, generic and fast ones with them. */
size_t kernels_rig_every(const struct kernels *tables[KERNELS_RIG_TABLES])
{
    size_t n = kernels_rig_tables(tables);
    tables[n++] = &kernels_generic;
    for (size_t i = n; i-- > 0;)
        if (tables[i]->fast)
            tables[n++] = tables[i]->fast;
    return n;
}

/* |a - b| within `relative` of the largest value there is. */
void kernels_rig_close(const float *a, const float *b, size_t n, double relative, const char *table,
                       const char *what)
{
    double top = 0;
    for (size_t i = 0; i < n; i++)
        top = fmax(top, fabs((double)a[i]));
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)a[i] - (double)b[i]) <= relative * top))
            fail_msg("%s, %s (seed %d): value %zu is %.9g, expected %.9g, largest %.9g", table,
                     what, KERNELS_RIG_SEED, i, (double)b[i], (double)a[i], top);
}

float *kernels_rig_multiply(const struct kernels *k, const float *x, size_t n,
                            const struct q8_matrix *w, size_t ld)
{
    struct guarded packed = kernels_rig_open(k->packed_size(n, w->n_in));
    struct guarded panel = kernels_rig_open(k->panel_size(w->n_in));
    struct guarded out = kernels_rig_open(n * ld * sizeof(float));
    float *copy = malloc(n * ld * sizeof *copy);
    assert_non_null(copy);
    memset(out.data, 0, out.size);
    /* in shares, the last first, as threads may */
    size_t third = n / 3, half = w->n_out / MATRIX_ROWS / 2 * MATRIX_ROWS;
    k->quantize(packed.data, x, w->n_in, n, w->n_in, (struct span){third, n});
    k->quantize(packed.data, x, w->n_in, n, w->n_in, (struct span){0, third});
    k->matmul((float *)out.data, ld, packed.data, n, w, (struct span){half, w->n_out}, panel.data);
    k->matmul((float *)out.data, ld, packed.data, n, w, (struct span){0, half}, panel.data);
    memcpy(copy, out.data, out.size);
    kernels_rig_shut(packed);
    kernels_rig_shut(panel);
    kernels_rig_shut(out);
    return copy;
}
