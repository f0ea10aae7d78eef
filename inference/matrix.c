/*
 * matrix.c: see matrix.h.
 */
#include "inference/matrix.h"

size_t matrix_widened_size(size_t n_in)
{
    return 2 * MATRIX_ROWS * (n_in / Q8_BLOCK * Q8_BLOCK_BYTES);
}

size_t matrix_size(const struct matrix *w)
{
    size_t n = w->n_out * w->n_in;
    switch (w->type) {
    case MATRIX_F32:
        return n * sizeof(float);
    case MATRIX_F16:
        return n * sizeof(uint16_t);
    case MATRIX_Q4_0:
        return n / Q8_BLOCK * Q4_BLOCK_BYTES;
    default:
        return n / Q8_BLOCK * Q8_BLOCK_BYTES;
    }
}

void matrix_multiply(const struct kernels *k, float *out, size_t ld, const void *packed, size_t n,
                     const struct matrix *w, struct span rows, void *panel,
                     const struct matrix_scratch *scratch)
{
    if (w->type == MATRIX_Q8_0) {
        const struct q8_matrix whole = {w->data, w->n_in, w->n_out};
        k->matmul(out, ld, packed, n, &whole, rows, panel);
        return;
    }
    uint8_t *second = scratch->widened + matrix_widened_size(w->n_in) / 2;
    const struct q8_matrix high = {scratch->widened, w->n_in, MATRIX_ROWS};
    const struct q8_matrix low = {second, w->n_in, MATRIX_ROWS};
    const struct span group = {0, MATRIX_ROWS};
    for (size_t row = rows.first; row < rows.last; row += MATRIX_ROWS) {
        k->widen(scratch->widened, second, w, row);
        k->matmul(out + row, ld, packed, n, &high, group, panel);
        if (w->type == MATRIX_Q4_0)
            continue;
        k->matmul(scratch->rest, MATRIX_ROWS, packed, n, &low, group, panel);
        for (size_t t = 0; t < n; t++)
            for (size_t r = 0; r < MATRIX_ROWS; r++)
                out[t * ld + row + r] += scratch->rest[t * MATRIX_ROWS + r];
    }
}
