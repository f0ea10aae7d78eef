/*
 * forward.c: the scratch of a pass, and the order of its steps, which is the same in all
 * architectures: what differs are some of the steps, in struct pass.
 *
 * Projections, norms and the feed-forward part work on all tokens of the pack alike; attention
 * works per text. Nothing is allocated here once open is done.
 */
#include "inference/forward.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "inference/architecture.h"
#include "inference/steps.h"

enum {
    ALIGN = 64,
    QUERY_PART = 128, /* queries of a part of attention at most, and at least: */
    QUERY_PART_MIN = 16,
};

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void *scratch_alloc(size_t size)
{
    /* C11 wants a multiple of the alignment; the address sanitizer insists on it. */
    return aligned_alloc(ALIGN, (size + ALIGN - 1) / ALIGN * ALIGN);
}

int forward_open(struct forward **out, const struct model *m, struct session *session,
                 const struct session_options *options)
{
    struct forward *f = scratch_alloc(sizeof *f);
    if (!f)
        return -ENOMEM;
    /* Aligned, because what threads write into their forward must not share cache lines. */
    *f = (struct forward){.model = m,
                          .session = session,
                          .parallel = options->parallel,
                          .parallel_ctx = options->parallel_ctx,
                          .n_threads = 1};
    size_t heads = m->attention.n_heads * m->attention.head_dim;
    /* The widest row that any product reads: packed, panel and widened rows have room for it. */
    size_t widest =
        larger(larger(m->n_embd, m->n_ff), larger(larger(heads, m->n_ple), m->dense_2.n_out));
    assert(widest <= ROW_MAX);
    size_t max_tokens = m->info.max_tokens;
    f->x = scratch_alloc(max_tokens * m->n_embd * sizeof *f->x);
    if (m->n_ple)
        f->own = scratch_alloc(max_tokens * m->n_embd * sizeof *f->own);
    for (size_t i = 0; i < m->n_prefixes; i++)
        f->longest_prefix = larger(f->longest_prefix, m->prefixes[i].n);
    /* The rows in front are never touched: step_attention counts from before a text's own
     * tokens. */
    size_t n_rows = f->longest_prefix + max_tokens;
    f->qkv_rows = scratch_alloc(n_rows * m->attention.ld * sizeof *f->qkv_rows);
    if (f->longest_prefix)
        f->whole = scratch_alloc(max_tokens * m->attention.ld * sizeof *f->whole);
    f->positions = scratch_alloc(max_tokens * sizeof *f->positions);
    f->scratch.wide = scratch_alloc(TOKENS_MAX * m->n_wide * sizeof *f->scratch.wide);
    f->scratch.y = scratch_alloc(TOKENS_MAX * m->n_embd * sizeof *f->scratch.y);
    /* The fast table and the exact one, which some steps use always, take turns in one buffer. */
    f->scratch.packed = scratch_alloc(larger(m->kernels->packed_size(TOKENS_MAX, widest),
                                             m->exact->packed_size(TOKENS_MAX, widest)));
    f->queries = scratch_alloc(max_tokens * sizeof *f->queries);
    f->scratch.panel =
        scratch_alloc(larger(m->kernels->panel_size(widest), m->exact->panel_size(widest)));
    f->scratch.attention = scratch_alloc(m->kernels->attention_size(&m->attention));
    f->scratch.matrix.widened = scratch_alloc(matrix_widened_size(widest));
    f->scratch.matrix.rest = scratch_alloc(TOKENS_MAX * MATRIX_ROWS * sizeof(float));
    if (!f->x || (m->n_ple && !f->own) || !f->qkv_rows || (f->longest_prefix && !f->whole) ||
        !f->positions || !f->queries || !f->scratch.wide || !f->scratch.y || !f->scratch.packed ||
        !f->scratch.panel || !f->scratch.attention || !f->scratch.matrix.widened ||
        !f->scratch.matrix.rest) {
        forward_close(f);
        return -ENOMEM;
    }
    f->qkv = f->qkv_rows + f->longest_prefix * m->attention.ld;
    *out = f;
    return 0;
}

void forward_close(struct forward *f)
{
    if (!f)
        return;
    free(f->x);
    free(f->own);
    free(f->qkv_rows);
    free(f->whole);
    free(f->positions);
    free(f->queries);
    free(f->scratch.wide);
    free(f->scratch.y);
    free(f->scratch.packed);
    free(f->scratch.panel);
    free(f->scratch.attention);
    free(f->scratch.matrix.widened);
    free(f->scratch.matrix.rest);
    free(f);
}

/* Cut the queries of each text into parts: an eighth of the pack or less, so that threads can share
 * them, but not so few that tiles of queries are left half empty. Returns how many. */
static size_t queries_divide(struct forward *f)
{
    const struct pack *pack = f->pack;
    /* At most as many parts as tokens, so `queries` has room for them. */
    size_t most = pack->starts[pack->n_texts] / 8 / QUERY_PART_MIN * QUERY_PART_MIN, n_parts = 0;
    /* A multiple of 16 tokens: vectors of 4, 8 or 16 query rows are full but for a text's last. */
    most = most < QUERY_PART_MIN ? QUERY_PART_MIN : most > QUERY_PART ? QUERY_PART : most;
    for (size_t text = 0; text < pack->n_texts; text++) {
        size_t n = pack->starts[text + 1] - pack->starts[text];
        for (size_t at = 0; at < n; at += most)
            f->queries[n_parts++] = (struct queries){(uint32_t)text, (uint32_t)at,
                                                     (uint32_t)(n - at < most ? n : at + most)};
    }
    return n_parts;
}

/* Up to attention: queries, keys and values of some tokens. */
static void tokens_project(const struct work *w)
{
    const struct pass *pass = w->f->model->architecture->pass;
    step_run(w, pass->attn_norm, step_token_parts(w));
    step_run(w, step_qkv, step_qkv_parts(w));
    step_run(w, pass->heads, step_token_parts(w));
}

/* After attention: its output and the feed-forward part, each added to the residual stream. */
static void tokens_finish(const struct work *w)
{
    const struct pass *pass = w->f->model->architecture->pass;
    const struct layer *layer = w->f->layer;
    step_run(w, step_attn_quantize, step_token_parts(w));
    step_run(w, step_attn_out, step_row_parts(w, &layer->o));
    step_run(w, pass->ffn_norm, step_token_parts(w));
    step_run(w, step_gate_up, step_gate_up_parts(w));
    step_run(w, pass->activate, step_token_parts(w));
    step_run(w, step_down, step_row_parts(w, &layer->down));
    step_run(w, pass->ffn_add, step_token_parts(w));
    if (pass->layer_rest)
        pass->layer_rest(w);
}

/* What is computed of a prefix, for prefix_rows. */
static void layer_keep(const struct forward *f, struct prefix *keep, size_t l)
{
    size_t ld = f->layer->shape->ld;
    float *to = prefix_rows(keep, l);
    assert(keep->n == f->n_tokens && keep->width == f->layer->k.n_out + f->layer->v.n_out);
    /* Behind the queries of a row stand its keys and its values, in one piece. */
    for (size_t t = 0; t < keep->n; t++)
        memcpy(to + t * keep->width, f->qkv + t * ld + f->layer->q.n_out, keep->width * sizeof *to);
}

static void pass_run(struct forward *f)
{
    const struct model *m = f->model;
    const struct pass *pass = m->architecture->pass;
    const struct work all = step_all_tokens(f);
    step_run(&all, pass->embed, step_token_parts(&all));
    for (size_t l = 0; l < m->n_layers; l++) {
        f->layer = &m->layers[l];
        /* All chunks before any attention: a query sees keys of its text that other chunks make. */
        step_run_blocks(f, tokens_project, f->n_tokens);
        if (f->pack->keep)
            layer_keep(f, f->pack->keep, l);
        if (f->pack->prefixes)
            step_run(&all, step_gather, f->pack->n_texts);
        /* In place: a part replaces the queries it reads; keys and values stay until the next
         * layer. */
        step_run(&all, step_attention, f->n_queries);
        step_run_blocks(f, tokens_finish, f->n_tokens);
    }
    if (pass->final_norm)
        step_run(&all, pass->final_norm, step_token_parts(&all));
    step_run_blocks(f, pass->texts, f->pack->n_texts);
}

void forward_run(struct forward *f, const struct pack *pack, float *out)
{
    const struct model *m = f->model;
    f->pack = pack;
    f->out = out;
    f->n_tokens = pack->starts[pack->n_texts];
    for (size_t text = 0; text < pack->n_texts; text++) {
        /* A text behind a kept prefix has the positions that it would have had after it. */
        uint32_t n_before = pack->prefixes ? pack->prefixes[text].n : 0;
        for (uint32_t t = pack->starts[text]; t < pack->starts[text + 1]; t++)
            f->positions[t] = n_before + t - pack->starts[text];
    }
    assert(f->n_tokens > 0 && f->n_tokens <= m->info.max_tokens);
    f->n_queries = queries_divide(f);
    pass_run(f);
    /* A score is no direction and stays as it is. */
    for (size_t text = 0; text < pack->n_texts && !m->info.is_reranker; text++)
        m->kernels->unit(out + text * m->n_out, m->n_out);
}
