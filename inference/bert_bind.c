/*
 * bert_bind.c: an embedding model of the BERT family in a GGUF file: its keys and its tensors.
 *
 * Refuses: a pooling that is neither the mean nor the first token (rerankers), causal attention.
 * Why:     files that were published do not say which prompts their model was trained with, if any;
 *          those that scripts/convert-model.py makes do. Those of the multilingual e5 models are
 *          known by their name; others embed texts as they are.
 * Source:  key and tensor names as llama.cpp's converter writes them for this architecture.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* strcasestr */
#endif
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "inference/architecture.h"

enum { LAYERS_MAX = 512, POOLING_MEAN = 1, POOLING_CLS = 2 };

/* multilingual-e5-small, -base and -large; those called "instruct" have others. */
static const struct prompt e5_prompts[] = {
    {"document", "passage: ", NULL},
    {"query", "query: ", NULL},
    {NULL, NULL, NULL},
};

static bool is_e5(const struct model *m)
{
    return tokenizer_is_unigram(m->tokenizer) && strcasestr(m->name, "e5") &&
           !strcasestr(m->name, "instruct");
}

static int bind_pooling(const struct binder *b, struct model *m)
{
    size_t pooling;
    bool causal = false;
    int rc = bind_size(b, "pooling_type", 0, SIZE_MAX, &pooling);
    if (rc)
        return rc;
    if (pooling != POOLING_MEAN && pooling != POOLING_CLS)
        return bind_refuse_key(b, "neither mean (1) nor first token (2): key", "pooling_type");
    if (gguf_bool(b->gguf, "bert.attention.causal", &causal) == -EINVAL || causal)
        return bind_refuse_key(b, "not false: key", "attention.causal");
    m->pools_first = pooling == POOLING_CLS;
    return 0;
}

static int bind_keys(const struct binder *b, struct model *m)
{
    struct attention_shape *a = &m->attention;
    double eps;
    int rc = bind_size(b, "block_count", 1, LAYERS_MAX, &m->n_layers);
    if (!rc)
        rc = bind_size(b, "context_length", 4, 1 << 24, &m->info.max_tokens);
    if (!rc)
        rc = bind_size(b, "embedding_length", Q8_BLOCK, ROW_MAX, &m->n_embd);
    if (!rc)
        rc = bind_size(b, "feed_forward_length", Q8_BLOCK, ROW_MAX, &m->n_ff);
    if (!rc)
        rc = bind_size(b, "attention.head_count", 1, 128, &a->n_heads);
    if (!rc)
        rc = bind_float(b, "attention.layer_norm_epsilon", 0, 1, &eps);
    if (!rc)
        rc = bind_pooling(b, m);
    if (rc)
        return rc;
    if (m->n_embd % (a->n_heads * Q8_BLOCK))
        return bind_refuse_key(b, "heads are no multiple of 32 wide: key", "attention.head_count");
    if (m->n_ff % Q8_BLOCK)
        return bind_refuse_key(b, "not a multiple of 32: key", "feed_forward_length");
    m->eps = (float)eps;
    a->n_kv_heads = a->n_heads;
    a->head_dim = m->n_embd / a->n_heads;
    a->ld = 3 * m->n_embd;
    m->query_scale = 1.0f / sqrtf((float)a->head_dim);
    return 0;
}

static int bind_outer(const struct binder *b, struct model *m)
{
    /* Sentences of a pair are of different types; a text alone is of the first. */
    const struct gguf_tensor *types = gguf_tensor_find(b->gguf, "token_types.weight");
    size_t embd = m->n_embd, n_types = types ? (size_t)types->shape[1] : 1;
    const struct bind_tensor tensors[] = {
        {"token_embd.weight", embd, m->info.n_vocab, .matrix = &m->embed},
        {"token_types.weight", embd, n_types, .floats = &m->token_types},
        {"position_embd.weight", embd, m->info.max_tokens, .matrix = &m->positions},
        {"token_embd_norm.weight", embd, 1, .floats = &m->embed_norm.weight},
        {"token_embd_norm.bias", embd, 1, .floats = &m->embed_norm.bias},
    };
    return bind_tensors(b, BIND_OUTER, tensors, sizeof tensors / sizeof *tensors);
}

static int bind_layer(const struct binder *b, const struct model *m, size_t i, struct layer *layer)
{
    size_t embd = m->n_embd, ff = m->n_ff;
    const struct bind_tensor tensors[] = {
        {"attn_q.weight", embd, embd, .matrix = &layer->q},
        {"attn_q.bias", embd, 1, .floats = &layer->q_bias},
        {"attn_k.weight", embd, embd, .matrix = &layer->k},
        {"attn_k.bias", embd, 1, .floats = &layer->k_bias},
        {"attn_v.weight", embd, embd, .matrix = &layer->v},
        {"attn_v.bias", embd, 1, .floats = &layer->v_bias},
        {"attn_output.weight", embd, embd, .matrix = &layer->o},
        {"attn_output.bias", embd, 1, .floats = &layer->o_bias},
        {"attn_output_norm.weight", embd, 1, .floats = &layer->attn_output_norm.weight},
        {"attn_output_norm.bias", embd, 1, .floats = &layer->attn_output_norm.bias},
        {"ffn_up.weight", embd, ff, .matrix = &layer->up},
        {"ffn_up.bias", ff, 1, .floats = &layer->up_bias},
        {"ffn_down.weight", ff, embd, .matrix = &layer->down},
        {"ffn_down.bias", embd, 1, .floats = &layer->down_bias},
        {"layer_output_norm.weight", embd, 1, .floats = &layer->output_norm.weight},
        {"layer_output_norm.bias", embd, 1, .floats = &layer->output_norm.bias},
    };
    return bind_tensors(b, (int)i, tensors, sizeof tensors / sizeof *tensors);
}

int bert_bind(const struct binder *b, struct model *m)
{
    int rc = bind_keys(b, m);
    if (!rc)
        rc = bind_outer(b, m);
    if (rc)
        return rc;
    if (m->info.max_tokens > KEYS_MAX)
        m->info.max_tokens = KEYS_MAX;
    m->info.has_dense = true; /* nothing is missing: the family has no such layers */
    m->n_wide = m->n_ff;
    m->n_out = m->n_embd;
    rc = bind_prompts(b, &m->own_prompts);
    if (rc)
        return rc;
    m->info.prompts = m->own_prompts ? m->own_prompts : is_e5(m) ? e5_prompts : NULL;
    m->layers = calloc(m->n_layers, sizeof *m->layers);
    if (!m->layers)
        return bind_no_memory(b);
    for (size_t i = 0; i < m->n_layers && !rc; i++) {
        m->layers[i].shape = &m->attention;
        m->layers[i].reach = m->info.max_tokens;
        rc = bind_layer(b, m, i, &m->layers[i]);
    }
    return rc;
}
