/*
 * forward.c: EmbeddingGemma in reading order.
 *
 * Projections, norms and the feed-forward part work on all tokens of the pack alike, TOKENS_MAX at
 * a time so that activations stay in the L2 cache; attention works per text. Nothing is allocated
 * here once open is done.
 * Source: Gemma 3 technical report (2025), EmbeddingGemma (Vera et al. 2025), and the model's own
 *         configuration.
 */
#include "inference/forward.h"

#include <errno.h>
#include <stdlib.h>

#define ALIGN 64

struct forward {
    const struct model *model;
    float *x;            /* [max_tokens][n_embd] the residual stream */
    float *qkv;          /* [max_tokens][attention.ld] */
    uint32_t *positions; /* [max_tokens] of each token in its text */
    float *wide;         /* [TOKENS_MAX][max(2 n_ff, dense hidden)] */
    float *y;            /* [TOKENS_MAX][n_embd] */
    void *packed;        /* [TOKENS_MAX][widest input] quantised activations */
    void *panel;         /* unpacked weights of MATRIX_ROWS rows */
    void *attention;     /* scratch of one text's attention */
    float *pooled;       /* [TOKENS_MAX][n_embd] */
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
    struct forward *f = calloc(1, sizeof *f);
    if (!f)
        return -ENOMEM;
    size_t heads = m->attention.n_heads * m->attention.head_dim;
    size_t hidden = m->info.has_dense ? m->dense_2.n_out : 0;
    size_t widest = larger(larger(m->n_embd, m->n_ff), larger(heads, hidden));
    size_t max_tokens = m->info.max_tokens;
    f->model = m;
    f->x = scratch_alloc(max_tokens * m->n_embd * sizeof *f->x);
    f->qkv = scratch_alloc(max_tokens * m->attention.ld * sizeof *f->qkv);
    f->positions = scratch_alloc(max_tokens * sizeof *f->positions);
    f->wide = scratch_alloc(TOKENS_MAX * larger(2 * m->n_ff, hidden) * sizeof *f->wide);
    f->y = scratch_alloc(TOKENS_MAX * m->n_embd * sizeof *f->y);
    f->packed = scratch_alloc(m->kernels->packed_size(TOKENS_MAX, widest));
    f->panel = scratch_alloc(m->kernels->panel_size(widest));
    f->attention = scratch_alloc(m->kernels->attention_size(&m->attention));
    f->pooled = scratch_alloc(TOKENS_MAX * m->n_embd * sizeof *f->pooled);
    if (!f->x || !f->qkv || !f->positions || !f->wide || !f->y || !f->packed || !f->panel ||
        !f->attention || !f->pooled) {
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
    free(f->x);
    free(f->qkv);
    free(f->positions);
    free(f->wide);
    free(f->y);
    free(f->packed);
    free(f->panel);
    free(f->attention);
    free(f->pooled);
    free(f);
}

static size_t chunk_of(size_t n_left)
{
    return n_left < TOKENS_MAX ? n_left : TOKENS_MAX;
}

/* Mean over each text, the two dense layers, unit length. */
static void pool_and_project(struct forward *f, const struct pack *pack, float *out)
{
    const struct model *m = f->model;
    const struct kernels *k = m->kernels;
    size_t embd = m->n_embd;
    for (size_t first = 0; first < pack->n_texts; first += TOKENS_MAX) {
        size_t n = chunk_of(pack->n_texts - first);
        float *rows = out + first * embd; /* [n][embd] */
        for (size_t i = 0; i < n; i++) {
            size_t start = pack->starts[first + i], end = pack->starts[first + i + 1];
            k->mean_rows(rows + i * embd, f->x + start * embd, end - start, embd);
        }
        if (m->info.has_dense) {
            k->quantize(f->packed, rows, embd, n, embd);
            k->matmul(f->wide, m->dense_2.n_out, f->packed, n, &m->dense_2, f->panel);
            k->quantize(f->packed, f->wide, m->dense_2.n_out, n, m->dense_2.n_out);
            k->matmul(rows, embd, f->packed, n, &m->dense_3, f->panel);
        }
        for (size_t i = 0; i < n; i++)
            k->unit(rows + i * embd, embd);
    }
}

void forward_run(struct forward *f, const struct pack *pack, float *out)
{
    const struct model *m = f->model;
    const struct kernels *k = m->kernels;
    const struct attention_shape *a = &m->attention;
    size_t n_tokens = pack->starts[pack->n_texts], embd = m->n_embd, n_ff = m->n_ff;
    size_t k_at = a->n_heads * a->head_dim, v_at = k_at + a->n_kv_heads * a->head_dim;

    for (size_t text = 0; text < pack->n_texts; text++)
        for (size_t t = pack->starts[text]; t < pack->starts[text + 1]; t++) {
            k->embed_row(f->x + t * embd, &m->embed, (size_t)pack->ids[t], m->embed_scale);
            f->positions[t] = (uint32_t)(t - pack->starts[text]);
        }

    for (size_t l = 0; l < m->n_layers; l++) {
        const struct layer *layer = &m->layers[l];

        for (size_t t = 0; t < n_tokens; t += TOKENS_MAX) {
            size_t n = chunk_of(n_tokens - t);
            float *x = f->x + t * embd;      /* [n][embd] */
            float *qkv = f->qkv + t * a->ld; /* [n][ld] */
            k->rms_norm_quantize(f->packed, x, layer->attn_norm, m->eps, n, embd);
            k->matmul(qkv, a->ld, f->packed, n, &layer->q, f->panel);
            k->matmul(qkv + k_at, a->ld, f->packed, n, &layer->k, f->panel);
            k->matmul(qkv + v_at, a->ld, f->packed, n, &layer->v, f->panel);
            k->norm_rope(qkv, a->ld, n, a->n_heads, a->head_dim, layer->q_norm, m->eps,
                         layer->cos_sin, f->positions + t, m->query_scale);
            k->norm_rope(qkv + k_at, a->ld, n, a->n_kv_heads, a->head_dim, layer->k_norm, m->eps,
                         layer->cos_sin, f->positions + t, 1);
        }

        for (size_t text = 0; text < pack->n_texts; text++) {
            size_t start = pack->starts[text], n = pack->starts[text + 1] - start;
            float *qkv = f->qkv + start * a->ld; /* [n][ld]; the result replaces q */
            k->attention(qkv, qkv + k_at, qkv + v_at, n, layer->reach, a, f->attention);
        }

        for (size_t t = 0; t < n_tokens; t += TOKENS_MAX) {
            size_t n = chunk_of(n_tokens - t);
            float *x = f->x + t * embd; /* [n][embd] */
            k->quantize(f->packed, f->qkv + t * a->ld, a->ld, n, k_at);
            k->matmul(f->y, embd, f->packed, n, &layer->o, f->panel);
            k->add_rms_norm(x, f->y, layer->post_attn_norm, m->eps, n, embd);

            k->rms_norm_quantize(f->packed, x, layer->ffn_norm, m->eps, n, embd);
            k->matmul(f->wide, 2 * n_ff, f->packed, n, &layer->gate, f->panel);
            k->matmul(f->wide + n_ff, 2 * n_ff, f->packed, n, &layer->up, f->panel);
            k->geglu_quantize(f->packed, f->wide, n, n_ff);
            k->matmul(f->y, embd, f->packed, n, &layer->down, f->panel);
            k->add_rms_norm(x, f->y, layer->post_ffn_norm, m->eps, n, embd);
        }
    }

    k->rms_norm(f->x, m->output_norm, m->eps, n_tokens, embd);
    pool_and_project(f, pack, out);
}
