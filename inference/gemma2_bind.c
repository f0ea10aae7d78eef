/*
 * gemma2_bind.c: the text part of EmbeddingGemma 2 in a GGUF file: its keys and its tensors.
 *
 * Owns:    the sizes, which the tensors' shapes give: files differ in which keys they have.
 * Source:  tensor names as llama.cpp's converter writes them for this architecture; the window as
 *          transformers means it: a file holds its whole width, of which half is on either side.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "inference/architecture.h"
#include "inference/matrix.h"
#include "inference/rope.h"

enum {
    LAYERS_MAX = 512,
    HEAD_MAX = 1024,
    WINDOW = 1024,
    FULL_EVERY = 6 /* layers 5, 11, ... attend to the whole text */
};

static bool is_full(size_t layer)
{
    return (layer + 1) % FULL_EVERY == 0;
}

/* Columns and rows of a tensor. */
static int sizes_of(const struct binder *b, const char *name, size_t *columns, size_t *rows)
{
    const struct gguf_tensor *tensor = gguf_tensor_find(b->gguf, name);
    if (!tensor)
        return bind_refuse(b, "missing tensor", name);
    if (tensor->shape[0] > SIZE_MAX / 2 || tensor->shape[1] > SIZE_MAX / 2 ||
        tensor->shape[2] != 1 || tensor->shape[3] != 1)
        return bind_refuse(b, "unexpected shape of tensor", name);
    *columns = (size_t)tensor->shape[0];
    if (rows)
        *rows = (size_t)tensor->shape[1];
    return 0;
}

/* The heads of a kind of layers, by one of them: heads are as wide as the norm of queries. */
static int bind_shape(const struct binder *b, size_t layer, struct attention_shape *shape)
{
    char name[64];
    size_t embd, q = 0, k = 0;
    snprintf(name, sizeof name, "blk.%zu.attn_k.weight", layer);
    int rc = sizes_of(b, name, &embd, &k);
    snprintf(name, sizeof name, "blk.%zu.attn_q.weight", layer);
    if (!rc)
        rc = sizes_of(b, name, &embd, &q);
    snprintf(name, sizeof name, "blk.%zu.attn_q_norm.weight", layer);
    if (!rc)
        rc = sizes_of(b, name, &shape->head_dim, NULL);
    if (rc)
        return rc;
    if (shape->head_dim % Q8_BLOCK || shape->head_dim > HEAD_MAX || q > ROW_MAX ||
        q % shape->head_dim || k % shape->head_dim || k == 0 || q % k)
        return bind_refuse(b, "heads that cannot be used: tensor", name);
    /* q is ROW_MAX at most and k divides it: nothing here overflows. */
    shape->n_heads = q / shape->head_dim;
    shape->n_kv_heads = k / shape->head_dim;
    shape->ld = q + 2 * k;
    return 0;
}

static bool is_usable(size_t n)
{
    return n >= Q8_BLOCK && n <= ROW_MAX && n % Q8_BLOCK == 0;
}

static int bind_sizes(const struct binder *b, struct model *m)
{
    size_t embd;
    int rc = sizes_of(b, "blk.0.ffn_gate.weight", &embd, &m->n_ff);
    if (!rc)
        rc = sizes_of(b, "blk.0.inp_gate.weight", &embd, &m->n_ple);
    if (!rc)
        rc = sizes_of(b, "output.weight", &embd, &m->n_out);
    if (!rc && (!is_usable(m->n_ff) || !is_usable(m->n_ple) || !is_usable(m->n_out)))
        rc = bind_refuse(b, "not a multiple of 32 up to 4096 wide: tensor",
                         !is_usable(m->n_ff)    ? "blk.0.ffn_gate.weight"
                         : !is_usable(m->n_ple) ? "blk.0.inp_gate.weight"
                                                : "output.weight");
    if (!rc)
        rc = bind_shape(b, 0, &m->sliding);
    if (!rc)
        rc = bind_shape(b, FULL_EVERY - 1, &m->attention);
    /* A session has room for the full layers' queries, heads and rows, so none may be smaller. */
    const struct attention_shape *full = &m->attention, *part = &m->sliding;
    if (!rc && (part->ld > full->ld || part->head_dim > full->head_dim ||
                part->n_heads * part->head_dim > full->n_heads * full->head_dim))
        rc = bind_refuse(b, "narrower heads than in the layer before it: tensor",
                         "blk.5.attn_q.weight");
    return rc;
}

/* Where a file says which layers have a window, it must be these. */
static int check_pattern(const struct binder *b, const struct model *m)
{
    struct gguf_array pattern;
    const char *key = "attention.sliding_window_pattern";
    if (gguf_get_array(b->gguf, "gemma-embedding2.attention.sliding_window_pattern", &pattern) < 0)
        return 0;
    if (pattern.type != GGUF_BOOL || pattern.n != m->n_layers)
        return bind_refuse_key(b, "not a bool for each layer: key", key);
    for (size_t i = 0; i < m->n_layers; i++)
        /* True in the file means a window: the opposite of is_full. */
        if (pattern.data[i] == is_full(i))
            return bind_refuse_key(b, "not every sixth layer without a window: key", key);
    return 0;
}

/* Some files leave these out: then they are the published model's. */
static int bind_window(const struct binder *b, size_t *window, double *base)
{
    uint64_t width;
    double value;
    int rc = 0;
    *window = WINDOW;
    *base = 10000;
    if (gguf_uint(b->gguf, "gemma-embedding2.attention.sliding_window", &width) != -ENOENT)
        rc = bind_size(b, "attention.sliding_window", 1, 1 << 24, window);
    if (!rc && gguf_float(b->gguf, "gemma-embedding2.rope.freq_base_swa", &value) != -ENOENT)
        rc = bind_float(b, "rope.freq_base_swa", 1, 1e12, base);
    return rc;
}

static int bind_keys(const struct binder *b, struct model *m, size_t *window, double bases[2])
{
    double eps;
    uint64_t pooling;
    if (gguf_uint(b->gguf, "gemma-embedding2.pooling_type", &pooling) == 0 && pooling != 1)
        return bind_refuse_key(b, "not mean pooling: key", "pooling_type");
    /* Enough for one full layer, whose tensors say how wide its heads are. */
    int rc = bind_size(b, "block_count", FULL_EVERY, LAYERS_MAX, &m->n_layers);
    if (!rc)
        rc = bind_size(b, "context_length", 4, 1 << 24, &m->info.max_tokens);
    if (!rc)
        rc = bind_size(b, "embedding_length", Q8_BLOCK, ROW_MAX, &m->n_embd);
    if (!rc)
        rc = bind_float(b, "rope.freq_base", 1, 1e12, &bases[1]);
    if (!rc)
        rc = bind_float(b, "attention.layer_norm_rms_epsilon", 0, 1, &eps);
    if (!rc && m->n_embd % Q8_BLOCK)
        rc = bind_refuse_key(b, "not a multiple of 32: key", "embedding_length");
    if (!rc)
        rc = bind_window(b, window, &bases[0]);
    if (!rc)
        rc = check_pattern(b, m);
    if (!rc)
        m->eps = (float)eps;
    return rc;
}

static int bind_outer(const struct binder *b, struct model *m)
{
    size_t embd = m->n_embd;
    const struct bind_tensor tensors[] = {
        {"token_embd.weight", embd, m->info.n_vocab, .matrix = &m->embed},
        {"per_layer_model_proj.weight", embd, m->n_layers * m->n_ple, .matrix = &m->ple_models},
        {"per_layer_proj_norm.weight", m->n_ple, 1, .floats = &m->ple_norm},
        {"output_norm.weight", embd, 1, .floats = &m->output_norm},
        {"output.weight", embd, m->n_out, .matrix = &m->projection},
    };
    return bind_tensors(b, BIND_OUTER, tensors, sizeof tensors / sizeof *tensors);
}

static int bind_layer(const struct binder *b, const struct model *m, size_t i, struct layer *layer)
{
    /* The heads of this layer's kind: full ones are wider. */
    size_t embd = m->n_embd, ff = m->n_ff, head = layer->shape->head_dim;
    size_t q = layer->shape->n_heads * head, kv = layer->shape->n_kv_heads * head;
    const float *scale = NULL;
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
        {"inp_gate.weight", embd, m->n_ple, .matrix = &layer->ple_gate},
        {"proj.weight", m->n_ple, embd, .matrix = &layer->ple_out},
        {"post_norm.weight", embd, 1, .floats = &layer->ple_post_norm},
        {"layer_output_scale.weight", 1, 1, .floats = &scale},
    };
    int rc = bind_tensors(b, (int)i, tensors, sizeof tensors / sizeof *tensors);
    if (rc)
        return rc;
    layer->scale = *scale;
    layer->ple_model = matrix_rows(&m->ple_models, i * m->n_ple, m->n_ple);
    return 0;
}

static int bind_layers(const struct binder *b, struct model *m, size_t window,
                       const double bases[2])
{
    m->layers = calloc(m->n_layers, sizeof *m->layers);
    m->cos_sin_local = rope_table(m->info.max_tokens, m->sliding.head_dim, bases[0], 1);
    m->cos_sin_full = rope_table(m->info.max_tokens, m->attention.head_dim, bases[1], 1);
    m->constants = calloc(2 * ROW_MAX, sizeof *m->constants);
    if (!m->layers || !m->cos_sin_local || !m->cos_sin_full || !m->constants)
        return bind_no_memory(b);
    for (size_t i = 0; i < ROW_MAX; i++)
        /* A weight for norms that have none; the zeros behind them are a bias that adds nothing. */
        m->constants[i] = 1;
    for (size_t i = 0; i < m->n_layers; i++) {
        struct layer *layer = &m->layers[i];
        layer->shape = is_full(i) ? &m->attention : &m->sliding;
        layer->reach = is_full(i) ? m->info.max_tokens : window / 2;
        layer->cos_sin = is_full(i) ? m->cos_sin_full : m->cos_sin_local;
        int rc = bind_layer(b, m, i, layer);
        if (rc)
            return rc;
    }
    return 0;
}

int gemma2_bind(const struct binder *b, struct model *m)
{
    size_t window;
    double bases[2];
    int rc = bind_keys(b, m, &window, bases);
    if (!rc)
        rc = bind_sizes(b, m);
    if (rc)
        return rc;
    if (m->info.max_tokens > KEYS_MAX)
        m->info.max_tokens = KEYS_MAX;
    m->info.has_dense = true;
    /* Scores are not divided by sqrt(head_dim): the norms of q and k settle their size. */
    m->query_scale = 1;
    m->embed_scale = sqrtf((float)m->n_embd);
    m->n_wide = 2 * (m->n_ff > m->n_ple ? m->n_ff : m->n_ple);
    rc = bind_outer(b, m);
    return rc ? rc : bind_layers(b, m, window, bases);
}
