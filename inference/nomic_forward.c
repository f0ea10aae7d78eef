/*
 * nomic_forward.c: the steps of a pass of nomic-embed-text.
 *
 * A BERT that rotates queries and keys in place of adding positions, has no biases but those of its
 * norms, and opens the feed-forward part by a gate of SiLU.
 * Source: Nomic Embed (Nussbaum et al. 2024), as transformers' NomicBertModel has it.
 */
#include "inference/architecture.h"
#include "inference/bert_steps.h"

/* The steps, in the order of a pass: each is one part on one thread. */

static void step_embed(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    const float *zeros = m->constants + ROW_MAX;
    struct span tokens = step_token_span(w, part);
    for (size_t t = tokens.first; t < tokens.last; t++) {
        float *x = f->x + t * m->n_embd;
        m->kernels->embed_row(x, &m->embed, (size_t)f->pack->ids[t], 1);
        m->kernels->add_layer_norm(x, m->token_types, zeros, m->embed_norm.weight,
                                   m->embed_norm.bias, m->eps, 1, m->n_embd);
    }
}

const struct pass nomic_forward = {
    .embed = step_embed,
    .attn_norm = step_quantize,
    .heads = step_rope,
    .ffn_norm = bert_step_attn_norm,
    .activate = step_glu,
    .ffn_add = bert_step_output_norm,
    .texts = steps_pool,
};
