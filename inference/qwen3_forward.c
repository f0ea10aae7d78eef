/*
 * qwen3_forward.c: the steps of a pass of Qwen3-Embedding.
 *
 * A token sees those before it alone, so the last one, <|endoftext|>, stands for the text.
 * Source: Qwen3 Embedding (Zhang et al. 2025), as transformers has it.
 */
#include <string.h>

#include "inference/architecture.h"
#include "inference/gemma_steps.h"

/* The steps, in the order of a pass: each is one part on one thread. */

static void step_ffn_norm(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    step_add(w, part);
    m->kernels->rms_norm_quantize(w->scratch->packed, f->x + w->t * m->n_embd, f->layer->ffn_norm,
                                  m->eps, w->n, m->n_embd, step_token_span(w, part));
}

static void step_last(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    size_t text = w->t + part, embd = m->n_embd;
    float *out = f->out + text * embd;
    memcpy(out, f->x + (f->pack->starts[text + 1] - 1) * embd, embd * sizeof *out);
    /* The final norm, of the one row of a text that is used. */
    m->kernels->rms_norm(out, m->output_norm, m->eps, 1, embd);
}

static void texts_pool(const struct work *w)
{
    step_run(w, step_last, w->n);
}

const struct pass qwen3_forward = {
    .embed = gemma_step_embed,
    .attn_norm = gemma_step_attn_norm,
    .heads = step_rope,
    .ffn_norm = step_ffn_norm,
    .activate = step_glu,
    .ffn_add = step_add,
    .texts = texts_pool,
};
