/*
 * kernels_neon_fast.c: Advanced SIMD with the dot product extension, activations of 8 bits: see
 * kernels_fast.h.
 *
 * One sdot for 16 products, where kernels_neon.c takes two. Both operands are signed, so nothing is
 * added and nothing taken off. |sum| < 128 * 127 * 32 < 2^19.
 *
 * Panel: as in kernels_neon.c.
 *
 * Packed: tokens in tiles of up to TILE. A block of a tile of T is digits [8][T][4], float scales
 * [T]; after the blocks T numbers of rests, then for each token room for a rest a block.
 */
#define VEC 4
#define KERNELS_FAST
#include "inference/kernels_body.h"

#include <arm_neon.h>

enum {
    PANEL_ROWS = 16,
    TILE = 6,
    QUADS = Q8_BLOCK / 4,
    GROUP = 4, /* inputs */
    PART_ROWS = 8,
    PART_BLOCK = PART_ROWS * 4 + Q8_BLOCK * PART_ROWS, /* bytes */
    PANEL_BLOCK = PANEL_ROWS / PART_ROWS * PART_BLOCK,
    TOKEN_BLOCK = Q8_BLOCK + 4, /* bytes of one token in a block */
};

#include "inference/kernels_tiles.h"

#include "inference/kernels_neon_internal.h"

#include "inference/kernels_neon_sdot_internal.h"

/* total[r] += the rests of a token times their weights. */
INLINE void rests_add(float32x4_t total[2], const uint8_t *panel, const uint8_t *rests,
                      size_t n_rests)
{
    for (size_t e = 0; e < n_rests; e++) {
        struct rest rest;
        memcpy(&rest, rests + e * sizeof rest, sizeof rest);
        const uint8_t *block = panel + rest.input / Q8_BLOCK * PART_BLOCK;
        size_t input = rest.input % Q8_BLOCK;
        for (size_t i = 0; i < 2; i++) {
            const uint8_t *quad = block + PART_ROWS * 4 + (i * QUADS + input / 4) * 16;
            int32x4_t w = vreinterpretq_s32_u8(vld1q_u8(quad));
            /* The byte of this input to the top of its lane, and down again with its sign. */
            w = vshrq_n_s32(vshlq_s32(w, vdupq_n_s32(24 - 8 * (int)(input % 4))), 24);
            float32x4_t value = vmulq_n_f32(vld1q_f32((const float *)block + i * 4), rest.value);
            total[i] = vfmaq_f32(total[i], vcvtq_f32_s32(w), value);
        }
    }
}

/* out[t][0..7] for a tile of T tokens and a part's 8 rows; T is a constant in each use. */
INLINE void part_matmul(float *out, size_t ld, const uint8_t *panel, const int8_t *tokens,
                        size_t n_blocks, const uint8_t *ahead, const size_t T)
{
    float32x4_t total[TILE][2];
    for (size_t t = 0; t < T; t++) {
        uint32_t n_rests;
        /* Rests first, then block for block: the order of all tables, or bits would differ. */
        const uint8_t *rests = rests_of(tokens, n_blocks, T, t, &n_rests);
        total[t][0] = total[t][1] = vdupq_n_f32(0);
        rests_add(total[t], panel, rests, n_rests);
    }
    for (size_t b = 0; b < n_blocks; b++, panel += PART_BLOCK, tokens += T * TOKEN_BLOCK) {
        block_prefetch(ahead, b);
        int32x4_t sum[TILE][2];
        for (size_t t = 0; t < T; t++)
            sum[t][0] = sum[t][1] = vdupq_n_s32(0);
        block_pass(sum, (const int8_t *)panel + PART_ROWS * 4, tokens, T);
        float32x4_t d0 = vld1q_f32((const float *)panel), d1 = vld1q_f32((const float *)panel + 4);
        for (size_t t = 0; t < T; t++) {
            float scale;
            memcpy(&scale, tokens + T * Q8_BLOCK + t * sizeof scale, sizeof scale);
            total[t][0] = vfmaq_f32(total[t][0], vcvtq_f32_s32(sum[t][0]), vmulq_n_f32(d0, scale));
            total[t][1] = vfmaq_f32(total[t][1], vcvtq_f32_s32(sum[t][1]), vmulq_n_f32(d1, scale));
        }
    }
    for (size_t t = 0; t < T; t++) {
        vst1q_f32(out + t * ld, total[t][0]);
        vst1q_f32(out + t * ld + 4, total[t][1]);
    }
}

PEAK_FUNCTION(vdotq_s32, 32)

const struct kernels kernels_neon_fast = {
    .name = "neon",
    .precision = PRECISION_FAST,
    .packed_size = packed_size,
    .panel_size = panel_size,
    .matmul = matmul,
    .peak = peak,
    KERNELS_SHARED,
    KERNELS_ATTENTION,
};
