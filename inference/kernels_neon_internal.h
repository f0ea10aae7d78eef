/*
 * kernels_neon_internal.h: what the AArch64 tables share. Their panels are parts of PART_ROWS
 * rows, and their tokens lie in groups of GROUP inputs, so that one multiplication takes a group.
 *
 * The including file sets, before the include: PART_ROWS, PART_BLOCK (bytes of a block of a part)
 * and GROUP; after it:
 *   unpack_block  one block of a part's rows, which lie row_size bytes apart in the file
 *   part_matmul   out[t][0 .. PART_ROWS) for a tile of T tokens
 */
INLINE void unpack_block(uint8_t *to, const uint8_t *from, size_t row_size);
INLINE void part_matmul(float *out, size_t ld, const uint8_t *panel, const int8_t *tokens,
                        size_t n_blocks, const uint8_t *ahead, const size_t T);

#ifdef KERNELS_FAST

static void pack_row(void *packed, size_t n, size_t t, const struct fast_row *row, size_t k)
{
    struct place place = place_of(n, t);
    size_t width = place.width, lane = t - place.first, n_blocks = k / Q8_BLOCK;
    int8_t *to = (int8_t *)packed + place.first * token_size(k);
    for (size_t b = 0; b < n_blocks; b++, to += width * TOKEN_BLOCK) {
        for (size_t i = 0; i < Q8_BLOCK / GROUP; i++)
            memcpy(to + (i * width + lane) * GROUP, row->digits + b * Q8_BLOCK + i * GROUP, GROUP);
        memcpy(to + width * Q8_BLOCK + lane * 4, &row->scales[b], 4);
    }
    memcpy(to + lane * sizeof row->n_rests, &row->n_rests, sizeof row->n_rests);
    memcpy(to + width * sizeof row->n_rests + lane * n_blocks * sizeof(struct rest), row->rests,
           row->n_rests * sizeof(struct rest));
}

/* The rests of token t of a tile of T. */
INLINE const uint8_t *rests_of(const int8_t *tokens, size_t n_blocks, size_t T, size_t t,
                               uint32_t *n_rests)
{
    const uint8_t *counts = (const uint8_t *)tokens + T * n_blocks * TOKEN_BLOCK;
    memcpy(n_rests, counts + t * sizeof *n_rests, sizeof *n_rests);
    return counts + T * sizeof *n_rests + t * n_blocks * TOKEN_RESTS;
}

#else

static void pack_row(void *packed, size_t n, size_t t, const int16_t *row, size_t k, float scale)
{
    struct place place = place_of(n, t);
    size_t width = place.width, lane = t - place.first;
    int8_t *to = (int8_t *)packed + place.first * token_size(k);
    for (size_t b = 0; b < k / Q8_BLOCK; b++, to += width * TOKEN_BLOCK) {
        int8_t bytes[2][Q8_BLOCK]; /* high, low */
        for (size_t i = 0; i < Q8_BLOCK; i += 8) {
            int16x8_t q = vld1q_s16(row + b * Q8_BLOCK + i);
            /* Rounded, so that the low byte is signed: 256 * high + low, low from -128 to 127. */
            vst1_s8(bytes[0] + i, vrshrn_n_s16(q, 8));
            vst1_s8(bytes[1] + i, vmovn_s16(q));
        }
        /* Groups of the low bytes follow those of the high ones, here and in the tile. */
        for (size_t i = 0; i < 2 * Q8_BLOCK / GROUP; i++)
            memcpy(to + (i * width + lane) * GROUP, bytes[0] + i * GROUP, GROUP);
    }
    memcpy(to + lane * sizeof scale, &scale, sizeof scale);
}

#endif

static void panel_unpack(uint8_t *panel, const struct q8_matrix *w, size_t row)
{
    size_t n_blocks = w->n_in / Q8_BLOCK, row_size = n_blocks * Q8_BLOCK_BYTES;
    for (size_t part = 0; part < PANEL_ROWS; part += PART_ROWS) {
        const uint8_t *from = w->blocks + (row + part) * row_size;
        for (size_t b = 0; b < n_blocks; b++, from += Q8_BLOCK_BYTES, panel += PART_BLOCK)
            unpack_block(panel, from, row_size);
    }
}

INLINE void tile_matmul(float *out, size_t ld, const uint8_t *panel, const int8_t *tokens,
                        size_t n_blocks, const uint8_t *ahead, const size_t T)
{
    for (size_t row = 0; row < PANEL_ROWS; row += PART_ROWS, panel += n_blocks * PART_BLOCK)
        part_matmul(out + row, ld, panel, tokens, n_blocks, row ? NULL : ahead, T);
}

TILE_FUNCTION(1)
TILE_FUNCTION(2)
TILE_FUNCTION(3)
TILE_FUNCTION(4)
TILE_FUNCTION(5)
TILE_FUNCTION(6)

static tile_function *const tile_functions[TILE + 1] = {NULL,   tile_1, tile_2, tile_3,
                                                        tile_4, tile_5, tile_6};

/* Twelve sums, as a tile has. `products`: an instruction's; a multiply-add of 15-bit activations
 * takes two, a high byte's and a low one's. */
#define PEAK_FUNCTION(multiply, products)                                                          \
    static uint64_t peak(uint64_t rounds)                                                          \
    {                                                                                              \
        int32x4_t sum[12];                                                                         \
        int8x16_t w = vdupq_n_s8(3), x = vdupq_n_s8(5);                                            \
        for (size_t t = 0; t < 12; t++)                                                            \
            sum[t] = vdupq_n_s32(0);                                                               \
        for (uint64_t i = 0; i < rounds; i++)                                                      \
            for (size_t t = 0; t < 12; t++)                                                        \
                sum[t] = multiply(sum[t], w, x);                                                   \
        for (size_t t = 0; t < 12; t++)                                                            \
            __asm__ volatile("" : : "w"(sum[t]));                                                  \
        return rounds * 12 * (products) / 2;                                                       \
    }
