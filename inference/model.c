/*
 * model.c: from a GGUF file to a model every part of which is known to be there.
 *
 * Owns:    the meaning of the gemma-embedding keys and tensor names.
 * Refuses: defaults for what a file does not say; a tensor of another type or shape. Anything
 *          unexpected is a sentence at open and never a surprise later.
 * Why:     binding all of it once keeps checks out of the forward pass.
 * Source:  key and tensor names as llama.cpp's converter writes them for this architecture.
 */
#include "inference/model.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define ARCHITECTURE "gemma-embedding"

enum {
    LAYERS_MAX = 512,
    FULL_EVERY = 6,     /* layers 5, 11, ... attend to the whole text; the file has no key for it */
    SAMPLE_BYTES = 4096 /* of each tensor that enter the fingerprint */
};

/* What binding carries along: where to complain. */
struct binder {
    const struct gguf *gguf;
    const char *path;
    char *err;
    size_t err_size;
};

static int refuse(const struct binder *b, const char *what, const char *name)
{
    snprintf(b->err, b->err_size,
             "%s: %s '%s'; this program reads EmbeddingGemma 300M as Q8_0 GGUF: get it with "
             "scripts/get-model",
             b->path, what, name);
    return -EINVAL;
}

static int bind_size(const struct binder *b, const char *key, size_t low, size_t high, size_t *out)
{
    char full[80];
    uint64_t value;
    snprintf(full, sizeof full, ARCHITECTURE ".%s", key);
    if (gguf_uint(b->gguf, full, &value) < 0)
        return refuse(b, "there is no integer key", full);
    if (value < low || value > high)
        return refuse(b, "out of range: key", full);
    *out = (size_t)value;
    return 0;
}

static int bind_float(const struct binder *b, const char *key, double low, double high, double *out)
{
    char full[80];
    snprintf(full, sizeof full, ARCHITECTURE ".%s", key);
    if (gguf_float(b->gguf, full, out) < 0)
        return refuse(b, "there is no float key", full);
    if (!(*out >= low && *out <= high))
        return refuse(b, "out of range: key", full);
    return 0;
}

static int bind_tensor(const struct binder *b, const char *name, uint32_t type, size_t columns,
                       size_t rows, const void **out)
{
    const struct gguf_tensor *tensor = gguf_tensor_find(b->gguf, name);
    if (!tensor)
        return refuse(b, "there is no tensor", name);
    if (tensor->type != type)
        return refuse(b, type == GGUF_TENSOR_F32 ? "not F32: tensor" : "not Q8_0: tensor", name);
    if (tensor->shape[0] != columns || tensor->shape[1] != rows || tensor->shape[2] != 1 ||
        tensor->shape[3] != 1)
        return refuse(b, "unexpected shape of tensor", name);
    if (!tensor->data || (type == GGUF_TENSOR_F32 && (uintptr_t)tensor->data % sizeof(float)))
        return refuse(b, "unaligned or without data: tensor", name);
    *out = tensor->data;
    return 0;
}

static int bind_norm(const struct binder *b, const char *name, size_t n, const float **out)
{
    return bind_tensor(b, name, GGUF_TENSOR_F32, n, 1, (const void **)out);
}

static int bind_matrix(const struct binder *b, const char *name, size_t n_in, size_t n_out,
                       struct q8_matrix *out)
{
    const void *data;
    int rc = bind_tensor(b, name, GGUF_TENSOR_Q8_0, n_in, n_out, &data);
    if (rc == 0)
        *out = (struct q8_matrix){data, n_in, n_out};
    return rc;
}

/* Name of a tensor of layer i; the buffer is good until the next call with it. */
static const char *layer_name(char buffer[64], size_t i, const char *part)
{
    snprintf(buffer, 64, "blk.%zu.%s.weight", i, part);
    return buffer;
}

static int bind_layer(const struct binder *b, const struct model *m, size_t i, struct layer *layer)
{
    size_t embd = m->n_embd, head = m->attention.head_dim;
    size_t q = m->attention.n_heads * head, kv = m->attention.n_kv_heads * head;
    char n[64];
    int rc = 0;
    if (!rc)
        rc = bind_norm(b, layer_name(n, i, "attn_norm"), embd, &layer->attn_norm);
    if (!rc)
        rc = bind_matrix(b, layer_name(n, i, "attn_q"), embd, q, &layer->q);
    if (!rc)
        rc = bind_matrix(b, layer_name(n, i, "attn_k"), embd, kv, &layer->k);
    if (!rc)
        rc = bind_matrix(b, layer_name(n, i, "attn_v"), embd, kv, &layer->v);
    if (!rc)
        rc = bind_matrix(b, layer_name(n, i, "attn_output"), q, embd, &layer->o);
    if (!rc)
        rc = bind_norm(b, layer_name(n, i, "attn_q_norm"), head, &layer->q_norm);
    if (!rc)
        rc = bind_norm(b, layer_name(n, i, "attn_k_norm"), head, &layer->k_norm);
    if (!rc)
        rc = bind_norm(b, layer_name(n, i, "post_attention_norm"), embd, &layer->post_attn_norm);
    if (!rc)
        rc = bind_norm(b, layer_name(n, i, "ffn_norm"), embd, &layer->ffn_norm);
    if (!rc)
        rc = bind_matrix(b, layer_name(n, i, "ffn_gate"), embd, m->n_ff, &layer->gate);
    if (!rc)
        rc = bind_matrix(b, layer_name(n, i, "ffn_up"), embd, m->n_ff, &layer->up);
    if (!rc)
        rc = bind_matrix(b, layer_name(n, i, "ffn_down"), m->n_ff, embd, &layer->down);
    if (!rc)
        rc = bind_norm(b, layer_name(n, i, "post_ffw_norm"), embd, &layer->post_ffn_norm);
    return rc;
}

/* Sizes the kernels were written for: whole blocks, whole row groups, whole vectors. */
static int check_sizes(const struct binder *b, const struct model *m)
{
    if (m->n_embd % Q8_BLOCK || m->n_ff % Q8_BLOCK)
        return refuse(b, "not a multiple of 32: key", ARCHITECTURE ".embedding_length");
    if (m->attention.head_dim % Q8_BLOCK)
        return refuse(b, "not a multiple of 32: key", ARCHITECTURE ".attention.key_length");
    if (m->attention.n_heads % m->attention.n_kv_heads ||
        m->attention.n_heads * m->attention.head_dim > ROW_MAX)
        return refuse(b, "unusable: key", ARCHITECTURE ".attention.head_count");
    return 0;
}

/* Sizes and numbers; window: tokens of a sliding layer, both sides together. */
static int bind_keys(const struct binder *b, struct model *m, size_t *window, double bases[2])
{
    size_t value_length;
    double eps;
    int rc = bind_size(b, "block_count", 1, LAYERS_MAX, &m->n_layers);
    if (!rc)
        rc = bind_size(b, "context_length", 4, 1 << 24, &m->info.max_tokens);
    if (!rc)
        rc = bind_size(b, "embedding_length", Q8_BLOCK, ROW_MAX, &m->n_embd);
    if (!rc)
        rc = bind_size(b, "feed_forward_length", Q8_BLOCK, ROW_MAX, &m->n_ff);
    if (!rc)
        rc = bind_size(b, "attention.head_count", 1, 128, &m->attention.n_heads);
    if (!rc)
        rc = bind_size(b, "attention.head_count_kv", 1, 128, &m->attention.n_kv_heads);
    if (!rc)
        rc = bind_size(b, "attention.key_length", Q8_BLOCK, 1024, &m->attention.head_dim);
    if (!rc)
        rc = bind_size(b, "attention.value_length", m->attention.head_dim, m->attention.head_dim,
                       &value_length);
    if (!rc)
        rc = bind_size(b, "attention.sliding_window", 1, 1 << 24, window);
    if (!rc)
        rc = bind_float(b, "attention.layer_norm_rms_epsilon", 0, 1, &eps);
    if (!rc)
        rc = bind_float(b, "rope.freq_base", 1, 1e12, &bases[1]);
    if (rc)
        return rc;
    m->eps = (float)eps;
    if (bind_float(b, "rope.freq_base_swa", 1, 1e12, &bases[0]) < 0)
        bases[0] = 10000; /* older files leave it out; the model card's value */
    return check_sizes(b, m);
}

/* The two layers after pooling. A file has both or neither. */
static int bind_dense(const struct binder *b, struct model *m)
{
    m->info.has_dense = gguf_tensor_find(b->gguf, "dense_2.weight") != NULL;
    if (!m->info.has_dense)
        return 0;
    const struct gguf_tensor *tensor = gguf_tensor_find(b->gguf, "dense_2.weight");
    size_t hidden = (size_t)tensor->shape[1];
    if (hidden % Q8_BLOCK || hidden > ROW_MAX)
        return refuse(b, "unexpected shape of tensor", "dense_2.weight");
    int rc = bind_matrix(b, "dense_2.weight", m->n_embd, hidden, &m->dense_2);
    if (!rc)
        rc = bind_matrix(b, "dense_3.weight", hidden, m->n_embd, &m->dense_3);
    return rc;
}

/*
 * cos and sin of position * base^(-2 i / head_dim). Each frequency is stepped by a rotation in
 * double: after 2048 steps the error is still far below a float's, and it is twenty times faster
 * than calling sin and cos half a million times at every start.
 */
static float *rope_table(size_t n_positions, size_t head_dim, double base)
{
    size_t half = head_dim / 2;
    float *table = malloc(n_positions * head_dim * sizeof *table);
    if (!table)
        return NULL;
    for (size_t i = 0; i < half; i++) {
        double theta = pow(base, -2.0 * (double)i / (double)head_dim);
        double step_c = cos(theta), step_s = sin(theta), c = 1, s = 0;
        for (size_t p = 0; p < n_positions; p++) {
            table[p * head_dim + i] = (float)c;
            table[p * head_dim + half + i] = (float)s;
            double next = c * step_c - s * step_s;
            s = s * step_c + c * step_s;
            c = next;
        }
    }
    return table;
}

static int bind_layers(const struct binder *b, struct model *m, size_t window,
                       const double bases[2])
{
    m->layers = calloc(m->n_layers, sizeof *m->layers);
    m->cos_sin_local = rope_table(m->info.max_tokens, m->attention.head_dim, bases[0]);
    m->cos_sin_full = rope_table(m->info.max_tokens, m->attention.head_dim, bases[1]);
    if (!m->layers || !m->cos_sin_local || !m->cos_sin_full) {
        snprintf(b->err, b->err_size, "%s: not enough memory to open the model", b->path);
        return -ENOMEM;
    }
    for (size_t i = 0; i < m->n_layers; i++) {
        struct layer *layer = &m->layers[i];
        bool full = (i + 1) % FULL_EVERY == 0;
        layer->reach = full ? m->info.max_tokens : window / 2;
        layer->cos_sin = full ? m->cos_sin_full : m->cos_sin_local;
        int rc = bind_layer(b, m, i, layer);
        if (rc)
            return rc;
    }
    return 0;
}

static int bind_architecture(const struct binder *b, struct model *m)
{
    struct gguf_str text;
    if (gguf_string(b->gguf, "general.architecture", &text) < 0)
        return refuse(b, "there is no string key", "general.architecture");
    if (text.len >= sizeof m->architecture)
        text.len = sizeof m->architecture - 1;
    memcpy(m->architecture, text.ptr, text.len);
    if (strcmp(m->architecture, ARCHITECTURE) != 0)
        return refuse(b, "the file holds another architecture,", m->architecture);
    uint64_t pooling;
    if (gguf_uint(b->gguf, ARCHITECTURE ".pooling_type", &pooling) == 0 && pooling != 1)
        return refuse(b, "not mean pooling: key", ARCHITECTURE ".pooling_type");
    if (gguf_string(b->gguf, "general.name", &text) < 0 || text.len == 0)
        text = (struct gguf_str){ARCHITECTURE, strlen(ARCHITECTURE)};
    snprintf(m->name, sizeof m->name, "%.*s", (int)(text.len < 95 ? text.len : 95), text.ptr);
    return 0;
}

/* Metadata whole, tensors by samples: hashing 333 MB at each start would cost more than opening. */
static void fingerprint(struct model *m)
{
    struct gguf_str metadata = gguf_metadata(m->gguf);
    XXH3_state_t *state = XXH3_createState();
    if (!state)
        return;
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, metadata.ptr, metadata.len);
    for (size_t i = 0; i < gguf_n_tensors(m->gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(m->gguf, i);
        if (tensor->data)
            XXH3_128bits_update(state, tensor->data,
                                tensor->size < SAMPLE_BYTES ? tensor->size : SAMPLE_BYTES);
    }
    XXH128_hash_t hash = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    snprintf(m->fingerprint, sizeof m->fingerprint, "%016" PRIx64 "%016" PRIx64, hash.high64,
             hash.low64);
}

static uint64_t macs_of(const struct q8_matrix *w)
{
    return (uint64_t)w->n_in * w->n_out;
}

static void count_macs(struct model *m)
{
    m->info.macs_per_text = m->info.has_dense ? macs_of(&m->dense_2) + macs_of(&m->dense_3) : 0;
    for (size_t i = 0; i < m->n_layers; i++) {
        const struct layer *l = &m->layers[i];
        m->info.macs_per_token += macs_of(&l->q) + macs_of(&l->k) + macs_of(&l->v) +
                                  macs_of(&l->o) + macs_of(&l->gate) + macs_of(&l->up) +
                                  macs_of(&l->down);
    }
}

static int bind_model(const struct binder *b, struct model *m)
{
    size_t window;
    double bases[2];
    int rc = bind_architecture(b, m);
    if (!rc)
        rc = bind_keys(b, m, &window, bases);
    if (rc)
        return rc;
    if (m->info.max_tokens > KEYS_MAX)
        m->info.max_tokens = KEYS_MAX;
    m->attention.ld = (m->attention.n_heads + 2 * m->attention.n_kv_heads) * m->attention.head_dim;
    m->query_scale = 1.0f / sqrtf((float)m->attention.head_dim);
    m->embed_scale = sqrtf((float)m->n_embd);
    rc = tokenizer_open(&m->tokenizer, b->gguf, b->err, b->err_size);
    if (rc)
        return rc;
    m->info.n_vocab = tokenizer_n_vocab(m->tokenizer);
    rc = bind_matrix(b, "token_embd.weight", m->n_embd, m->info.n_vocab, &m->embed);
    if (!rc)
        rc = bind_norm(b, "output_norm.weight", m->n_embd, &m->output_norm);
    if (!rc)
        rc = bind_dense(b, m);
    if (!rc)
        rc = bind_layers(b, m, window, bases);
    return rc;
}

bool model_kernels(const char *name, char *known, size_t known_size)
{
    kernels_list(known, known_size);
    return kernels_find(name) != NULL;
}

int model_open(struct model **out, const char *path, const char *kernels, char *err,
               size_t err_size)
{
    const struct kernels *table = kernels_find(kernels);
    if (!table) {
        char names[64];
        snprintf(err, err_size, "kernels '%s' cannot run on this CPU; there are: %s", kernels,
                 kernels_list(names, sizeof names));
        return -ENOTSUP;
    }
    struct model *m = calloc(1, sizeof *m);
    if (!m) {
        snprintf(err, err_size, "%s: not enough memory to open the model", path);
        return -ENOMEM;
    }
    m->kernels = table;
    int rc = gguf_open(&m->gguf, path, err, err_size);
    if (rc)
        goto fail;
    struct binder binder = {m->gguf, path, err, err_size};
    rc = bind_model(&binder, m);
    if (rc)
        goto fail;
    fingerprint(m);
    count_macs(m);
    m->info.name = m->name;
    m->info.architecture = m->architecture;
    m->info.fingerprint = m->fingerprint;
    m->info.kernels = table->name;
    m->info.dim = m->n_embd;
    *out = m;
    return 0;
fail:
    model_close(m);
    return rc;
}

const struct model_info *model_info(const struct model *model)
{
    return &model->info;
}

void model_close(struct model *model)
{
    if (!model)
        return;
    tokenizer_close(model->tokenizer);
    gguf_close(model->gguf);
    free(model->layers);
    free(model->cos_sin_local);
    free(model->cos_sin_full);
    free(model);
}
