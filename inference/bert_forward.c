/*
 * bert_forward.c: the pass of BERT in reading order.
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
#include "inference/steps.h"

/* The steps, in the order of bert_forward: each is one part on one thread. */

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
        size_t type = f->pack->types && m->n_types > 1 ? f->pack->types[t] : 0;
        m->kernels->add_layer_norm(x, position, m->token_types + type * m->n_embd,
                                   m->embed_norm.weight, m->embed_norm.bias, m->eps, 1, m->n_embd);
    }
}

static void step_quantize(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    size_t embd = f->model->n_embd;
    f->model->kernels->quantize(w->hands->packed, f->x + w->t * embd, embd, w->n, embd,
                                step_token_span(w, part));
}

static void step_qkv_bias(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    const struct layer *layer = f->layer;
    struct span tokens = step_token_span(w, part);
    size_t ld = m->attention.ld, embd = m->n_embd, n = tokens.last - tokens.first;
    float *q = f->qkv + (w->t + tokens.first) * ld; /* [n][ld] */
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
                               w->hands->y + tokens.first * embd, bias, norm->weight, norm->bias,
                               m->eps, tokens.last - tokens.first, embd);
}

static void step_attn_norm(const struct work *w, size_t part)
{
    const struct layer *layer = w->f->layer;
    norm_add(w, step_token_span(w, part), layer->o_bias, &layer->attn_output_norm);
    step_quantize(w, part);
}

static void step_up(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    step_multiply(w, w->hands->wide, f->model->n_ff, &f->layer->up, part);
}

static void step_gelu(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    f->model->kernels->gelu_quantize(w->hands->packed, w->hands->wide, f->layer->up_bias, w->n,
                                     f->model->n_ff, step_token_span(w, part));
}

static void step_output_norm(const struct work *w, size_t part)
{
    const struct layer *layer = w->f->layer;
    norm_add(w, step_token_span(w, part), layer->down_bias, &layer->output_norm);
}

static void step_first(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    size_t text = w->t + part, embd = f->model->n_embd;
    memcpy(f->out + text * embd, f->x + f->pack->starts[text] * embd, embd * sizeof *f->out);
}

static void step_first_aside(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    struct span texts = step_token_span(w, part);
    for (size_t i = texts.first; i < texts.last; i++)
        memcpy(w->hands->y + i * m->n_embd, f->x + f->pack->starts[w->t + i] * m->n_embd,
               m->n_embd * sizeof(float));
    m->exact->quantize(w->hands->packed, w->hands->y, m->n_embd, w->n, m->n_embd, texts);
}

static void step_cls(const struct work *w, size_t part)
{
    const struct model *m = w->f->model;
    step_multiply_exact(w, w->hands->wide, m->n_embd, &m->cls, part);
}

static void step_score(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    struct span texts = step_token_span(w, part);
    _Alignas(64) float weight[ROW_MAX];
    m->kernels->embed_row(weight, &m->cls_out, 0, 1);
    for (size_t i = texts.first; i < texts.last; i++) {
        double score = m->cls_out_bias[0];
        for (size_t d = 0; d < m->n_embd; d++)
            score += (double)weight[d] *
                     tanh((double)w->hands->wide[i * m->n_embd + d] + (double)m->cls_bias[d]);
        f->out[w->t + i] = (float)score;
    }
}

/* Up to attention: queries, keys and values of some tokens. */
static void tokens_project(const struct work *w)
{
    step_run(w, step_quantize, step_token_parts(w));
    step_run(w, step_qkv, step_qkv_parts(w));
    step_run(w, step_qkv_bias, step_token_parts(w));
}

/* After attention: its output and the feed-forward part. */
static void tokens_finish(const struct work *w)
{
    const struct layer *layer = w->f->layer;
    step_run(w, step_attn_quantize, step_token_parts(w));
    step_run(w, step_attn_out, step_row_parts(w, &layer->o));
    step_run(w, step_attn_norm, step_token_parts(w));
    step_run(w, step_up, step_row_parts(w, &layer->up));
    step_run(w, step_gelu, step_token_parts(w));
    step_run(w, step_down, step_row_parts(w, &layer->down));
    step_run(w, step_output_norm, step_token_parts(w));
}

static void texts_pool(const struct work *w)
{
    step_run(w, w->f->model->pools_first ? step_first : step_mean, w->n);
}

static void texts_score(const struct work *w)
{
    step_run(w, step_first_aside, step_token_parts(w));
    step_run(w, step_cls, step_row_parts(w, &w->f->model->cls));
    step_run(w, step_score, step_token_parts(w));
}

void bert_forward(struct forward *f)
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
    step_run_chunks(f, m->info.is_reranker ? texts_score : texts_pool, f->pack->n_texts);
}
