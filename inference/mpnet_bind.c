/*
 * mpnet_bind.c: a model of the MPNet family (all-mpnet-base-v2) in a GGUF file.
 *
 * Owns:    what attention adds to each score for the distance of the two tokens; all else is as in
 *          BERT. Distances share 32 buckets: of either sign eight exact ones, the others wider.
 * Refuses: rerankers, which the family has none of.
 * Source:  MPNet (Song et al. 2020), as transformers' MPNetEncoder has it; the file is
 *          scripts/convert-model.py's, for llama.cpp does not know the architecture.
 */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "inference/architecture.h"

enum { BUCKETS = 32, EXACT = 8, HALF = BUCKETS / 2 };

#define FAR 128.0f /* tokens; from here on all distances share the last bucket */

/* Of a query token i and a key token i - distance. In float, as the model was trained. */
static size_t bucket_of(long distance)
{
    size_t side = distance < 0 ? HALF : 0, far = (size_t)labs(distance);
    if (far < EXACT)
        return side + far;
    /* Buckets 8 to 15 by the logarithm: 8 is bucket 8, 128 would be 16 and is cut to 15. */
    float wide = logf((float)far / EXACT) / (float)log((double)FAR / EXACT) * (HALF - EXACT);
    size_t bucket = EXACT + (size_t)wide;
    assert(wide >= 0);
    return side + (bucket < HALF ? bucket : HALF - 1);
}

int mpnet_bind(const struct binder *b, struct model *m)
{
    struct attention_shape *a = &m->attention;
    const float *weights; /* [BUCKETS][n_heads] */
    /* All but the one tensor below, which serves every layer. */
    int rc = bert_bind(b, m);
    if (rc)
        return rc;
    if (m->info.is_reranker)
        return bind_refuse(b, "a reranker: tensor", "cls.output.weight");
    const struct bind_tensor tensors[] = {
        {"attn_rel_b.weight", a->n_heads, BUCKETS, .floats = &weights},
    };
    rc = bind_tensors(b, BIND_OUTER, tensors, 1);
    if (rc)
        return rc;
    /* Distances from -middle on. Attention reads a whole tile, up to 31 tokens behind a text. */
    long middle = (long)m->info.max_tokens + BIAS_ROOM;
    a->bias_ld = 2 * (size_t)middle;
    m->attention_bias = calloc(a->n_heads * a->bias_ld, sizeof *m->attention_bias);
    if (!m->attention_bias)
        return bind_no_memory(b);
    a->bias = m->attention_bias;
    for (long at = 0; at < 2 * middle; at++) {
        const float *row = weights + bucket_of(at - middle) * a->n_heads;
        for (size_t head = 0; head < a->n_heads; head++)
            m->attention_bias[head * a->bias_ld + (size_t)at] = row[head];
    }
    return 0;
}
