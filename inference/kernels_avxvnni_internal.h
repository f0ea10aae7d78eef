/*
 * kernels_avxvnni_internal.h: vpdpbusd on 256 bits, as AVX-VNNI has it (client CPUs since 2021), in
 * both precisions. All of kernels_avxvnni*.c, which set VNNI_FORM, the encoding of the instruction:
 * "%{vex%}", or "%{evex%}" for CPUs that have it as a part of AVX-512. KERNELS_FAST is set for
 * precision fast.
 *
 * The way of kernels_avx512.c and kernels_avx512_fast.c: activations are unsigned bytes by adding
 * 128, of 15 bits the upper ones; what that adds is known when a panel is unpacked, and the sums
 * start from there.
 *
 * Panel: PANEL_ROWS rows of weights. A block is 16 float scales, 16 int32 to start from, then for
 * each 4 inputs 16 rows of 4 bytes: two vectors.
 *
 * Packed: tokens in tiles of up to TILE. A block of a tile of T is, of precision exact, high
 * [T][32], low [T][32], and after the blocks T float scales; of precision fast digits [T][32],
 * float scales [T], and after the blocks T numbers of rests, then for each token room for a rest a
 * block.
 *
 * The float sums live in memory: 16 registers hold the integer sums of a block and nothing more.
 */
#define VEC 8
#include "inference/kernels_body.h"

enum {
    PANEL_ROWS = 16,
    TILE = 6,
    QUADS = Q8_BLOCK / 4,
    PANEL_HEAD = PANEL_ROWS * 8, /* bytes of scales and starts */
    PANEL_BLOCK = PANEL_HEAD + Q8_BLOCK * PANEL_ROWS,
#ifdef KERNELS_FAST
    TOKEN_BLOCK = Q8_BLOCK + 4, /* bytes of one token in a block */
#else
    TOKEN_BLOCK = 2 * Q8_BLOCK,
#endif
};

#include "inference/kernels_tiles.h"

/* *sum += bytes of `natural`, unsigned, times those of `integer`, signed. Volatile keeps the order,
 * in which no sum waits for itself. */
INLINE void multiply_add(__m256i *sum, __m256i natural, __m256i integer)
{
    __asm__ volatile(VNNI_FORM " vpdpbusd %2, %1, %0" : "+x"(*sum) : "x"(natural), "x"(integer));
}

INLINE __m256i quad_splat(const void *p)
{
    int32_t quad;
    memcpy(&quad, p, sizeof quad);
    return _mm256_set1_epi32(quad);
}

/* Eight rows of a block, row_size bytes apart: bytes transposed to quads of 4 inputs by 8 rows. to:
 * the vectors of these rows, every second one of the panel's. Returns what sums start from. */
INLINE __m256i unpack_rows(uint8_t *to, const uint8_t *from, size_t row_size)
{
    __m256i r[8], sum = _mm256_setzero_si256();
    for (size_t i = 0; i < 8; i++)
        r[i] = _mm256_loadu_si256((const __m256i *)(from + i * row_size + 2));
    lanes_transpose(r);
    for (size_t i = 0; i < QUADS; i++) {
        _mm256_store_si256((__m256i *)(to + i * 64), r[i]);
        multiply_add(&sum, _mm256_set1_epi8(1), r[i]);
    }
    /* -128 times the sum of a row's weights: what the 128 in each byte adds. */
    return _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(sum, 7));
}

static void panel_unpack(uint8_t *panel, const struct q8_matrix *w, size_t row)
{
    size_t n_blocks = w->n_in / Q8_BLOCK, row_size = n_blocks * Q8_BLOCK_BYTES;
    const uint8_t *from = w->blocks + row * row_size;
    for (size_t b = 0; b < n_blocks; b++, from += Q8_BLOCK_BYTES, panel += PANEL_BLOCK)
        for (size_t i = 0; i < 2; i++) {
            const uint8_t *rows = from + i * 8 * row_size;
            uint16_t halves[8];
            for (size_t r = 0; r < 8; r++)
                memcpy(&halves[r], rows + r * row_size, 2);
            __m128i half = _mm_loadu_si128((const __m128i *)halves);
            _mm256_store_ps((float *)(panel + i * 32), _mm256_cvtph_ps(half));
            _mm256_store_si256((__m256i *)(panel + 64 + i * 32),
                               unpack_rows(panel + PANEL_HEAD + i * 32, rows, row_size));
        }
}

/* Sums of a tile, from the panel's starts. */
INLINE void block_start(__m256i sum[TILE][2], const uint8_t *panel, const size_t T)
{
    for (size_t i = 0; i < 2; i++)
        for (size_t t = 0; t < T; t++)
            sum[t][i] = _mm256_load_si256((const __m256i *)(panel + 64 + i * 32));
}

/* One pass of a block: sum[t] += 32 products for each of 16 rows. */
INLINE void block_pass(__m256i sum[TILE][2], const uint8_t *weights, const int8_t *tokens,
                       const size_t T)
{
#pragma GCC unroll 1
    for (size_t i = 0; i < QUADS; i++) {
        __m256i w0 = _mm256_load_si256((const __m256i *)(weights + i * 64));
        __m256i w1 = _mm256_load_si256((const __m256i *)(weights + i * 64 + 32));
        for (size_t t = 0; t < T; t++) {
            __m256i x = quad_splat(tokens + t * Q8_BLOCK + i * 4);
            multiply_add(&sum[t][0], x, w0);
            multiply_add(&sum[t][1], x, w1);
        }
    }
}

#ifdef KERNELS_FAST

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
    memcpy(to + lane * sizeof row->n_rests, &row->n_rests, sizeof row->n_rests);
    memcpy(to + width * sizeof row->n_rests + lane * n_blocks * sizeof(struct rest), row->rests,
           row->n_rests * sizeof(struct rest));
}

/* total += the rests of a token times their weights: one byte of each row's quad. */
INLINE void rests_add(__m256 total[2], const uint8_t *panel, const uint8_t *rests, size_t n_rests)
{
    for (size_t e = 0; e < n_rests; e++) {
        struct rest rest;
        memcpy(&rest, rests + e * sizeof rest, sizeof rest);
        const uint8_t *block = panel + rest.input / Q8_BLOCK * PANEL_BLOCK;
        const uint8_t *quad = block + PANEL_HEAD + rest.input % Q8_BLOCK / 4 * 64;
        /* The byte of this input to the top of its lane, and down again with its sign. */
        __m128i shift = _mm_cvtsi32_si128(24 - 8 * (int)(rest.input % 4));
        for (size_t i = 0; i < 2; i++) {
            __m256i w = _mm256_load_si256((const __m256i *)(quad + i * 32));
            __m256 value = _mm256_mul_ps(_mm256_load_ps((const float *)(block + i * 32)),
                                         _mm256_set1_ps(rest.value));
            w = _mm256_srai_epi32(_mm256_sll_epi32(w, shift), 24);
            total[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(w), value, total[i]);
        }
    }
}

/* out[t][0..15] for a tile of T tokens and the panel's 16 rows; T is a constant in each use. */
INLINE void tile_matmul(float *out, size_t ld, const uint8_t *panel, const int8_t *tokens,
                        size_t n_blocks, const uint8_t *ahead, const size_t T)
{
    __m256 total[TILE][2];
    const uint8_t *counts = (const uint8_t *)tokens + T * n_blocks * TOKEN_BLOCK;
    for (size_t t = 0; t < T; t++) {
        uint32_t n_rests;
        memcpy(&n_rests, counts + t * sizeof n_rests, sizeof n_rests);
        total[t][0] = total[t][1] = _mm256_setzero_ps();
        rests_add(total[t], panel, counts + T * sizeof n_rests + t * n_blocks * TOKEN_RESTS,
                  n_rests);
    }
    for (size_t b = 0; b < n_blocks; b++, panel += PANEL_BLOCK, tokens += T * TOKEN_BLOCK) {
        block_prefetch(ahead, b);
        __m256i sum[TILE][2];
        block_start(sum, panel, T);
        block_pass(sum, panel + PANEL_HEAD, tokens, T);
        for (size_t t = 0; t < T; t++) {
            __m256 x = _mm256_castsi256_ps(quad_splat(tokens + Q8_BLOCK * T + t * 4));
            for (size_t i = 0; i < 2; i++) {
                __m256 scales = _mm256_load_ps((const float *)(panel + i * 32));
                total[t][i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[t][i]),
                                              _mm256_mul_ps(scales, x), total[t][i]);
            }
        }
    }
    for (size_t t = 0; t < T; t++)
        for (size_t i = 0; i < 2; i++)
            _mm256_storeu_ps(out + t * ld + i * 8, total[t][i]);
}

#else

static void pack_row(void *packed, size_t n, size_t t, const int16_t *row, size_t k, float scale)
{
    struct place place = place_of(n, t);
    size_t width = place.width, lane = t - place.first;
    int8_t *to = (int8_t *)packed + place.first * token_size(k);
    const __m256i low_byte = _mm256_set1_epi16(0xff);
    for (size_t b = 0; b < k / Q8_BLOCK; b++, to += width * TOKEN_BLOCK) {
        /* 256 * high + low, low from 0 to 255; high as unsigned by adding 128 */
        __m256i q0 = _mm256_loadu_si256((const __m256i *)(row + b * Q8_BLOCK));
        __m256i q1 = _mm256_loadu_si256((const __m256i *)(row + b * Q8_BLOCK + 16));
        __m256i high = _mm256_packs_epi16(_mm256_srai_epi16(q0, 8), _mm256_srai_epi16(q1, 8));
        __m256i low =
            _mm256_packus_epi16(_mm256_and_si256(q0, low_byte), _mm256_and_si256(q1, low_byte));
        high = _mm256_xor_si256(high, _mm256_set1_epi8((char)0x80));
        /* packs goes by halves of 128 bits: 0xd8 exchanges the two quarters in the middle. */
        _mm256_storeu_si256((__m256i *)(to + lane * Q8_BLOCK),
                            _mm256_permute4x64_epi64(high, 0xd8));
        _mm256_storeu_si256((__m256i *)(to + (width + lane) * Q8_BLOCK),
                            _mm256_permute4x64_epi64(low, 0xd8));
    }
    memcpy(to + lane * sizeof scale, &scale, sizeof scale);
}

/* out[t][0..15] for a tile of T tokens and the panel's 16 rows; T is a constant in each use. */
INLINE void tile_matmul(float *out, size_t ld, const uint8_t *panel, const int8_t *tokens,
                        size_t n_blocks, const uint8_t *ahead, const size_t T)
{
    __m256 total[TILE][2];
    for (size_t t = 0; t < T; t++)
        total[t][0] = total[t][1] = _mm256_setzero_ps();
    for (size_t b = 0; b < n_blocks; b++, panel += PANEL_BLOCK, tokens += T * TOKEN_BLOCK) {
        block_prefetch(ahead, b);
        __m256i sum[TILE][2];
        block_start(sum, panel, T);
        block_pass(sum, panel + PANEL_HEAD, tokens, T);
        for (size_t t = 0; t < T; t++)
            for (size_t i = 0; i < 2; i++)
                /* 256 * high; low bytes are unsigned as they are and need no correction. */
                sum[t][i] = _mm256_slli_epi32(sum[t][i], 8);
        block_pass(sum, panel + PANEL_HEAD, tokens + Q8_BLOCK * T, T);
        for (size_t t = 0; t < T; t++)
            for (size_t i = 0; i < 2; i++) {
                __m256 scales = _mm256_load_ps((const float *)(panel + i * 32));
                total[t][i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[t][i]), scales, total[t][i]);
            }
    }
    for (size_t t = 0; t < T; t++) {
        float scale;
        memcpy(&scale, tokens + t * sizeof scale, sizeof scale);
        for (size_t i = 0; i < 2; i++)
            _mm256_storeu_ps(out + t * ld + i * 8,
                             _mm256_mul_ps(total[t][i], _mm256_set1_ps(scale)));
    }
}

#endif

TILE_FUNCTION(1)
TILE_FUNCTION(2)
TILE_FUNCTION(3)
TILE_FUNCTION(4)
TILE_FUNCTION(5)
TILE_FUNCTION(6)

static tile_function *const tile_functions[TILE + 1] = {NULL,   tile_1, tile_2, tile_3,
                                                        tile_4, tile_5, tile_6};

/* A tile's worth of sums. A multiply-add takes one product in precision fast, else two. */
static uint64_t peak(uint64_t rounds)
{
    enum { SUMS = 2 * TILE };
    __m256i sum[SUMS], w = _mm256_set1_epi8(3), x = _mm256_set1_epi8(5);
#pragma GCC unroll 12 /* or the sums would live in memory */
    for (size_t t = 0; t < SUMS; t++)
        sum[t] = _mm256_setzero_si256();
    for (uint64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 12
        for (size_t t = 0; t < SUMS; t++)
            multiply_add(&sum[t], w, x);
    }
#pragma GCC unroll 12
    for (size_t t = 0; t < SUMS; t++)
        __asm__ volatile("" : : "x"(sum[t]));
    return rounds * SUMS * 32 / (TOKEN_BLOCK / Q8_BLOCK);
}

#define VNNI_TABLE(PRECISION, FAST)                                                                \
    {                                                                                              \
        .name = "avxvnni", .precision = PRECISION, .fast = FAST, .packed_size = packed_size,       \
        .panel_size = panel_size, .matmul = matmul, .peak = peak, KERNELS_SHARED,                  \
        KERNELS_ATTENTION                                                                          \
    }
