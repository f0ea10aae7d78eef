/*
 * forward.c: EmbeddingGemma in reading order.
 *
 * Projections, norms and the feed-forward part work on all tokens of the pack alike, about CHUNK at
 * a time so that activations stay in the L2 cache; attention works per text. Every operation is a
 * step of independent parts (a few tokens, a group of weight rows, some queries of a text), which
 * threads that have nothing else to do may share: see crew.h. Nothing is allocated here once open
 * is done.
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
    TOKEN_PART = 12,  /* tokens of a part where tokens are independent; a tile of most tables */
    QUERY_PART = 128, /* of attention at most, and at least: */
    QUERY_PART_MIN = 16,
};

/* What every thread that takes part in a pass needs for itself. */
struct hands {
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

    /* Of the step in hand. */
    const struct pack *pack;
    const struct layer *layer;
    size_t t, n; /* tokens, or in pool_and_project texts, [t, t + n) */
    float *out;  /* [n_texts][n_embd] */
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
    f->wide = scratch_alloc(TOKENS_MAX * larger(2 * m->n_ff, hidden) * sizeof *f->wide);
    f->y = scratch_alloc(TOKENS_MAX * m->n_embd * sizeof *f->y);
    f->packed = scratch_alloc(m->kernels->packed_size(TOKENS_MAX, widest));
    f->queries = scratch_alloc(max_tokens * sizeof *f->queries);
    f->hands.panel = scratch_alloc(m->kernels->panel_size(widest));
    f->hands.attention = scratch_alloc(m->kernels->attention_size(&m->attention));
    if (!f->x || !f->qkv || !f->positions || !f->wide || !f->y || !f->packed || !f->queries ||
        !f->hands.panel || !f->hands.attention) {
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
    free(f->wide);
    free(f->y);
    free(f->packed);
    free(f->queries);
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
static size_t chunks_of(size_t n)
{
    return n < CHUNK ? 1 : (n + CHUNK / 2 - 1) / CHUNK;
}

static size_t token_parts(size_t n)
{
    return (n + TOKEN_PART - 1) / TOKEN_PART;
}

static struct span token_span(const struct forward *f, size_t part)
{
    return span_of(f->n, token_parts(f->n), part);
}

static size_t row_parts(const struct q8_matrix *w)
{
    return w->n_out / MATRIX_ROWS;
}

static void rows_multiply(const struct forward *f, float *out, size_t ld, const struct q8_matrix *w,
                          size_t part, const struct hands *mine)
{
    struct span rows = {part * MATRIX_ROWS, (part + 1) * MATRIX_ROWS};
    f->model->kernels->matmul(out, ld, f->packed, f->n, w, rows, mine->panel);
}

/* The steps, in the order of forward_run: each is one part on one thread. */

static void step_embed(void *arg, size_t part, void *mine)
{
    (void)mine;
    struct forward *f = arg;
    const struct model *m = f->model;
    struct span tokens = token_span(f, part);
    for (size_t t = tokens.first; t < tokens.last; t++)
        m->kernels->embed_row(f->x + t * m->n_embd, &m->embed, (size_t)f->pack->ids[t],
                              m->embed_scale);
}

static void step_attn_norm(void *arg, size_t part, void *mine)
{
    (void)mine;
    struct forward *f = arg;
    const struct model *m = f->model;
    m->kernels->rms_norm_quantize(f->packed, f->x + f->t * m->n_embd, f->layer->attn_norm, m->eps,
                                  f->n, m->n_embd, token_span(f, part));
}

static void step_qkv(void *arg, size_t part, void *mine)
{
    struct forward *f = arg;
    const struct layer *layer = f->layer;
    size_t ld = f->model->attention.ld, q = row_parts(&layer->q), k = row_parts(&layer->k);
    float *qkv = f->qkv + f->t * ld; /* [n][ld] */
    if (part < q)
        rows_multiply(f, qkv, ld, &layer->q, part, mine);
    else if (part < q + k)
        rows_multiply(f, qkv + layer->q.n_out, ld, &layer->k, part - q, mine);
    else
        rows_multiply(f, qkv + layer->q.n_out + layer->k.n_out, ld, &layer->v, part - q - k, mine);
}

static void step_rope(void *arg, size_t part, void *mine)
{
    (void)mine;
    struct forward *f = arg;
    const struct model *m = f->model;
    const struct attention_shape *a = &m->attention;
    const struct layer *layer = f->layer;
    struct span tokens = token_span(f, part);
    size_t t = f->t + tokens.first, n = tokens.last - tokens.first;
    float *q = f->qkv + t * a->ld, *k = q + layer->q.n_out; /* [n][ld] */
    m->kernels->norm_rope(q, a->ld, n, a->n_heads, a->head_dim, layer->q_norm, m->eps,
                          layer->cos_sin, f->positions + t, m->query_scale);
    m->kernels->norm_rope(k, a->ld, n, a->n_kv_heads, a->head_dim, layer->k_norm, m->eps,
                          layer->cos_sin, f->positions + t, 1);
}

static void step_attention(void *arg, size_t part, void *mine)
{
    struct forward *f = arg;
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
    struct forward *f = arg;
    size_t ld = f->model->attention.ld;
    f->model->kernels->quantize(f->packed, f->qkv + f->t * ld, ld, f->n, f->layer->o.n_in,
                                token_span(f, part));
}

static void step_attn_out(void *arg, size_t part, void *mine)
{
    struct forward *f = arg;
    rows_multiply(f, f->y, f->model->n_embd, &f->layer->o, part, mine);
}

static void step_attn_add_ffn_norm(void *arg, size_t part, void *mine)
{
    (void)mine;
    struct forward *f = arg;
    const struct model *m = f->model;
    struct span tokens = token_span(f, part);
    size_t embd = m->n_embd, at = tokens.first * embd;
    float *x = f->x + f->t * embd; /* [n][embd] */
    m->kernels->add_rms_norm(x + at, f->y + at, f->layer->post_attn_norm, m->eps,
                             tokens.last - tokens.first, embd);
    m->kernels->rms_norm_quantize(f->packed, x, f->layer->ffn_norm, m->eps, f->n, embd, tokens);
}

static void step_gate_up(void *arg, size_t part, void *mine)
{
    struct forward *f = arg;
    const struct layer *layer = f->layer;
    size_t n_ff = f->model->n_ff, gate = row_parts(&layer->gate);
    if (part < gate)
        rows_multiply(f, f->wide, 2 * n_ff, &layer->gate, part, mine);
    else
        rows_multiply(f, f->wide + n_ff, 2 * n_ff, &layer->up, part - gate, mine);
}

static void step_geglu(void *arg, size_t part, void *mine)
{
    (void)mine;
    struct forward *f = arg;
    f->model->kernels->geglu_quantize(f->packed, f->wide, f->n, f->model->n_ff,
                                      token_span(f, part));
}

static void step_down(void *arg, size_t part, void *mine)
{
    struct forward *f = arg;
    rows_multiply(f, f->y, f->model->n_embd, &f->layer->down, part, mine);
}

static void step_ffn_add(void *arg, size_t part, void *mine)
{
    (void)mine;
    struct forward *f = arg;
    const struct model *m = f->model;
    struct span tokens = token_span(f, part);
    size_t embd = m->n_embd;
    m->kernels->add_rms_norm(f->x + (f->t + tokens.first) * embd, f->y + tokens.first * embd,
                             f->layer->post_ffn_norm, m->eps, tokens.last - tokens.first, embd);
}

static void step_final_norm(void *arg, size_t part, void *mine)
{
    (void)mine;
    struct forward *f = arg;
    const struct model *m = f->model;
    struct span tokens = token_span(f, part);
    m->kernels->rms_norm(f->x + tokens.first * m->n_embd, m->output_norm, m->eps,
                         tokens.last - tokens.first, m->n_embd);
}

static void step_mean(void *arg, size_t part, void *mine)
{
    (void)mine;
    struct forward *f = arg;
    size_t text = f->t + part, embd = f->model->n_embd;
    size_t start = f->pack->starts[text], end = f->pack->starts[text + 1];
    f->model->kernels->mean_rows(f->out + text * embd, f->x + start * embd, end - start, embd);
}

static void step_dense_quantize(void *arg, size_t part, void *mine)
{
    (void)mine;
    struct forward *f = arg;
    size_t embd = f->model->n_embd;
    f->model->kernels->quantize(f->packed, f->out + f->t * embd, embd, f->n, embd,
                                token_span(f, part));
}

static void step_dense_2(void *arg, size_t part, void *mine)
{
    struct forward *f = arg;
    const struct q8_matrix *w = &f->model->dense_2;
    rows_multiply(f, f->wide, w->n_out, w, part, mine);
}

static void step_hidden_quantize(void *arg, size_t part, void *mine)
{
    (void)mine;
    struct forward *f = arg;
    size_t hidden = f->model->dense_2.n_out;
    f->model->kernels->quantize(f->packed, f->wide, hidden, f->n, hidden, token_span(f, part));
}

static void step_dense_3(void *arg, size_t part, void *mine)
{
    struct forward *f = arg;
    size_t embd = f->model->n_embd;
    rows_multiply(f, f->out + f->t * embd, embd, &f->model->dense_3, part, mine);
}

static void run(struct forward *f, crew_step *step, size_t n_parts)
{
    crew_run(&f->crew, step, f, n_parts, &f->hands);
}

/* Mean over each text, the two dense layers, unit length. */
static void pool_and_project(struct forward *f)
{
    const struct model *m = f->model;
    size_t n_chunks = chunks_of(f->pack->n_texts);
    for (size_t c = 0; c < n_chunks; c++) {
        struct span texts = span_of(f->pack->n_texts, n_chunks, c);
        f->t = texts.first;
        f->n = texts.last - texts.first;
        run(f, step_mean, f->n);
        if (m->info.has_dense) {
            run(f, step_dense_quantize, token_parts(f->n));
            run(f, step_dense_2, row_parts(&m->dense_2));
            run(f, step_hidden_quantize, token_parts(f->n));
            run(f, step_dense_3, row_parts(&m->dense_3));
        }
        for (size_t i = texts.first; i < texts.last; i++)
            m->kernels->unit(f->out + i * m->n_embd, m->n_embd);
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
    size_t n_tokens = pack->starts[pack->n_texts], n_chunks = chunks_of(n_tokens);
    f->pack = pack;
    f->out = out;
    for (size_t text = 0; text < pack->n_texts; text++)
        for (size_t t = pack->starts[text]; t < pack->starts[text + 1]; t++)
            f->positions[t] = (uint32_t)(t - pack->starts[text]);
    size_t n_queries = queries_cut(f);

    f->t = 0;
    f->n = n_tokens;
    run(f, step_embed, token_parts(n_tokens));

    for (size_t l = 0; l < m->n_layers; l++) {
        const struct layer *layer = f->layer = &m->layers[l];

        for (size_t c = 0; c < n_chunks; c++) {
            struct span chunk = span_of(n_tokens, n_chunks, c);
            f->t = chunk.first;
            f->n = chunk.last - chunk.first;
            run(f, step_attn_norm, token_parts(f->n));
            run(f, step_qkv, row_parts(&layer->q) + row_parts(&layer->k) + row_parts(&layer->v));
            run(f, step_rope, token_parts(f->n));
        }

        run(f, step_attention, n_queries);

        for (size_t c = 0; c < n_chunks; c++) {
            struct span chunk = span_of(n_tokens, n_chunks, c);
            f->t = chunk.first;
            f->n = chunk.last - chunk.first;
            run(f, step_attn_quantize, token_parts(f->n));
            run(f, step_attn_out, row_parts(&layer->o));
            run(f, step_attn_add_ffn_norm, token_parts(f->n));
            run(f, step_gate_up, row_parts(&layer->gate) + row_parts(&layer->up));
            run(f, step_geglu, token_parts(f->n));
            run(f, step_down, row_parts(&layer->down));
            run(f, step_ffn_add, token_parts(f->n));
        }
    }

    f->t = 0;
    f->n = n_tokens;
    run(f, step_final_norm, token_parts(n_tokens));
    pool_and_project(f);
}
