/*
 * kernels_quants.h: blocks of ggml's quantised types, as floats and as Q8_0 blocks. A part of
 * kernels_weights.h.
 *
 * Every product below (half, small integers) has 24 bits at most and is exact in float32, so a
 * difference is rounded once, with a fused multiply-add or without: all tables read the same bits.
 * Source: ggml-common.h and ggml-quants.c of ggml, for what the bytes mean.
 */

enum { SUPER_BLOCK = 256 /* values of a block of the K types */ };

INLINE float half_at(const uint8_t *p)
{
    uint16_t half;
    memcpy(&half, p, sizeof half);
    return half_to_float(half);
}

/* Q5_0: the fifth bits of 32 values stand together; 16 is taken off. As a Q8_0 block. */
INLINE void q5_0_widen(uint8_t *to, const uint8_t *block)
{
    uint32_t fifth;
    memcpy(to, block, 2);
    memcpy(&fifth, block + 2, sizeof fifth);
    for (size_t i = 0; i < Q8_BLOCK / 2; i++) {
        uint32_t upper = fifth >> 16;
        to[2 + i] = (uint8_t)(((block[6 + i] & 15) | (fifth >> i & 1) << 4) - 16);
        to[2 + Q8_BLOCK / 2 + i] = (uint8_t)((block[6 + i] >> 4 | (upper >> i & 1) << 4) - 16);
    }
}

/* IQ4_NL: 4 bits choose one of 16 levels that lie closer together near zero. */
INLINE void iq4_widen(uint8_t *to, const uint8_t *block)
{
    static const int8_t levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
    memcpy(to, block, 2);
    for (size_t i = 0; i < Q8_BLOCK / 2; i++) {
        to[2 + i] = (uint8_t)levels[block[2 + i] & 15];
        to[2 + Q8_BLOCK / 2 + i] = (uint8_t)levels[block[2 + i] >> 4];
    }
}

/* Q4_1 and Q5_1: scale and least value, then (Q5_1) the fifth bits, then 4 bits of each. */
INLINE void q4_1_read(float *out, const uint8_t *block)
{
    float scale = half_at(block), least = half_at(block + 2);
    for (size_t i = 0; i < Q8_BLOCK / 2; i++) {
        out[i] = (float)(block[4 + i] & 15) * scale + least;
        out[Q8_BLOCK / 2 + i] = (float)(block[4 + i] >> 4) * scale + least;
    }
}

INLINE void q5_1_read(float *out, const uint8_t *block)
{
    float scale = half_at(block), least = half_at(block + 2);
    uint32_t fifth;
    memcpy(&fifth, block + 4, sizeof fifth);
    for (size_t i = 0; i < Q8_BLOCK / 2; i++) {
        uint32_t low = (block[8 + i] & 15u) | (fifth >> i & 1) << 4;
        uint32_t high = block[8 + i] >> 4 | (fifth >> (16 + i) & 1) << 4;
        out[i] = (float)low * scale + least;
        out[Q8_BLOCK / 2 + i] = (float)high * scale + least;
    }
}

/* Scale and offset of sub-block i of 8, 6 bits each, as Q4_K and Q5_K pack them into 12 bytes. */
INLINE void sub_block_scales(const uint8_t *packed, size_t i, float *scale, float *offset)
{
    uint8_t s = packed[i], o = packed[i + 4];
    if (i >= 4) {
        /* 4 lower bits by themselves, 2 upper ones above the 6 bits of the first four. */
        s = (uint8_t)((packed[i + 4] & 15) | packed[i - 4] >> 6 << 4);
        o = (uint8_t)(packed[i + 4] >> 4 | packed[i] >> 6 << 4);
    }
    *scale = (float)(s & 63);
    *offset = (float)(o & 63);
}

/* Q4_K, and Q5_K where there are fifth bits: 8 sub-blocks of 32. Pairs of them share bytes. */
INLINE void q45_k_read(float *out, const uint8_t *block, const uint8_t *fifth,
                       const uint8_t *quants)
{
    float d = half_at(block), d_offset = half_at(block + 2);
    for (size_t sub = 0; sub < 8; sub++) {
        const uint8_t *from = quants + sub / 2 * Q8_BLOCK;
        float scale, offset;
        sub_block_scales(block + 4, sub, &scale, &offset);
        scale *= d;
        offset *= d_offset;
        for (size_t i = 0; i < Q8_BLOCK; i++) {
            uint32_t q = sub % 2 ? from[i] >> 4 : from[i] & 15u;
            if (fifth)
                q |= (fifth[i] >> sub & 1u) << 4;
            *out++ = (float)q * scale - offset;
        }
    }
}

/* Q6_K: 4 lower bits, 2 upper bits, 16 scales of 16 values each, the scale of all. 32 is taken off.
 */
INLINE void q6_k_read(float *out, const uint8_t *block)
{
    const uint8_t *upper = block + 128;
    float d = half_at(block + 208);
    for (size_t i = 0; i < SUPER_BLOCK; i++) {
        /* Two halves of 128: 64 bytes of lower bits and 32 of upper ones, four quarters in each. */
        size_t half = i / 128, quarter = i % 128 / 32, at = i % 32;
        uint8_t low = block[half * 64 + quarter % 2 * 32 + at];
        uint8_t high = upper[half * 32 + at] >> (2 * quarter) & 3;
        int32_t q = (int32_t)((quarter < 2 ? low & 15 : low >> 4) | high << 4) - 32;
        out[i] = d * (float)((int8_t)block[192 + i / 16] * q);
    }
}

/* BF16: the upper half of a float32. */
INLINE void bf16_read(float *out, const uint8_t *from, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t upper;
        memcpy(&upper, from + i * sizeof upper, sizeof upper);
        uint32_t bits = (uint32_t)upper << 16;
        memcpy(out + i, &bits, sizeof bits);
    }
}
