/*
 * kernels_avx512.c: AVX-512 with VNNI (F, BW, VL, DQ, VNNI).
 *
 * vpdpbusd multiplies unsigned by signed bytes, 64 products an instruction. Weights stay signed. A
 * 16-bit activation is two bytes, 256 * high + low, so one weight panel serves two passes: high,
 * shift by 8, low. Low is unsigned as it is, high by adding 128. What the 128 adds, 128 times the
 * sum of a row's block, is known when a panel is unpacked, and the sums start from there. All of it
 * is exact in int32: |sum| < 128 * 32768 * 32 + 255 * 128 * 32 < 2^28.
 *
 * Panel: PANEL_ROWS rows of weights, unpacked from the mapped Q8_0 once for all tokens of the
 * call. A block is 32 float scales, 32 int32 to start from, then for each 4 inputs 32 rows of 4
 * bytes: two vectors. 30 KiB for 768 inputs, so it stays in L1 while the tokens stream by from L2
 * (the 45 KiB of 1,152 inputs do where L1 has 48). Two vectors, because a broadcast then serves two
 * multiply-adds: loads would bind where a core does two of these a cycle.
 *
 * Packed: tokens in tiles of up to TILE, so that every broadcast is one constant offset from
 * one pointer. A block of a tile of T is high [T][32], low [T][32]; after the blocks T float
 * scales.
 */
#define VEC 16
#include "inference/kernels_body.h"

#include <immintrin.h>

#include "inference/kernels_bf16.h"

enum {
    PANEL_ROWS = 32,
    TILE = 6,
    QUADS = Q8_BLOCK / 4,
    PANEL_BLOCK = PANEL_ROWS * 8 + Q8_BLOCK * PANEL_ROWS, /* bytes */
    TOKEN_BLOCK = 2 * Q8_BLOCK,                           /* bytes of one token in a block */
};

#include "inference/kernels_tiles.h"

#include "inference/kernels_avx512_internal.h"

static void pack_row(void *packed, size_t n, size_t t, const int16_t *row, size_t k, float scale)
{
    struct place place = place_of(n, t);
    size_t width = place.width, lane = t - place.first;
    int8_t *to = (int8_t *)packed + place.first * token_size(k);
    for (size_t b = 0; b < k / Q8_BLOCK; b++, to += width * TOKEN_BLOCK) {
        /* 256 * high + low, low from 0 to 255; high as unsigned by adding 128 */
        __m512i q = _mm512_loadu_si512(row + b * Q8_BLOCK);
        __m256i high = _mm512_cvtepi16_epi8(_mm512_srai_epi16(q, 8));
        _mm256_storeu_si256((__m256i *)(to + lane * Q8_BLOCK),
                            _mm256_xor_si256(high, _mm256_set1_epi8((char)0x80)));
        _mm256_storeu_si256((__m256i *)(to + (width + lane) * Q8_BLOCK), _mm512_cvtepi16_epi8(q));
    }
    /* `to` is behind the tile's blocks by now, where its scales are. */
    memcpy(to + lane * sizeof scale, &scale, sizeof scale);
}

/* One pass of a block: sum[t] += 32 products for each of 32 rows. */
INLINE void block_pass(__m512i sum[TILE][2], const uint8_t *weights, const int8_t *tokens,
                       const size_t T)
{
    for (size_t i = 0; i < QUADS; i++) {
        __m512i w0 = _mm512_load_si512(weights + i * 128);
        __m512i w1 = _mm512_load_si512(weights + i * 128 + 64);
        for (size_t t = 0; t < T; t++) {
            __m512i x = quad_splat(tokens + t * Q8_BLOCK + i * 4);
            multiply_add(&sum[t][0], x, w0);
            multiply_add(&sum[t][1], x, w1);
        }
    }
}

/* out[t][0..31] for a tile of T tokens and the panel's 32 rows; T is a constant in each use. */
INLINE void tile_matmul(float *out, size_t ld, const uint8_t *panel, const int8_t *tokens,
                        size_t n_blocks, const uint8_t *ahead, const size_t T)
{
    __m512 total[TILE][2];
    for (size_t t = 0; t < T; t++)
        total[t][0] = total[t][1] = _mm512_setzero_ps();
    for (size_t b = 0; b < n_blocks; b++, panel += PANEL_BLOCK, tokens += T * TOKEN_BLOCK) {
        block_prefetch(ahead, b);
        const uint8_t *weights = panel + PANEL_ROWS * 8;
        /* A block of the tile: 32 high bytes of each token, then 32 low ones of each. */
        const int8_t *low = tokens + Q8_BLOCK * T;
        __m512i sum[TILE][2];
        for (size_t i = 0; i < 2; i++) {
            /* -128 times the sum of a row's weights: what the 128 in each high byte adds. */
            __m512i start = _mm512_load_si512(panel + 128 + i * 64);
            for (size_t t = 0; t < T; t++)
                sum[t][i] = start;
        }
        block_pass(sum, weights, tokens, T);
        for (size_t t = 0; t < T; t++)
            for (size_t i = 0; i < 2; i++)
                /* 256 * high; low bytes are unsigned as they are and need no correction. */
                sum[t][i] = _mm512_slli_epi32(sum[t][i], 8);
        block_pass(sum, weights, low, T);
        for (size_t i = 0; i < 2; i++) {
            /* Of the rows' blocks. The token has one scale for all blocks: it comes last. */
            __m512 scales = _mm512_load_ps(panel + i * 64);
            for (size_t t = 0; t < T; t++)
                total[t][i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t][i]), scales, total[t][i]);
        }
    }
    for (size_t t = 0; t < T; t++) {
        float scale;
        memcpy(&scale, tokens + t * sizeof scale, sizeof scale);
        for (size_t i = 0; i < 2; i++)
            _mm512_storeu_ps(out + t * ld + i * 16,
                             _mm512_mul_ps(total[t][i], _mm512_set1_ps(scale)));
    }
}

TILE_FUNCTION(1)
TILE_FUNCTION(2)
TILE_FUNCTION(3)
TILE_FUNCTION(4)
TILE_FUNCTION(5)
TILE_FUNCTION(6)

static tile_function *const tile_functions[TILE + 1] = {NULL,   tile_1, tile_2, tile_3,
                                                        tile_4, tile_5, tile_6};

/* A multiply-add takes two products here, a high byte's and a low one's. */
static uint64_t peak(uint64_t rounds)
{
    return multiply_peak(rounds, 64 / 2);
}

/* With BF16, attention of texts that are long: where it is a third of the time, and a vector the
 * mean of so many tokens that what bfloat16 loses does not show (docs/performance.md). */
enum { LONG_TEXT = 512 }; /* tokens, without the next one */

static size_t long_attention_size(const struct attention_shape *shape)
{
    size_t size = attention_size(shape), bf16_size = kernels_bf16_attention_size(shape);
    return size > bf16_size ? size : bf16_size;
}

static void long_attention(float *q, const float *k, const float *v, size_t n, size_t reach,
                           const struct attention_shape *shape, struct span tokens, void *scratch)
{
    /* n is of the text, prefix included: which way is taken does not depend on the batch. */
    if (n > LONG_TEXT && !shape->bias)
        kernels_bf16_attention(q, k, v, n, reach, shape, tokens, scratch);
    else
        attention(q, k, v, n, reach, shape, tokens, scratch);
}

const struct kernels kernels_avx512 = {
    .name = "avx512",
    .fast = &kernels_avx512_fast,
    .packed_size = packed_size,
    .panel_size = panel_size,
    .matmul = matmul,
    .peak = peak,
    KERNELS_SHARED,
    KERNELS_ATTENTION,
};

const struct kernels kernels_avx512_bf16 = {
    .name = "avx512-bf16",
    .fast = &kernels_avx512_bf16_fast,
    .packed_size = packed_size,
    .panel_size = panel_size,
    .matmul = matmul,
    .peak = peak,
    KERNELS_SHARED,
    .attention_size = long_attention_size,
    .attention = long_attention,
};
