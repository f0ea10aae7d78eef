/*
 * qwen3_forward.c: the pass of Qwen3-Embedding in reading order.
 *
 * A token sees those before it alone, so the last one, <|endoftext|>, stands for the text.
 * Source: Qwen3 Embedding (Zhang et al. 2025), as transformers has it.
 */
#include <string.h>

#include "inference/architecture.h"
#include "inference/gemma_steps.h"

/* The steps, in the order of qwen3_forward: each is one part on one thread. */

static void step_ffn_norm(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    step_add(w, part);
    m->kernels->rms_norm_quantize(w->hands->packed, f->x + w->t * m->n_embd, f->layer->ffn_norm,
                                  m->eps, w->n, m->n_embd, step_token_span(w, part));
}

static void step_swiglu(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    f->model->kernels->glu_quantize(w->hands->packed, w->hands->wide, w->n, f->model->n_ff,
                                    GLU_SILU, step_token_span(w, part));
}

static void step_last(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    size_t text = w->t + part, embd = m->n_embd;
    float *out = f->out + text * embd;
    memcpy(out, f->x + (f->pack->starts[text + 1] - 1) * embd, embd * sizeof *out);
    m->kernels->rms_norm(out, m->output_norm, m->eps, 1, embd);
}

/* Up to attention: queries, keys and values of some tokens. */
static void tokens_project(const struct work *w)
{
    step_run(w, gemma_step_attn_norm, step_token_parts(w));
    step_run(w, step_qkv, step_qkv_parts(w));
    step_run(w, gemma_step_rope, step_token_parts(w));
}

/* After attention: its output and the feed-forward part, each added to the residual stream. */
static void tokens_finish(const struct work *w)
{
    const struct layer *layer = w->f->layer;
    step_run(w, step_attn_quantize, step_token_parts(w));
    step_run(w, step_attn_out, step_row_parts(w, &layer->o));
    step_run(w, step_ffn_norm, step_token_parts(w));
    step_run(w, step_gate_up, step_gate_up_parts(w));
    step_run(w, step_swiglu, step_token_parts(w));
    step_run(w, step_down, step_row_parts(w, &layer->down));
    step_run(w, step_add, step_token_parts(w));
}

static void texts_pool(const struct work *w)
{
    step_run(w, step_last, w->n);
}

void qwen3_forward(struct forward *f)
{
    const struct model *m = f->model;
    const struct work all = step_all_tokens(f);
    step_run(&all, gemma_step_embed, step_token_parts(&all));
    for (size_t l = 0; l < m->n_layers; l++) {
        f->layer = &m->layers[l];
        step_run_chunks(f, tokens_project, f->n_tokens);
        step_run(&all, step_attention, f->n_queries);
        step_run_chunks(f, tokens_finish, f->n_tokens);
    }
    step_run_chunks(f, texts_pool, f->pack->n_texts);
}
