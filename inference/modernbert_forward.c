/*
 * modernbert_forward.c: the steps of a pass of ModernBERT.
 *
 * The residual stream is added to as it is, and normalised where it is read. Every third layer sees
 * the whole text, the others a window around each token; both rotate queries and keys, by bases of
 * their own. The feed-forward part is gated, by GELU of the error function or, where the file says
 * so, SiLU.
 * Source: ModernBERT (Warner et al. 2024), as transformers has it.
 */
#include <string.h>

#include "inference/architecture.h"
#include "inference/steps.h"

/* x [n][n_embd] = norm(x), in place. */
static void norm(const struct model *m, float *x, size_t n, const struct layer_norm *norm)
{
    const float *zeros = m->constants + ROW_MAX;
    for (size_t t = 0; t < n; t++, x += m->n_embd)
        /* A token a call: what is added is one row of zeros, not [n][n_embd]. */
        m->kernels->add_layer_norm(x, zeros, zeros, norm->weight, norm->bias, m->eps, 1, m->n_embd);
}

/* The steps, in the order of a pass: each is one part on one thread. */

static void step_embed(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    struct span tokens = step_token_span(w, part);
    for (size_t t = tokens.first; t < tokens.last; t++)
        m->kernels->embed_row(f->x + t * m->n_embd, &m->embed, (size_t)f->pack->ids[t], 1);
    norm(m, f->x + tokens.first * m->n_embd, tokens.last - tokens.first, &m->embed_norm);
}

/* What of the stream a product reads: normalised aside. */
static void norm_quantize(const struct work *w, struct span tokens, const struct layer_norm *by)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    size_t embd = m->n_embd, n = tokens.last - tokens.first;
    float *y = w->scratch->y + tokens.first * embd;
    /* y is free: what the last product put there has been added to the stream. */
    memcpy(y, f->x + (w->t + tokens.first) * embd, n * embd * sizeof *y);
    if (by->weight)
        norm(m, y, n, by);
    m->kernels->quantize(w->scratch->packed, w->scratch->y, embd, w->n, embd, tokens);
}

static void step_attn_norm(const struct work *w, size_t part)
{
    norm_quantize(w, step_token_span(w, part), &w->f->layer->pre_attn_norm);
}

static void step_ffn_norm(const struct work *w, size_t part)
{
    step_add(w, part);
    norm_quantize(w, step_token_span(w, part), &w->f->layer->pre_ffn_norm);
}

static void step_final_norm(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    struct span tokens = step_token_span(w, part);
    norm(f->model, f->x + tokens.first * f->model->n_embd, tokens.last - tokens.first,
         &f->model->final_norm);
}

const struct pass modernbert_forward = {
    .embed = step_embed,
    .attn_norm = step_attn_norm,
    .heads = step_rope,
    .ffn_norm = step_ffn_norm,
    .activate = step_glu,
    .ffn_add = step_add,
    .final_norm = step_final_norm,
    .texts = steps_pool,
};
