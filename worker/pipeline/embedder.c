/*
 * embedder.c: see embedder.h.
 */
#include "worker/pipeline/embedder.h"

#include <math.h>

const struct embedder embedder_sessions = {.info = model_info,
                                           .open = session_open,
                                           .embed = session_embed,
                                           .close = session_close,
                                           .tokenize = session_tokenize,
                                           .embed_ids = session_embed_ids,
                                           .rerank = session_rerank};

bool embedder_is_unit(const float *row, size_t dim)
{
    float sum = 0;
    for (size_t i = 0; i < dim; i++)
        sum += row[i] * row[i];
    return fabsf(sum - 1) < 0.01f; /* NaN compares false */
}
