/*
 * embed_rows.h: session_embed into one block of rows, for tests.
 */
#ifndef EMBED_ROWS_H
#define EMBED_ROWS_H

#include <stdlib.h>

#include "inference/embed.h"

/* out: [n][dim]. */
static inline void embed_rows(struct session *session, const struct text *texts, size_t n,
                              size_t dim, float *out, struct embed_result *results)
{
    float **rows = malloc((n ? n : 1) * sizeof *rows);
    if (!rows)
        abort();
    for (size_t i = 0; i < n; i++)
        rows[i] = out + i * dim;
    session_embed(session, texts, n, rows, results);
    free(rows);
}

#endif
