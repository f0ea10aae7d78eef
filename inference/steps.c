/*
 * steps.c: see steps.h.
 *
 * Threads that have nothing else to do may share the work (session_parallel) in two ways. With
 * tokens enough, each takes a chunk through all steps up to attention, and again after it. With
 * fewer, all share every step of the one chunk there is: groups of weight rows or a few tokens. The
 * first way keeps what a thread reads in its own cache, the second unpacks every weight only once.
 */
#include "inference/steps.h"

#include <assert.h>
#include <string.h>

#include "inference/session.h"

enum {
    CHUNK = 256,     /* tokens: their activations stay in the L2 cache */
    CHUNK_MIN = 32,  /* where threads take chunks */
    TOKEN_PART = 12, /* tokens of a part where tokens are independent; a tile of most tables */
};

/* Part `part` of n things in n_parts parts as equal as can be. */
static struct span span_of(size_t n, size_t n_parts, size_t part)
{
    /* The first n_large parts have one more. */
    size_t small = n / n_parts, n_large = n % n_parts;
    size_t first = part * small + (part < n_large ? part : n_large);
    return (struct span){first, first + small + (part < n_large)};
}

/* Chunks are equal, never a full one and a few tokens: those would cost all weights once more. */
static size_t blocks_of(size_t n, size_t n_threads)
{
    /* 384 tokens are one chunk, 385 are two: none has more than TOKENS_MAX. */
    size_t n_blocks = n < CHUNK ? 1 : (n + CHUNK / 2 - 1) / CHUNK;
    /* A smaller chunk would unpack all weights for a few tokens. */
    if (n / n_threads >= CHUNK_MIN) /* as many for each thread */
        n_blocks = (n_blocks + n_threads - 1) / n_threads * n_threads;
    assert(n <= n_blocks * TOKENS_MAX);
    return n_blocks;
}

size_t step_token_parts(const struct work *w)
{
    return w->alone ? 1 : (w->n + TOKEN_PART - 1) / TOKEN_PART;
}

struct span step_token_span(const struct work *w, size_t part)
{
    return span_of(w->n, step_token_parts(w), part);
}

size_t step_row_parts(const struct work *w, const struct matrix *matrix)
{
    return w->alone ? 1 : matrix->n_out / MATRIX_ROWS;
}

static void multiply(const struct kernels *kernels, const struct work *w, float *out, size_t ld,
                     const struct matrix *matrix, size_t part)
{
    /* Without a rest: n_out of every matrix is a multiple of MATRIX_ROWS. */
    size_t size = matrix->n_out / step_row_parts(w, matrix);
    struct span rows = {part * size, (part + 1) * size};
    matrix_multiply(kernels, out, ld, w->scratch->packed, w->n, matrix, rows, w->mine->panel,
                    &w->mine->matrix);
}

void step_multiply(const struct work *w, float *out, size_t ld, const struct matrix *matrix,
                   size_t part)
{
    multiply(w->f->model->kernels, w, out, ld, matrix, part);
}

void step_multiply_exact(const struct work *w, float *out, size_t ld, const struct matrix *matrix,
                         size_t part)
{
    multiply(w->f->model->exact, w, out, ld, matrix, part);
}

/* The steps that architectures share: each is one part on one thread. */

void step_qkv(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct layer *layer = f->layer;
    size_t ld = f->layer->shape->ld, q = step_row_parts(w, &layer->q),
           k = step_row_parts(w, &layer->k);
    float *qkv = f->qkv + w->t * ld; /* [n][ld] */
    /* Parts count on through the three matrices; of a thread that works alone each has one. */
    if (part < q)
        step_multiply(w, qkv, ld, &layer->q, part);
    else if (part < q + k)
        step_multiply(w, qkv + layer->q.n_out, ld, &layer->k, part - q);
    else
        step_multiply(w, qkv + layer->q.n_out + layer->k.n_out, ld, &layer->v, part - q - k);
}

void step_rope(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct model *m = f->model;
    const struct layer *layer = f->layer;
    const struct attention_shape *a = layer->shape;
    struct span tokens = step_token_span(w, part);
    size_t t = w->t + tokens.first, n = tokens.last - tokens.first;
    float *q = f->qkv + t * a->ld, *k = q + layer->q.n_out; /* [n][ld] */
    /* What scores are scaled by goes into the queries: once, not for each key. */
    m->kernels->norm_rope(q, a->ld, n, a->n_heads, a->head_dim, layer->q_norm, m->eps,
                          layer->cos_sin, f->positions + t, m->query_scale);
    m->kernels->norm_rope(k, a->ld, n, a->n_kv_heads, a->head_dim, layer->k_norm, m->eps,
                          layer->cos_sin, f->positions + t, 1);
}

/* Keys and values of a text behind those of its prefix. */
void step_gather(const struct work *w, size_t text)
{
    const struct forward *f = w->f;
    const struct layer *layer = f->layer;
    const struct prefix_use *use = &f->pack->prefixes[text];
    const uint32_t *starts = f->pack->starts + text;
    size_t ld = layer->shape->ld, width = layer->k.n_out + layer->v.n_out;
    if (!use->n)
        return;
    assert(width == use->prefix->width && use->n <= f->longest_prefix);
    /* Rows of `whole` begin with the keys: there are no queries in them. */
    float *to = f->whole + use->row * ld;
    const float *from = prefix_rows(use->prefix, (size_t)(layer - f->model->layers));
    for (size_t t = 0; t < use->n; t++, to += ld)
        memcpy(to, from + t * width, width * sizeof *to);
    for (size_t t = starts[0]; t < starts[1]; t++, to += ld)
        memcpy(to, f->qkv + t * ld + layer->q.n_out, width * sizeof *to);
}

void step_attention(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    const struct layer *layer = f->layer;
    const struct queries *queries = &f->queries[part];
    const uint32_t *starts = f->pack->starts + queries->text;
    float *q = f->qkv + starts[0] * layer->shape->ld; /* [n][ld]; the result replaces q */
    const float *k = q + layer->q.n_out;
    size_t n_before = 0;
    if (f->pack->prefixes && f->pack->prefixes[queries->text].n) {
        const struct prefix_use *use = &f->pack->prefixes[queries->text];
        n_before = use->n;
        /* Rows of other texts, or those before all: attention touches `tokens` only. */
        q -= n_before * layer->shape->ld;
        k = f->whole + use->row * layer->shape->ld;
    }
    f->model->kernels->attention(
        q, k, k + layer->k.n_out, n_before + starts[1] - starts[0], layer->reach, layer->shape,
        (struct span){n_before + queries->first, n_before + queries->last}, w->mine->attention);
}

void step_attn_quantize(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    size_t ld = f->layer->shape->ld;
    f->model->kernels->quantize(w->scratch->packed, f->qkv + w->t * ld, ld, w->n, f->layer->o.n_in,
                                step_token_span(w, part));
}

void step_attn_out(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    step_multiply(w, w->scratch->y, f->model->n_embd, &f->layer->o, part);
}

static size_t gate_parts(const struct work *w)
{
    const struct matrix *gate = &w->f->layer->gate;
    return gate->data ? step_row_parts(w, gate) : 0;
}

void step_gate_up(const struct work *w, size_t part)
{
    const struct layer *layer = w->f->layer;
    size_t n_ff = w->f->model->n_ff, gate = gate_parts(w), ld = gate ? 2 * n_ff : n_ff;
    if (part < gate)
        step_multiply(w, w->scratch->wide, ld, &layer->gate, part);
    else
        /* Behind the gates, or at the start of the row where there are none. */
        step_multiply(w, w->scratch->wide + (ld - n_ff), ld, &layer->up, part - gate);
}

void step_glu(const struct work *w, size_t part)
{
    const struct model *m = w->f->model;
    m->kernels->glu_quantize(w->scratch->packed, w->scratch->wide, w->n, m->n_ff, m->glu,
                             step_token_span(w, part));
}

size_t step_gate_up_parts(const struct work *w)
{
    return gate_parts(w) + step_row_parts(w, &w->f->layer->up);
}

/* The residual stream, as it is. */
void step_quantize(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    size_t embd = f->model->n_embd;
    f->model->kernels->quantize(w->scratch->packed, f->x + w->t * embd, embd, w->n, embd,
                                step_token_span(w, part));
}

/* To the residual stream, as it is. */
void step_add(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    struct span tokens = step_token_span(w, part);
    size_t embd = f->model->n_embd;
    for (size_t t = tokens.first; t < tokens.last; t++)
        /* A row of y taken as the bias: x = (x + y) * 1. */
        f->model->kernels->bias_scale(f->x + (w->t + t) * embd, embd, 1, w->scratch->y + t * embd,
                                      embd, 1);
}

void step_down(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    step_multiply(w, w->scratch->y, f->model->n_embd, &f->layer->down, part);
}

void step_mean(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    size_t text = w->t + part, embd = f->model->n_embd;
    size_t start = f->pack->starts[text], end = f->pack->starts[text + 1];
    assert(f->model->n_out == embd);
    f->model->kernels->mean_rows(f->out + text * embd, f->x + start * embd, end - start, embd);
}

static void step_first(const struct work *w, size_t part)
{
    const struct forward *f = w->f;
    size_t text = w->t + part, embd = f->model->n_embd;
    assert(f->model->n_out == embd);
    memcpy(f->out + text * embd, f->x + f->pack->starts[text] * embd, embd * sizeof *f->out);
}

size_t step_qkv_parts(const struct work *w)
{
    const struct layer *layer = w->f->layer;
    return step_row_parts(w, &layer->q) + step_row_parts(w, &layer->k) +
           step_row_parts(w, &layer->v);
}

static void share(struct forward *f, session_part *part, void *arg, size_t n_parts)
{
    if (f->parallel)
        /* For the next step: it decides how work is cut, never what comes out. */
        f->n_threads = f->parallel(f->parallel_ctx, part, arg, n_parts);
    for (size_t i = 0; !f->parallel && i < n_parts; i++)
        part(arg, i, f->session);
}

/* A step as other threads see it. */
struct shared_step {
    const struct work *work;
    step_part *step;
};

static void shared_part(void *arg, size_t part, struct session *mine)
{
    const struct shared_step *shared = arg;
    struct work work = *shared->work;
    /* Shared is what the step reads and where it writes; panels are of the thread that runs it. */
    work.mine = &mine->forward->scratch;
    shared->step(&work, part);
}

/* A chunk's way through many steps takes up to ten milliseconds, and there may be more urgent work.
 * The thread that leads may turn to it; whoever helps leaves after the chunk. */
static void give_way(const struct work *w)
{
    if (w->leads && w->f->parallel)
        w->f->parallel(w->f->parallel_ctx, NULL, NULL, 0);
}

void step_run(const struct work *w, step_part *step, size_t n_parts)
{
    struct shared_step shared = {w, step};
    if (!w->alone)
        share(w->f, shared_part, &shared, n_parts);
    for (size_t part = 0; w->alone && part < n_parts; part++) {
        step(w, part);
        give_way(w);
    }
}

struct work step_all_tokens(struct forward *f)
{
    return (struct work){.f = f, .scratch = &f->scratch, .mine = &f->scratch, .n = f->n_tokens};
}

/* n tokens or texts in chunks, each of which goes through all of `steps`. */
struct token_blocks {
    struct forward *f;
    size_t n, n_blocks;
    void (*steps)(const struct work *work);
};

static void step_block(void *arg, size_t part, struct session *mine)
{
    const struct token_blocks *token_blocks = arg;
    const struct scratch *scratch = &mine->forward->scratch;
    struct span span = span_of(token_blocks->n, token_blocks->n_blocks, part);
    const struct work work = {.f = token_blocks->f,
                              .scratch = scratch,
                              .mine = scratch,
                              .alone = true,
                              .leads = mine == token_blocks->f->session,
                              .t = span.first,
                              .n = span.last - span.first};
    token_blocks->steps(&work);
}

void step_run_blocks(struct forward *f, void (*steps)(const struct work *work), size_t n)
{
    /* Read once: steps change it on the way, and all chunks must be cut alike. */
    size_t n_threads = f->n_threads;
    struct token_blocks token_blocks = {f, n, blocks_of(n, n_threads), steps};
    if (token_blocks.n_blocks >= n_threads)
        return share(f, step_block, &token_blocks, token_blocks.n_blocks);
    for (size_t c = 0; c < token_blocks.n_blocks; c++) {
        struct span span = span_of(n, token_blocks.n_blocks, c);
        const struct work work = {.f = f,
                                  .scratch = &f->scratch,
                                  .mine = &f->scratch,
                                  .t = span.first,
                                  .n = span.last - span.first};
        steps(&work);
    }
}

void steps_pool(const struct work *w)
{
    step_run(w, w->f->model->pools_first ? step_first : step_mean, w->n);
}
