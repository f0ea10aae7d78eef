/*
 * kernels_neon_sdot_internal.h: what kernels_neon.c and kernels_neon_fast.c share: the panel, and
 * products by sdot. Written for PART_ROWS 8, GROUP 4 and TILE 6; see there.
 */
/* One block of a part's rows, row_size bytes apart. */
INLINE void unpack_block(uint8_t *to, const uint8_t *from, size_t row_size)
{
    __fp16 halves[PART_ROWS];
    for (size_t r = 0; r < PART_ROWS; r++)
        memcpy(&halves[r], from + r * row_size, 2);
    for (size_t r = 0; r < PART_ROWS; r += 4) {
        vst1q_f32((float *)to + r, vcvt_f32_f16(vld1_f16(halves + r)));
        for (size_t i = 0; i < Q8_BLOCK; i += 16) {
            const uint8_t *at = from + r * row_size + 2 + i;
            uint32x4x4_t quads;
            for (size_t j = 0; j < 4; j++)
                quads.val[j] = vreinterpretq_u32_u8(vld1q_u8(at + j * row_size));
            /* Interleaves 4 rows by 4 bytes: what a lane of sdot takes together. */
            vst4q_u32((uint32_t *)(to + PART_ROWS * 4 + r * Q8_BLOCK + i * 4), quads);
        }
    }
}

INLINE int32x4_t dot_lane(int32x4_t sum, int8x16_t w, int8x16_t x, size_t lane)
{
    switch (lane) {
    case 0:
        return vdotq_laneq_s32(sum, w, x, 0);
    case 1:
        return vdotq_laneq_s32(sum, w, x, 1);
    case 2:
        return vdotq_laneq_s32(sum, w, x, 2);
    default:
        return vdotq_laneq_s32(sum, w, x, 3);
    }
}

/* Unless told, gcc keeps the first pass's weights for the second and loads far ahead: it spills. */
#define FENCE __asm__ volatile("" ::: "memory");

/* Written out, for compilers differ in which loops they unroll: where T is a constant, so is all
 * that is asked here. */
#define SLOT(i, t)                                                                                 \
    if ((t) < T) {                                                                                 \
        if (((i)*T + (t)) % 4 == 0)                                                                \
            x = vld1q_s8(tokens + ((i)*T + (t)) * 4);                                              \
        sum[t][0] = dot_lane(sum[t][0], w0, x, ((i)*T + (t)) % 4);                                 \
        sum[t][1] = dot_lane(sum[t][1], w1, x, ((i)*T + (t)) % 4);                                 \
    }
#define QUAD(i)                                                                                    \
    w0 = vld1q_s8(weights + (i)*16);                                                               \
    w1 = vld1q_s8(weights + (QUADS + (i)) * 16);                                                   \
    SLOT(i, 0) SLOT(i, 1) SLOT(i, 2) SLOT(i, 3) SLOT(i, 4) SLOT(i, 5)

/* One pass of a block: sum[t] += 32 products for each of a part's rows. */
INLINE void block_pass(int32x4_t sum[TILE][2], const int8_t *weights, const int8_t *tokens,
                       const size_t T)
{
    int8x16_t w0, w1, x = {0};
    QUAD(0) QUAD(1) FENCE QUAD(2) QUAD(3) FENCE QUAD(4) QUAD(5) FENCE QUAD(6) QUAD(7) FENCE
}
