/*
 * kernels_avx2.c: AVX2 with FMA and F16C.
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
 * Packed: tokens in tiles of up to TILE; a block of a tile of T is int16 [16 pairs][T][2]; after
 * the blocks T float scales. Every broadcast is then one constant offset from one pointer.
 */
#define VEC 8
#include "inference/kernels_body.h"

#include <immintrin.h>

enum {
    PANEL_ROWS = 16,
    TILE = 4,
    PAIRS = Q8_BLOCK / 2,
    PANEL_BLOCK = PANEL_ROWS * 4 + Q8_BLOCK * PANEL_ROWS * 2, /* bytes */
    TOKEN_BLOCK = Q8_BLOCK * 2,                               /* bytes of one token in a block */
};

#include "inference/kernels_tiles.h"

static void pack_row(void *packed, size_t n, size_t t, const int16_t *row, size_t k, float scale)
{
    struct place place = place_of(n, t);
    size_t width = place.width, lane = t - place.first;
    int8_t *to = (int8_t *)packed + place.first * token_size(k);
    /* within each 4 int16: 0 1 2 3 -> 0 2 1 3 */
    const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15, 0,
                                           1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
    for (size_t b = 0; b < k / Q8_BLOCK; b++, to += width * TOKEN_BLOCK) {
        int32_t pairs[PAIRS];
        for (size_t i = 0; i < 2; i++) {
            __m256i q = _mm256_loadu_si256((const __m256i *)(row + b * Q8_BLOCK + i * 16));
            _mm256_storeu_si256((__m256i *)(pairs + i * 8), _mm256_shuffle_epi8(q, order));
        }
        for (size_t i = 0; i < PAIRS; i++)
            memcpy(to + (i * width + lane) * 4, &pairs[i], 4);
    }
    memcpy(to + lane * sizeof scale, &scale, sizeof scale);
}

/* Eight rows of a block, row_size bytes apart: bytes transposed to 4 inputs by 8 rows, then
 * widened. to: the vectors of these rows, every second one of the panel's. */
INLINE void unpack_rows(uint8_t *to, const uint8_t *from, size_t row_size)
{
    __m256i r[8], t[8], u[8];
    for (size_t i = 0; i < 8; i++)
        r[i] = _mm256_loadu_si256((const __m256i *)(from + i * row_size + 2));
    for (size_t i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (size_t i = 0; i < 8; i += 4) {
        u[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (size_t i = 0; i < 8; i++) { /* quad i: inputs 4 i .. 4 i + 3 of 8 rows */
        __m256i quad = i < 4 ? _mm256_permute2x128_si256(u[i], u[i + 4], 0x20)
                             : _mm256_permute2x128_si256(u[i - 4], u[i], 0x31);
        __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(quad, 8), 8);
        __m256i odd = _mm256_srai_epi16(quad, 8);
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

/* out[t][0..15] for a tile of T tokens and the panel's 16 rows; T is a constant in each use. The
 * float sums live in memory: 16 registers hold the integer sums of a block and nothing more. */
INLINE void tile_matmul(float *out, size_t ld, const uint8_t *panel, const int8_t *tokens,
                        size_t n_blocks, const uint8_t *ahead, const size_t T)
{
    __m256 total[TILE][2];
    for (size_t t = 0; t < T; t++)
        total[t][0] = total[t][1] = _mm256_setzero_ps();
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
        __m256 d0 = _mm256_load_ps((const float *)panel);
        __m256 d1 = _mm256_load_ps((const float *)panel + 8);
        for (size_t t = 0; t < T; t++) {
            total[t][0] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[t][0]), d0, total[t][0]);
            total[t][1] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[t][1]), d1, total[t][1]);
        }
    }
    for (size_t t = 0; t < T; t++) {
        float scale;
        memcpy(&scale, tokens + t * sizeof scale, sizeof scale);
        _mm256_storeu_ps(out + t * ld, _mm256_mul_ps(total[t][0], _mm256_set1_ps(scale)));
        _mm256_storeu_ps(out + t * ld + 8, _mm256_mul_ps(total[t][1], _mm256_set1_ps(scale)));
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

const struct kernels kernels_avx2 = {
    .name = "avx2",
    .packed_size = packed_size,
    .panel_size = panel_size,
    .matmul = matmul,
    .peak = peak,
    KERNELS_SHARED,
    KERNELS_ATTENTION,
};
