/*
 * kernels_avx512_fast.c: AVX-512 with VNNI, activations of 8 bits: see kernels_fast.h.
 *
 * One vpdpbusd for 64 products, where kernels_avx512.c takes two. Activations become unsigned by
 * adding 128, weights stay as they are; what the 128 added, 128 times the sum of a row's block, is
 * known when a panel is unpacked, and the sums start from there.
 *
 * The table "avx512-bf16" differs in attention only: see kernels_bf16.h.
 *
 * Panel: PANEL_ROWS rows of weights. A block is 32 float scales, 32 int32 to start from, then for
 * each 4 inputs 32 rows of 4 bytes.
 *
 * Packed: tokens in tiles of up to TILE. A block of a tile of T is digits [T][32], float scales
 * [T]; after the blocks T numbers of rests, then for each token room for a rest a block.
 */
#define VEC 16
#define KERNELS_FAST
#include "inference/kernels_body.h"

#include <immintrin.h>

#include "inference/kernels_bf16.h"

enum {
    PANEL_ROWS = 32,
    TILE = 6,
    QUADS = Q8_BLOCK / 4,
    PANEL_BLOCK = PANEL_ROWS * 8 + Q8_BLOCK * PANEL_ROWS, /* bytes */
    TOKEN_BLOCK = Q8_BLOCK + 4,                           /* bytes of one token in a block */
};

#include "inference/kernels_tiles.h"

#include "inference/kernels_avx512_internal.h"

static void pack_row(void *packed, size_t n, size_t t, const struct fast_row *row, size_t k)
{
    struct place place = place_of(n, t);
    size_t width = place.width, lane = t - place.first, n_blocks = k / Q8_BLOCK;
    uint8_t *to = (uint8_t *)packed + place.first * token_size(k);
    for (size_t b = 0; b < n_blocks; b++, to += width * TOKEN_BLOCK) {
        __m256i digits = _mm256_load_si256((const __m256i *)(row->digits + b * Q8_BLOCK));
        _mm256_storeu_si256((__m256i *)(to + lane * Q8_BLOCK),
                            _mm256_xor_si256(digits, _mm256_set1_epi8((char)0x80)));
        memcpy(to + width * Q8_BLOCK + lane * 4, &row->scales[b], 4);
    }
    /* `to` is behind the tile's blocks by now: numbers of rests, then room for n_blocks a token. */
    memcpy(to + lane * sizeof row->n_rests, &row->n_rests, sizeof row->n_rests);
    memcpy(to + width * sizeof row->n_rests + lane * n_blocks * sizeof(struct rest), row->rests,
           row->n_rests * sizeof(struct rest));
}

/* *total += the rests of a token times their weights: one byte of each row's quad. */
INLINE void rests_add(__m512 total[2], const uint8_t *panel, const uint8_t *rests, size_t n_rests)
{
    for (size_t e = 0; e < n_rests; e++) {
        struct rest rest;
        memcpy(&rest, rests + e * sizeof rest, sizeof rest);
        const uint8_t *block = panel + rest.input / Q8_BLOCK * PANEL_BLOCK;
        const uint8_t *quad = block + 256 + rest.input % Q8_BLOCK / 4 * 128;
        /* The byte of this input to the top of its lane, and down again with its sign. */
        __m128i shift = _mm_cvtsi32_si128(24 - 8 * (int)(rest.input % 4));
        for (size_t i = 0; i < 2; i++) {
            __m512i w = _mm512_sll_epi32(_mm512_load_si512(quad + i * 64), shift);
            __m512 value =
                _mm512_mul_ps(_mm512_load_ps(block + i * 64), _mm512_set1_ps(rest.value));
            w = _mm512_srai_epi32(w, 24);
            total[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(w), value, total[i]);
        }
    }
}

/* out[t][0..31] for a tile of T tokens and the panel's 32 rows; T is a constant in each use. */
INLINE void tile_matmul(float *out, size_t ld, const uint8_t *panel, const int8_t *tokens,
                        size_t n_blocks, const uint8_t *ahead, const size_t T)
{
    __m512 total[TILE][2];
    const uint8_t *counts = (const uint8_t *)tokens + T * n_blocks * TOKEN_BLOCK;
    for (size_t t = 0; t < T; t++) {
        uint32_t n_rests;
        memcpy(&n_rests, counts + t * sizeof n_rests, sizeof n_rests);
        /* Rests first, then block for block: the order of all tables, or bits would differ. */
        total[t][0] = total[t][1] = _mm512_setzero_ps();
        rests_add(total[t], panel, counts + T * sizeof n_rests + t * n_blocks * TOKEN_RESTS,
                  n_rests);
    }
    for (size_t b = 0; b < n_blocks; b++, panel += PANEL_BLOCK, tokens += T * TOKEN_BLOCK) {
        block_prefetch(ahead, b);
        const uint8_t *weights = panel + 256;
        const int8_t *token_scales = tokens + Q8_BLOCK * T;
        __m512i sum[TILE][2];
        for (size_t i = 0; i < 2; i++) {
            /* -128 times the sum of a row's weights: what the 128 in each digit adds. */
            __m512i start = _mm512_load_si512(panel + 128 + i * 64);
            for (size_t t = 0; t < T; t++)
                sum[t][i] = start;
        }
        for (size_t i = 0; i < QUADS; i++) {
            __m512i w0 = _mm512_load_si512(weights + i * 128);
            __m512i w1 = _mm512_load_si512(weights + i * 128 + 64);
            for (size_t t = 0; t < T; t++) {
                __m512i x = quad_splat(tokens + t * Q8_BLOCK + i * 4);
                multiply_add(&sum[t][0], x, w0);
                multiply_add(&sum[t][1], x, w1);
            }
        }
        for (size_t i = 0; i < 2; i++) {
            __m512 scales = _mm512_load_ps(panel + i * 64);
            for (size_t t = 0; t < T; t++) {
                __m512 x = _mm512_castsi512_ps(quad_splat(token_scales + t * 4));
                total[t][i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t][i]),
                                              _mm512_mul_ps(scales, x), total[t][i]);
            }
        }
    }
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < 2; i++)
            _mm512_storeu_ps(out + t * ld + i * 16, total[t][i]);
}

TILE_FUNCTION(1)
TILE_FUNCTION(2)
TILE_FUNCTION(3)
TILE_FUNCTION(4)
TILE_FUNCTION(5)
TILE_FUNCTION(6)

static tile_function *const tile_functions[TILE + 1] = {NULL,   tile_1, tile_2, tile_3,
                                                        tile_4, tile_5, tile_6};

static uint64_t peak(uint64_t rounds)
{
    return multiply_peak(rounds, 64);
}

const struct kernels kernels_avx512_fast = {
    .name = "avx512",
    .precision = PRECISION_FAST,
    .packed_size = packed_size,
    .panel_size = panel_size,
    .matmul = matmul,
    .peak = peak,
    KERNELS_SHARED,
    KERNELS_ATTENTION,
};

/* What the bfloat16 one does not do, the other does. */
static size_t any_attention_size(const struct attention_shape *shape)
{
    return shape->bias ? attention_size(shape) : kernels_bf16_attention_size(shape);
}

static void any_attention(float *q, const float *k, const float *v, size_t n, size_t reach,
                          const struct attention_shape *shape, struct span tokens, void *scratch)
{
    if (shape->bias)
        attention(q, k, v, n, reach, shape, tokens, scratch);
    else
        kernels_bf16_attention(q, k, v, n, reach, shape, tokens, scratch);
}

const struct kernels kernels_avx512_bf16_fast = {
    .name = "avx512-bf16",
    .precision = PRECISION_FAST,
    .packed_size = packed_size,
    .panel_size = panel_size,
    .matmul = matmul,
    .peak = peak,
    KERNELS_SHARED,
    .attention_size = any_attention_size,
    .attention = any_attention,
};
