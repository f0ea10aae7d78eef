/*
 * kernels_neon_i8mm.c: Advanced SIMD with the int8 matrix product extension (Armv8.6).
 *
 * smmla multiplies 2 tokens by 2 rows over 8 inputs: 32 products an instruction, twice those of
 * sdot. The arithmetic is that of kernels_neon.c, exact sums and their order included, so the
 * results of the two tables are the same bytes.
 *
 * As gcc 12 compiles it, a block of a full tile (6 tokens, 8 rows, 1536 multiply-adds) takes 199
 * instructions without a spill: 96 smmla, 36 to shift, convert and add to the totals, 50 loads, 12
 * to clear sums, 5 for the loop. That is 0.13 a multiply-add; clang 14 spills 8 of its totals, 5 %.
 *
 * Panel: as in kernels_neon.c, but a block of a part is for each 2 of its 8 rows their scales
 * twice, then for each 2 rows and each 8 inputs 2 rows of 8 bytes: one vector.
 *
 * Packed: a block of a tile of T is high [4][T][8], low [4][T][8]; after the blocks T float scales.
 * Tiles are of pairs of tokens; where n is odd the last one is paired with itself.
 */
#define VEC 4
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
    TOKEN_BLOCK = 2 * Q8_BLOCK, /* bytes of one token in a block */
};

#include "inference/kernels_tiles.h"

#include "inference/kernels_neon_internal.h"

#include "inference/kernels_neon_smmla_internal.h"

/* out[t][0..7] for a tile of T tokens and a part's 8 rows; T is a constant in each use. */
INLINE void part_matmul(float *out, size_t ld, const uint8_t *panel, const int8_t *tokens,
                        size_t n_blocks, const uint8_t *ahead, const size_t T)
{
    float32x4_t total[TILE / 2][PART_ROWS / 2];
    for (size_t p = 0; p < (T + 1) / 2; p++)
        for (size_t r = 0; r < PART_ROWS / 2; r++)
            total[p][r] = vdupq_n_f32(0);
    for (size_t b = 0; b < n_blocks; b++, panel += PART_BLOCK, tokens += T * TOKEN_BLOCK) {
        block_prefetch(ahead, b);
        const int8_t *weights = (const int8_t *)panel + PART_ROWS * 8;
        /* Lanes: tokens 2 p and 2 p + 1, of each rows 2 r and 2 r + 1. */
        int32x4_t sum[TILE / 2][PART_ROWS / 2];
        for (size_t p = 0; p < (T + 1) / 2; p++)
            for (size_t r = 0; r < PART_ROWS / 2; r++)
                sum[p][r] = vdupq_n_s32(0);
        block_pass(sum, weights, tokens, T);
        for (size_t p = 0; p < (T + 1) / 2; p++)
            for (size_t r = 0; r < PART_ROWS / 2; r++)
                sum[p][r] = vshlq_n_s32(sum[p][r], 8);
        block_pass(sum, weights, tokens + T * Q8_BLOCK, T);
        for (size_t r = 0; r < PART_ROWS / 2; r++) {
            /* Scales of two rows, twice: the panel has them as the lanes need them. */
            float32x4_t d = vld1q_f32((const float *)panel + r * 4);
            for (size_t p = 0; p < (T + 1) / 2; p++)
                total[p][r] = vfmaq_f32(total[p][r], vcvtq_f32_s32(sum[p][r]), d);
        }
    }
    for (size_t t = 0; t < T; t++) {
        float scale;
        memcpy(&scale, tokens + t * sizeof scale, sizeof scale);
        for (size_t r = 0; r < PART_ROWS / 2; r += 2)
            vst1q_f32(out + t * ld + r * 2,
                      vmulq_n_f32(rows_of(total[t / 2][r], total[t / 2][r + 1], t % 2), scale));
    }
}

PEAK_FUNCTION(vmmlaq_s32, 32)

const struct kernels kernels_neon_i8mm = {
    .name = "neon-i8mm",
    .fast = &kernels_neon_i8mm_fast,
    .packed_size = packed_size,
    .panel_size = panel_size,
    .matmul = matmul,
    .peak = peak,
    KERNELS_SHARED,
    KERNELS_ATTENTION,
};
