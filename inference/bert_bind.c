/*
 * bert_bind.c: a model of the BERT family (RoBERTa, XLM-RoBERTa and DistilBERT are of it) in a GGUF
 * file, of vectors or a reranker: its keys and its tensors.
 *
 * Refuses: another pooling than the mean, the first token or a classification head; a head of more
 *          than one score; causal attention.
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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inference/architecture.h"
#include "inference/bert_bind.h"

enum { LAYERS_MAX = 512, POOLING_MEAN = 1, POOLING_CLS = 2, POOLING_RANK = 4 };

/* multilingual-e5-small, -base and -large; those called "instruct" have others. */
static const struct prompt e5_prompts[] = {
    {"document", "passage: ", NULL},
    {"query", "query: ", NULL},
    {NULL, NULL, NULL},
};

static bool has_name(const struct model *m, const char *part)
{
    return strcasestr(m->name, part) && !strcasestr(m->name, "instruct");
}

static bool is_e5(const struct model *m)
{
    return tokenizer_is_unigram(m->tokenizer) && has_name(m, "e5");
}

static int bind_pooling(const struct binder *b, struct model *m)
{
    size_t pooling = POOLING_RANK;
    uint64_t value;
    bool causal = false, has_head = gguf_tensor_find(b->gguf, "cls.output.weight") != NULL;
    bool is_bert = strcmp(b->architecture, "bert") == 0;
    char key[80];
    int rc = 0;
    /* Published rerankers do not all say that they are. */
    if (!has_head || !is_bert || gguf_uint(b->gguf, "bert.pooling_type", &value) != -ENOENT)
        rc = bind_size(b, "pooling_type", 0, SIZE_MAX, &pooling);
    if (rc)
        return rc;
    if (pooling != POOLING_MEAN && pooling != POOLING_CLS && pooling != POOLING_RANK)
        return bind_refuse_key(b, "neither mean (1) nor first token (2) nor rank (4): key",
                               "pooling_type");
    m->info.is_reranker = pooling == POOLING_RANK || has_head;
    snprintf(key, sizeof key, "%s.attention.causal", b->architecture);
    if (gguf_bool(b->gguf, key, &causal) == -EINVAL || causal)
        return bind_refuse_key(b, "not false: key", "attention.causal");
    m->pools_first = pooling == POOLING_CLS;
    return 0;
}

int bert_bind_keys(const struct binder *b, struct model *m)
{
    struct attention_shape *a = &m->attention;
    double eps;
    int rc = bind_dims(b, m, LAYERS_MAX);
    if (!rc)
        rc = bind_float(b, "attention.layer_norm_epsilon", 0, 1, &eps);
    if (!rc)
        rc = bind_pooling(b, m);
    if (rc)
        return rc;
    /* Rows of a head are quantised in blocks of 32, none of which may hold two heads. */
    if (m->n_embd % (a->n_heads * Q8_BLOCK))
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
    /* Sentences of a pair are of different types; a text alone is of the first. A DistilBERT has
     * no types, and its file does not count more than one. */
    const struct gguf_tensor *types = gguf_tensor_find(b->gguf, "token_types.weight");
    uint64_t n_said = 0;
    bool has_types =
        types || gguf_uint(b->gguf, "tokenizer.ggml.token_type_count", &n_said) || n_said != 1;
    size_t embd = m->n_embd, n_types = types ? (size_t)types->shape[1] : 1;
    m->n_types = n_types;
    const struct bind_tensor tensors[] = {
        {"token_embd.weight", embd, m->info.n_vocab, .matrix = &m->embed},
        {"position_embd.weight", embd, m->info.max_tokens, .matrix = &m->positions},
        {"token_embd_norm.weight", embd, 1, .floats = &m->embed_norm.weight},
        {"token_embd_norm.bias", embd, 1, .floats = &m->embed_norm.bias},
        /* The last one, so that the list can end before it. */
        {"token_types.weight", embd, n_types, .floats = &m->token_types},
    };
    /* Zeros in their place, so that the forward pass needs no case of its own. */
    if (!has_types) {
        m->constants = calloc(2 * ROW_MAX, sizeof *m->constants);
        if (!m->constants)
            return bind_no_memory(b);
        m->token_types = m->constants + ROW_MAX;
    }
    return bind_tensors(b, BIND_OUTER, tensors, sizeof tensors / sizeof *tensors - !has_types);
}

/* llama.cpp's converter leaves the first layer of a BERT's head out. */
static int bind_head(const struct binder *b, struct model *m)
{
    const struct gguf_tensor *out = gguf_tensor_find(b->gguf, "cls.output.weight");
    size_t embd = m->n_embd;
    const struct bind_tensor tensors[] = {
        {"cls.weight", embd, embd, .matrix = &m->cls},
        {"cls.bias", embd, 1, .floats = &m->cls_bias},
        {"cls.output.weight", embd, 1, .matrix = &m->cls_out},
        {"cls.output.bias", 1, 1, .floats = &m->cls_out_bias},
    };
    m->info.is_sigmoid = true;
    if (out && !gguf_tensor_find(b->gguf, "cls.weight")) {
        snprintf(b->err, b->err_size,
                 "%s: the first layer of the reranker's head is missing (tensor 'cls.weight'), so "
                 "its scores would be wrong; convert the model's folder with "
                 "scripts/convert-model.py",
                 b->path);
        return -EINVAL;
    }
    /* Before bind_tensors, which would call it an unexpected shape. */
    if (out && out->shape[1] != 1)
        return bind_refuse(b, "more than one score (a classifier, not a reranker): tensor",
                           "cls.output.weight");
    if (gguf_bool(b->gguf, "embedmill.rerank.sigmoid", &m->info.is_sigmoid) == -EINVAL)
        return bind_refuse(b, "not a bool: key", "embedmill.rerank.sigmoid");
    return bind_tensors(b, BIND_OUTER, tensors, sizeof tensors / sizeof *tensors);
}

int bert_bind_layer(const struct binder *b, const struct model *m, size_t i)
{
    struct layer *layer = &m->layers[i];
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
        {"ffn_down.weight", ff, embd, .matrix = &layer->down},
        {"ffn_down.bias", embd, 1, .floats = &layer->down_bias},
        {"layer_output_norm.weight", embd, 1, .floats = &layer->output_norm.weight},
        {"layer_output_norm.bias", embd, 1, .floats = &layer->output_norm.bias},
    };
    return bind_tensors(b, (int)i, tensors, sizeof tensors / sizeof *tensors);
}

static int bind_layer(const struct binder *b, const struct model *m, size_t i)
{
    const struct bind_tensor bias = {"ffn_up.bias", m->n_ff, 1, .floats = &m->layers[i].up_bias};
    int rc = bert_bind_layer(b, m, i);
    return rc ? rc : bind_tensors(b, (int)i, &bias, 1);
}

int bert_bind_output(const struct binder *b, struct model *m)
{
    /* What the attention kernels have scratch for. */
    if (m->info.max_tokens > KEYS_MAX)
        m->info.max_tokens = KEYS_MAX;
    m->info.has_dense = true; /* nothing is missing: the family has no such layers */
    m->n_out = m->info.is_reranker ? 1 : m->n_embd;
    /* The two texts of a pair are told apart by them: rerank.c takes them off and writes its own.
     */
    if (m->info.is_reranker && tokenizer_n_ends(m->tokenizer) < 2)
        return bind_refuse(b,
                           "a reranker whose tokenizer puts no token before and behind a text: key",
                           "tokenizer.ggml.model");
    return m->info.is_reranker ? bind_head(b, m) : bind_prompts(b, &m->own_prompts);
}

int bert_bind(const struct binder *b, struct model *m)
{
    int rc = bert_bind_keys(b, m);
    if (!rc)
        rc = bind_outer(b, m);
    if (!rc)
        rc = bert_bind_output(b, m);
    if (rc)
        return rc;
    /* n_embd for a reranker's head, which puts its hidden values there. */
    m->n_wide = m->n_ff > m->n_embd ? m->n_ff : m->n_embd;
    m->info.prompts = m->own_prompts                     ? m->own_prompts
                      : is_e5(m) && !m->info.is_reranker ? e5_prompts
                                                         : NULL;
    if (!m->info.prompts && !m->info.is_reranker && has_name(m, "e5"))
        snprintf(
            m->warning, sizeof m->warning,
            "e5 models were trained with 'query: ' or 'passage: ' before every text, and this "
            "file names no prompts: put them into the texts, or convert the model again from a "
            "folder that names them (docs/models.md)");
    m->layers = calloc(m->n_layers, sizeof *m->layers);
    if (!m->layers)
        return bind_no_memory(b);
    for (size_t i = 0; i < m->n_layers && !rc; i++) {
        m->layers[i].shape = &m->attention;
        /* There is no window. */
        m->layers[i].reach = m->info.max_tokens;
        rc = bind_layer(b, m, i);
    }
    return rc;
}
