/*
 * kernels_generic.c: the table that runs everywhere and that all others are tested against.
 *
 * Packed form: per token the int16 row, then the scale. The product is written for the reader.
 */
#define VEC 4
#include "inference/kernels_body.h"

static size_t token_size(size_t k)
{
    return k * sizeof(int16_t) + sizeof(float);
}

static size_t packed_size(size_t n, size_t k)
{
    return n * token_size(k);
}

static size_t panel_size(size_t k)
{
    return k * sizeof(float);
}

static void pack_row(void *packed, size_t n, size_t t, const int16_t *row, size_t k, float scale)
{
    (void)n;
    char *to = (char *)packed + t * token_size(k);
    memcpy(to, row, k * sizeof *row);
    memcpy(to + k * sizeof *row, &scale, sizeof scale);
}

/* One row of weights times one token: exact in int32 within a block, then float32. */
static float row_dot(const uint8_t *blocks, const char *token, size_t k)
{
    float sum = 0;
    for (size_t b = 0; b < k / Q8_BLOCK; b++, blocks += Q8_BLOCK_BYTES) {
        int16_t x[Q8_BLOCK];
        uint16_t half;
        memcpy(&half, blocks, sizeof half);
        memcpy(x, token + b * sizeof x, sizeof x);
        int32_t exact = 0;
        /* 128 * 32639 * 32 is below 2^27. */
        for (size_t i = 0; i < Q8_BLOCK; i++)
            exact += (int8_t)blocks[2 + i] * x[i];
        sum += half_to_float(half) * (float)exact;
    }
    float scale;
    memcpy(&scale, token + k * sizeof(int16_t), sizeof scale);
    return sum * scale;
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
    uint8_t blocks[Q8_BLOCK_BYTES] = {0};
    char token[Q8_BLOCK * sizeof(int16_t) + sizeof(float)] = {0};
    float sum = 0;
    for (uint64_t i = 0; i < rounds; i++) {
        __asm__ volatile("" : : "r"(blocks), "r"(token) : "memory");
        sum += row_dot(blocks, token, Q8_BLOCK);
    }
    __asm__ volatile("" : : "r"(&sum) : "memory");
    return rounds * Q8_BLOCK;
}

const struct kernels kernels_generic = {
    .name = "generic",
    .fast = &kernels_generic_fast,
    .packed_size = packed_size,
    .panel_size = panel_size,
    .matmul = matmul,
    .peak = peak,
    KERNELS_SHARED,
    KERNELS_ATTENTION,
};
