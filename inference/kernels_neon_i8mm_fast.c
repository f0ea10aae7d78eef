/*
 * kernels_neon_i8mm_fast.c: Advanced SIMD with the int8 matrix product extension, activations of 8
 * bits: see kernels_fast.h.
 *
 * One smmla for 32 products, where kernels_neon_i8mm.c takes two; otherwise as there. The
 * arithmetic is that of kernels_neon_fast.c.
 *
 * Packed: a block of a tile of T is digits [4][T][8], float scales [T]; after the blocks T numbers
 * of rests, then for each token room for a rest a block.
 */
#define VEC 4
#define KERNELS_FAST
#include "inference/kernels_body.h"

#include <arm_neon.h>

#define TILE_STEP 2

enum {
    PANEL_ROWS = 16,
    TILE = 6,
    OCTETS = Q8_BLOCK / 8,
    GROUP = 8, /* inputs */
    PART_ROWS = 8,
    PART_BLOCK = PART_ROWS * 8 + Q8_BLOCK * PART_ROWS, /* bytes */
    PANEL_BLOCK = PANEL_ROWS / PART_ROWS * PART_BLOCK,
    TOKEN_BLOCK = Q8_BLOCK + 4, /* bytes of one token in a block */
};

#include "inference/kernels_tiles.h"

#include "inference/kernels_neon_internal.h"

#include "inference/kernels_neon_smmla_internal.h"

/* Weights of an input, and scales, of rows 2 r and 2 r + 1, times the rests of tokens t and t + 1:
 * added to total[r], whose lanes are (t, 2 r), (t, 2 r + 1), (t + 1, 2 r), (t + 1, 2 r + 1). */
INLINE void rests_add(float32x4_t total[PART_ROWS / 2], const uint8_t *panel, const uint8_t *rests,
                      size_t n_rests, bool is_second)
{
    for (size_t e = 0; e < n_rests; e++) {
        struct rest rest;
        memcpy(&rest, rests + e * sizeof rest, sizeof rest);
        const uint8_t *block = panel + rest.input / Q8_BLOCK * PART_BLOCK;
        size_t input = rest.input % Q8_BLOCK;
        for (size_t r = 0; r < PART_ROWS / 2; r++) {
            const int8_t *octets =
                (const int8_t *)block + PART_ROWS * 8 + (r * OCTETS + input / 8) * 16 + input % 8;
            float32x2_t d = vld1_f32((const float *)block + r * 4);
            /* One input of two rows, whose octets lie side by side. */
            float32x2_t w = {octets[0], octets[8]}, value = vmul_n_f32(d, rest.value);
            float32x2_t low = vget_low_f32(total[r]), high = vget_high_f32(total[r]);
            if (is_second)
                high = vfma_f32(high, w, value);
            else
                low = vfma_f32(low, w, value);
            total[r] = vcombine_f32(low, high);
        }
    }
}

INLINE float32x4_t pair_scales(const int8_t *scales, size_t t, size_t T)
{
    float first, second;
    memcpy(&first, scales + t * sizeof first, sizeof first);
    /* Of an odd last token twice the same, as pair_load has it. */
    memcpy(&second, scales + (t + 1 < T ? t + 1 : t) * sizeof second, sizeof second);
    return vcombine_f32(vdup_n_f32(first), vdup_n_f32(second));
}

/* out[t][0..7] for a tile of T tokens and a part's 8 rows; T is a constant in each use. */
INLINE void part_matmul(float *out, size_t ld, const uint8_t *panel, const int8_t *tokens,
                        size_t n_blocks, const uint8_t *ahead, const size_t T)
{
    float32x4_t total[TILE / 2][PART_ROWS / 2];
    for (size_t p = 0; p < (T + 1) / 2; p++)
        for (size_t r = 0; r < PART_ROWS / 2; r++)
            total[p][r] = vdupq_n_f32(0);
    for (size_t t = 0; t < T; t++) {
        uint32_t n_rests;
        const uint8_t *rests = rests_of(tokens, n_blocks, T, t, &n_rests);
        rests_add(total[t / 2], panel, rests, n_rests, t % 2);
    }
    for (size_t b = 0; b < n_blocks; b++, panel += PART_BLOCK, tokens += T * TOKEN_BLOCK) {
        block_prefetch(ahead, b);
        int32x4_t sum[TILE / 2][PART_ROWS / 2];
        for (size_t p = 0; p < (T + 1) / 2; p++)
            for (size_t r = 0; r < PART_ROWS / 2; r++)
                sum[p][r] = vdupq_n_s32(0);
        block_pass(sum, (const int8_t *)panel + PART_ROWS * 8, tokens, T);
        for (size_t p = 0; p < (T + 1) / 2; p++) {
            float32x4_t scales = pair_scales(tokens + T * Q8_BLOCK, 2 * p, T);
            for (size_t r = 0; r < PART_ROWS / 2; r++) {
                float32x4_t d = vld1q_f32((const float *)panel + r * 4);
                total[p][r] =
                    vfmaq_f32(total[p][r], vcvtq_f32_s32(sum[p][r]), vmulq_f32(d, scales));
            }
        }
    }
    for (size_t t = 0; t < T; t++)
        for (size_t r = 0; r < PART_ROWS / 2; r += 2)
            vst1q_f32(out + t * ld + r * 2, rows_of(total[t / 2][r], total[t / 2][r + 1], t % 2));
}

PEAK_FUNCTION(vmmlaq_s32, 64)

const struct kernels kernels_neon_i8mm_fast = {
    .name = "neon-i8mm",
    .precision = PRECISION_FAST,
    .packed_size = packed_size,
    .panel_size = panel_size,
    .matmul = matmul,
    .peak = peak,
    KERNELS_SHARED,
    KERNELS_ATTENTION,
};
