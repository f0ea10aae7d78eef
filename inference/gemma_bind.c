/*
 * gemma_bind.c: EmbeddingGemma in a GGUF file: its keys, its tensors, its prompts.
 *
 * Source: key and tensor names as llama.cpp's converter writes them for this architecture; prompts
 *         as in the model card and the model's config_sentence_transformers.json, space by space.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "inference/architecture.h"
#include "inference/rope.h"

enum {
    LAYERS_MAX = 512,
    FULL_EVERY = 6, /* layers 5, 11, ... attend to the whole text; the file has no key for it */
    WINDOW = 512,   /* of every published EmbeddingGemma */
};

const struct prompt gemma_prompts[] = {
    {"document", "title: ", " | text: "},
    {"query", "task: search result | query: ", NULL},
    {"question_answering", "task: question answering | query: ", NULL},
    {"fact_checking", "task: fact checking | query: ", NULL},
    {"classification", "task: classification | query: ", NULL},
    {"clustering", "task: clustering | query: ", NULL},
    {"sentence_similarity", "task: sentence similarity | query: ", NULL},
    {"code_retrieval", "task: code retrieval | query: ", NULL},
    {"summarization", "task: summarization | query: ", NULL},
    {NULL, NULL, NULL},
};

/* Numbers of the file that only binding needs. */
struct numbers {
    size_t window;   /* tokens of a sliding layer, both sides together */
    double bases[2]; /* of RoPE: sliding layers, full ones */
};

/* Sizes the kernels were written for: whole blocks, whole row groups, whole vectors. */
static int check_sizes(const struct binder *b, const struct model *m)
{
    if (m->n_embd % Q8_BLOCK || m->n_ff % Q8_BLOCK)
        return bind_refuse_key(b, "not a multiple of 32: key",
                               m->n_embd % Q8_BLOCK ? "embedding_length" : "feed_forward_length");
    if (m->attention.head_dim % Q8_BLOCK)
        return bind_refuse_key(b, "not a multiple of 32: key", "attention.key_length");
    if (m->attention.n_heads % m->attention.n_kv_heads ||
        m->attention.n_heads * m->attention.head_dim > ROW_MAX)
        return bind_refuse_key(b, "unusable: key", "attention.head_count");
    return 0;
}

/* transformers 4.57 to 5.12 make half and one of the window each time they load and save a model;
 * converted, such a file would attend to a half, a quarter, an eighth of what it was trained on. */
static void window_restore(struct model *m, size_t *window)
{
    if (*window != 257 && *window != 129 && *window != 65 && *window != 33)
        return;
    snprintf(m->warning, sizeof m->warning,
             "attention.sliding_window is %zu, which transformers 4.57 to 5.12 make of the model's "
             "%d each time they save it; %d is used: convert the model again to be rid of this",
             *window, WINDOW, WINDOW);
    *window = WINDOW;
}

static int bind_keys(const struct binder *b, struct model *m, struct numbers *numbers)
{
    struct attention_shape *a = &m->attention;
    size_t value_length;
    double eps, base;
    int rc = bind_dims(b, m, LAYERS_MAX);
    if (!rc)
        rc = bind_size(b, "attention.head_count_kv", 1, 128, &a->n_kv_heads);
    if (!rc)
        rc = bind_size(b, "attention.key_length", Q8_BLOCK, 1024, &a->head_dim);
    if (!rc)
        /* As wide as keys: the kernels have one head_dim for both. */
        rc = bind_size(b, "attention.value_length", a->head_dim, a->head_dim, &value_length);
    if (!rc)
        rc = bind_size(b, "attention.sliding_window", 1, 1 << 24, &numbers->window);
    if (!rc)
        rc = bind_float(b, "attention.layer_norm_rms_epsilon", 0, 1, &eps);
    if (!rc)
        rc = bind_float(b, "rope.freq_base", 1, 1e12, &numbers->bases[1]);
    if (rc)
        return rc;
    m->eps = (float)eps;
    window_restore(m, &numbers->window);
    numbers->bases[0] = 10000; /* older files leave it out; the model card's value */
    if (gguf_float(b->gguf, "gemma-embedding.rope.freq_base_swa", &base) != -ENOENT)
        rc = bind_float(b, "rope.freq_base_swa", 1, 1e12, &numbers->bases[0]);
    return rc ? rc : check_sizes(b, m);
}

static int bind_outer(const struct binder *b, struct model *m)
{
    const struct bind_tensor tensors[] = {
        {"token_embd.weight", m->n_embd, m->info.n_vocab, .matrix = &m->embed},
        {"output_norm.weight", m->n_embd, 1, .floats = &m->output_norm},
    };
    return bind_tensors(b, BIND_OUTER, tensors, sizeof tensors / sizeof *tensors);
}

/* The two layers after pooling. A file has both or neither; one that says it has 0 lacks nothing:
 * its model was trained without them. */
static int bind_dense(const struct binder *b, struct model *m)
{
    const struct gguf_tensor *tensor = gguf_tensor_find(b->gguf, "dense_2.weight");
    uint64_t n_layers;
    bool needs_none =
        gguf_uint(b->gguf, "gemma-embedding.dense_layers", &n_layers) == 0 && n_layers == 0;
    m->info.has_dense = tensor != NULL || needs_none;
    if (!tensor)
        return 0;
    /* No key that all files have says it: it is taken from the tensor, within what kernels take. */
    size_t hidden = (size_t)tensor->shape[1];
    if (hidden % Q8_BLOCK || hidden > ROW_MAX)
        return bind_refuse(b, "unexpected shape of tensor", "dense_2.weight");
    const struct bind_tensor tensors[] = {
        {"dense_2.weight", m->n_embd, hidden, .matrix = &m->dense_2},
        {"dense_3.weight", hidden, m->n_embd, .matrix = &m->dense_3},
    };
    return bind_tensors(b, BIND_OUTER, tensors, 2);
}

static int bind_layer(const struct binder *b, const struct model *m, size_t i, struct layer *layer)
{
    size_t embd = m->n_embd, ff = m->n_ff, head = m->attention.head_dim;
    size_t q = m->attention.n_heads * head, kv = m->attention.n_kv_heads * head;
    const struct bind_tensor tensors[] = {
        {"attn_norm.weight", embd, 1, .floats = &layer->attn_norm},
        {"attn_q.weight", embd, q, .matrix = &layer->q},
        {"attn_k.weight", embd, kv, .matrix = &layer->k},
        {"attn_v.weight", embd, kv, .matrix = &layer->v},
        {"attn_output.weight", q, embd, .matrix = &layer->o},
        {"attn_q_norm.weight", head, 1, .floats = &layer->q_norm},
        {"attn_k_norm.weight", head, 1, .floats = &layer->k_norm},
        {"post_attention_norm.weight", embd, 1, .floats = &layer->post_attn_norm},
        {"ffn_norm.weight", embd, 1, .floats = &layer->ffn_norm},
        {"ffn_gate.weight", embd, ff, .matrix = &layer->gate},
        {"ffn_up.weight", embd, ff, .matrix = &layer->up},
        {"ffn_down.weight", ff, embd, .matrix = &layer->down},
        {"post_ffw_norm.weight", embd, 1, .floats = &layer->post_ffn_norm},
    };
    return bind_tensors(b, (int)i, tensors, sizeof tensors / sizeof *tensors);
}

static int bind_layers(const struct binder *b, struct model *m, const struct numbers *numbers)
{
    m->layers = calloc(m->n_layers, sizeof *m->layers);
    m->cos_sin_local = rope_table(m->info.max_tokens, m->attention.head_dim, numbers->bases[0], 1);
    m->cos_sin_full = rope_table(m->info.max_tokens, m->attention.head_dim, numbers->bases[1], 1);
    if (!m->layers || !m->cos_sin_local || !m->cos_sin_full)
        return bind_no_memory(b);
    for (size_t i = 0; i < m->n_layers; i++) {
        struct layer *layer = &m->layers[i];
        bool full = (i + 1) % FULL_EVERY == 0;
        layer->shape = &m->attention;
        /* The window's whole width is in the file; half of it is on either side. */
        layer->reach = full ? m->info.max_tokens : numbers->window / 2;
        layer->cos_sin = full ? m->cos_sin_full : m->cos_sin_local;
        int rc = bind_layer(b, m, i, layer);
        if (rc)
            return rc;
    }
    return 0;
}

int gemma_bind(const struct binder *b, struct model *m)
{
    struct numbers numbers;
    uint64_t pooling;
    if (gguf_uint(b->gguf, "gemma-embedding.pooling_type", &pooling) == 0 && pooling != 1)
        return bind_refuse_key(b, "not mean pooling: key", "pooling_type");
    int rc = bind_keys(b, m, &numbers);
    if (rc)
        return rc;
    /* Before bind_layers, which makes tables for so many positions. */
    if (m->info.max_tokens > KEYS_MAX)
        m->info.max_tokens = KEYS_MAX;
    m->attention.ld = (m->attention.n_heads + 2 * m->attention.n_kv_heads) * m->attention.head_dim;
    m->query_scale = 1.0f / sqrtf((float)m->attention.head_dim);
    m->embed_scale = sqrtf((float)m->n_embd);
    m->n_out = m->n_embd;
    rc = bind_outer(b, m);
    if (!rc)
        rc = bind_dense(b, m);
    if (!rc)
        rc = bind_layers(b, m, &numbers);
    /* The hidden values between the two dense layers stand there, too. */
    m->n_wide = 2 * m->n_ff > m->dense_2.n_out ? 2 * m->n_ff : m->dense_2.n_out;
    return rc;
}
