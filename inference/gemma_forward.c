/*
 * gemma_forward.c: the steps of a pass of EmbeddingGemma.
 *
 * Source: Gemma 3 technical report (2025), EmbeddingGemma (Vera et al. 2025), and the model's own
 *         configuration.
 */
#include "inference/architecture.h"
#include "inference/gemma_steps.h"

/* The steps, in the order of a pass: each is one part on one thread. */

void gemma_step_embed(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    struct span tokens = step_token_span(w, part);
    for (size_t t = tokens.first; t < tokens.last; t++)
        m->kernels->embed_row(f->x + t * m->n_embd, &m->embed, (size_t)f->pack->ids[t],
                              m->embed_scale);
}

void gemma_step_attn_norm(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    m->kernels->rms_norm_quantize(w->scratch->packed, f->x + w->t * m->n_embd, f->layer->attn_norm,
                                  m->eps, w->n, m->n_embd, step_token_span(w, part));
}

void gemma_step_attn_add_ffn_norm(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    struct span tokens = step_token_span(w, part);
    size_t embd = m->n_embd, at = tokens.first * embd;
    float *x = f->x + w->t * embd; /* [n][embd] */
    m->kernels->add_rms_norm(x + at, w->scratch->y + at, f->layer->post_attn_norm, m->eps,
                             tokens.last - tokens.first, embd);
    /* Of the same tokens: no other part's sums are read. */
    m->kernels->rms_norm_quantize(w->scratch->packed, x, f->layer->ffn_norm, m->eps, w->n, embd,
                                  tokens);
}

void gemma_step_geglu(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    f->model->kernels->geglu_quantize(w->scratch->packed, w->scratch->wide, w->n, f->model->n_ff,
                                      step_token_span(w, part));
}

void gemma_step_ffn_add(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    struct span tokens = step_token_span(w, part);
    size_t embd = m->n_embd;
    m->kernels->add_rms_norm(f->x + (w->t + tokens.first) * embd,
                             w->scratch->y + tokens.first * embd, f->layer->post_ffn_norm, m->eps,
                             tokens.last - tokens.first, embd);
}

void gemma_step_final_norm(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    struct span tokens = step_token_span(w, part);
    m->kernels->rms_norm(f->x + tokens.first * m->n_embd, m->output_norm, m->eps,
                         tokens.last - tokens.first, m->n_embd);
}

static void step_dense_quantize(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    size_t embd = f->model->n_embd;
    f->model->exact->quantize(w->scratch->packed, f->out + w->t * embd, embd, w->n, embd,
                              step_token_span(w, part));
}

static void step_dense_2(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct matrix *dense = &f->model->dense_2;
    step_multiply_exact(w, w->scratch->wide, dense->n_out, dense, part);
}

static void step_hidden_quantize(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    size_t hidden = f->model->dense_2.n_out;
    f->model->exact->quantize(w->scratch->packed, w->scratch->wide, hidden, w->n, hidden,
                              step_token_span(w, part));
}

static void step_dense_3(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    size_t embd = f->model->n_embd;
    step_multiply_exact(w, f->out + w->t * embd, embd, &f->model->dense_3, part);
}

/* Mean over each text, the two dense layers. */
static void texts_project(const struct work *w)
{
    const struct model *m = w->f->model;
    step_run(w, step_mean, w->n);
    /* In exact products: the two cost less than a token's pass. */
    if (m->dense_2.data) {
        step_run(w, step_dense_quantize, step_token_parts(w));
        step_run(w, step_dense_2, step_row_parts(w, &m->dense_2));
        step_run(w, step_hidden_quantize, step_token_parts(w));
        step_run(w, step_dense_3, step_row_parts(w, &m->dense_3));
    }
}

const struct pass gemma_forward = {
    .embed = gemma_step_embed,
    .attn_norm = gemma_step_attn_norm,
    .heads = step_rope,
    .ffn_norm = gemma_step_attn_add_ffn_norm,
    .activate = gemma_step_geglu,
    .ffn_add = gemma_step_ffn_add,
    .final_norm = gemma_step_final_norm,
    .texts = texts_project,
};
