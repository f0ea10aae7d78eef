/*
 * qwen3_bind.c: Qwen3-Embedding in a GGUF file: its keys and its tensors.
 *
 * Refuses: Qwen3 models that write text (their files do not pool the last token) and its rerankers.
 * Why:     texts are cut at 8,192 tokens although the model takes 32,768: keys and values of more
 *          would be a gigabyte for each thread.
 * Source:  key and tensor names as llama.cpp's converter writes them; prompts as the model card has
 *          them.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "inference/architecture.h"
#include "inference/rope.h"

enum { LAYERS_MAX = 512, POOLING_LAST = 3, HEAD_MAX = 1024 };

const struct prompt qwen3_prompts[] = {
    {"document", "", NULL},
    {"query",
     "Instruct: Given a web search query, retrieve relevant passages that answer the query\n"
     "Query:",
     NULL},
    {NULL, NULL, NULL},
};

static int bind_heads(const struct binder *b, struct model *m)
{
    struct attention_shape *a = &m->attention;
    size_t value_length;
    int rc = bind_size(b, "attention.head_count_kv", 1, 128, &a->n_kv_heads);
    if (!rc)
        rc = bind_size(b, "attention.key_length", Q8_BLOCK, HEAD_MAX, &a->head_dim);
    if (!rc)
        rc = bind_size(b, "attention.value_length", Q8_BLOCK, HEAD_MAX, &value_length);
    if (rc)
        return rc;
    if (a->n_heads % a->n_kv_heads)
        return bind_refuse_key(b, "not a divisor of the heads: key", "attention.head_count_kv");
    /* Heads may be wider together than n_embd: 16 of 128 in the model of width 1,024. */
    if (a->head_dim % Q8_BLOCK || value_length != a->head_dim || a->n_heads * a->head_dim > ROW_MAX)
        return bind_refuse_key(b, "heads that cannot be used: key", "attention.key_length");
    a->ld = (a->n_heads + 2 * a->n_kv_heads) * a->head_dim;
    a->is_causal = true;
    m->query_scale = 1.0f / sqrtf((float)a->head_dim);
    return 0;
}

static int bind_keys(const struct binder *b, struct model *m, double *base)
{
    double eps;
    size_t pooling;
    int rc = bind_dims(b, m, LAYERS_MAX);
    if (!rc)
        rc = bind_heads(b, m);
    if (!rc)
        rc = bind_float(b, "attention.layer_norm_rms_epsilon", 0, 1, &eps);
    if (!rc)
        rc = bind_float(b, "rope.freq_base", 1, 1e12, base);
    if (!rc)
        rc = bind_size(b, "pooling_type", 0, SIZE_MAX, &pooling);
    if (rc)
        return rc;
    if (pooling != POOLING_LAST)
        return bind_refuse_key(b, "not last token (3), so not a Qwen3-Embedding: key",
                               "pooling_type");
    if (m->n_embd % Q8_BLOCK || m->n_ff % Q8_BLOCK)
        return bind_refuse_key(b, "not a multiple of 32: key",
                               m->n_embd % Q8_BLOCK ? "embedding_length" : "feed_forward_length");
    if (m->info.max_tokens > KEYS_MAX)
        m->info.max_tokens = KEYS_MAX;
    m->eps = (float)eps;
    return 0;
}

static int bind_outer(const struct binder *b, struct model *m)
{
    const struct bind_tensor tensors[] = {
        {"token_embd.weight", m->n_embd, m->info.n_vocab, .matrix = &m->embed},
        {"output_norm.weight", m->n_embd, 1, .floats = &m->output_norm},
    };
    return bind_tensors(b, BIND_OUTER, tensors, sizeof tensors / sizeof *tensors);
}

static int bind_layer(const struct binder *b, const struct model *m, size_t i, struct layer *layer)
{
    const struct attention_shape *a = &m->attention;
    size_t embd = m->n_embd, ff = m->n_ff, head = a->head_dim;
    size_t q = a->n_heads * head, kv = a->n_kv_heads * head;
    const struct bind_tensor tensors[] = {
        {"attn_norm.weight", embd, 1, .floats = &layer->attn_norm},
        {"attn_q.weight", embd, q, .matrix = &layer->q},
        {"attn_k.weight", embd, kv, .matrix = &layer->k},
        {"attn_v.weight", embd, kv, .matrix = &layer->v},
        {"attn_output.weight", q, embd, .matrix = &layer->o},
        {"attn_q_norm.weight", head, 1, .floats = &layer->q_norm},
        {"attn_k_norm.weight", head, 1, .floats = &layer->k_norm},
        {"ffn_norm.weight", embd, 1, .floats = &layer->ffn_norm},
        {"ffn_gate.weight", embd, ff, .matrix = &layer->gate},
        {"ffn_up.weight", embd, ff, .matrix = &layer->up},
        {"ffn_down.weight", ff, embd, .matrix = &layer->down},
    };
    return bind_tensors(b, (int)i, tensors, sizeof tensors / sizeof *tensors);
}

int qwen3_bind(const struct binder *b, struct model *m)
{
    double base;
    int rc = bind_keys(b, m, &base);
    if (rc)
        return rc;
    m->info.has_dense = true; /* nothing is missing: the model has no such layers */
    /* For the steps of Gemma, which scale the token rows. */
    m->embed_scale = 1;
    m->glu = GLU_SILU;
    m->n_out = m->n_embd;
    m->n_wide = 2 * m->n_ff;
    m->layers = calloc(m->n_layers, sizeof *m->layers);
    m->cos_sin_full = rope_table(m->info.max_tokens, m->attention.head_dim, base, 1);
    if (!m->layers || !m->cos_sin_full)
        return bind_no_memory(b);
    rc = bind_outer(b, m);
    for (size_t i = 0; i < m->n_layers && !rc; i++) {
        m->layers[i].shape = &m->attention;
        /* There is no window; is_causal hides what is behind a token. */
        m->layers[i].reach = m->info.max_tokens;
        m->layers[i].cos_sin = m->cos_sin_full;
        rc = bind_layer(b, m, i, &m->layers[i]);
    }
    if (!rc)
        rc = bind_prompts(b, &m->own_prompts);
    if (m->own_prompts)
        m->info.prompts = m->own_prompts;
    return rc;
}
