/*
 * rotary_bind.c: BERTs that rotate queries and keys, in a GGUF file: nomic-embed-text v1 and v1.5
 * and their kin, and the GTE family (gte-multilingual-base, gte-*-en-v1.5, snowflake-arctic-embed-m
 * v2.0, the reranker gte-multilingual-reranker-base). Keys, tensors, prompts.
 *
 * Refuses: biases and rotations that the family does not have (nomic's mixture of experts, v2, is
 *          an architecture of its own), other poolings than mean and first token.
 * Why:     published files of nomic-embed-text name no prompts, and vectors without them are
 *          markedly worse, so those of the model card belong to every file of that name.
 * Source:  key and tensor names as llama.cpp's converter writes them for nomic-bert. It does not
 *          know GTE: names are as for bert and nomic-bert, the file is scripts/convert-model.py's.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* strcasestr */
#endif
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inference/architecture.h"
#include "inference/bert_bind.h"
#include "inference/matrix.h"
#include "inference/rope.h"

enum { HEAD_MAX = 1024 };

static const struct prompt card_prompts[] = {
    {"document", "search_document: ", NULL},
    {"query", "search_query: ", NULL},
    {"clustering", "clustering: ", NULL},
    {"classification", "classification: ", NULL},
    {NULL, NULL, NULL},
};

static bool is_text(struct gguf_str text, const char *wanted)
{
    return text.len == strlen(wanted) && memcmp(text.ptr, wanted, text.len) == 0;
}

/* stretch: what positions are divided by. */
static int bind_rotation(const struct binder *b, const struct model *m, double *base,
                         double *stretch)
{
    struct gguf_str scaling;
    char key[80];
    int rc = bind_float(b, "rope.freq_base", 1, 1e12, base);
    *stretch = 1;
    snprintf(key, sizeof key, "%s.rope.scaling.type", b->architecture);
    if (!rc && gguf_string(b->gguf, key, &scaling) == 0 && !is_text(scaling, "none")) {
        if (!is_text(scaling, "linear"))
            return bind_refuse_key(b, "neither 'none' nor 'linear': key", "rope.scaling.type");
        rc = bind_float(b, "rope.scaling.factor", 1, 1e6, stretch);
    }
    if (!rc && m->attention.head_dim > HEAD_MAX)
        rc = bind_refuse_key(b, "heads are more than 1,024 wide: key", "attention.head_count");
    return rc;
}

static int bind_outer(const struct binder *b, struct model *m, bool must_have_types)
{
    const struct gguf_tensor *types = gguf_tensor_find(b->gguf, "token_types.weight");
    size_t embd = m->n_embd;
    bool has_types = types || must_have_types;
    m->n_types = types ? (size_t)types->shape[1] : 1;
    const struct bind_tensor tensors[] = {
        {"token_embd.weight", embd, m->info.n_vocab, .matrix = &m->embed},
        {"token_embd_norm.weight", embd, 1, .floats = &m->embed_norm.weight},
        {"token_embd_norm.bias", embd, 1, .floats = &m->embed_norm.bias},
        {"token_types.weight", embd, m->n_types, .floats = &m->token_types},
    };
    /* Zeros, unless the file has rows: then bind_tensors puts these in their place. */
    m->token_types = m->constants + ROW_MAX;
    return bind_tensors(b, BIND_OUTER, tensors, sizeof tensors / sizeof *tensors - !has_types);
}

static int bind_nomic_layer(const struct binder *b, const struct model *m, size_t i)
{
    struct layer *layer = &m->layers[i];
    size_t embd = m->n_embd, ff = m->n_ff;
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
    /* One matrix in the file: the rows of q, of k, of v. */
    layer->q = matrix_rows(&qkv, 0, embd);
    layer->k = matrix_rows(&qkv, embd, embd);
    layer->v = matrix_rows(&qkv, 2 * embd, embd);
    /* Zeros for the steps of BERT, which add these; q_bias stays NULL and is asked for. */
    layer->o_bias = layer->down_bias = m->constants + ROW_MAX;
    return 0;
}

/* A BERT's, with a gate in the place of the bias that is added before GELU. */
static int bind_gte_layer(const struct binder *b, const struct model *m, size_t i)
{
    const struct bind_tensor gate = {"ffn_gate.weight", m->n_embd, m->n_ff,
                                     .matrix = &m->layers[i].gate};
    int rc = bert_bind_layer(b, m, i);
    return rc ? rc : bind_tensors(b, (int)i, &gate, 1);
}

static int bind_all(const struct binder *b, struct model *m, bool must_have_types,
                    int (*bind_layer)(const struct binder *b, const struct model *m, size_t i))
{
    double base, stretch;
    int rc = bert_bind_keys(b, m);
    if (!rc)
        rc = bind_rotation(b, m, &base, &stretch);
    if (!rc)
        rc = bert_bind_output(b, m);
    if (rc)
        return rc;
    /* Gates beside what they open; n_embd for a reranker's head. */
    m->n_wide = 2 * m->n_ff > m->n_embd ? 2 * m->n_ff : m->n_embd;
    m->layers = calloc(m->n_layers, sizeof *m->layers);
    m->constants = calloc(2 * ROW_MAX, sizeof *m->constants);
    /* After bert_bind_output, which cuts max_tokens. */
    m->cos_sin_full = rope_table(m->info.max_tokens, m->attention.head_dim, base, stretch);
    if (!m->layers || !m->constants || !m->cos_sin_full)
        return bind_no_memory(b);
    rc = bind_outer(b, m, must_have_types);
    for (size_t i = 0; i < m->n_layers && !rc; i++) {
        m->layers[i].shape = &m->attention;
        m->layers[i].reach = m->info.max_tokens;
        m->layers[i].cos_sin = m->cos_sin_full;
        rc = bind_layer(b, m, i);
    }
    m->info.prompts = m->own_prompts;
    return rc;
}

int rotary_bind_nomic(const struct binder *b, struct model *m)
{
    m->glu = GLU_SILU;
    int rc = bind_all(b, m, true, bind_nomic_layer);
    if (rc)
        return rc;
    if (m->info.is_reranker)
        return bind_refuse_key(b, "a reranker (4): key", "pooling_type");
    if (!m->info.prompts && strcasestr(m->name, "nomic-embed-text"))
        m->info.prompts = card_prompts;
    if (!m->info.prompts)
        snprintf(m->warning, sizeof m->warning,
                 "models of this kind were trained with prompts, and the file names none: put them "
                 "into the texts, or convert it again with --name nomic-embed-text-v1.5");
    return 0;
}

/* gte-base-en-v1.5 has no types of tokens. */
int rotary_bind_gte(const struct binder *b, struct model *m)
{
    m->glu = GLU_GELU;
    return bind_all(b, m, false, bind_gte_layer);
}
