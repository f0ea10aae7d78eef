/*
 * rotary_forward.c: the steps of a pass of nomic-embed-text and of GTE.
 *
 * A BERT that rotates queries and keys in place of adding positions, and opens the feed-forward
 * part by a gate: of SiLU and without biases but those of its norms (nomic), or of GELU with biases
 * in attention and behind the feed-forward part (GTE).
 * Source: Nomic Embed (Nussbaum et al. 2024), as transformers' NomicBertModel has it; mGTE (Zhang
 *         et al. 2024), as its GteModel and GteForSequenceClassification have it.
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
        size_t type = f->pack->types && m->n_types > 1 ? f->pack->types[t] : 0;
        m->kernels->embed_row(x, &m->embed, (size_t)f->pack->ids[t], 1);
        /* As in BERT without a row of the position: zeros are the bias. */
        m->kernels->add_layer_norm(x, m->token_types + type * m->n_embd, zeros,
                                   m->embed_norm.weight, m->embed_norm.bias, m->eps, 1, m->n_embd);
    }
}

static void step_heads(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct layer *layer = f->layer;
    struct span tokens = step_token_span(w, part);
    size_t ld = layer->shape->ld, n = tokens.last - tokens.first, embd = f->model->n_embd;
    float *q = f->qkv + (w->t + tokens.first) * ld; /* [n][ld] */
    if (layer->q_bias) {
        /* Not scaled yet: step_rope does that when it turns them. */
        f->model->kernels->bias_scale(q, ld, n, layer->q_bias, embd, 1);
        f->model->kernels->bias_scale(q + embd, ld, n, layer->k_bias, embd, 1);
        f->model->kernels->bias_scale(q + 2 * embd, ld, n, layer->v_bias, embd, 1);
    }
    step_rope(w, part);
}

const struct pass rotary_forward = {
    .embed = step_embed,
    .attn_norm = step_quantize,
    .heads = step_heads,
    .ffn_norm = bert_step_attn_norm,
    .activate = step_glu,
    .ffn_add = bert_step_output_norm,
    .texts = bert_steps_texts,
};
