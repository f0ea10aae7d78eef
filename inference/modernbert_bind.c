/*
 * modernbert_bind.c: a model of the ModernBERT family in a GGUF file: its keys and its tensors.
 *
 * Owns:    which layers see the whole text: each third from the first on, unless the file says
 *          another number; the others see half the window on either side.
 * Refuses: biases and rotations that the family does not have, other poolings than mean and first
 *          token.
 * Source:  key and tensor names as llama.cpp's converter writes them for this architecture; what
 *          they mean as transformers has it.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "inference/architecture.h"
#include "inference/matrix.h"
#include "inference/rope.h"

enum { LAYERS_MAX = 512, POOLING_MEAN = 1, POOLING_CLS = 2, FULL_EVERY = 3, LOCAL_BASE = 10000 };

struct keys {
    size_t window, full_every;
    double full_base, local_base;
};

static int bind_pooling(const struct binder *b, struct model *m)
{
    size_t pooling;
    int rc = bind_size(b, "pooling_type", 0, SIZE_MAX, &pooling);
    if (rc)
        return rc;
    if (pooling != POOLING_MEAN && pooling != POOLING_CLS)
        return bind_refuse_key(b, "neither mean (1) nor first token (2): key", "pooling_type");
    m->pools_first = pooling == POOLING_CLS;
    return 0;
}

static int choose_gate(const struct binder *b, struct gguf_str name, enum glu *out)
{
    static const struct {
        const char *name;
        enum glu glu;
    } known[] = {{"gelu", GLU_GELU}, {"silu", GLU_SILU}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].name) == name.len && memcmp(known[i].name, name.ptr, name.len) == 0)
            return *out = known[i].glu, 0;
    return bind_refuse_key(b, "neither 'gelu' nor 'silu': key", "hidden_activation");
}

/* Files leave these out when the model has what ModernBERT has. */
static int bind_optional(const struct binder *b, struct model *m, struct keys *keys)
{
    struct gguf_str scaling, gate;
    uint64_t number;
    double base;
    int rc = 0;
    keys->full_every = FULL_EVERY;
    keys->local_base = LOCAL_BASE;
    /* A key that is there and of another type is refused below, not passed over. */
    if (gguf_uint(b->gguf, "modern-bert.attention.sliding_window_pattern", &number) != -ENOENT)
        rc = bind_size(b, "attention.sliding_window_pattern", 1, LAYERS_MAX, &keys->full_every);
    if (!rc && gguf_float(b->gguf, "modern-bert.rope.freq_base_swa", &base) != -ENOENT)
        rc = bind_float(b, "rope.freq_base_swa", 1, 1e12, &keys->local_base);
    m->glu = GLU_GELU;
    if (!rc && gguf_string(b->gguf, "modern-bert.hidden_activation", &gate) == 0)
        rc = choose_gate(b, gate, &m->glu);
    if (!rc && gguf_string(b->gguf, "modern-bert.rope.scaling.type", &scaling) == 0 &&
        (scaling.len != 4 || memcmp(scaling.ptr, "none", 4) != 0))
        rc = bind_refuse_key(b, "not 'none': key", "rope.scaling.type");
    return rc;
}

static int bind_keys(const struct binder *b, struct model *m, struct keys *keys)
{
    struct attention_shape *a = &m->attention;
    double eps;
    int rc = bind_dims(b, m, LAYERS_MAX);
    if (!rc)
        rc = bind_size(b, "attention.sliding_window", 1, 1 << 24, &keys->window);
    if (!rc)
        rc = bind_float(b, "attention.layer_norm_epsilon", 0, 1, &eps);
    if (!rc)
        rc = bind_float(b, "rope.freq_base", 1, 1e12, &keys->full_base);
    if (!rc)
        rc = bind_optional(b, m, keys);
    if (!rc)
        rc = bind_pooling(b, m);
    if (rc)
        return rc;
    /* 1024: what rope_table has room for. */
    if (m->n_embd % (a->n_heads * Q8_BLOCK) || m->n_embd / a->n_heads > 1024)
        return bind_refuse_key(b, "heads are not a multiple of 32 up to 1024 wide: key",
                               "attention.head_count");
    if (m->n_ff % Q8_BLOCK)
        return bind_refuse_key(b, "not a multiple of 32: key", "feed_forward_length");
    if (m->info.max_tokens > KEYS_MAX)
        m->info.max_tokens = KEYS_MAX;
    m->eps = (float)eps;
    a->n_kv_heads = a->n_heads;
    a->head_dim = m->n_embd / a->n_heads;
    a->ld = 3 * m->n_embd;
    m->query_scale = 1.0f / sqrtf((float)a->head_dim);
    return 0;
}

static int bind_outer(const struct binder *b, struct model *m)
{
    const float *zeros = m->constants + ROW_MAX;
    const struct bind_tensor tensors[] = {
        {"token_embd.weight", m->n_embd, m->info.n_vocab, .matrix = &m->embed},
        {"token_embd_norm.weight", m->n_embd, 1, .floats = &m->embed_norm.weight},
        {"output_norm.weight", m->n_embd, 1, .floats = &m->final_norm.weight},
    };
    m->embed_norm.bias = m->final_norm.bias = zeros;
    return bind_tensors(b, BIND_OUTER, tensors, sizeof tensors / sizeof *tensors);
}

static int bind_layer(const struct binder *b, const struct model *m, size_t i, struct layer *layer)
{
    size_t embd = m->n_embd, ff = m->n_ff;
    struct matrix qkv, up;
    const struct bind_tensor tensors[] = {
        {"attn_qkv.weight", embd, 3 * embd, .matrix = &qkv},
        {"attn_output.weight", embd, embd, .matrix = &layer->o},
        {"ffn_norm.weight", embd, 1, .floats = &layer->pre_ffn_norm.weight},
        {"ffn_up.weight", embd, 2 * ff, .matrix = &up},
        {"ffn_down.weight", ff, embd, .matrix = &layer->down},
        {"attn_norm.weight", embd, 1, .floats = &layer->pre_attn_norm.weight},
    };
    /* The first layer has none: what it reads was normalised just now. */
    int rc = bind_tensors(b, (int)i, tensors, sizeof tensors / sizeof *tensors - (i == 0));
    if (rc)
        return rc;
    /* One matrix in the file: the rows of q, of k, of v. */
    layer->q = matrix_rows(&qkv, 0, embd);
    layer->k = matrix_rows(&qkv, embd, embd);
    layer->v = matrix_rows(&qkv, 2 * embd, embd);
    layer->gate = matrix_rows(&up, 0, ff); /* the half that goes through GELU */
    layer->up = matrix_rows(&up, ff, ff);
    layer->pre_attn_norm.bias = layer->pre_ffn_norm.bias = m->constants + ROW_MAX;
    return 0;
}

int modernbert_bind(const struct binder *b, struct model *m)
{
    struct keys keys;
    int rc = bind_keys(b, m, &keys);
    if (rc)
        return rc;
    m->info.has_dense = true; /* nothing is missing: the family has no such layers */
    m->n_out = m->n_embd;
    m->n_wide = 2 * m->n_ff;
    m->layers = calloc(m->n_layers, sizeof *m->layers);
    m->constants = calloc(2 * ROW_MAX, sizeof *m->constants);
    m->cos_sin_full = rope_table(m->info.max_tokens, m->attention.head_dim, keys.full_base, 1);
    m->cos_sin_local = rope_table(m->info.max_tokens, m->attention.head_dim, keys.local_base, 1);
    if (!m->layers || !m->constants || !m->cos_sin_full || !m->cos_sin_local)
        return bind_no_memory(b);
    rc = bind_outer(b, m);
    for (size_t i = 0; i < m->n_layers && !rc; i++) {
        /* The first of each three, where Gemma has the last of each six. */
        bool is_full = i % keys.full_every == 0;
        m->layers[i].shape = &m->attention;
        m->layers[i].reach = is_full ? m->info.max_tokens : keys.window / 2;
        m->layers[i].cos_sin = is_full ? m->cos_sin_full : m->cos_sin_local;
        rc = bind_layer(b, m, i, &m->layers[i]);
    }
    if (!rc)
        rc = bind_prompts(b, &m->own_prompts);
    m->info.prompts = m->own_prompts;
    return rc;
}
