/*
 * dots.c: dot products for search, by the kernel table of a model.
 *
 * Threads: pure functions; any thread.
 */
#include <assert.h>

#include "inference/embed.h"
#include "inference/model.h"

void model_pack_queries(float *packed, const float *queries, size_t n, size_t dim)
{
    assert(n <= DOTS_QUERIES);
    for (size_t i = 0; i < dim; i++)
        for (size_t q = 0; q < DOTS_QUERIES; q++)
            /* A column without a query is zeros: its products cost the same and mean nothing. */
            packed[i * DOTS_QUERIES + q] = q < n ? queries[q * dim + i] : 0;
}

void model_dots(const struct model *model, float *out, const float *rows, size_t n_rows,
                const float *packed, size_t dim)
{
    model->kernels->dots(out, rows, n_rows, packed, dim);
}
