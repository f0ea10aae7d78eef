/*
 * modernbert_forward.c: the pass of ModernBERT in reading order.
 *
 * The residual stream is added to as it is, and normalised where it is read. Every third layer sees
 * the whole text, the others a window around each token; both rotate queries and keys, by bases of
 * their own. The feed-forward part is gated, and GELU is that of the error function.
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
        m->kernels->add_layer_norm(x, zeros, zeros, norm->weight, norm->bias, m->eps, 1, m->n_embd);
}

/* The steps, in the order of modernbert_forward: each is one part on one thread. */

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
    float *y = w->hands->y + tokens.first * embd;
    memcpy(y, f->x + (w->t + tokens.first) * embd, n * embd * sizeof *y);
    if (by->weight)
        norm(m, y, n, by);
    m->kernels->quantize(w->hands->packed, w->hands->y, embd, w->n, embd, tokens);
}

static void step_attn_norm(const struct work *w, size_t part)
{
    norm_quantize(w, step_token_span(w, part), &w->f->layer->pre_attn_norm);
}

static void step_rope(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    const struct attention_shape *a = &m->attention;
    struct span tokens = step_token_span(w, part);
    size_t t = w->t + tokens.first, n = tokens.last - tokens.first;
    float *q = f->qkv + t * a->ld; /* [n][ld] */
    m->kernels->norm_rope(q, a->ld, n, a->n_heads, a->head_dim, NULL, 0, f->layer->cos_sin,
                          f->positions + t, m->query_scale);
    m->kernels->norm_rope(q + m->n_embd, a->ld, n, a->n_heads, a->head_dim, NULL, 0,
                          f->layer->cos_sin, f->positions + t, 1);
}

static void step_ffn_norm(const struct work *w, size_t part)
{
    step_add(w, part);
    norm_quantize(w, step_token_span(w, part), &w->f->layer->pre_ffn_norm);
}

static void step_geglu(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    f->model->kernels->glu_quantize(w->hands->packed, w->hands->wide, w->n, f->model->n_ff,
                                    GLU_GELU, step_token_span(w, part));
}

static void step_final_norm(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    struct span tokens = step_token_span(w, part);
    norm(f->model, f->x + tokens.first * f->model->n_embd, tokens.last - tokens.first,
         &f->model->final_norm);
}

static void step_first(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    size_t text = w->t + part, embd = f->model->n_embd;
    memcpy(f->out + text * embd, f->x + f->pack->starts[text] * embd, embd * sizeof *f->out);
}

/* Up to attention: queries, keys and values of some tokens. */
static void tokens_project(const struct work *w)
{
    step_run(w, step_attn_norm, step_token_parts(w));
    step_run(w, step_qkv, step_qkv_parts(w));
    step_run(w, step_rope, step_token_parts(w));
}

/* After attention: its output and the feed-forward part, each added to the residual stream. */
static void tokens_finish(const struct work *w)
{
    const struct layer *layer = w->f->layer;
    step_run(w, step_attn_quantize, step_token_parts(w));
    step_run(w, step_attn_out, step_row_parts(w, &layer->o));
    step_run(w, step_ffn_norm, step_token_parts(w));
    step_run(w, step_gate_up, step_gate_up_parts(w));
    step_run(w, step_geglu, step_token_parts(w));
    step_run(w, step_down, step_row_parts(w, &layer->down));
    step_run(w, step_add, step_token_parts(w));
}

static void texts_pool(const struct work *w)
{
    step_run(w, w->f->model->pools_first ? step_first : step_mean, w->n);
}

void modernbert_forward(struct forward *f)
{
    const struct model *m = f->model;
    const struct work all = step_all_tokens(f);
    step_run(&all, step_embed, step_token_parts(&all));
    for (size_t l = 0; l < m->n_layers; l++) {
        f->layer = &m->layers[l];
        step_run_chunks(f, tokens_project, f->n_tokens);
        step_run(&all, step_attention, f->n_queries);
        step_run_chunks(f, tokens_finish, f->n_tokens);
    }
    step_run(&all, step_final_norm, step_token_parts(&all));
    step_run_chunks(f, texts_pool, f->pack->n_texts);
}
