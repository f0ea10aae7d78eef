/*
 * bind.c: see bind.h.
 */
#include "inference/bind.h"

#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inference/model.h"

/* For people. */
#define ARCHITECTURE_NAMES                                                                         \
    "EmbeddingGemma 1 and 2, of the BERT, XLM-RoBERTa, MPNet, "                                    \
    "ModernBERT, GTE and nomic-embed-text families, and of Qwen3-Embedding"
#define TYPE_NAMES "F32, F16, BF16, Q8_0, Q6_K, Q5_K, Q5_0, Q5_1, Q4_K, Q4_0, Q4_1, IQ4_NL"

int bind_refuse(const struct binder *b, const char *what, const char *name)
{
    snprintf(b->err, b->err_size,
             "%s: %s '%s'; this program reads GGUF files of " ARCHITECTURE_NAMES
             ": scripts/get-model and scripts/get-minilm fetch some, scripts/convert-model.py "
             "makes others",
             b->path, what, name);
    return -EINVAL;
}

int bind_no_memory(const struct binder *b)
{
    snprintf(b->err, b->err_size, "%s: not enough memory to open the model", b->path);
    return -ENOMEM;
}

int bind_refuse_key(const struct binder *b, const char *what, const char *key)
{
    char full[80];
    snprintf(full, sizeof full, "%s.%s", b->architecture, key);
    return bind_refuse(b, what, full);
}

int bind_size(const struct binder *b, const char *key, size_t low, size_t high, size_t *out)
{
    char full[80];
    uint64_t value;
    snprintf(full, sizeof full, "%s.%s", b->architecture, key);
    if (gguf_uint(b->gguf, full, &value) < 0)
        return bind_refuse(b, "missing integer key", full);
    if (value < low || value > high) {
        char what[120];
        snprintf(what, sizeof what, "%" PRIu64 " is not between %zu and %zu: key", value, low,
                 high);
        return bind_refuse(b, what, full);
    }
    *out = (size_t)value;
    return 0;
}

int bind_dims(const struct binder *b, struct model *m, size_t layers_max)
{
    int rc = bind_size(b, "block_count", 1, layers_max, &m->n_layers);
    if (!rc)
        /* 4: the ends of a reranker's pair. What is above KEYS_MAX is cut to it later. */
        rc = bind_size(b, "context_length", 4, 1 << 24, &m->info.max_tokens);
    if (!rc)
        rc = bind_size(b, "embedding_length", Q8_BLOCK, ROW_MAX, &m->n_embd);
    if (!rc)
        rc = bind_size(b, "feed_forward_length", Q8_BLOCK, ROW_MAX, &m->n_ff);
    return rc ? rc : bind_size(b, "attention.head_count", 1, 128, &m->attention.n_heads);
}

int bind_float(const struct binder *b, const char *key, double low, double high, double *out)
{
    char full[80];
    snprintf(full, sizeof full, "%s.%s", b->architecture, key);
    if (gguf_float(b->gguf, full, out) < 0)
        return bind_refuse(b, "missing float key", full);
    /* Asked this way round, NaN is refused, too. */
    if (!(*out >= low && *out <= high)) {
        char what[120];
        snprintf(what, sizeof what, "%g is not between %g and %g: key", *out, low, high);
        return bind_refuse(b, what, full);
    }
    return 0;
}

static bool matrix_type_of(uint32_t type, enum matrix_type *out)
{
    static const struct {
        uint32_t type;
        enum matrix_type matrix;
    } types[] = {
        {GGUF_TENSOR_F32, MATRIX_F32},   {GGUF_TENSOR_F16, MATRIX_F16},
        {GGUF_TENSOR_BF16, MATRIX_BF16}, {GGUF_TENSOR_Q8_0, MATRIX_Q8_0},
        {GGUF_TENSOR_Q4_0, MATRIX_Q4_0}, {GGUF_TENSOR_Q4_1, MATRIX_Q4_1},
        {GGUF_TENSOR_Q5_0, MATRIX_Q5_0}, {GGUF_TENSOR_Q5_1, MATRIX_Q5_1},
        {GGUF_TENSOR_Q4_K, MATRIX_Q4_K}, {GGUF_TENSOR_Q5_K, MATRIX_Q5_K},
        {GGUF_TENSOR_Q6_K, MATRIX_Q6_K}, {GGUF_TENSOR_IQ4_NL, MATRIX_IQ4_NL},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].type == type)
            return *out = types[i].matrix, true;
    return false;
}

/* wanted: the types that would do. */
static int refuse_type(const struct binder *b, const struct gguf_tensor *tensor, const char *wanted,
                       const char *name)
{
    const char *found = gguf_type_name(tensor->type);
    if (found)
        snprintf(b->err, b->err_size, "%s: tensor '%s' holds %s, which cannot be used there; ",
                 b->path, name, found);
    else
        snprintf(b->err, b->err_size, "%s: tensor '%s' holds type %" PRIu32 ", which is unknown; ",
                 b->path, name, tensor->type);
    size_t used = strlen(b->err);
    snprintf(b->err + used, b->err_size - used,
             "it must be %s: take another file of the model, or quantise it again (llama-quantize "
             "MODEL-F16.gguf OUT.gguf Q8_0)",
             wanted);
    return -EINVAL;
}

static void take(const struct binder *b, const struct gguf_tensor *tensor)
{
    size_t i = 0;
    while (gguf_tensor_at(b->gguf, i) != tensor)
        i++;
    b->taken[i] = true;
}

static int tensor_bind(const struct binder *b, const char *name, const struct bind_tensor *wanted)
{
    const struct gguf_tensor *tensor = gguf_tensor_find(b->gguf, name);
    enum matrix_type type = MATRIX_F32;
    if (!tensor)
        return bind_refuse(b, "missing tensor", name);
    if (wanted->matrix && !matrix_type_of(tensor->type, &type))
        return refuse_type(b, tensor, TYPE_NAMES, name);
    if (wanted->floats && tensor->type != GGUF_TENSOR_F32)
        return refuse_type(b, tensor, "F32", name);
    /* Unused dimensions are 1: a vector is a matrix of one row. */
    if (tensor->shape[0] != wanted->n_in || tensor->shape[1] != wanted->n_out ||
        tensor->shape[2] != 1 || tensor->shape[3] != 1)
        return bind_refuse(b, "unexpected shape of tensor", name);
    /* Floats alone are read as such, and a file in memory may begin anywhere. */
    if (!tensor->data || (type == MATRIX_F32 && (uintptr_t)tensor->data % sizeof(float)))
        return bind_refuse(b, "unaligned or without data: tensor", name);
    take(b, tensor);
    if (wanted->matrix)
        *wanted->matrix = (struct matrix){tensor->data, wanted->n_in, wanted->n_out, type};
    else
        *wanted->floats = tensor->data;
    return 0;
}

int bind_tensors(const struct binder *b, int layer, const struct bind_tensor *tensors, size_t n)
{
    char name[80];
    for (size_t i = 0; i < n; i++) {
        if (layer == BIND_OUTER)
            snprintf(name, sizeof name, "%s", tensors[i].name);
        else
            snprintf(name, sizeof name, "blk.%d.%s", layer, tensors[i].name);
        int rc = tensor_bind(b, name, &tensors[i]);
        if (rc)
            return rc;
    }
    return 0;
}

int bind_nothing_left(const struct binder *b)
{
    char name[80];
    for (size_t i = 0; i < gguf_n_tensors(b->gguf); i++) {
        if (b->taken[i])
            continue;
        return bind_refuse(b, "not part of such a model: tensor",
                           gguf_str_show(gguf_tensor_at(b->gguf, i)->name, name, sizeof name));
    }
    return 0;
}

enum { PROMPTS_MAX = 64, PROMPT_BYTES_MAX = 65536 };

static bool has_control(struct gguf_str text)
{
    for (size_t i = 0; i < text.len; i++)
        if ((uint8_t)text.ptr[i] < ' ' || text.ptr[i] == 0x7f)
            return true;
    return false;
}

int bind_prompts(const struct binder *b, struct prompt **out)
{
    static const char names_key[] = "embedmill.prompt.names",
                      texts_key[] = "embedmill.prompt.texts";
    struct gguf_array names, texts;
    struct gguf_str name, text;
    size_t name_at = 0, text_at = 0, n = 0;
    *out = NULL;
    int rc = gguf_get_array(b->gguf, names_key, &names);
    if (rc == -ENOENT)
        return 0;
    if (rc || names.type != GGUF_STR || names.n > PROMPTS_MAX || names.size > PROMPT_BYTES_MAX)
        return bind_refuse(b, "not up to 64 short strings: key", names_key);
    if (gguf_get_array(b->gguf, texts_key, &texts) || texts.type != GGUF_STR ||
        texts.n != names.n || texts.size > PROMPT_BYTES_MAX)
        return bind_refuse(b, "not as many short strings as there are names: key", texts_key);
    /* The one behind the last stays zero: a name that is NULL ends the list. */
    struct prompt *prompts = calloc(1, (names.n + 1) * sizeof *prompts + names.size + texts.size);
    if (!prompts)
        return bind_no_memory(b);
    char *to = (char *)(prompts + names.n + 1); /* a length of 8 bytes makes room for each NUL */
    while (gguf_array_next(&names, &name_at, &name) && gguf_array_next(&texts, &text_at, &text)) {
        /* Names are printed in help and errors, and a NUL would cut one short. */
        if (has_control(name)) {
            free(prompts);
            return bind_refuse(b, "a control character in key", names_key);
        }
        prompts[n].name = memcpy(to, name.ptr, name.len);
        to += name.len + 1;
        prompts[n++].lead = memcpy(to, text.ptr, text.len);
        to += text.len + 1;
    }
    *out = prompts;
    return 0;
}
