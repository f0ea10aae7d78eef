/*
 * bert_forward.c: the steps of a pass of BERT.
 *
 * Every sum with the residual stream is normalised at once, so the stream itself is what the
 * products take. Biases are added where a product's result is read next.
 * A reranker reads query and text as one, and its classification head gives a score of them.
 * Source: BERT (Devlin et al. 2019), Sentence-BERT (Reimers & Gurevych 2019); the head as
 *         transformers' BertForSequenceClassification and XLMRobertaForSequenceClassification
 *         have it.
 */
#include <math.h>
#include <string.h>

#include "inference/architecture.h"
#include "inference/bert_steps.h"

/* The steps, in the order of a pass: each is one part on one thread. */

static void step_embed(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    struct span tokens = step_token_span(w, part);
    _Alignas(64) float position[ROW_MAX];
    for (size_t t = tokens.first; t < tokens.last; t++) {
        float *x = f->x + t * m->n_embd;
        m->kernels->embed_row(x, &m->embed, (size_t)f->pack->ids[t], 1);
        m->kernels->embed_row(position, &m->positions, f->positions[t], 1);
        /* One row serves both texts of a pair where a model knows one type only. */
        size_t type = f->pack->types && m->n_types > 1 ? f->pack->types[t] : 0;
        /* The row of the type goes in as the bias: norm(x + position + type). */
        m->kernels->add_layer_norm(x, position, m->token_types + type * m->n_embd,
                                   m->embed_norm.weight, m->embed_norm.bias, m->eps, 1, m->n_embd);
    }
}

static void step_qkv_bias(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    const struct layer *layer = f->layer;
    struct span tokens = step_token_span(w, part);
    size_t ld = m->attention.ld, embd = m->n_embd, n = tokens.last - tokens.first;
    float *q = f->qkv + (w->t + tokens.first) * ld; /* [n][ld] */
    /* The scale of the scores goes into the queries, the bias along with them. */
    m->kernels->bias_scale(q, ld, n, layer->q_bias, embd, m->query_scale);
    m->kernels->bias_scale(q + embd, ld, n, layer->k_bias, embd, 1);
    m->kernels->bias_scale(q + 2 * embd, ld, n, layer->v_bias, embd, 1);
}

/* x = norm(x + y + bias) for some tokens of w. */
static void norm_add(const struct work *w, struct span tokens, const float *bias,
                     const struct layer_norm *norm)
{
    const struct model *m = w->f->model;
    size_t embd = m->n_embd;
    m->kernels->add_layer_norm(w->f->x + (w->t + tokens.first) * embd,
                               w->scratch->y + tokens.first * embd, bias, norm->weight, norm->bias,
                               m->eps, tokens.last - tokens.first, embd);
}

void bert_step_attn_norm(const struct work *w, size_t part)
{
    const struct layer *layer = w->f->layer;
    norm_add(w, step_token_span(w, part), layer->o_bias, &layer->attn_output_norm);
    step_quantize(w, part);
}

static void step_gelu(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    f->model->kernels->gelu_quantize(w->scratch->packed, w->scratch->wide, f->layer->up_bias, w->n,
                                     f->model->n_ff, step_token_span(w, part));
}

void bert_step_output_norm(const struct work *w, size_t part)
{
    const struct layer *layer = w->f->layer;
    norm_add(w, step_token_span(w, part), layer->down_bias, &layer->output_norm);
}

static void step_first_aside(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    struct span texts = step_token_span(w, part);
    for (size_t i = texts.first; i < texts.last; i++)
        /* Texts of the chunk, one after another: what is packed counts from the chunk's first. */
        memcpy(w->scratch->y + i * m->n_embd, f->x + f->pack->starts[w->t + i] * m->n_embd,
               m->n_embd * sizeof(float));
    m->exact->quantize(w->scratch->packed, w->scratch->y, m->n_embd, w->n, m->n_embd, texts);
}

static void step_cls(const struct work *w, size_t part)
{
    const struct model *m = w->f->model;
    step_multiply_exact(w, w->scratch->wide, m->n_embd, &m->cls, part);
}

static void step_score(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    struct span texts = step_token_span(w, part);
    _Alignas(64) float weight[ROW_MAX];
    /* As floats, of whatever type: a product takes 32 rows at least, and this is one. */
    m->kernels->embed_row(weight, &m->cls_out, 0, 1);
    for (size_t i = texts.first; i < texts.last; i++) {
        /* In double: n_embd products a text are nothing beside its pass. */
        double score = m->cls_out_bias[0];
        for (size_t d = 0; d < m->n_embd; d++)
            score += (double)weight[d] *
                     tanh((double)w->scratch->wide[i * m->n_embd + d] + (double)m->cls_bias[d]);
        f->out[w->t + i] = (float)score;
    }
}

static void texts_score(const struct work *w)
{
    step_run(w, step_first_aside, step_token_parts(w));
    step_run(w, step_cls, step_row_parts(w, &w->f->model->cls));
    step_run(w, step_score, step_token_parts(w));
}

void bert_steps_texts(const struct work *w)
{
    if (w->f->model->info.is_reranker)
        texts_score(w);
    else
        steps_pool(w);
}

const struct pass bert_forward = {
    .embed = step_embed,
    .attn_norm = step_quantize,
    .heads = step_qkv_bias,
    .ffn_norm = bert_step_attn_norm,
    .activate = step_gelu,
    .ffn_add = bert_step_output_norm,
    .texts = bert_steps_texts,
};
