/*
 * model.c: from a GGUF file to a model every part of which is known to be there.
 *
 * Owns:    the file, the choice of its architecture, the tokenizer, the fingerprint.
 * Refuses: to know keys and tensors of an architecture: that is in NAME_bind.c. Anything unexpected
 *          is a sentence at open and never a surprise later.
 */
#include "inference/model.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "inference/architecture.h"
#include "inference/prefix.h"

enum { SAMPLE_BYTES = 4096 /* of each tensor that enter the fingerprint */ };

/* Without control characters, for it is printed; cut between two characters. */
static void name_take(struct model *m, struct gguf_str text)
{
    size_t n = text.len < sizeof m->name - 1 ? text.len : sizeof m->name - 1;
    /* 10xxxxxx: a byte that continues a character of UTF-8 and is cut off with it. */
    while (n < text.len && n > 0 && ((uint8_t)text.ptr[n] & 0xC0) == 0x80)
        n--;
    for (size_t i = 0; i < n; i++)
        m->name[i] = (uint8_t)text.ptr[i] < ' ' || text.ptr[i] == 0x7f ? '?' : text.ptr[i];
    m->name[n] = '\0';
}

static int architecture_choose(const struct binder *b, struct model *m)
{
    struct gguf_str text;
    char name[64];
    if (gguf_string(b->gguf, "general.architecture", &text) < 0)
        return bind_refuse(b, "missing string key", "general.architecture");
    m->architecture = architecture_find(text);
    if (!m->architecture)
        return bind_refuse(b, "the file holds another architecture,",
                           gguf_str_show(text, name, sizeof name));
    if (gguf_string(b->gguf, "general.name", &text) < 0 || text.len == 0)
        text = (struct gguf_str){m->architecture->name, strlen(m->architecture->name)};
    name_take(m, text);
    return 0;
}

/* Metadata whole, tensors by samples: hashing 333 MB at each start would cost more than opening. */
static int fingerprint(const struct binder *b, struct model *m)
{
    struct gguf_str metadata = gguf_metadata(m->gguf);
    XXH3_state_t *state = XXH3_createState();
    if (!state)
        return bind_no_memory(b);
    XXH3_128bits_reset(state);
    XXH3_128bits_update(state, metadata.ptr, metadata.len);
    /* Tensors of all parts, in their order; of the metadata that of the first part alone. */
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
    return 0;
}

static uint64_t macs_of(const struct matrix *w)
{
    return (uint64_t)w->n_in * w->n_out;
}

/* What an architecture has none of has no rows. */
static void count_macs(struct model *m)
{
    m->info.macs_per_text =
        macs_of(&m->dense_2) + macs_of(&m->dense_3) + macs_of(&m->projection) + macs_of(&m->cls);
    for (size_t i = 0; i < m->n_layers; i++) {
        const struct layer *l = &m->layers[i];
        m->info.macs_per_token += macs_of(&l->q) + macs_of(&l->k) + macs_of(&l->v) +
                                  macs_of(&l->o) + macs_of(&l->gate) + macs_of(&l->up) +
                                  macs_of(&l->down) + macs_of(&l->ple_model) +
                                  macs_of(&l->ple_gate) + macs_of(&l->ple_out);
    }
}

/* What grows with the longest text, and what is between two products. */
static size_t session_bytes(const struct model *m)
{
    /* x, and `own` where tokens have rows of their own; q, k, v; a vector: texts may be one
     * token. */
    size_t token = (m->n_ple ? 2 : 1) * m->n_embd + m->attention.ld + m->n_out;
    return (m->info.max_tokens * token + TOKENS_MAX * (m->n_wide + m->n_embd)) * sizeof(float);
}

static int model_bind(struct binder *b, struct model *m)
{
    int rc = architecture_choose(b, m);
    if (rc)
        return rc;
    b->architecture = m->architecture->name;
    /* Before bind, which compares the rows of the token table with the vocabulary. */
    rc = tokenizer_open(&m->tokenizer, b->gguf, b->err, b->err_size);
    if (rc)
        return rc;
    /* An empty text would have no token: nothing to pool, and no bound on the texts of a pack. */
    if (tokenizer_n_ends(m->tokenizer) == 0)
        return bind_refuse(b, "no token begins or ends a text: neither is asked for by key",
                           "tokenizer.ggml.add_bos_token");
    m->info.n_vocab = tokenizer_n_vocab(m->tokenizer);
    m->info.prompts = m->architecture->prompts;
    rc = m->architecture->bind(b, m);
    return rc ? rc : bind_nothing_left(b);
}

bool model_kernels(const char *name, char *known, size_t known_size)
{
    kernels_list(known, known_size);
    return kernels_find(name) != NULL;
}

int model_open(struct model **out, const char *path, const char *kernels, enum precision precision,
               char *err, size_t err_size)
{
    const struct kernels *table = kernels_find(kernels);
    if (!table) {
        char names[64];
        snprintf(err, err_size, "kernels '%s' cannot run on this CPU; there are: %s", kernels,
                 kernels_list(names, sizeof names));
        return -ENOTSUP;
    }
    assert(table->fast);
    struct model *m = calloc(1, sizeof *m);
    if (!m) {
        snprintf(err, err_size, "%s: not enough memory to open the model", path);
        return -ENOMEM;
    }
    m->exact = table;
    m->kernels = precision == PRECISION_FAST ? table->fast : table;
    int rc = gguf_open(&m->gguf, path, err, err_size);
    if (rc)
        goto fail;
    struct binder binder = {m->gguf, path, "", err, err_size, NULL};
    /* One more, as calloc may return NULL for nothing. */
    binder.taken = calloc(gguf_n_tensors(m->gguf) + 1, sizeof *binder.taken);
    rc = binder.taken ? model_bind(&binder, m) : bind_no_memory(&binder);
    free(binder.taken);
    if (!rc)
        rc = fingerprint(&binder, m);
    if (rc)
        goto fail;
    count_macs(m);
    m->info.name = m->name;
    m->info.architecture = m->architecture->name;
    m->info.fingerprint = m->fingerprint;
    m->info.warning = m->warning[0] ? m->warning : NULL;
    m->info.kernels = table->name;
    m->info.precision = precision == PRECISION_FAST ? "fast" : "exact";
    m->info.pooling = m->attention.is_causal ? "last_token" : m->pools_first ? "cls" : "mean";
    m->info.dim = m->n_out;
    m->info.file_bytes = gguf_file_size(m->gguf);
    m->info.session_bytes = session_bytes(m);
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
    for (size_t i = 0; i < model->n_prefixes; i++)
        prefix_close(&model->prefixes[i]);
    free(model->prefixes);
    /* Before the file, whose bytes the tokenizer has borrowed. */
    tokenizer_close(model->tokenizer);
    gguf_close(model->gguf);
    free(model->layers);
    free(model->cos_sin_local);
    free(model->cos_sin_full);
    free(model->constants);
    free(model->attention_bias);
    free(model->own_prompts);
    free(model);
}
