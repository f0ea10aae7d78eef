/*
 * codec_dtype.c: vectors in the number types of the option `dtype`.
 *
 * Owns:    rounding, scale and the order of bits (docs/wire-format.md).
 * Threads: pure functions.
 * Why:     i1 has a scale of its own in each vector, the largest that fits: one scale for all would
 *          leave most vectors of 768 values three bits. It need not be stored, for the vector was
 *          of unit length: divide by the length of what is read.
 */
#include "worker/codec/codec_internal.h"

#include <math.h>
#include <string.h>

size_t codec_dtype_bytes(enum output_dtype dtype, size_t dim)
{
    switch (dtype) {
    case DTYPE_F4:
        break;
    case DTYPE_F2:
        return 2 * dim;
    case DTYPE_I1:
        return dim;
    case DTYPE_B1:
        return (dim + 7) / 8;
    }
    return 4 * dim;
}

const char *codec_dtype_name(enum output_dtype dtype)
{
    static const char *const names[] = {"<f4", "<f2", "|i1", "bits"};
    return names[dtype];
}

/* IEEE 754 binary16, to nearest, ties to even. Values are of unit vectors: no infinity arises. */
static uint16_t half_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    float magnitude = fabsf(value);
    if (magnitude < 0x1p-14f) /* subnormal: a multiple of 2^-24 */
        return sign | (uint16_t)lrintf(magnitude * 0x1p24f);
    bits &= 0x7fffffff;
    /* Half of what is cut off, and one more where the last bit that stays is odd: ties go to even.
     * A carry into the exponent is the right next number. */
    bits += 0xfff + (bits >> 13 & 1);
    return sign | (uint16_t)((bits >> 13) - ((127 - 15) << 10));
}

float codec_half_value(uint16_t half)
{
    float magnitude = (half & 0x7c00) == 0
                          ? (float)(half & 0x3ff) * 0x1p-24f
                          : ldexpf((float)(1024 + (half & 0x3ff)), (half >> 10 & 31) - 25);
    return half & 0x8000 ? -magnitude : magnitude;
}

static void pack_i1(const float *row, size_t dim, int8_t *out)
{
    float top = 0;
    for (size_t i = 0; i < dim; i++)
        top = fmaxf(top, fabsf(row[i]));
    /* Never -128: with it the range would not be symmetric and a vector and its negative not
     * opposite. */
    float scale = top > 0 ? 127.0f / top : 0;
    for (size_t i = 0; i < dim; i++)
        out[i] = (int8_t)lrintf(row[i] * scale);
}

static void pack_b1(const float *row, size_t dim, uint8_t *out)
{
    memset(out, 0, (dim + 7) / 8);
    for (size_t i = 0; i < dim; i++)
        out[i / 8] |= (uint8_t)((row[i] > 0) << (7 - i % 8));
}

void codec_dtype_pack(enum output_dtype dtype, const float *row, size_t dim, void *out)
{
    switch (dtype) {
    case DTYPE_F4:
        memcpy(out, row, dim * sizeof *row);
        break;
    case DTYPE_F2:
        for (size_t i = 0; i < dim; i++) {
            uint16_t half = half_of(row[i]);
            memcpy((char *)out + 2 * i, &half, sizeof half);
        }
        break;
    case DTYPE_I1:
        pack_i1(row, dim, out);
        break;
    case DTYPE_B1:
        pack_b1(row, dim, out);
        break;
    }
}
