/*
 * kernels_fast.h: activations of 8 bits, one scale a block. A part of kernels_body.h.
 *
 * Most values of a token's row are of one size, and a few, always of the same inputs, are ten and
 * twenty times as large: "outliers". They are what makes 8 bits too few: the scale of their block
 * fits them and leaves their neighbours two or three bits. So the scale of a block ends at
 * FAST_REACH times the row's root mean square; of a value beyond it the digit is the largest there
 * is, and what that leaves, its "rest", is kept as a float and multiplied as such. There are one
 * to four in a row; by the definition of a root mean square never more than one in FAST_REACH
 * squared, which is less than one a block.
 *
 * Source: the outliers, LLM.int8() (Dettmers et al. 2022); the reach by measurement on
 *         EmbeddingGemma: docs/performance.md.
 *
 * The including file provides, after the include:
 *   static void pack_row(void *packed, size_t n, size_t t, const struct fast_row *row, size_t k);
 *     stores token t of n.
 */

/* What the digit of input `input` leaves of its value. */
struct rest {
    uint32_t input;
    float value;
};

struct fast_row {
    _Alignas(64) int8_t digits[ROW_MAX]; /* -127 to 127 */
    _Alignas(64) float scales[ROW_MAX / Q8_BLOCK];
    struct rest rests[ROW_MAX / Q8_BLOCK];
    uint32_t n_rests; /* at most one a block */
};

enum { DIGIT_MAX = 127 };
#define FAST_REACH 6.0f

static void pack_row(void *packed, size_t n, size_t t, const struct fast_row *row, size_t k);

/* A block times a factor to the nearest integers, of two the even one. The product is rounded
 * before: tables with and without a fused multiply-add find the same digits. */
INLINE void block_digits(int8_t *to, const float *x, float factor)
{
#if VEC == 16
    for (size_t i = 0; i < Q8_BLOCK; i += VEC) {
        __m512i v = _mm512_cvtps_epi32((__m512)(vec_load(x + i) * factor));
        _mm_storeu_si128((__m128i *)(to + i), _mm512_cvtepi32_epi8(v));
    }
#elif VEC == 8
    __m256i v[Q8_BLOCK / VEC];
    for (size_t i = 0; i < Q8_BLOCK / VEC; i++)
        v[i] = _mm256_cvtps_epi32((__m256)(vec_load(x + i * VEC) * factor));
    /* packing goes by halves of the vectors */
    __m256i all =
        _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    all = _mm256_permutevar8x32_epi32(all, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)to, all);
#else
    for (size_t i = 0; i < Q8_BLOCK; i += VEC) {
#if defined(__aarch64__)
        vi v = (vi)vcvtnq_s32_f32((float32x4_t)(vec_load(x + i) * factor));
#else
        vi v = __builtin_convertvector(vec_round(vec_load(x + i) * factor), vi);
#endif
        *(vb_any *)(to + i) = __builtin_convertvector(v, vb);
    }
#endif
}

/* Bit i: the magnitude of lane i is above the limit. */
INLINE uint32_t vec_above(vf v, float limit)
{
#if VEC == 16
    return _mm512_cmp_ps_mask(_mm512_abs_ps((__m512)v), _mm512_set1_ps(limit), _CMP_GT_OQ);
#elif VEC == 8
    __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), (__m256)v);
    return (uint32_t)_mm256_movemask_ps(
        _mm256_cmp_ps(magnitude, _mm256_set1_ps(limit), _CMP_GT_OQ));
#else
    uint32_t above = 0;
    for (size_t i = 0; i < VEC; i++)
        above |= (uint32_t)(fabsf(v[i]) > limit) << i;
    return above;
#endif
}

/* The 9 upper bits of a mantissa: where tables add in another order, and differ by a rounding, they
 * have the same. */
INLINE float leading_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= 0xffffc000u;
    memcpy(&x, &bits, sizeof bits);
    return x;
}

/* Largest magnitudes of the blocks of x, and 0 to the end of the last vector; returns how far a
 * scale reaches. Squares that leave the range of a float are none to judge by: then there is no
 * end. */
static float blocks_measure(float *largest, const float *x, size_t k)
{
    vf squares = {0};
    for (size_t b = 0; b < k / Q8_BLOCK; b++) {
        vf top = {0};
        for (size_t i = 0; i < Q8_BLOCK; i += VEC) {
            vf v = vec_load(x + b * Q8_BLOCK + i);
            top = vec_larger(top, v);
            squares += v * v;
        }
        largest[b] = vec_largest(top);
    }
    for (size_t b = k / Q8_BLOCK; b % VEC; b++)
        largest[b] = 0;
    float mean = vec_sum(squares) / (float)k;
    return mean > 1e-30f && mean < 1e30f ? leading_bits(FAST_REACH * sqrtf(mean)) : INFINITY;
}

/* Digits beyond the largest one, to rests. */
static void block_limit(struct fast_row *row, const float *x, size_t first, float scale)
{
    for (size_t at = first; at < first + Q8_BLOCK; at += VEC)
        for (uint32_t m = vec_above(vec_load(x + at), scale * DIGIT_MAX); m; m &= m - 1) {
            assert(row->n_rests < ROW_MAX / Q8_BLOCK);
            size_t i = at + (size_t)__builtin_ctz(m);
            int8_t digit = x[i] > 0 ? DIGIT_MAX : -DIGIT_MAX;
            double rest = (double)x[i] - (double)digit * (double)scale; /* rounded once anywhere */
            row->digits[i] = digit;
            row->rests[row->n_rests++] = (struct rest){(uint32_t)i, (float)rest};
        }
}

/* The scale of a block is NaN when one of its values is: no damage is made into a vector
 * that looks like one. */
static void row_quantize(void *packed, size_t n, size_t t, const float *x, size_t k)
{
    struct fast_row row;
    assert(k <= ROW_MAX);
    _Alignas(64) float largest[ROW_MAX / Q8_BLOCK], inverse[ROW_MAX / Q8_BLOCK];
    float reach = blocks_measure(largest, x, k);
    const vf most = vec_splat(3e38f); /* a row of next to nothing has no infinite digits */
    for (size_t b = 0; b < k / Q8_BLOCK; b += VEC) {
        vf top = *(vf *)(largest + b);
        /* NaN is not above the reach: it stays and ends in the scale. */
        top = vec_select(top > reach, vec_splat(reach), top);
        *(vf *)(row.scales + b) = top / DIGIT_MAX;
        *(vf *)(inverse + b) = vec_select(top > 0, vec_min(DIGIT_MAX / top, most), (vf){0});
    }
    row.n_rests = 0;
    for (size_t b = 0; b < k / Q8_BLOCK; b++) {
        block_digits(row.digits + b * Q8_BLOCK, x + b * Q8_BLOCK, inverse[b]);
        if (largest[b] > reach)
            block_limit(&row, x, b * Q8_BLOCK, row.scales[b]);
    }
    pack_row(packed, n, t, &row, k);
}
