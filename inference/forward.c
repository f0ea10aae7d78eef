/*
 * forward.c: EmbeddingGemma in reading order.
 *
 * Projections, norms and the feed-forward part work on all tokens of the pack alike, about CHUNK at
 * a time so that activations stay in the L2 cache; attention works per text. Nothing is allocated
 * here once open is done.
 *
 * Threads that have nothing else to do may share the work (see crew.h) in two ways. With tokens
 * enough, each takes a chunk through all steps up to attention, and again after it. With fewer, all
 * share every step of the one chunk there is: groups of weight rows or a few tokens. The first way
 * keeps what a thread reads in its own cache, the second unpacks every weight only once.
 * Source: Gemma 3 technical report (2025), EmbeddingGemma (Vera et al. 2025), and the model's own
 *         configuration.
 */
#include "inference/forward.h"

#include <errno.h>
#include <stdlib.h>

#include "inference/crew.h"

enum {
    ALIGN = 64,
    CHUNK = 256,
    CHUNK_MIN = 32,   /* where threads take chunks */
    TOKEN_PART = 12,  /* tokens of a part where tokens are independent; a tile of most tables */
    QUERY_PART = 128, /* of attention at most, and at least: */
    QUERY_PART_MIN = 16,
};

/* What every thread that takes part in a pass needs for itself. */
struct hands {
    float *wide;     /* [TOKENS_MAX][max(2 n_ff, dense hidden)] */
    float *y;        /* [TOKENS_MAX][n_embd] */
    void *packed;    /* [TOKENS_MAX][widest input] quantised activations */
    void *panel;     /* unpacked weights of MATRIX_ROWS rows */
    void *attention; /* scratch of a part of attention */
};

struct forward {
    const struct model *model;
    struct crew crew;
    struct hands hands;
    float *x;                /* [max_tokens][n_embd] the residual stream */
    float *qkv;              /* [max_tokens][attention.ld] */
    uint32_t *positions;     /* [max_tokens] of each token in its text */
    float *wide;             /* [TOKENS_MAX][max(2 n_ff, dense hidden)] */
    float *y;                /* [TOKENS_MAX][n_embd] */
    void *packed;            /* [TOKENS_MAX][widest input] quantised activations */
    struct queries *queries; /* [max_tokens] parts of attention */

    /* Of the pass in hand. */
    const struct pack *pack;
    const struct layer *layer;
    float *out; /* [n_texts][n_embd] */
};

/* Tokens on their way through some steps; in pool_and_project texts. */
struct work {
    struct forward *f;
    const struct hands *hands; /* what is between two steps is in their wide, y and packed */
    bool alone;                /* the steps are this thread's own */
    size_t t, n;               /* [t, t + n) */
};

/* A part of attention: queries of one text. */
struct queries {
    uint32_t text;
    uint32_t first, last; /* tokens of the text */
};

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void *scratch_alloc(size_t size)
{
    return aligned_alloc(ALIGN, (size + ALIGN - 1) / ALIGN * ALIGN);
}

int forward_open(struct forward **out, const struct model *m)
{
    struct forward *f = scratch_alloc(sizeof *f);
    if (!f)
        return -ENOMEM;
    *f = (struct forward){.model = m};
    int rc = crew_init(&f->crew);
    if (rc) {
        free(f);
        return rc;
    }
    size_t heads = m->attention.n_heads * m->attention.head_dim;
    size_t hidden = m->info.has_dense ? m->dense_2.n_out : 0;
    size_t widest = larger(larger(m->n_embd, m->n_ff), larger(heads, hidden));
    size_t max_tokens = m->info.max_tokens;
    f->x = scratch_alloc(max_tokens * m->n_embd * sizeof *f->x);
    f->qkv = scratch_alloc(max_tokens * m->attention.ld * sizeof *f->qkv);
    f->positions = scratch_alloc(max_tokens * sizeof *f->positions);
    f->hands.wide = scratch_alloc(TOKENS_MAX * larger(2 * m->n_ff, hidden) * sizeof *f->hands.wide);
    f->hands.y = scratch_alloc(TOKENS_MAX * m->n_embd * sizeof *f->hands.y);
    f->hands.packed = scratch_alloc(m->kernels->packed_size(TOKENS_MAX, widest));
    f->queries = scratch_alloc(max_tokens * sizeof *f->queries);
    f->hands.panel = scratch_alloc(m->kernels->panel_size(widest));
    f->hands.attention = scratch_alloc(m->kernels->attention_size(&m->attention));
    if (!f->x || !f->qkv || !f->positions || !f->queries || !f->hands.wide || !f->hands.y ||
        !f->hands.packed || !f->hands.panel || !f->hands.attention) {
        forward_close(f);
        return -ENOMEM;
    }
    *out = f;
    return 0;
}

void forward_close(struct forward *f)
{
    if (!f)
        return;
    crew_end(&f->crew);
    free(f->x);
    free(f->qkv);
    free(f->positions);
    free(f->queries);
    free(f->hands.wide);
    free(f->hands.y);
    free(f->hands.packed);
    free(f->hands.panel);
    free(f->hands.attention);
    free(f);
}

void forward_open_crew(struct forward *f)
{
    crew_open(&f->crew);
}

void forward_shut_crew(struct forward *f)
{
    crew_shut(&f->crew);
}

bool forward_assist(struct forward *f, struct forward *other, const atomic_bool *leave)
{
    return crew_assist(&other->crew, &f->hands, leave);
}

/* Part `part` of n things in n_parts parts as equal as can be. */
static struct span span_of(size_t n, size_t n_parts, size_t part)
{
    size_t small = n / n_parts, n_large = n % n_parts;
    size_t first = part * small + (part < n_large ? part : n_large);
    return (struct span){first, first + small + (part < n_large)};
}

/* Chunks are equal, never a full one and a few tokens: those would cost all weights once more. */
static size_t chunks_of(size_t n, size_t n_threads)
{
    size_t n_chunks = n < CHUNK ? 1 : (n + CHUNK / 2 - 1) / CHUNK;
    if (n / n_threads >= CHUNK_MIN) /* as many for each thread */
        n_chunks = (n_chunks + n_threads - 1) / n_threads * n_threads;
    return n_chunks;
}

static size_t token_parts(const struct work *w)
{
    return w->alone ? 1 : (w->n + TOKEN_PART - 1) / TOKEN_PART;
}

static struct span token_span(const struct work *w, size_t part)
{
    return span_of(w->n, token_parts(w), part);
}

static size_t row_parts(const struct work *w, const struct q8_matrix *matrix)
{
    return w->alone ? 1 : matrix->n_out / MATRIX_ROWS;
}

static void rows_multiply(const struct work *w, float *out, size_t ld,
                          const struct q8_matrix *matrix, size_t part, const struct hands *mine)
{
    size_t size = matrix->n_out / row_parts(w, matrix);
    struct span rows = {part * size, (part + 1) * size};
    w->f->model->kernels->matmul(out, ld, w->hands->packed, w->n, matrix, rows, mine->panel);
}

/* The steps, in the order of forward_run: each is one part on one thread. */

static void step_embed(void *arg, size_t part, void *mine)
{
    (void)mine;
    const struct work *w = arg;
    const struct forward *f = w->f;
    const struct model *m = f->model;
    struct span tokens = token_span(w, part);
    for (size_t t = tokens.first; t < tokens.last; t++)
        m->kernels->embed_row(f->x + t * m->n_embd, &m->embed, (size_t)f->pack->ids[t],
                              m->embed_scale);
}

static void step_attn_norm(void *arg, size_t part, void *mine)
{
    (void)mine;
    const struct work *w = arg;
    const struct forward *f = w->f;
    const struct model *m = f->model;
    m->kernels->rms_norm_quantize(w->hands->packed, f->x + w->t * m->n_embd, f->layer->attn_norm,
                                  m->eps, w->n, m->n_embd, token_span(w, part));
}

static void step_qkv(void *arg, size_t part, void *mine)
{
    const struct work *w = arg;
    const struct forward *f = w->f;
    const struct layer *layer = f->layer;
    size_t ld = f->model->attention.ld, q = row_parts(w, &layer->q), k = row_parts(w, &layer->k);
    float *qkv = f->qkv + w->t * ld; /* [n][ld] */
    if (part < q)
        rows_multiply(w, qkv, ld, &layer->q, part, mine);
    else if (part < q + k)
        rows_multiply(w, qkv + layer->q.n_out, ld, &layer->k, part - q, mine);
    else
        rows_multiply(w, qkv + layer->q.n_out + layer->k.n_out, ld, &layer->v, part - q - k, mine);
}

static void step_rope(void *arg, size_t part, void *mine)
{
    (void)mine;
    const struct work *w = arg;
    const struct forward *f = w->f;
    const struct model *m = f->model;
    const struct attention_shape *a = &m->attention;
    const struct layer *layer = f->layer;
    struct span tokens = token_span(w, part);
    size_t t = w->t + tokens.first, n = tokens.last - tokens.first;
    float *q = f->qkv + t * a->ld, *k = q + layer->q.n_out; /* [n][ld] */
    m->kernels->norm_rope(q, a->ld, n, a->n_heads, a->head_dim, layer->q_norm, m->eps,
                          layer->cos_sin, f->positions + t, m->query_scale);
    m->kernels->norm_rope(k, a->ld, n, a->n_kv_heads, a->head_dim, layer->k_norm, m->eps,
                          layer->cos_sin, f->positions + t, 1);
}

static void step_attention(void *arg, size_t part, void *mine)
{
    const struct work *w = arg;
    const struct forward *f = w->f;
    const struct hands *hands = mine;
    const struct model *m = f->model;
    const struct layer *layer = f->layer;
    const struct queries *queries = &f->queries[part];
    const uint32_t *starts = f->pack->starts + queries->text;
    float *q = f->qkv + starts[0] * m->attention.ld; /* [n][ld]; the result replaces q */
    const float *k = q + layer->q.n_out, *v = k + layer->k.n_out;
    m->kernels->attention(q, k, v, starts[1] - starts[0], layer->reach, &m->attention,
                          (struct span){queries->first, queries->last}, hands->attention);
}

static void step_attn_quantize(void *arg, size_t part, void *mine)
{
    (void)mine;
    const struct work *w = arg;
    const struct forward *f = w->f;
    size_t ld = f->model->attention.ld;
    f->model->kernels->quantize(w->hands->packed, f->qkv + w->t * ld, ld, w->n, f->layer->o.n_in,
                                token_span(w, part));
}

static void step_attn_out(void *arg, size_t part, void *mine)
{
    const struct work *w = arg;
    const struct forward *f = w->f;
    rows_multiply(w, w->hands->y, f->model->n_embd, &f->layer->o, part, mine);
}

static void step_attn_add_ffn_norm(void *arg, size_t part, void *mine)
{
    (void)mine;
    const struct work *w = arg;
    const struct forward *f = w->f;
    const struct model *m = f->model;
    struct span tokens = token_span(w, part);
    size_t embd = m->n_embd, at = tokens.first * embd;
    float *x = f->x + w->t * embd; /* [n][embd] */
    m->kernels->add_rms_norm(x + at, w->hands->y + at, f->layer->post_attn_norm, m->eps,
                             tokens.last - tokens.first, embd);
    m->kernels->rms_norm_quantize(w->hands->packed, x, f->layer->ffn_norm, m->eps, w->n, embd,
                                  tokens);
}

static void step_gate_up(void *arg, size_t part, void *mine)
{
    const struct work *w = arg;
    const struct forward *f = w->f;
    const struct layer *layer = f->layer;
    size_t n_ff = f->model->n_ff, gate = row_parts(w, &layer->gate);
    if (part < gate)
        rows_multiply(w, w->hands->wide, 2 * n_ff, &layer->gate, part, mine);
    else
        rows_multiply(w, w->hands->wide + n_ff, 2 * n_ff, &layer->up, part - gate, mine);
}

static void step_geglu(void *arg, size_t part, void *mine)
{
    (void)mine;
    const struct work *w = arg;
    const struct forward *f = w->f;
    f->model->kernels->geglu_quantize(w->hands->packed, w->hands->wide, w->n, f->model->n_ff,
                                      token_span(w, part));
}

static void step_down(void *arg, size_t part, void *mine)
{
    const struct work *w = arg;
    const struct forward *f = w->f;
    rows_multiply(w, w->hands->y, f->model->n_embd, &f->layer->down, part, mine);
}

static void step_ffn_add(void *arg, size_t part, void *mine)
{
    (void)mine;
    const struct work *w = arg;
    const struct forward *f = w->f;
    const struct model *m = f->model;
    struct span tokens = token_span(w, part);
    size_t embd = m->n_embd;
    m->kernels->add_rms_norm(f->x + (w->t + tokens.first) * embd, w->hands->y + tokens.first * embd,
                             f->layer->post_ffn_norm, m->eps, tokens.last - tokens.first, embd);
}

static void step_final_norm(void *arg, size_t part, void *mine)
{
    (void)mine;
    const struct work *w = arg;
    const struct forward *f = w->f;
    const struct model *m = f->model;
    struct span tokens = token_span(w, part);
    m->kernels->rms_norm(f->x + tokens.first * m->n_embd, m->output_norm, m->eps,
                         tokens.last - tokens.first, m->n_embd);
}

static void step_mean(void *arg, size_t part, void *mine)
{
    (void)mine;
    const struct work *w = arg;
    const struct forward *f = w->f;
    size_t text = w->t + part, embd = f->model->n_embd;
    size_t start = f->pack->starts[text], end = f->pack->starts[text + 1];
    f->model->kernels->mean_rows(f->out + text * embd, f->x + start * embd, end - start, embd);
}

static void step_dense_quantize(void *arg, size_t part, void *mine)
{
    (void)mine;
    const struct work *w = arg;
    const struct forward *f = w->f;
    size_t embd = f->model->n_embd;
    f->model->kernels->quantize(w->hands->packed, f->out + w->t * embd, embd, w->n, embd,
                                token_span(w, part));
}

static void step_dense_2(void *arg, size_t part, void *mine)
{
    const struct work *w = arg;
    const struct forward *f = w->f;
    const struct q8_matrix *dense = &f->model->dense_2;
    rows_multiply(w, w->hands->wide, dense->n_out, dense, part, mine);
}

static void step_hidden_quantize(void *arg, size_t part, void *mine)
{
    (void)mine;
    const struct work *w = arg;
    const struct forward *f = w->f;
    size_t hidden = f->model->dense_2.n_out;
    f->model->kernels->quantize(w->hands->packed, w->hands->wide, hidden, w->n, hidden,
                                token_span(w, part));
}

static void step_dense_3(void *arg, size_t part, void *mine)
{
    const struct work *w = arg;
    const struct forward *f = w->f;
    size_t embd = f->model->n_embd;
    rows_multiply(w, f->out + w->t * embd, embd, &f->model->dense_3, part, mine);
}

static void run(struct work *w, crew_step *step, size_t n_parts)
{
    struct hands *hands = (struct hands *)(uintptr_t)w->hands;
    if (!w->alone)
        crew_run(&w->f->crew, step, w, n_parts, hands);
    for (size_t part = 0; w->alone && part < n_parts; part++)
        step(w, part, hands);
}

/* Up to attention: queries, keys and values of some tokens. */
static void tokens_project(struct work *w)
{
    const struct layer *layer = w->f->layer;
    run(w, step_attn_norm, token_parts(w));
    run(w, step_qkv, row_parts(w, &layer->q) + row_parts(w, &layer->k) + row_parts(w, &layer->v));
    run(w, step_rope, token_parts(w));
}

/* After attention: its output and the feed-forward part, each added to the residual stream. */
static void tokens_finish(struct work *w)
{
    const struct layer *layer = w->f->layer;
    run(w, step_attn_quantize, token_parts(w));
    run(w, step_attn_out, row_parts(w, &layer->o));
    run(w, step_attn_add_ffn_norm, token_parts(w));
    run(w, step_gate_up, row_parts(w, &layer->gate) + row_parts(w, &layer->up));
    run(w, step_geglu, token_parts(w));
    run(w, step_down, row_parts(w, &layer->down));
    run(w, step_ffn_add, token_parts(w));
}

/* Mean over each text, the two dense layers, unit length. */
static void texts_project(struct work *w)
{
    const struct model *m = w->f->model;
    run(w, step_mean, w->n);
    if (m->info.has_dense) {
        run(w, step_dense_quantize, token_parts(w));
        run(w, step_dense_2, row_parts(w, &m->dense_2));
        run(w, step_hidden_quantize, token_parts(w));
        run(w, step_dense_3, row_parts(w, &m->dense_3));
    }
    for (size_t i = w->t; i < w->t + w->n; i++)
        m->kernels->unit(w->f->out + i * m->n_embd, m->n_embd);
}

/* n tokens or texts in chunks, each of which goes through all of `steps`. */
struct chunks {
    struct forward *f;
    size_t n, n_chunks;
    void (*steps)(struct work *work);
};

static void step_chunk(void *arg, size_t part, void *mine)
{
    const struct chunks *chunks = arg;
    struct span span = span_of(chunks->n, chunks->n_chunks, part);
    struct work work = {chunks->f, mine, true, span.first, span.last - span.first};
    chunks->steps(&work);
}

static void run_chunks(struct forward *f, void (*steps)(struct work *work), size_t n)
{
    size_t n_threads = crew_size(&f->crew);
    struct chunks chunks = {f, n, chunks_of(n, n_threads), steps};
    if (chunks.n_chunks >= n_threads) {
        crew_run(&f->crew, step_chunk, &chunks, chunks.n_chunks, &f->hands);
        return;
    }
    for (size_t c = 0; c < chunks.n_chunks; c++) {
        struct span span = span_of(n, chunks.n_chunks, c);
        struct work work = {f, &f->hands, false, span.first, span.last - span.first};
        steps(&work);
    }
}

/* Cut the queries of each text into parts: an eighth of the pack or less, so that threads can share
 * them, but not so few that tiles of queries are left half empty. Returns how many. */
static size_t queries_cut(struct forward *f)
{
    const struct pack *pack = f->pack;
    size_t most = pack->starts[pack->n_texts] / 8 / QUERY_PART_MIN * QUERY_PART_MIN, n_parts = 0;
    most = most < QUERY_PART_MIN ? QUERY_PART_MIN : most > QUERY_PART ? QUERY_PART : most;
    for (size_t text = 0; text < pack->n_texts; text++) {
        size_t n = pack->starts[text + 1] - pack->starts[text];
        for (size_t at = 0; at < n; at += most)
            f->queries[n_parts++] = (struct queries){(uint32_t)text, (uint32_t)at,
                                                     (uint32_t)(n - at < most ? n : at + most)};
    }
    return n_parts;
}

void forward_run(struct forward *f, const struct pack *pack, float *out)
{
    const struct model *m = f->model;
    size_t n_tokens = pack->starts[pack->n_texts];
    struct work all = {f, &f->hands, false, 0, n_tokens};
    f->pack = pack;
    f->out = out;
    for (size_t text = 0; text < pack->n_texts; text++)
        for (size_t t = pack->starts[text]; t < pack->starts[text + 1]; t++)
            f->positions[t] = (uint32_t)(t - pack->starts[text]);
    size_t n_queries = queries_cut(f);

    run(&all, step_embed, token_parts(&all));
    for (size_t l = 0; l < m->n_layers; l++) {
        f->layer = &m->layers[l];
        run_chunks(f, tokens_project, n_tokens);
        run(&all, step_attention, n_queries);
        run_chunks(f, tokens_finish, n_tokens);
    }
    run(&all, step_final_norm, token_parts(&all));
    run_chunks(f, texts_project, pack->n_texts);
}
