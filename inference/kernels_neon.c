/*
 * kernels_neon.c: Advanced SIMD with the dot product extension (Armv8.2).
 *
 * sdot adds 16 products of signed bytes to 4 sums. A 16-bit activation is two signed bytes,
 * 256 * high + low, so each weight is used twice: high, shift by 8, low. That is 8 exact
 * multiply-adds an instruction, where smlal on int16 does 4. |sum| < 128 * 32639 * 32 < 2^27.
 *
 * As gcc 12 compiles it, a block of a full tile (6 tokens, 8 rows, 1536 multiply-adds) takes 282
 * instructions without a spill: 192 sdot, 36 to shift, convert and add to the totals, 37 loads (of
 * one or two vectors), 12 to clear sums, 5 for the loop. That is 0.18 a multiply-add, and four of
 * five of the vector unit's instructions multiply.
 *
 * Panel: PANEL_ROWS rows of weights, unpacked from the mapped Q8_0 once for all tokens of the
 * call: two parts of 8 rows. A block of a part is 8 float scales, then for each half of the rows
 * and each 4 inputs 4 rows of 4 bytes: one vector.
 *
 * Packed: tokens in tiles of up to TILE; a block of a tile of T is high [8][T][4], low [8][T][4];
 * after the blocks T float scales. sdot takes its 4 bytes from any lane, so one load serves four.
 */
#define VEC 4
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
    TOKEN_BLOCK = 2 * Q8_BLOCK, /* bytes of one token in a block */
};

#include "inference/kernels_tiles.h"

#include "inference/kernels_neon_internal.h"

#include "inference/kernels_neon_sdot_internal.h"

/* out[t][0..7] for a tile of T tokens and a part's 8 rows; T is a constant in each use. */
INLINE void part_matmul(float *out, size_t ld, const uint8_t *panel, const int8_t *tokens,
                        size_t n_blocks, const uint8_t *ahead, const size_t T)
{
    float32x4_t total[TILE][2];
    for (size_t t = 0; t < T; t++)
        total[t][0] = total[t][1] = vdupq_n_f32(0);
    for (size_t b = 0; b < n_blocks; b++, panel += PART_BLOCK, tokens += T * TOKEN_BLOCK) {
        block_prefetch(ahead, b);
        const int8_t *weights = (const int8_t *)panel + PART_ROWS * 4;
        /* Of a full tile 12 sums and 12 totals: 24 of 32 registers. */
        int32x4_t sum[TILE][2];
        for (size_t t = 0; t < T; t++)
            sum[t][0] = sum[t][1] = vdupq_n_s32(0);
        block_pass(sum, weights, tokens, T);
        for (size_t t = 0; t < T; t++)
            for (size_t r = 0; r < 2; r++)
                /* 256 * high; the low bytes are signed, too (pack_row rounds the high ones). */
                sum[t][r] = vshlq_n_s32(sum[t][r], 8);
        block_pass(sum, weights, tokens + T * Q8_BLOCK, T);
        float32x4_t d0 = vld1q_f32((const float *)panel), d1 = vld1q_f32((const float *)panel + 4);
        for (size_t t = 0; t < T; t++) {
            total[t][0] = vfmaq_f32(total[t][0], vcvtq_f32_s32(sum[t][0]), d0);
            total[t][1] = vfmaq_f32(total[t][1], vcvtq_f32_s32(sum[t][1]), d1);
        }
    }
    for (size_t t = 0; t < T; t++) {
        float scale;
        memcpy(&scale, tokens + t * sizeof scale, sizeof scale);
        vst1q_f32(out + t * ld, vmulq_n_f32(total[t][0], scale));
        vst1q_f32(out + t * ld + 4, vmulq_n_f32(total[t][1], scale));
    }
}

PEAK_FUNCTION(vdotq_s32, 16)

const struct kernels kernels_neon = {
    .name = "neon",
    .fast = &kernels_neon_fast,
    .packed_size = packed_size,
    .panel_size = panel_size,
    .matmul = matmul,
    .peak = peak,
    KERNELS_SHARED,
    KERNELS_ATTENTION,
};
