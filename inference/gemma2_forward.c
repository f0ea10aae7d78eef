/*
 * gemma2_forward.c: the steps of a pass of EmbeddingGemma 2 over text.
 *
 * Like that of the first, but for: layers that see the whole text have wider heads; values are
 * normalised, too; after the feed-forward part each layer adds something of the token itself, which
 * the residual stream opens or closes; and the vector is projected once, after the mean.
 *
 * What a layer adds of a token comes from its row of the token table by this layer's rows of one
 * large matrix. It is computed where it is used: kept for all layers it would be 48 kB a token.
 * Source: transformers' EmbeddingGemma2TextModel, and the model's own configuration.
 */
#include <string.h>

#include "inference/architecture.h"
#include "inference/gemma_steps.h"

/* The steps, in the order of a pass: each is one part on one thread. */

static void step_embed(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    struct span tokens = step_token_span(w, part);
    size_t embd = f->model->n_embd, at = tokens.first * embd;
    gemma_step_embed(w, part);
    /* Each layer reads this row again (step_ple_own); x itself changes on the way. */
    memcpy(f->own + at, f->x + at, (tokens.last - tokens.first) * embd * sizeof *f->own);
}

/* Queries and keys are normalised and rotated, values normalised, without weights. */
static void step_heads(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    const struct layer *layer = f->layer;
    const struct attention_shape *a = layer->shape;
    struct span tokens = step_token_span(w, part);
    step_rope(w, part);
    for (size_t t = w->t + tokens.first; t < w->t + tokens.last; t++)
        /* The heads of a token's values lie side by side: n_kv_heads rows of head_dim. */
        m->kernels->rms_norm(f->qkv + t * a->ld + layer->q.n_out + layer->k.n_out, m->constants,
                             m->eps, a->n_kv_heads, a->head_dim);
}

/* Gates stand beside what they open: wide [n][2 n_ple]. */
static void step_ple_gate(const struct work *w, size_t part)
{
    step_multiply(w, w->scratch->wide, 2 * w->f->model->n_ple, &w->f->layer->ple_gate, part);
}

static void step_ple_own(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    size_t embd = f->model->n_embd;
    f->model->kernels->quantize(w->scratch->packed, f->own + w->t * embd, embd, w->n, embd,
                                step_token_span(w, part));
}

static void step_ple_model(const struct work *w, size_t part)
{
    size_t n = w->f->model->n_ple;
    step_multiply(w, w->scratch->wide + n, 2 * n, &w->f->layer->ple_model, part);
}

/* The model divides by the root of n_embd before it normalises. What is normalised does not know,
 * but for eps. */
static void step_ple_mix(const struct work *w, size_t part)
{
    const struct model *m = w->f->model;
    struct span tokens = step_token_span(w, part);
    size_t n = m->n_ple;
    for (size_t t = tokens.first; t < tokens.last; t++)
        /* The second half of the token's 2 n_ple; the first is its gate. */
        m->kernels->rms_norm(w->scratch->wide + (2 * t + 1) * n, m->ple_norm,
                             m->eps * (float)m->n_embd, 1, n);
    m->kernels->geglu_quantize(w->scratch->packed, w->scratch->wide, w->n, n, tokens);
}

static void step_ple_out(const struct work *w, size_t part)
{
    step_multiply(w, w->scratch->y, w->f->model->n_embd, &w->f->layer->ple_out, part);
}

static void step_ple_add(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    struct span tokens = step_token_span(w, part);
    size_t embd = m->n_embd, n = tokens.last - tokens.first;
    float *x = f->x + (w->t + tokens.first) * embd; /* [n][embd] */
    m->kernels->add_rms_norm(x, w->scratch->y + tokens.first * embd, f->layer->ple_post_norm,
                             m->eps, n, embd);
    /* Zeros as the bias: x = x * scale. */
    m->kernels->bias_scale(x, embd, n, m->constants + ROW_MAX, embd, f->layer->scale);
}

static void step_mean_aside(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    size_t text = w->t + part, embd = f->model->n_embd;
    size_t start = f->pack->starts[text], end = f->pack->starts[text + 1];
    /* Aside: out has rows of n_out, a mean is n_embd wide. */
    f->model->kernels->mean_rows(w->scratch->y + part * embd, f->x + start * embd, end - start,
                                 embd);
}

static void step_mean_quantize(const struct work *w, size_t part)
{
    const struct model *m = w->f->model;
    m->exact->quantize(w->scratch->packed, w->scratch->y, m->n_embd, w->n, m->n_embd,
                       step_token_span(w, part));
}

static void step_project(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    size_t n_out = f->model->n_out;
    step_multiply_exact(w, f->out + w->t * n_out, n_out, &f->model->projection, part);
}

/* The token's own is added to the residual stream. */
static void tokens_add_own(const struct work *w)
{
    const struct layer *layer = w->f->layer;
    /* There is one buffer of packed rows: the stream's product is done before the tokens' own go
     * in. */
    step_run(w, step_quantize, step_token_parts(w));
    step_run(w, step_ple_gate, step_row_parts(w, &layer->ple_gate));
    step_run(w, step_ple_own, step_token_parts(w));
    step_run(w, step_ple_model, step_row_parts(w, &layer->ple_model));
    step_run(w, step_ple_mix, step_token_parts(w));
    step_run(w, step_ple_out, step_row_parts(w, &layer->ple_out));
    step_run(w, step_ple_add, step_token_parts(w));
}

static void texts_project(const struct work *w)
{
    step_run(w, step_mean_aside, w->n);
    step_run(w, step_mean_quantize, step_token_parts(w));
    step_run(w, step_project, step_row_parts(w, &w->f->model->projection));
}

const struct pass gemma2_forward = {
    .embed = step_embed,
    .attn_norm = gemma_step_attn_norm,
    .heads = step_heads,
    .ffn_norm = gemma_step_attn_add_ffn_norm,
    .activate = gemma_step_geglu,
    .ffn_add = gemma_step_ffn_add,
    .layer_rest = tokens_add_own,
    .final_norm = gemma_step_final_norm,
    .texts = texts_project,
};
