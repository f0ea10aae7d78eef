/*
 * nomic_bind.c: nomic-embed-text v1 and v1.5, and other models of its kind, in a GGUF file: keys,
 * tensors, prompts.
 *
 * Refuses: biases and rotations that the family does not have (its mixture of experts, v2, is an
 *          architecture of its own), other poolings than mean and first token.
 * Why:     published files name no prompts, and vectors without them are markedly worse, so those
 *          of the model card belong to every file that is called nomic-embed-text.
 * Source:  key and tensor names as llama.cpp's converter writes them for this architecture.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* strcasestr */
#endif
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inference/architecture.h"
#include "inference/matrix.h"
#include "inference/rope.h"

enum { LAYERS_MAX = 512, POOLING_MEAN = 1, POOLING_CLS = 2, HEAD_MAX = 1024 };

static const struct prompt card_prompts[] = {
    {"document", "search_document: ", NULL},
    {"query", "search_query: ", NULL},
    {"clustering", "clustering: ", NULL},
    {"classification", "classification: ", NULL},
    {NULL, NULL, NULL},
};

static int bind_pooling(const struct binder *b, struct model *m)
{
    size_t pooling;
    bool causal = false;
    int rc = bind_size(b, "pooling_type", 0, SIZE_MAX, &pooling);
    if (rc)
        return rc;
    if (pooling != POOLING_MEAN && pooling != POOLING_CLS)
        return bind_refuse_key(b, "neither mean (1) nor first token (2): key", "pooling_type");
    if (gguf_bool(b->gguf, "nomic-bert.attention.causal", &causal) == -EINVAL || causal)
        return bind_refuse_key(b, "not false: key", "attention.causal");
    m->pools_first = pooling == POOLING_CLS;
    return 0;
}

static int bind_keys(const struct binder *b, struct model *m, double *base)
{
    struct attention_shape *a = &m->attention;
    struct gguf_str scaling;
    double eps;
    int rc = bind_dims(b, m, LAYERS_MAX);
    if (!rc)
        rc = bind_float(b, "attention.layer_norm_epsilon", 0, 1, &eps);
    if (!rc)
        rc = bind_float(b, "rope.freq_base", 1, 1e12, base);
    if (!rc)
        rc = bind_pooling(b, m);
    if (rc)
        return rc;
    if (gguf_string(b->gguf, "nomic-bert.rope.scaling.type", &scaling) == 0 &&
        (scaling.len != 4 || memcmp(scaling.ptr, "none", 4) != 0))
        return bind_refuse_key(b, "not 'none': key", "rope.scaling.type");
    if (m->n_embd % (a->n_heads * Q8_BLOCK) || m->n_embd / a->n_heads > HEAD_MAX)
        return bind_refuse_key(b, "heads are not a multiple of 32 wide: key",
                               "attention.head_count");
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
    const struct gguf_tensor *types = gguf_tensor_find(b->gguf, "token_types.weight");
    size_t embd = m->n_embd;
    m->n_types = types ? (size_t)types->shape[1] : 1;
    const struct bind_tensor tensors[] = {
        {"token_embd.weight", embd, m->info.n_vocab, .matrix = &m->embed},
        {"token_types.weight", embd, m->n_types, .floats = &m->token_types},
        {"token_embd_norm.weight", embd, 1, .floats = &m->embed_norm.weight},
        {"token_embd_norm.bias", embd, 1, .floats = &m->embed_norm.bias},
    };
    return bind_tensors(b, BIND_OUTER, tensors, sizeof tensors / sizeof *tensors);
}

static int bind_layer(const struct binder *b, const struct model *m, size_t i, struct layer *layer)
{
    size_t embd = m->n_embd, ff = m->n_ff;
    const float *zeros = m->constants + ROW_MAX;
    struct matrix qkv;
    const struct bind_tensor tensors[] = {
        {"attn_qkv.weight", embd, 3 * embd, .matrix = &qkv},
        {"attn_output.weight", embd, embd, .matrix = &layer->o},
        {"attn_output_norm.weight", embd, 1, .floats = &layer->attn_output_norm.weight},
        {"attn_output_norm.bias", embd, 1, .floats = &layer->attn_output_norm.bias},
        {"ffn_gate.weight", embd, ff, .matrix = &layer->gate},
        {"ffn_up.weight", embd, ff, .matrix = &layer->up},
        {"ffn_down.weight", ff, embd, .matrix = &layer->down},
        {"layer_output_norm.weight", embd, 1, .floats = &layer->output_norm.weight},
        {"layer_output_norm.bias", embd, 1, .floats = &layer->output_norm.bias},
    };
    int rc = bind_tensors(b, (int)i, tensors, sizeof tensors / sizeof *tensors);
    if (rc)
        return rc;
    layer->q = matrix_rows(&qkv, 0, embd);
    layer->k = matrix_rows(&qkv, embd, embd);
    layer->v = matrix_rows(&qkv, 2 * embd, embd);
    layer->o_bias = layer->down_bias = zeros;
    return 0;
}

int nomic_bind(const struct binder *b, struct model *m)
{
    double base;
    int rc = bind_keys(b, m, &base);
    if (rc)
        return rc;
    if (m->info.max_tokens > KEYS_MAX)
        m->info.max_tokens = KEYS_MAX;
    m->info.has_dense = true; /* nothing is missing: the family has no such layers */
    m->glu = GLU_SILU;
    m->n_out = m->n_embd;
    m->n_wide = 2 * m->n_ff;
    m->layers = calloc(m->n_layers, sizeof *m->layers);
    m->constants = calloc(2 * ROW_MAX, sizeof *m->constants);
    m->cos_sin_full = rope_table(m->info.max_tokens, m->attention.head_dim, base);
    if (!m->layers || !m->constants || !m->cos_sin_full)
        return bind_no_memory(b);
    rc = bind_outer(b, m);
    for (size_t i = 0; i < m->n_layers && !rc; i++) {
        m->layers[i].shape = &m->attention;
        m->layers[i].reach = m->info.max_tokens;
        m->layers[i].cos_sin = m->cos_sin_full;
        rc = bind_layer(b, m, i, &m->layers[i]);
    }
    if (!rc)
        rc = bind_prompts(b, &m->own_prompts);
    m->info.prompts = m->own_prompts                            ? m->own_prompts
                      : strcasestr(m->name, "nomic-embed-text") ? card_prompts
                                                                : NULL;
    if (!rc && !m->info.prompts)
        snprintf(m->warning, sizeof m->warning,
                 "models of this kind were trained with prompts, and the file names none: put them "
                 "into the texts, or convert it again with --name nomic-embed-text-v1.5");
    return rc;
}
