/*
 * kernels_avx512.c: AVX-512 with VNNI (F, BW, VL, DQ, VNNI).
 *
 * vpdpbusd multiplies unsigned by signed bytes, 64 products an instruction. Weights become unsigned
 * by adding 128 when a panel is unpacked; a 16-bit activation is two signed bytes,
 * 256 * high + low, so one weight panel serves two passes: high, shift by 8, low. What the 128
 * added, 128 times the sum of a block's activations, is known when they are packed and taken off
 * between the passes. All of it is exact in int32: |sum| < 255 * 32639 * 32 < 2^28.
 *
 * Panel: MATRIX_ROWS rows of weights, unpacked from the mapped Q8_0 once for all tokens of the
 * call. A block is 16 float scales, then for each 4 inputs 16 rows of 4 bytes: one vector. 13.5 KiB
 * for 768 inputs, so it stays in L1 while the tokens stream by from L2.
 *
 * Packed: tokens in tiles of up to TILE, so that every broadcast is one constant offset from
 * one pointer. A block of a tile of T is high [8][T][4], low [8][T][4], correction int32 [T]; after
 * the blocks T float scales.
 */
#define VEC 16
#include "inference/kernels_body.h"

#include <immintrin.h>

enum {
    TILE = 12,
    QUADS = Q8_BLOCK / 4,
    PANEL_BLOCK = MATRIX_ROWS * 4 + Q8_BLOCK * MATRIX_ROWS, /* bytes */
    TOKEN_BLOCK = 2 * Q8_BLOCK + 4,                         /* bytes of one token in a block */
};

#include "inference/kernels_tiles.h"

static void pack_row(void *packed, size_t n, size_t t, const int16_t *row, size_t k, float scale)
{
    struct place place = place_of(n, t);
    size_t width = place.width, lane = t - place.first;
    int8_t *to = (int8_t *)packed + place.first * token_size(k);
    for (size_t b = 0; b < k / Q8_BLOCK; b++, to += width * TOKEN_BLOCK) {
        __m512i q = _mm512_loadu_si512(row + b * Q8_BLOCK);
        __m256i low = _mm512_cvtepi16_epi8(q);
        __m256i high = _mm512_cvtepi16_epi8(
            _mm512_srai_epi16(_mm512_sub_epi16(q, _mm512_cvtepi8_epi16(low)), 8));
        __m512i pairs = _mm512_madd_epi16(q, _mm512_set1_epi16(1));
        int32_t correction = -128 * _mm512_reduce_add_epi32(pairs);
        int32_t quads[2][QUADS];
        _mm256_storeu_si256((__m256i *)quads[0], high);
        _mm256_storeu_si256((__m256i *)quads[1], low);
        for (size_t half = 0; half < 2; half++)
            for (size_t i = 0; i < QUADS; i++)
                memcpy(to + ((half * QUADS + i) * width + lane) * 4, &quads[half][i], 4);
        memcpy(to + (2 * QUADS * width + lane) * 4, &correction, 4);
    }
    memcpy(to + lane * sizeof scale, &scale, sizeof scale);
}

/* One block of 16 rows, row_size bytes apart: scales, then bytes transposed to 4 inputs by 16 rows.
 */
INLINE void unpack_block(uint8_t *to, const uint8_t *from, size_t row_size)
{
    uint16_t halves[MATRIX_ROWS];
    __m512i r[8], t[8], u[8];
    for (size_t i = 0; i < MATRIX_ROWS; i++)
        memcpy(&halves[i], from + i * row_size, 2);
    _mm512_storeu_ps(to, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)halves)));
    to += MATRIX_ROWS * sizeof(float);
    const __m512i offset = _mm512_set1_epi8((char)0x80);
    for (size_t i = 0; i < 8; i++) {
        __m256i upper = _mm256_loadu_si256((const __m256i *)(from + i * row_size + 2));
        __m256i lower = _mm256_loadu_si256((const __m256i *)(from + (i + 8) * row_size + 2));
        r[i] = _mm512_inserti64x4(_mm512_castsi256_si512(upper), lower, 1);
        r[i] = _mm512_xor_si512(r[i], offset); /* w + 128 as unsigned */
    }
    for (size_t i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (size_t i = 0; i < 8; i += 4) {
        u[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    const __m512i even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    const __m512i odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    for (size_t i = 0; i < 4; i++) {
        _mm512_storeu_si512(to + i * 64, _mm512_permutex2var_epi64(u[i], even, u[i + 4]));
        _mm512_storeu_si512(to + (i + 4) * 64, _mm512_permutex2var_epi64(u[i], odd, u[i + 4]));
    }
}

static void panel_unpack(uint8_t *panel, const struct q8_matrix *w, size_t row)
{
    size_t n_blocks = w->n_in / Q8_BLOCK, row_size = n_blocks * Q8_BLOCK_BYTES;
    const uint8_t *from = w->blocks + row * row_size;
    for (size_t b = 0; b < n_blocks; b++)
        unpack_block(panel + b * PANEL_BLOCK, from + b * Q8_BLOCK_BYTES, row_size);
}

INLINE __m512i quad_splat(const int8_t *p)
{
    int32_t quad;
    memcpy(&quad, p, sizeof quad);
    return _mm512_set1_epi32(quad);
}

typedef int32_t quad __attribute__((may_alias, aligned(1)));

/* *sum += w * the quad at p in all lanes, as one instruction: gcc 12 would broadcast by another one,
 * copy the sum before and move it back after. */
INLINE void multiply_add(__m512i *sum, __m512i w, const int8_t *p)
{
    __asm__ volatile("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(*sum) : "v"(w), "m"(*(const quad *)p));
}

/* One pass of a block: sum[t] += 32 products for each of 16 rows. */
#define BLOCK_PASS(sum, weights, tokens, T)                                                        \
    for (size_t i = 0; i < QUADS; i++) {                                                           \
        __m512i w = _mm512_load_si512((weights) + i * 64);                                         \
        for (size_t t = 0; t < (T); t++)                                                           \
            multiply_add(&(sum)[t], w, (tokens) + (i * (T) + t) * 4);                              \
    }

/* out[t][0..15] for a tile of T tokens and the panel's 16 rows; T is a constant in each use. */
INLINE void tile_matmul(float *out, size_t ld, const uint8_t *panel, const int8_t *tokens,
                        size_t n_blocks, const uint8_t *ahead, const size_t T)
{
    __m512 total[TILE];
    for (size_t t = 0; t < T; t++)
        total[t] = _mm512_setzero_ps();
    for (size_t b = 0; b < n_blocks; b++, panel += PANEL_BLOCK, tokens += T * TOKEN_BLOCK) {
        block_prefetch(ahead, b);
        const uint8_t *weights = panel + MATRIX_ROWS * sizeof(float);
        const int8_t *low = tokens + Q8_BLOCK * T, *correction = low + Q8_BLOCK * T;
        __m512i sum[TILE];
        for (size_t t = 0; t < T; t++)
            sum[t] = _mm512_setzero_si512();
        BLOCK_PASS(sum, weights, tokens, T)
        for (size_t t = 0; t < T; t++)
            sum[t] = _mm512_add_epi32(_mm512_slli_epi32(sum[t], 8), quad_splat(correction + t * 4));
        BLOCK_PASS(sum, weights, low, T)
        __m512 scales = _mm512_load_ps(panel);
        for (size_t t = 0; t < T; t++)
            total[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t]), scales, total[t]);
    }
    for (size_t t = 0; t < T; t++) {
        float scale;
        memcpy(&scale, tokens + t * sizeof scale, sizeof scale);
        _mm512_storeu_ps(out + t * ld, _mm512_mul_ps(total[t], _mm512_set1_ps(scale)));
    }
}

TILE_FUNCTION(1)
TILE_FUNCTION(2)
TILE_FUNCTION(3)
TILE_FUNCTION(4)
TILE_FUNCTION(5)
TILE_FUNCTION(6)
TILE_FUNCTION(7)
TILE_FUNCTION(8)
TILE_FUNCTION(9)
TILE_FUNCTION(10)
TILE_FUNCTION(11)
TILE_FUNCTION(12)

static tile_function *const tile_functions[TILE + 1] = {NULL,    tile_1,  tile_2, tile_3, tile_4,
                                                        tile_5,  tile_6,  tile_7, tile_8, tile_9,
                                                        tile_10, tile_11, tile_12};

/* A tile's worth of sums. A multiply-add takes two products here, a high byte's and a low one's. */
static uint64_t peak(uint64_t rounds)
{
    __m512i sum[TILE], w = _mm512_set1_epi8(3), x = _mm512_set1_epi8(5);
    for (size_t t = 0; t < TILE; t++)
        sum[t] = _mm512_setzero_si512();
    for (uint64_t i = 0; i < rounds; i++)
        for (size_t t = 0; t < TILE; t++)
            sum[t] = _mm512_dpbusd_epi32(sum[t], w, x);
    for (size_t t = 0; t < TILE; t++)
        __asm__ volatile("" : : "v"(sum[t]));
    return rounds * TILE * 64 / 2;
}

const struct kernels kernels_avx512 = {
    .name = "avx512",
    .packed_size = packed_size,
    .panel_size = panel_size,
    .matmul = matmul,
    .peak = peak,
    KERNELS_SHARED,
};
