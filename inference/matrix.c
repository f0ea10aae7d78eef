/*
 * matrix.c: see matrix.h.
 */
#include "inference/matrix.h"

#include <assert.h>

size_t matrix_widened_size(size_t n_in)
{
    return 2 * MATRIX_ROWS * (n_in / Q8_BLOCK * Q8_BLOCK_BYTES);
}

struct matrix_layout matrix_layout(enum matrix_type type)
{
    static const struct matrix_layout layouts[MATRIX_TYPES] = {
        [MATRIX_Q8_0] = {32, Q8_BLOCK_BYTES, 1},
        [MATRIX_Q4_0] = {32, 18, 1},
        [MATRIX_Q5_0] = {32, 22, 1},
        [MATRIX_IQ4_NL] = {32, 18, 1},
        [MATRIX_F16] = {1, 2, 2},
        [MATRIX_BF16] = {1, 2, 2},
        [MATRIX_F32] = {1, 4, 2},
        [MATRIX_Q4_1] = {32, 20, 2},
        [MATRIX_Q5_1] = {32, 24, 2},
        [MATRIX_Q4_K] = {256, 144, 2},
        [MATRIX_Q5_K] = {256, 176, 2},
        [MATRIX_Q6_K] = {256, 210, 2},
    };
    assert(type < MATRIX_TYPES);
    return layouts[type];
}

size_t matrix_size(const struct matrix *w)
{
    struct matrix_layout layout = matrix_layout(w->type);
    /* A row is whole blocks: gguf_directory.c has refused others. */
    return w->n_out * w->n_in / layout.values * layout.bytes;
}

struct matrix matrix_rows(const struct matrix *w, size_t first, size_t n)
{
    struct matrix_layout layout = matrix_layout(w->type);
    assert(first + n <= w->n_out);
    return (struct matrix){w->data + first * (w->n_in / layout.values * layout.bytes), w->n_in, n,
                           w->type};
}

void matrix_multiply(const struct kernels *k, float *out, size_t ld, const void *packed, size_t n,
                     const struct matrix *w, struct span rows, void *panel,
                     const struct matrix_scratch *scratch)
{
    assert(rows.first % MATRIX_ROWS == 0 && rows.last % MATRIX_ROWS == 0);
    if (w->type == MATRIX_Q8_0) {
        const struct q8_matrix whole = {w->data, w->n_in, w->n_out};
        k->matmul(out, ld, packed, n, &whole, rows, panel);
        return;
    }
    /* Weights of more than 8 bits are a sum of two rows of 8 bits: one product each, added up. */
    uint8_t *second = scratch->widened + matrix_widened_size(w->n_in) / 2;
    const struct q8_matrix high = {scratch->widened, w->n_in, MATRIX_ROWS};
    const struct q8_matrix low = {second, w->n_in, MATRIX_ROWS};
    const struct span group = {0, MATRIX_ROWS};
    size_t n_digits = matrix_layout(w->type).digits;
    for (size_t row = rows.first; row < rows.last; row += MATRIX_ROWS) {
        k->widen(scratch->widened, second, w, row);
        /* Widened rows are rows 0 to 31 of a matrix of their own: `out` is moved to their place. */
        k->matmul(out + row, ld, packed, n, &high, group, panel);
        if (n_digits == 1)
            continue;
        k->matmul(scratch->rest, MATRIX_ROWS, packed, n, &low, group, panel);
        for (size_t t = 0; t < n; t++)
            for (size_t r = 0; r < MATRIX_ROWS; r++)
                out[t * ld + row + r] += scratch->rest[t * MATRIX_ROWS + r];
    }
}
