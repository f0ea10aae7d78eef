/*
 * kernels_neon_smmla_internal.h: what kernels_neon_i8mm.c and kernels_neon_i8mm_fast.c share: the
 * panel, and products by smmla. Written for PART_ROWS 8, GROUP 8, TILE 6 and TILE_STEP 2; see
 * there.
 */
/* One block of a part's rows, row_size bytes apart. */
INLINE void unpack_block(uint8_t *to, const uint8_t *from, size_t row_size)
{
    __fp16 halves[PART_ROWS];
    for (size_t r = 0; r < PART_ROWS; r++)
        memcpy(&halves[r], from + r * row_size, 2);
    for (size_t r = 0; r < PART_ROWS; r += 4) {
        float32x4_t d = vcvt_f32_f16(vld1_f16(halves + r));
        uint64x2_t two = vreinterpretq_u64_f32(d);
        vst1q_u64((uint64_t *)to + r, vdupq_laneq_u64(two, 0));
        vst1q_u64((uint64_t *)to + r + 2, vdupq_laneq_u64(two, 1));
    }
    to += PART_ROWS * 8;
    for (size_t r = 0; r < PART_ROWS; r += 2)
        for (size_t i = 0; i < Q8_BLOCK; i += 16, to += 32) {
            const uint8_t *at = from + r * row_size + 2 + i;
            uint64x2x2_t octets;
            octets.val[0] = vreinterpretq_u64_u8(vld1q_u8(at));
            octets.val[1] = vreinterpretq_u64_u8(vld1q_u8(at + row_size));
            vst2q_u64((uint64_t *)to, octets);
        }
}

/* The inputs of tokens t and t + 1, or of t twice. */
INLINE int8x16_t pair_load(const int8_t *tokens, size_t t, size_t T)
{
    if (t + 1 < T)
        return vld1q_s8(tokens + t * 8);
    int64_t octet;
    memcpy(&octet, tokens + t * 8, sizeof octet);
    return vreinterpretq_s8_s64(vdupq_n_s64(octet));
}

/* One pass of a block: sum[p][r] += 32 products for each of 2 tokens and 2 rows. */
INLINE void block_pass(int32x4_t sum[TILE / 2][PART_ROWS / 2], const int8_t *weights,
                       const int8_t *tokens, const size_t T)
{
    for (size_t i = 0; i < OCTETS; i++) {
        int8x16_t x[TILE / 2];
        for (size_t p = 0; p < (T + 1) / 2; p++)
            x[p] = pair_load(tokens + i * T * 8, 2 * p, T);
        for (size_t r = 0; r < PART_ROWS / 2; r++) {
            int8x16_t w = vld1q_s8(weights + (r * OCTETS + i) * 16);
            for (size_t p = 0; p < (T + 1) / 2; p++)
                sum[p][r] = vmmlaq_s32(sum[p][r], x[p], w);
        }
        __asm__ volatile("" ::: "memory"); /* see FENCE in kernels_neon_sdot_internal.h */
    }
}

/* Four rows of one of the two tokens of a pair, from the totals of two pairs of rows. */
INLINE float32x4_t rows_of(float32x4_t first, float32x4_t second, bool is_second)
{
    float64x2_t a = vreinterpretq_f64_f32(first), b = vreinterpretq_f64_f32(second);
    return vreinterpretq_f32_f64(is_second ? vtrn2q_f64(a, b) : vtrn1q_f64(a, b));
}
