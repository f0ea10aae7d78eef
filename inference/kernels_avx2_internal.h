/*
 * kernels_avx2_internal.h: AVX2 with FMA and F16C, in both precisions. All of kernels_avx2.c and
 * kernels_avx2_fast.c, which sets KERNELS_FAST.
 *
 * vpmaddwd multiplies 16 pairs of int16 and adds each pair, exactly: int8 weights are widened to
 * int16 when a panel is unpacked, activations are int16 as they are. (vpmaddubsw would do twice as
 * many but saturates at int16 and needs both signs dealt with; measured, it gains nothing here.)
 *
 * Panel: PANEL_ROWS rows of weights, unpacked from the mapped Q8_0 once for all tokens of the
 * call. A block is 16 float scales, then for each pair of inputs 16 rows of 2 int16: two vectors.
 *
 * Pairs: widening bytes 0..3 of a 32-bit lane by shifts gives (0, 2) and (1, 3), so activations are
 * packed in that order too: pair p of a block holds inputs 4 (p / 2) + p % 2 and the one two after
 * it.
 *
 * Precision fast has digits of 8 bits in 16, as there is no instruction for them that would be
 * faster: what it gives is the vectors of the other fast tables, not their speed.
 *
 * Packed: tokens in tiles of up to TILE; a block of a tile of T is int16 [16 pairs][T][2]; after
 * the blocks T float scales. Of precision fast a block ends with T float scales, and after the
 * blocks are T numbers of rests, then for each token room for a rest a block. Every broadcast is
 * one constant offset from one pointer.
 */
#define VEC 8
#include "inference/kernels_body.h"

enum {
    PANEL_ROWS = 16,
    TILE = 4,
    PAIRS = Q8_BLOCK / 2,
    PANEL_BLOCK = PANEL_ROWS * 4 + Q8_BLOCK * PANEL_ROWS * 2, /* bytes */
#ifdef KERNELS_FAST
    TOKEN_BLOCK = Q8_BLOCK * 2 + 4, /* bytes of one token in a block */
#else
    TOKEN_BLOCK = Q8_BLOCK * 2,
#endif
};

#include "inference/kernels_tiles.h"

/* A block of one token of a tile of `width`: 32 int16, within each 4 in the order 0 2 1 3. */
INLINE void block_pack(int8_t *to, size_t width, __m256i first, __m256i second)
{
    const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0,
                                           1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
    int32_t pairs[PAIRS];
    _mm256_storeu_si256((__m256i *)pairs, _mm256_shuffle_epi8(first, order));
    _mm256_storeu_si256((__m256i *)(pairs + 8), _mm256_shuffle_epi8(second, order));
    for (size_t i = 0; i < PAIRS; i++)
        memcpy(to + i * width * 4, &pairs[i], 4);
}

#ifdef KERNELS_FAST
static void pack_row(void *packed, size_t n, size_t t, const struct fast_row *row, size_t k)
{
    struct place place = place_of(n, t);
    size_t width = place.width, lane = t - place.first, n_blocks = k / Q8_BLOCK;
    int8_t *to = (int8_t *)packed + place.first * token_size(k);
    for (size_t b = 0; b < n_blocks; b++, to += width * TOKEN_BLOCK) {
        const __m128i *digits = (const __m128i *)(row->digits + b * Q8_BLOCK);
        block_pack(to + lane * 4, width, _mm256_cvtepi8_epi16(_mm_load_si128(digits)),
                   _mm256_cvtepi8_epi16(_mm_load_si128(digits + 1)));
        memcpy(to + (PAIRS * width + lane) * 4, &row->scales[b], 4);
    }
    memcpy(to + lane * sizeof row->n_rests, &row->n_rests, sizeof row->n_rests);
    memcpy(to + width * sizeof row->n_rests + lane * n_blocks * sizeof(struct rest), row->rests,
           row->n_rests * sizeof(struct rest));
}
#else
static void pack_row(void *packed, size_t n, size_t t, const int16_t *row, size_t k, float scale)
{
    struct place place = place_of(n, t);
    size_t width = place.width, lane = t - place.first;
    int8_t *to = (int8_t *)packed + place.first * token_size(k);
    for (size_t b = 0; b < k / Q8_BLOCK; b++, to += width * TOKEN_BLOCK) {
        const __m256i *from = (const __m256i *)(row + b * Q8_BLOCK);
        block_pack(to + lane * 4, width, _mm256_loadu_si256(from), _mm256_loadu_si256(from + 1));
    }
    memcpy(to + lane * sizeof scale, &scale, sizeof scale);
}
#endif

/* Eight rows of a block, row_size bytes apart: bytes transposed to 4 inputs by 8 rows, then
 * widened. to: the vectors of these rows, every second one of the panel's. */
INLINE void unpack_rows(uint8_t *to, const uint8_t *from, size_t row_size)
{
    __m256i r[8];
    for (size_t i = 0; i < 8; i++)
        r[i] = _mm256_loadu_si256((const __m256i *)(from + i * row_size + 2));
    lanes_transpose(r);
    for (size_t i = 0; i < 8; i++) { /* quad i: inputs 4 i .. 4 i + 3 of 8 rows */
        /* Inputs 0 and 2 of each row, then 1 and 3: bytes widened where they are. */
        __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(r[i], 8), 8);
        __m256i odd = _mm256_srai_epi16(r[i], 8);
        _mm256_storeu_si256((__m256i *)(to + i * 128), even);
        _mm256_storeu_si256((__m256i *)(to + i * 128 + 64), odd);
    }
}

static void panel_unpack(uint8_t *panel, const struct q8_matrix *w, size_t row)
{
    size_t n_blocks = w->n_in / Q8_BLOCK, row_size = n_blocks * Q8_BLOCK_BYTES;
    const uint8_t *from = w->blocks + row * row_size;
    for (size_t b = 0; b < n_blocks; b++, from += Q8_BLOCK_BYTES, panel += PANEL_BLOCK) {
        uint16_t halves[PANEL_ROWS];
        for (size_t i = 0; i < PANEL_ROWS; i++)
            memcpy(&halves[i], from + i * row_size, 2);
        for (size_t i = 0; i < 2; i++) {
            __m128i half = _mm_loadu_si128((const __m128i *)(halves + i * 8));
            _mm256_storeu_ps((float *)(panel + i * 32), _mm256_cvtph_ps(half));
            unpack_rows(panel + 64 + i * 32, from + i * 8 * row_size, row_size);
        }
    }
}

INLINE __m256i pair_splat(const int8_t *p)
{
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return _mm256_set1_epi32(pair);
}

/* *sum += product. gcc 12 would add into other registers and move the sums back in every step, and
 * these moves, not the multiplications, would then bind. */
INLINE void add_in_place(__m256i *sum, __m256i product)
{
    __asm__("vpaddd %1, %0, %0" : "+x"(*sum) : "x"(product));
}

#ifdef KERNELS_FAST
/* total += the rests of a token times their weights: one of each row's 4 of a quad. */
INLINE void rests_add(__m256 total[2], const uint8_t *panel, const uint8_t *rests, size_t n_rests)
{
    for (size_t e = 0; e < n_rests; e++) {
        struct rest rest;
        memcpy(&rest, rests + e * sizeof rest, sizeof rest);
        const uint8_t *block = panel + rest.input / Q8_BLOCK * PANEL_BLOCK;
        size_t pair = rest.input % Q8_BLOCK / 4 * 2 + rest.input % 2;
        /* Of a pair the lower 16 bits, inputs 0 and 1 of a quad, or the upper ones, with their
         * sign. */
        __m128i shift = _mm_cvtsi32_si128(rest.input % 4 < 2 ? 16 : 0);
        for (size_t i = 0; i < 2; i++) {
            __m256i w = _mm256_load_si256((const __m256i *)(block + 64 + pair * 64 + i * 32));
            __m256 value = _mm256_mul_ps(_mm256_load_ps((const float *)(block + i * 32)),
                                         _mm256_set1_ps(rest.value));
            w = _mm256_srai_epi32(_mm256_sll_epi32(w, shift), 16);
            total[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(w), value, total[i]);
        }
    }
}
#endif

/* What the float sums of a tile start from. */
INLINE void totals_start(__m256 total[TILE][2], const uint8_t *panel, const int8_t *tokens,
                         size_t n_blocks, const size_t T)
{
    for (size_t t = 0; t < T; t++)
        total[t][0] = total[t][1] = _mm256_setzero_ps();
#ifdef KERNELS_FAST
    const uint8_t *counts = (const uint8_t *)tokens + T * n_blocks * TOKEN_BLOCK;
    for (size_t t = 0; t < T; t++) {
        uint32_t n_rests;
        memcpy(&n_rests, counts + t * sizeof n_rests, sizeof n_rests);
        rests_add(total[t], panel, counts + T * sizeof n_rests + t * n_blocks * TOKEN_RESTS,
                  n_rests);
    }
#else
    (void)panel, (void)tokens, (void)n_blocks;
#endif
}

INLINE __m256 float_splat(const int8_t *p)
{
    return _mm256_castsi256_ps(pair_splat(p));
}

/* out[t][0..15] for a tile of T tokens and the panel's 16 rows; T is a constant in each use. The
 * float sums live in memory: 16 registers hold the integer sums of a block and nothing more. */
INLINE void tile_matmul(float *out, size_t ld, const uint8_t *panel, const int8_t *tokens,
                        size_t n_blocks, const uint8_t *ahead, const size_t T)
{
    __m256 total[TILE][2];
    totals_start(total, panel, tokens, n_blocks, T);
    for (size_t b = 0; b < n_blocks; b++, panel += PANEL_BLOCK, tokens += T * TOKEN_BLOCK) {
        block_prefetch(ahead, b);
        const __m256i *weights = (const __m256i *)(panel + 64);
        __m256i sum[TILE][2];
        for (size_t t = 0; t < T; t++)
            sum[t][0] = sum[t][1] = _mm256_setzero_si256();
        for (size_t i = 0; i < PAIRS; i++) {
            __m256i w0 = _mm256_load_si256(weights + 2 * i);
            __m256i w1 = _mm256_load_si256(weights + 2 * i + 1);
            for (size_t t = 0; t < T; t++) {
                __m256i x = pair_splat(tokens + (i * T + t) * 4);
                add_in_place(&sum[t][0], _mm256_madd_epi16(w0, x));
                add_in_place(&sum[t][1], _mm256_madd_epi16(w1, x));
            }
        }
        /* Two int16 products are below 2^23, a block's sum below 2^27: exact so far. */
        __m256 d0 = _mm256_load_ps((const float *)panel);
        __m256 d1 = _mm256_load_ps((const float *)panel + 8);
        for (size_t t = 0; t < T; t++) {
#ifdef KERNELS_FAST
            __m256 x = float_splat(tokens + (PAIRS * T + t) * 4);
            __m256 s0 = _mm256_mul_ps(d0, x), s1 = _mm256_mul_ps(d1, x);
#else
            __m256 s0 = d0, s1 = d1;
#endif
            total[t][0] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[t][0]), s0, total[t][0]);
            total[t][1] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[t][1]), s1, total[t][1]);
        }
    }
    for (size_t t = 0; t < T; t++) {
#ifndef KERNELS_FAST
        __m256 scale = float_splat(tokens + t * 4);
        total[t][0] = _mm256_mul_ps(total[t][0], scale);
        total[t][1] = _mm256_mul_ps(total[t][1], scale);
#endif
        _mm256_storeu_ps(out + t * ld, total[t][0]);
        _mm256_storeu_ps(out + t * ld + 8, total[t][1]);
    }
}

TILE_FUNCTION(1)
TILE_FUNCTION(2)
TILE_FUNCTION(3)
TILE_FUNCTION(4)

static tile_function *const tile_functions[TILE + 1] = {NULL, tile_1, tile_2, tile_3, tile_4};

/* Eight sums: enough to hide the latency of the addition. The weights are hidden from the compiler
 * each time, or it would multiply only once. */
static uint64_t peak(uint64_t rounds)
{
    __m256i sum[8], w = _mm256_set1_epi16(3), x = _mm256_set1_epi16(5);
    for (size_t t = 0; t < 8; t++)
        sum[t] = _mm256_setzero_si256();
    for (uint64_t i = 0; i < rounds; i++)
        for (size_t t = 0; t < 8; t++) {
            __asm__("" : "+x"(w));
            sum[t] = _mm256_add_epi32(sum[t], _mm256_madd_epi16(w, x));
        }
    for (size_t t = 0; t < 8; t++)
        __asm__ volatile("" : : "x"(sum[t]));
    return rounds * 8 * 16;
}
