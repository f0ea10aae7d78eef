/*
 * weights.c: see weights.h. Source of the definitions: ggml-common.h and ggml-quants.c of ggml.
 */
#include "tests/support/weights.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

double weights_half(uint16_t half)
{
    double rest = half & 0x3ff;
    int exponent = half >> 10 & 31;
    double value = exponent ? ldexp(1 + rest / 1024, exponent - 15) : ldexp(rest, -24);
    return half & 0x8000 ? -value : value;
}

static double half_of(const uint8_t *at)
{
    return weights_half((uint16_t)(at[0] | at[1] << 8));
}

/* Nibble i of 32 that stand in 16 bytes: the first 16 in the lower halves. */
static int nibble(const uint8_t *at, size_t i)
{
    return i < 16 ? at[i] & 15 : at[i - 16] >> 4;
}

static int bit(const uint8_t *at, size_t i)
{
    return at[i / 8] >> (i % 8) & 1;
}

/* Of a sub-block of Q4_K and Q5_K: which 0: scale, 1: offset. */
static int six_bits(const uint8_t *at, size_t sub, size_t which)
{
    if (sub < 4)
        return at[sub + 4 * which] % 64;
    int low = which ? at[sub + 4] >> 4 : at[sub + 4] % 16;
    return low + 16 * (at[sub - 4 + 4 * which] / 64);
}

static double value_of(const uint8_t *b, size_t i, enum matrix_type type)
{
    static const int levels[] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                 1,    13,   25,  38,  53,  69,  89,  113};
    size_t sub = i / 32, in = i % 32, half = i / 128, quarter = i % 128 / 32;
    switch (type) {
    case MATRIX_Q8_0:
        return half_of(b) * (int8_t)b[2 + i];
    case MATRIX_Q4_0:
        return half_of(b) * (nibble(b + 2, i) - 8);
    case MATRIX_IQ4_NL:
        return half_of(b) * levels[nibble(b + 2, i)];
    case MATRIX_Q5_0:
        return half_of(b) * (nibble(b + 6, i) + 16 * bit(b + 2, i) - 16);
    case MATRIX_Q4_1:
        return half_of(b) * nibble(b + 4, i) + half_of(b + 2);
    case MATRIX_Q5_1:
        return half_of(b) * (nibble(b + 8, i) + 16 * bit(b + 4, i)) + half_of(b + 2);
    case MATRIX_Q4_K: {
        int q = b[16 + sub / 2 * 32 + in] >> (4 * (sub % 2)) & 15;
        return half_of(b) * six_bits(b + 4, sub, 0) * q - half_of(b + 2) * six_bits(b + 4, sub, 1);
    }
    case MATRIX_Q5_K: {
        int q = (b[48 + sub / 2 * 32 + in] >> (4 * (sub % 2)) & 15) + 16 * (b[16 + in] >> sub & 1);
        return half_of(b) * six_bits(b + 4, sub, 0) * q - half_of(b + 2) * six_bits(b + 4, sub, 1);
    }
    case MATRIX_Q6_K: {
        int low = b[half * 64 + quarter % 2 * 32 + in] >> (quarter / 2 * 4) & 15;
        int high = b[128 + half * 32 + in] >> (2 * quarter) & 3;
        return half_of(b + 208) * (int8_t)b[192 + i / 16] * (low + 16 * high - 32);
    }
    default:
        assert(!"not a quantised type");
        return 0;
    }
}

/* Where the block's halves are; 0: there is no second. */
static void halves_place(enum matrix_type type, size_t *first, size_t *second)
{
    bool has_two =
        type == MATRIX_Q4_1 || type == MATRIX_Q5_1 || type == MATRIX_Q4_K || type == MATRIX_Q5_K;
    *first = type == MATRIX_Q6_K ? 208 : 0;
    *second = has_two ? 2 : 0;
}

void weights_fill(uint8_t *bytes, double *values, size_t n, enum matrix_type type,
                  uint64_t (*random)(void))
{
    struct { /* as in matrix.c, but written down once more */
        size_t values, bytes;
    } layout = {32, 34};
    switch (type) {
    case MATRIX_Q4_0:
    case MATRIX_IQ4_NL:
        layout.bytes = 18;
        break;
    case MATRIX_Q4_1:
        layout.bytes = 20;
        break;
    case MATRIX_Q5_0:
        layout.bytes = 22;
        break;
    case MATRIX_Q5_1:
        layout.bytes = 24;
        break;
    case MATRIX_Q4_K:
    case MATRIX_Q5_K:
    case MATRIX_Q6_K:
        layout.values = 256;
        layout.bytes = type == MATRIX_Q4_K ? 144 : type == MATRIX_Q5_K ? 176 : 210;
        break;
    default:
        break;
    }
    size_t first, second;
    halves_place(type, &first, &second);
    for (size_t b = 0; b < n / layout.values; b++) {
        uint8_t *block = bytes + b * layout.bytes;
        for (size_t i = 0; i < layout.bytes; i++)
            block[i] = (uint8_t)random();
        /* about 0.004, or subnormal; the offset of either sign */
        uint16_t half = (uint16_t)(b % 7 ? 0x1c00 + random() % 0x400 : random() % 3);
        memcpy(block + first, &half, 2);
        half = (uint16_t)((random() & 0x8000) | (0x1c00 + random() % 0x400));
        if (second)
            memcpy(block + second, &half, 2);
        for (size_t i = 0; i < layout.values; i++)
            values[b * layout.values + i] = value_of(block, i, type);
    }
}
