/*
 * kernels_weights.h: weights of every type, read as floats or as Q8_0. A part of kernels_body.h.
 */
typedef uint16_t vh_any __attribute__((vector_size(VEC * 2), aligned(2), may_alias));

/* IEEE 754 half to float, for the scales of blocks. */
INLINE float half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fffu;
    uint32_t bits;
    float out;
    if (rest >= 0x7c00) { /* infinity, NaN */
        bits = sign | 0x7f800000u | (rest & 0x3ff) << 13;
    } else if (rest >= 0x400) {
        bits = sign | ((rest << 13) + (112u << 23));
    } else { /* zero, subnormal: exact as a product */
        out = (float)rest * 5.9604644775390625e-8f;
        return sign ? -out : out;
    }
    memcpy(&out, &bits, sizeof out);
    return out;
}

/* The smallest half that is not below x, 0 <= x; NaN beyond the largest finite one. */
INLINE uint16_t half_above(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (!(x <= 65504.0f))
        return 0x7e00;
    if (x < 6.103515625e-5f) { /* subnormal: a multiple of 2^-24 */
        float steps = x * 16777216.0f;
        uint32_t whole = (uint32_t)steps;
        /* One more where a fraction is left; 1024 steps are the smallest normal half. */
        return (uint16_t)(whole + ((float)whole < steps));
    }
    return (uint16_t)(((bits + 0x1fff) >> 13) - (112u << 10));
}

/* VEC halves, NaN for those that are not finite. The exponent's bias is made good by a product,
 * which is exact, and which takes subnormal ones along. */
INLINE vf halves_load(const uint8_t *p)
{
    vi h = __builtin_convertvector(*(const vh_any *)p, vi);
    vf magnitude = (vf)((h & 0x7fff) << 13) * 5.192296858534828e33f; /* 2^112 */
    magnitude = vec_select(magnitude < 65536.0f, magnitude, vec_splat(NAN));
    return (vf)((vi)magnitude | (h & 0x8000) << 16);
}

#include "inference/kernels_quants.h"

/* A Q4_0 block, 32 values of 4 bits less 8, the first 16 in the lower halves, as a Q8_0 block. */
INLINE void q4_widen(uint8_t *to, const uint8_t *block)
{
    memcpy(to, block, 2);
    for (size_t i = 0; i < Q8_BLOCK / 2; i++) {
        to[2 + i] = (uint8_t)((block[2 + i] & 15) - 8);
        to[2 + Q8_BLOCK / 2 + i] = (uint8_t)((block[2 + i] >> 4) - 8);
    }
}

/* A block of a type of one digit as the Q8_0 block it is. */
INLINE const uint8_t *block_widen(uint8_t to[Q8_BLOCK_BYTES], const uint8_t *block,
                                  enum matrix_type type)
{
    switch (type) {
    case MATRIX_Q4_0:
        q4_widen(to, block);
        return to;
    case MATRIX_Q5_0:
        q5_0_widen(to, block);
        return to;
    case MATRIX_IQ4_NL:
        iq4_widen(to, block);
        return to;
    default: /* Q8_0 */
        return block;
    }
}

/* out [k] = row `row` of a matrix of a type of two digits. Not inlined: the K types are long. */
static __attribute__((noinline)) void floats_read(float *out, const struct matrix *w, size_t row)
{
    struct matrix_layout layout = matrix_layout(w->type);
    const uint8_t *from = w->data + row * (w->n_in / layout.values * layout.bytes);
    if (w->type == MATRIX_F32) {
        memcpy(out, from, w->n_in * sizeof *out);
        return;
    }
    if (w->type == MATRIX_BF16) {
        bf16_read(out, from, w->n_in);
        return;
    }
    if (w->type == MATRIX_F16) {
        for (size_t i = 0; i < w->n_in; i += VEC)
            vec_store(out + i, halves_load(from + i * sizeof(uint16_t)));
        return;
    }
    for (size_t i = 0; i < w->n_in; i += layout.values, from += layout.bytes)
        switch (w->type) {
        case MATRIX_Q4_1:
            q4_1_read(out + i, from);
            break;
        case MATRIX_Q5_1:
            q5_1_read(out + i, from);
            break;
        case MATRIX_Q4_K:
            q45_k_read(out + i, from, NULL, from + 16);
            break;
        case MATRIX_Q5_K:
            q45_k_read(out + i, from, from + 16, from + 48);
            break;
        default:
            q6_k_read(out + i, from);
            break;
        }
}

/* 32 values to a Q8_0 block; values become what it leaves of them. A block with one that is not
 * finite, or too large for Q8_0, gets a scale that is none: so does every vector made of it, and
 * that is looked for. */
INLINE void digit_take(uint8_t *to, float *values)
{
    const vf most = vec_splat(127.0f);
    vf top = {0};
    for (size_t i = 0; i < Q8_BLOCK; i += VEC)
        top = vec_larger(top, vec_load(values + i));
    uint16_t half = half_above(vec_largest(top) / 127.0f);
    float scale = half_to_float(half), inverse = half ? 1.0f / scale : 0;
    memcpy(to, &half, sizeof half);
    for (size_t i = 0; i < Q8_BLOCK; i += VEC) {
        vf v = vec_load(values + i);
        /* The scale was rounded up; the inverse may be a rounding too large yet, so 127 is the
         * bound. */
        vf digit = vec_round(vec_min(vec_max(v * inverse, -most), most));
        *(vb_any *)(to + 2 + i) = __builtin_convertvector(__builtin_convertvector(digit, vi), vb);
        vec_store(values + i, v - digit * scale);
    }
}

static void widen(uint8_t *high, uint8_t *low, const struct matrix *w, size_t row)
{
    _Alignas(64) float values[ROW_MAX];
    struct matrix_layout layout = matrix_layout(w->type);
    size_t n_blocks = w->n_in / Q8_BLOCK;
    assert(w->n_in <= ROW_MAX && row + MATRIX_ROWS <= w->n_out);
    for (size_t r = row; r < row + MATRIX_ROWS; r++) {
        if (layout.digits == 2)
            floats_read(values, w, r);
        for (size_t b = 0; b < n_blocks; b++, high += Q8_BLOCK_BYTES) {
            if (layout.digits == 1) {
                block_widen(high, w->data + (r * n_blocks + b) * layout.bytes, w->type);
                continue;
            }
            digit_take(high, values + b * Q8_BLOCK);
            digit_take(low, values + b * Q8_BLOCK);
            low += Q8_BLOCK_BYTES;
        }
    }
}

static void embed_row(float *out, const struct matrix *w, size_t id, float scale)
{
    size_t n_blocks = w->n_in / Q8_BLOCK;
    struct matrix_layout layout = matrix_layout(w->type);
    if (layout.digits == 2) {
        floats_read(out, w, id);
        for (size_t i = 0; i < w->n_in; i++)
            out[i] *= scale;
        return;
    }
    for (size_t b = 0; b < n_blocks; b++, out += Q8_BLOCK) {
        uint8_t widened[Q8_BLOCK_BYTES];
        const uint8_t *block =
            block_widen(widened, w->data + (id * n_blocks + b) * layout.bytes, w->type);
        float d = half_at(block) * scale;
        for (size_t i = 0; i < Q8_BLOCK; i++)
            out[i] = (float)(int8_t)block[2 + i] * d;
    }
}
