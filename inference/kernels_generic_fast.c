/*
 * kernels_generic_fast.c: the table of precision "fast" that runs everywhere and that the others
 * are tested against.
 *
 * Packed form: per token the digits, a float scale a block, the number of rests, room for a rest a
 * block. The product is written for the reader; fused multiply-adds, and their order, are those of
 * the other tables, so that they find the same bits.
 */
#define VEC 4
#define KERNELS_FAST
#include "inference/kernels_body.h"

static size_t token_size(size_t k)
{
    return k + k / Q8_BLOCK * (sizeof(float) + sizeof(struct rest)) + sizeof(uint32_t);
}

static size_t packed_size(size_t n, size_t k)
{
    return n * token_size(k);
}

static size_t panel_size(size_t k)
{
    return k * sizeof(float);
}

static void pack_row(void *packed, size_t n, size_t t, const struct fast_row *row, size_t k)
{
    (void)n;
    char *to = (char *)packed + t * token_size(k);
    size_t n_blocks = k / Q8_BLOCK;
    memcpy(to, row->digits, k);
    memcpy(to + k, row->scales, n_blocks * sizeof *row->scales);
    to += k + n_blocks * sizeof *row->scales;
    memcpy(to, &row->n_rests, sizeof row->n_rests);
    memcpy(to + sizeof row->n_rests, row->rests, row->n_rests * sizeof *row->rests);
}

/* A block of weights times a token's digits: exact in int32. */
static int32_t block_dot(const uint8_t *block, const char *digits)
{
    int32_t sum = 0;
    for (size_t i = 0; i < Q8_BLOCK; i++)
        sum += (int8_t)block[2 + i] * (int8_t)digits[i];
    return sum;
}

static float block_scale(const uint8_t *block)
{
    uint16_t half;
    memcpy(&half, block, sizeof half);
    return half_to_float(half);
}

/* One row of weights times one token: the rests first, then block for block. */
static float row_dot(const uint8_t *blocks, const char *token, size_t k)
{
    size_t n_blocks = k / Q8_BLOCK;
    float sum = 0, scales[ROW_MAX / Q8_BLOCK];
    uint32_t n_rests;
    memcpy(scales, token + k, n_blocks * sizeof *scales);
    memcpy(&n_rests, token + k + n_blocks * sizeof *scales, sizeof n_rests);
    const char *rests = token + k + n_blocks * sizeof *scales + sizeof n_rests;
    for (size_t e = 0; e < n_rests; e++) {
        struct rest rest;
        memcpy(&rest, rests + e * sizeof rest, sizeof rest);
        const uint8_t *block = blocks + rest.input / Q8_BLOCK * Q8_BLOCK_BYTES;
        float weight = (float)(int8_t)block[2 + rest.input % Q8_BLOCK];
        /* Scale times rest is rounded first, as in the tables with vectors. */
        sum = fmaf(weight, block_scale(block) * rest.value, sum);
    }
    for (size_t b = 0; b < n_blocks; b++, blocks += Q8_BLOCK_BYTES)
        sum = fmaf((float)block_dot(blocks, token + b * Q8_BLOCK), block_scale(blocks) * scales[b],
                   sum);
    return sum;
}

static void matmul(float *out, size_t ld, const void *packed, size_t n, const struct q8_matrix *w,
                   struct span rows, void *panel)
{
    (void)panel;
    size_t row_size = w->n_in / Q8_BLOCK * Q8_BLOCK_BYTES;
    for (size_t r = rows.first; r < rows.last; r++)
        for (size_t t = 0; t < n; t++)
            out[t * ld + r] = row_dot(w->blocks + r * row_size,
                                      (const char *)packed + t * token_size(w->n_in), w->n_in);
}

/* Portable C has no registers to name: one block, in the L1 cache. */
static uint64_t peak(uint64_t rounds)
{
    uint8_t block[Q8_BLOCK_BYTES] = {0};
    char digits[Q8_BLOCK] = {0};
    int32_t sum = 0;
    for (uint64_t i = 0; i < rounds; i++) {
        __asm__ volatile("" : : "r"(block), "r"(digits) : "memory");
        sum += block_dot(block, digits);
    }
    __asm__ volatile("" : : "r"(&sum) : "memory");
    return rounds * Q8_BLOCK;
}

const struct kernels kernels_generic_fast = {
    .name = "generic",
    .precision = PRECISION_FAST,
    .packed_size = packed_size,
    .panel_size = panel_size,
    .matmul = matmul,
    .peak = peak,
    KERNELS_SHARED,
    KERNELS_ATTENTION,
};
