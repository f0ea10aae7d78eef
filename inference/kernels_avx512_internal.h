/*
 * kernels_avx512_internal.h: what the AVX-512 tables of both precisions share. A part of
 * kernels_avx512.c and kernels_avx512_fast.c, after kernels_body.h.
 */

/* Sixteen rows of a block, row_size bytes apart: bytes transposed to quads of 4 inputs by 16
 * rows. */
INLINE void rows_transpose(__m512i quads[8], const uint8_t *from, size_t row_size)
{
    __m512i r[8], t[8], u[8];
    for (size_t i = 0; i < 8; i++) {
        __m256i upper = _mm256_loadu_si256((const __m256i *)(from + i * row_size + 2));
        __m256i lower = _mm256_loadu_si256((const __m256i *)(from + (i + 8) * row_size + 2));
        /* Rows i and i + 8 in one register: its halves are transposed alike. */
        r[i] = _mm512_inserti64x4(_mm512_castsi256_si512(upper), lower, 1);
    }
    for (size_t i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (size_t i = 0; i < 8; i += 4) {
        u[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    const __m512i even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    const __m512i odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    for (size_t i = 0; i < 4; i++) {
        quads[i] = _mm512_permutex2var_epi64(u[i], even, u[i + 4]);
        quads[i + 4] = _mm512_permutex2var_epi64(u[i], odd, u[i + 4]);
    }
}

/* The scales of 16 rows of a block. */
INLINE __m512 rows_scales(const uint8_t *from, size_t row_size)
{
    uint16_t halves[16];
    for (size_t i = 0; i < 16; i++)
        memcpy(&halves[i], from + i * row_size, 2);
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)halves));
}

static void panel_unpack(uint8_t *panel, const struct q8_matrix *w, size_t row)
{
    size_t n_blocks = w->n_in / Q8_BLOCK, row_size = n_blocks * Q8_BLOCK_BYTES;
    const uint8_t *from = w->blocks + row * row_size;
    for (size_t b = 0; b < n_blocks; b++, from += Q8_BLOCK_BYTES, panel += PANEL_BLOCK)
        for (size_t i = 0; i < 2; i++) {
            const uint8_t *rows = from + i * 16 * row_size;
            __m512i quads[QUADS], sum = _mm512_setzero_si512();
            rows_transpose(quads, rows, row_size);
            for (size_t q = 0; q < QUADS; q++) {
                /* Products with ones: the sum of each row's weights. */
                sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), quads[q]);
                _mm512_store_si512(panel + 256 + q * 128 + i * 64, quads[q]);
            }
            _mm512_store_ps(panel + i * 64, rows_scales(rows, row_size));
            _mm512_store_si512(panel + 128 + i * 64,
                               _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sum, 7)));
        }
}

INLINE __m512i quad_splat(const void *p)
{
    int32_t quad;
    memcpy(&quad, p, sizeof quad);
    return _mm512_set1_epi32(quad);
}

/* *sum += bytes of `natural`, unsigned, times those of `integer`, signed. gcc 12 would copy the sum
 * before and move it back after each instruction; volatile keeps the order, in which no sum waits
 * for itself. */
INLINE void multiply_add(__m512i *sum, __m512i natural, __m512i integer)
{
    __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(*sum) : "v"(natural), "v"(integer));
}

/* One multiply-add a product, and no more: of `per_instruction` products each. */
INLINE uint64_t multiply_peak(uint64_t rounds, uint64_t per_instruction)
{
    enum { SUMS = 12 };
    __m512i sum[SUMS], w = _mm512_set1_epi8(3), x = _mm512_set1_epi8(5);
#pragma GCC unroll 12 /* or the sums would live in memory */
    for (size_t t = 0; t < SUMS; t++)
        sum[t] = _mm512_setzero_si512();
    for (uint64_t i = 0; i < rounds; i++) {
#pragma GCC unroll 12
        for (size_t t = 0; t < SUMS; t++)
            multiply_add(&sum[t], w, x);
    }
#pragma GCC unroll 12
    for (size_t t = 0; t < SUMS; t++)
        __asm__ volatile("" : : "v"(sum[t]));
    return rounds * SUMS * per_instruction;
}
