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

/* v * factor to the nearest integer, the even one of two. The product is rounded before: tables
 * with and without a fused multiply-add find the same digits. */
INLINE vi vec_digits(vf v, float factor)
{
#if VEC == 16
    return (vi)_mm512_cvtps_epi32((__m512)(v * factor));
#elif VEC == 8
    return (vi)_mm256_cvtps_epi32((__m256)(v * factor));
#elif defined(__aarch64__)
    return (vi)vcvtnq_s32_f32((float32x4_t)(v * factor));
#else
    return __builtin_convertvector(vec_round(v * factor), vi);
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

/* The scale of a block is no number when one of its values is none: no damage is made into a vector
 * that looks like one. */
static void row_quantize(void *packed, size_t n, size_t t, const float *x, size_t k)
{
    struct fast_row row;
    _Alignas(64) float largest[ROW_MAX / Q8_BLOCK], inverse[ROW_MAX / Q8_BLOCK];
    float reach = blocks_measure(largest, x, k);
    for (size_t b = 0; b < k / Q8_BLOCK; b += VEC) {
        vf top = *(vf *)(largest + b);
        top = vec_select(top > reach, vec_splat(reach), top);
        *(vf *)(row.scales + b) = top / DIGIT_MAX;
        *(vf *)(inverse + b) = vec_select(top > 0, DIGIT_MAX / top, (vf){0});
    }
    row.n_rests = 0;
    for (size_t b = 0; b < k / Q8_BLOCK; b++) {
        for (size_t i = b * Q8_BLOCK; i < (b + 1) * Q8_BLOCK; i += VEC) {
            vi v = vec_digits(vec_load(x + i), inverse[b]);
            *(vb_any *)(row.digits + i) = __builtin_convertvector(v, vb);
        }
        if (largest[b] > reach)
            block_limit(&row, x, b * Q8_BLOCK, row.scales[b]);
    }
    pack_row(packed, n, t, &row, k);
}
