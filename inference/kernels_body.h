/*
 * kernels_body.h: every kernel but the matrix product, written once on a vector of floats.
 *
 * An instruction set's file sets VEC (floats in a vector: 4, 8 or 16), includes this, adds its own
 * packed form and matrix product, and ends in its table. The compiler turns the vectors into that
 * file's instructions; a * b + c becomes a fused multiply-add where the file's flags have one.
 *
 * The including file provides, after the include:
 *   static void pack_row(void *packed, size_t n, size_t t, const int16_t *row, size_t k,
 *                        float scale);
 *     stores token t of n: row[k] and its scale.
 * With KERNELS_FAST set before the include activations are 8 bits, and pack_row is that of
 * kernels_fast.h.
 */
#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "inference/kernels.h"
#include "inference/matrix.h"

#ifndef VEC
#error "set VEC before including kernels_body.h"
#endif

typedef float vf __attribute__((vector_size(VEC * 4)));
typedef float vf_any __attribute__((vector_size(VEC * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(VEC * 4)));
typedef int16_t vs __attribute__((vector_size(VEC * 2)));
typedef int8_t vb __attribute__((vector_size(VEC)));
typedef int8_t vb_any __attribute__((vector_size(VEC), aligned(1), may_alias));
typedef int16_t vs_any __attribute__((vector_size(VEC * 2), aligned(2), may_alias));

#define INLINE static inline __attribute__((always_inline))

#ifndef KERNELS_FAST
/* The largest quantised value: as 256 * high + low both halves fit a signed byte. */
#define QUANT_MAX 32639.0f

static void pack_row(void *packed, size_t n, size_t t, const int16_t *row, size_t k, float scale);
#endif

INLINE vf vec_load(const float *p)
{
    return *(const vf_any *)p;
}

INLINE void vec_store(float *p, vf v)
{
    *(vf_any *)p = v;
}

INLINE vf vec_splat(float x)
{
    return x - (vf){0};
}

INLINE vf vec_select(vi mask, vf yes, vf no)
{
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

INLINE vf vec_max(vf a, vf b)
{
    return vec_select(a > b, a, b);
}

INLINE vf vec_min(vf a, vf b)
{
    return vec_select(a < b, a, b);
}

/* Lanes are added pairwise in a fixed tree, so that the sum does not depend on the compiler. */
INLINE float vec_sum(vf v)
{
#if VEC == 16
    __m256 eight =
        _mm256_add_ps(_mm512_castps512_ps256((__m512)v), _mm512_extractf32x8_ps((__m512)v, 1));
#elif VEC == 8
    __m256 eight = (__m256)v;
#endif
#if VEC >= 8
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
    float lanes[VEC];
    memcpy(lanes, &v, sizeof lanes);
    for (size_t half = VEC / 2; half; half /= 2)
        for (size_t i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    return lanes[0];
#endif
}

/* The largest magnitude of all lanes and of top, which is one. As integers, because what is no
 * number is then larger than any, and never lost. */
INLINE vf vec_larger(vf top, vf v)
{
    vi a = (vi)top, b = (vi)v & 0x7fffffff;
    return vec_select(a > b, top, (vf)b);
}

INLINE float vec_largest(vf top)
{
#if VEC == 16
    __m256i eight = _mm256_max_epi32(_mm512_castsi512_si256((__m512i)top),
                                     _mm512_extracti64x4_epi64((__m512i)top, 1));
#elif VEC == 8
    __m256i eight = (__m256i)top;
#endif
#if VEC >= 8
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    __m128i two = _mm_max_epi32(four, _mm_unpackhi_epi64(four, four));
    two = _mm_max_epi32(two, _mm_shuffle_epi32(two, 0x55));
    return _mm_cvtss_f32(_mm_castsi128_ps(two));
#else
    int32_t lanes[VEC];
    float largest;
    memcpy(lanes, &top, sizeof lanes);
    for (size_t half = VEC / 2; half; half /= 2)
        for (size_t i = 0; i < half; i++)
            lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
    memcpy(&largest, lanes, sizeof largest);
    return largest;
#endif
}

/* Nearest integer, as a float: adding 1.5 * 2^23 leaves no room for a fraction. |v| < 2^22. */
INLINE vf vec_round(vf v)
{
    const vf magic = vec_splat(12582912.0f);
    return (v + magic) - magic;
}

/* exp with a relative error under 2e-7: 2^n by the exponent's bits, the rest by a polynomial of
 * degree 6 on [-ln 2 / 2, ln 2 / 2] (coefficients: Cephes expf, S. Moshier). Saturates; NaN stays.
 */
INLINE vf vec_exp(vf x)
{
    /* n stays between -126 and 127, where 2^n is a normal float. */
    x = vec_min(vec_splat(88.0f), vec_max(vec_splat(-87.0f), x));
    vf n = vec_round(x * 1.44269504088896341f);
    /* ln 2 in two parts: the first has 9 bits, so that n times it is exact. */
    vf r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    vf p = vec_splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + (r + 1.0f);
    vi power = (__builtin_convertvector(n, vi) + 127) << 23;
    return p * (vf)power;
}

/* What GELU takes of exp and of a division: where 8 bits are kept of the result, to 1e-4. */
#if defined(KERNELS_FAST) && VEC == 16
INLINE vf gelu_exp(vf x)
{
    __m512 scaled = _mm512_mul_ps((__m512)x, _mm512_set1_ps(1.44269504f));
    __m512 n = _mm512_roundscale_ps(scaled, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    vf r = (vf)_mm512_sub_ps(scaled, n), p = vec_splat(5.5171669e-2f);
    p = p * r + 2.4022651e-1f;
    p = p * r + 6.9314718e-1f;
    p = p * r + 1.0f;
    return (vf)_mm512_scalef_ps((__m512)p, n);
}

INLINE vf gelu_inverse(vf x)
{
    return (vf)_mm512_rcp14_ps((__m512)x);
}
#else
INLINE vf gelu_exp(vf x)
{
    return vec_exp(x);
}

INLINE vf gelu_inverse(vf x)
{
    return 1.0f / x;
}
#endif

/* x times the logistic of 2 sqrt(2/pi) (x + 0.044715 x^3): the tanh form of GELU without a tanh. */
INLINE vf vec_gelu(vf x)
{
    vf inner = x * (1.5957691216057308f + 0.07135481627159854f * (x * x));
#ifdef KERNELS_FAST
    return x * gelu_inverse(1.0f + gelu_exp(-inner));
#else
    return x / (1.0f + vec_exp(-inner));
#endif
}

/* x times the normal distribution's integral up to x: GELU itself. The error function is that of
 * Abramowitz and Stegun, 7.1.26: off by 1.5e-7 at most. */
INLINE vf vec_gelu_erf(vf x)
{
    vf z = vec_max(x, -x) * 0.70710678118654752f;
    vf t = gelu_inverse(1.0f + 0.3275911f * z);
    vf p = t * 1.061405429f - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    vf below = x * (0.5f * p * t) * gelu_exp(-(z * z)); /* of -|x|, but for the sign */
    return vec_select(x > 0.0f, x - below, below);
}

/* 1 / rms of x [k] */
INLINE float rms_inverse(const float *x, size_t k, float eps)
{
    vf sum = {0};
    for (size_t i = 0; i < k; i += VEC) {
        vf v = vec_load(x + i);
        sum += v * v;
    }
    return 1.0f / sqrtf(vec_sum(sum) / (float)k + eps);
}

#ifdef KERNELS_FAST
#include "inference/kernels_fast.h"
#else
/* x [k] to integers of 15 bits and a sign, one scale; then into the table's packed form. The scale
 * is not a number when one of x is not: no damage is made into a vector that looks like one. */
static void row_quantize(void *packed, size_t n, size_t t, const float *x, size_t k)
{
    vf top = {0};
    assert(k <= ROW_MAX);
    for (size_t i = 0; i < k; i += VEC)
        top = vec_larger(top, vec_load(x + i));
    float largest = vec_largest(top);
    float inverse = largest > 0 ? QUANT_MAX / largest : 0;
    _Alignas(64) int16_t row[ROW_MAX];
    for (size_t i = 0; i < k; i += VEC) {
        vi v = __builtin_convertvector(vec_round(vec_load(x + i) * inverse), vi);
        *(vs_any *)(row + i) = __builtin_convertvector(v, vs);
    }
    /* NaN and infinity are the largest (vec_larger): they end in the scale, whatever the digits
     * are. */
    pack_row(packed, n, t, row, k, largest / QUANT_MAX);
}
#endif

static void quantize(void *packed, const float *x, size_t ld, size_t n, size_t k,
                     struct span tokens)
{
    for (size_t t = tokens.first; t < tokens.last; t++)
        row_quantize(packed, n, t, x + t * ld, k);
}

static void rms_norm_quantize(void *packed, const float *x, const float *weight, float eps,
                              size_t n, size_t k, struct span tokens)
{
    _Alignas(64) float row[ROW_MAX];
    assert(k <= ROW_MAX);
    for (size_t t = tokens.first; t < tokens.last; t++) {
        const float *from = x + t * k;
        float inverse = rms_inverse(from, k, eps);
        for (size_t i = 0; i < k; i += VEC)
            vec_store(row + i, vec_load(from + i) * inverse * vec_load(weight + i));
        row_quantize(packed, n, t, row, k);
    }
}

static void geglu_quantize(void *packed, const float *gate_up, size_t n, size_t k,
                           struct span tokens)
{
    _Alignas(64) float row[ROW_MAX];
    assert(k <= ROW_MAX);
    for (size_t t = tokens.first; t < tokens.last; t++) {
        const float *gate = gate_up + 2 * t * k, *up = gate + k;
        for (size_t i = 0; i < k; i += VEC)
            vec_store(row + i, vec_gelu(vec_load(gate + i)) * vec_load(up + i));
        row_quantize(packed, n, t, row, k);
    }
}

INLINE vf vec_silu(vf x)
{
#ifdef KERNELS_FAST
    return x * gelu_inverse(1.0f + gelu_exp(-x));
#else
    return x / (1.0f + vec_exp(-x));
#endif
}

static void glu_quantize(void *packed, const float *gate_up, size_t n, size_t k, enum glu glu,
                         struct span tokens)
{
    _Alignas(64) float row[ROW_MAX];
    assert(k <= ROW_MAX);
    for (size_t t = tokens.first; t < tokens.last; t++) {
        const float *gate = gate_up + 2 * t * k, *up = gate + k;
        for (size_t i = 0; glu == GLU_GELU && i < k; i += VEC)
            vec_store(row + i, vec_gelu_erf(vec_load(gate + i)) * vec_load(up + i));
        for (size_t i = 0; glu == GLU_SILU && i < k; i += VEC)
            vec_store(row + i, vec_silu(vec_load(gate + i)) * vec_load(up + i));
        row_quantize(packed, n, t, row, k);
    }
}

static void gelu_quantize(void *packed, const float *x, const float *bias, size_t n, size_t k,
                          struct span tokens)
{
    _Alignas(64) float row[ROW_MAX];
    assert(k <= ROW_MAX);
    for (size_t t = tokens.first; t < tokens.last; t++) {
        for (size_t i = 0; i < k; i += VEC)
            vec_store(row + i, vec_gelu_erf(vec_load(x + t * k + i) + vec_load(bias + i)));
        row_quantize(packed, n, t, row, k);
    }
}

static void add_rms_norm(float *x, const float *y, const float *weight, float eps, size_t n,
                         size_t k)
{
    for (size_t t = 0; t < n; t++, x += k, y += k) {
        float inverse = rms_inverse(y, k, eps);
        for (size_t i = 0; i < k; i += VEC)
            vec_store(x + i, vec_load(x + i) + vec_load(y + i) * inverse * vec_load(weight + i));
    }
}

static void rms_norm(float *x, const float *weight, float eps, size_t n, size_t k)
{
    for (size_t t = 0; t < n; t++, x += k) {
        float inverse = rms_inverse(x, k, eps);
        for (size_t i = 0; i < k; i += VEC)
            vec_store(x + i, vec_load(x + i) * inverse * vec_load(weight + i));
    }
}

static void bias_scale(float *x, size_t ld, size_t n, const float *bias, size_t k, float scale)
{
    for (size_t t = 0; t < n; t++, x += ld)
        for (size_t i = 0; i < k; i += VEC)
            vec_store(x + i, (vec_load(x + i) + vec_load(bias + i)) * scale);
}

static void add_layer_norm(float *x, const float *y, const float *bias, const float *weight,
                           const float *shift, float eps, size_t n, size_t k)
{
    for (size_t t = 0; t < n; t++, x += k, y += k) {
        vf sum = {0}, squares = {0};
        for (size_t i = 0; i < k; i += VEC) {
            vf v = vec_load(x + i) + (vec_load(y + i) + vec_load(bias + i));
            vec_store(x + i, v);
            sum += v;
        }
        float mean = vec_sum(sum) / (float)k;
        /* In a second pass: the mean of squares less the square of the mean would cancel. */
        for (size_t i = 0; i < k; i += VEC) {
            vf v = vec_load(x + i) - mean;
            squares += v * v;
        }
        float inverse = 1.0f / sqrtf(vec_sum(squares) / (float)k + eps);
        for (size_t i = 0; i < k; i += VEC)
            vec_store(x + i, (vec_load(x + i) - mean) * inverse * vec_load(weight + i) +
                                 vec_load(shift + i));
    }
}

/* One head: a and b are its halves. */
INLINE void head_rope(float *a, const float *cosines, size_t half, const float *weight, float scale,
                      const bool is_normed)
{
    const float *sines = cosines + half;
    float *b = a + half;
    for (size_t i = 0; i < half; i += VEC) {
        /* With a norm, scale has 1 / rms of the whole head in it (norm_rope). */
        vf x0 = vec_load(a + i) * scale, x1 = vec_load(b + i) * scale;
        if (is_normed) {
            x0 *= vec_load(weight + i);
            x1 *= vec_load(weight + half + i);
        }
        vf c = vec_load(cosines + i), s = vec_load(sines + i);
        vec_store(a + i, x0 * c - x1 * s);
        vec_store(b + i, x1 * c + x0 * s);
    }
}

static void norm_rope(float *x, size_t ld, size_t n, size_t n_heads, size_t head_dim,
                      const float *weight, float eps, const float *cos_sin,
                      const uint32_t *positions, float scale)
{
    size_t half = head_dim / 2;
    for (size_t t = 0; t < n; t++) {
        const float *cosines = cos_sin + positions[t] * head_dim;
        for (size_t h = 0; h < n_heads; h++) {
            float *a = x + t * ld + h * head_dim;
            if (weight)
                head_rope(a, cosines, half, weight, rms_inverse(a, head_dim, eps) * scale, true);
            else
                head_rope(a, cosines, half, NULL, scale, false);
        }
    }
}

#include "inference/kernels_transpose.h"

#include "inference/kernels_attention.h"
#include "inference/kernels_weights.h"

static void mean_rows(float *out, const float *x, size_t n, size_t k)
{
    for (size_t i = 0; i < k; i += VEC) {
        vf sum = {0};
        for (size_t t = 0; t < n; t++)
            sum += vec_load(x + t * k + i);
        vec_store(out + i, sum * (1.0f / (float)n));
    }
}

static void unit(float *x, size_t k)
{
    vf sum = {0};
    for (size_t i = 0; i < k; i += VEC) {
        vf v = vec_load(x + i);
        sum += v * v;
    }
    float length = sqrtf(vec_sum(sum));
    /* Where the length is NaN, NaN values stay what they are: 0 times them. */
    float inverse = length > 0 ? 1.0f / length : 0;
    for (size_t i = 0; i < k; i += VEC)
        vec_store(x + i, vec_load(x + i) * inverse);
}

/* Rows a tile: as many sums as the registers hold beside the queries. */
#define DOTS_ROWS (VEC == 16 ? 12 : VEC == 8 ? 6 : 2)
#define DOTS_VECS (DOTS_QUERIES / VEC)

/* A tile reads a row's value once for all queries and a query's once for all rows. */
INLINE void dots_tile(vf sums[DOTS_ROWS][DOTS_VECS], const float *const rows[DOTS_ROWS],
                      const float *queries, size_t k)
{
    for (size_t r = 0; r < DOTS_ROWS; r++)
        for (size_t v = 0; v < DOTS_VECS; v++)
            sums[r][v] = (vf){0};
    for (size_t i = 0; i < k; i++, queries += DOTS_QUERIES)
        for (size_t r = 0; r < DOTS_ROWS; r++) {
            /* A lane is a query, summed in order of i: its bits do not depend on the tile. */
            vf x = vec_splat(rows[r][i]);
            for (size_t v = 0; v < DOTS_VECS; v++)
                sums[r][v] += x * vec_load(queries + v * VEC);
        }
}

static void dots(float *out, const float *rows, size_t n, const float *queries, size_t k)
{
    for (size_t first = 0; first < n; first += DOTS_ROWS) {
        vf sums[DOTS_ROWS][DOTS_VECS];
        const float *tile[DOTS_ROWS];
        size_t there = n - first < DOTS_ROWS ? n - first : DOTS_ROWS;
        for (size_t r = 0; r < DOTS_ROWS; r++) /* the last ones stand in for those that lack */
            tile[r] = rows + (first + (r < there ? r : there - 1)) * k;
        dots_tile(sums, tile, queries, k);
        for (size_t r = 0; r < there; r++)
            for (size_t v = 0; v < DOTS_VECS; v++)
                vec_store(out + (first + r) * DOTS_QUERIES + v * VEC, sums[r][v]);
    }
}

/* The table's shared part; the including file adds its name, packed form, product and peak. */
#define KERNELS_SHARED                                                                             \
    .quantize = quantize, .rms_norm_quantize = rms_norm_quantize,                                  \
    .geglu_quantize = geglu_quantize, .glu_quantize = glu_quantize,                                \
    .gelu_quantize = gelu_quantize, .widen = widen, .add_rms_norm = add_rms_norm,                  \
    .rms_norm = rms_norm, .bias_scale = bias_scale, .add_layer_norm = add_layer_norm,              \
    .norm_rope = norm_rope, .embed_row = embed_row, .mean_rows = mean_rows, .unit = unit,          \
    .dots = dots

#define KERNELS_ATTENTION .attention_size = attention_size, .attention = attention
