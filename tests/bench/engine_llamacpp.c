/*
 * engine_llamacpp.c: llama.cpp, used as its own embedding example uses it: many texts in one batch,
 * each a sequence of its own; pooling as the file says; flash attention.
 *
 * Compiled by scripts/bench-peers against llama.h; no part of the ordinary build.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <llama.h>

#include "tests/bench/engine.h"

enum { SEQUENCES = 128, TEXT_TOKENS = 8192 };

struct engine {
    struct llama_model *model;
    struct llama_context *context;
    struct llama_batch batch; /* of n_ubatch tokens */
    size_t n_ubatch, dim;
    llama_token ids[TEXT_TOKENS]; /* of the text in hand */
    size_t rows[SEQUENCES];       /* which text of the call a sequence is */
    size_t n_sequences;           /* in the batch in hand */
};

static void keep_quiet(enum ggml_log_level level, const char *text, void *ctx)
{
    (void)ctx;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

int engine_open(struct engine **out, const char *model, size_t n_threads, const char *setting,
                char *err, size_t err_size)
{
    size_t n_ubatch = strtoul(setting, NULL, 10);
    struct engine *e = calloc(1, sizeof *e);
    if (!e)
        return -ENOMEM;
    llama_log_set(keep_quiet, NULL);
    llama_backend_init();
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = (uint32_t)n_ubatch;
    params.n_seq_max = SEQUENCES;
    params.kv_unified = true; /* else the context is divided by the number of sequences */
    params.n_threads = params.n_threads_batch = (int32_t)n_threads;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.embeddings = true;
    e->n_ubatch = n_ubatch;
    e->model = llama_model_load_from_file(model, llama_model_default_params());
    if (e->model)
        e->context = llama_init_from_model(e->model, params);
    if (!e->context) {
        snprintf(err, err_size, "llama.cpp cannot open %s", model);
        engine_close(e);
        return -EINVAL;
    }
    e->dim = (size_t)llama_model_n_embd_out(e->model);
    e->batch = llama_batch_init((int32_t)n_ubatch, 0, 1);
    *out = e;
    return 0;
}

void engine_close(struct engine *e)
{
    if (!e)
        return;
    if (e->batch.token)
        llama_batch_free(e->batch);
    llama_free(e->context);
    llama_model_free(e->model);
    free(e);
}

size_t engine_dim(const struct engine *e)
{
    return e->dim;
}

static void batch_add(struct engine *e, size_t row, size_t n)
{
    struct llama_batch *b = &e->batch;
    for (size_t i = 0; i < n; i++, b->n_tokens++) {
        b->token[b->n_tokens] = e->ids[i];
        b->pos[b->n_tokens] = (llama_pos)i;
        b->n_seq_id[b->n_tokens] = 1;
        b->seq_id[b->n_tokens][0] = (llama_seq_id)e->n_sequences;
        b->logits[b->n_tokens] = 1;
    }
    e->rows[e->n_sequences++] = row;
}

/* Run the batch in hand and hand its vectors out, as unit vectors: its example does that, too. */
static int batch_flush(struct engine *e, float *out)
{
    if (!e->n_sequences)
        return 0;
    /* A causal model keeps keys and values, and llama_encode without them would crash. */
    llama_memory_t memory = llama_get_memory(e->context);
    if (memory)
        llama_memory_clear(memory, true);
    if ((memory ? llama_decode : llama_encode)(e->context, e->batch) != 0)
        return -EIO;
    for (size_t s = 0; s < e->n_sequences; s++) {
        const float *from = llama_get_embeddings_seq(e->context, (llama_seq_id)s);
        float *row = out + e->rows[s] * e->dim;
        double sum = 0;
        if (!from)
            return -EIO;
        for (size_t i = 0; i < e->dim; i++)
            sum += (double)from[i] * from[i];
        for (size_t i = 0; i < e->dim; i++)
            row[i] = (float)(from[i] / sqrt(sum));
    }
    e->n_sequences = 0;
    e->batch.n_tokens = 0;
    return 0;
}

int engine_embed(struct engine *e, const struct text *texts, size_t n, float *out,
                 uint32_t *n_tokens)
{
    const struct llama_vocab *vocab = llama_model_get_vocab(e->model);
    e->n_sequences = 0;
    e->batch.n_tokens = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t got = llama_tokenize(vocab, texts[i].ptr, (int32_t)texts[i].len, e->ids,
                                     TEXT_TOKENS, true, true);
        if (got <= 0 || (size_t)got > e->n_ubatch)
            return -E2BIG;
        n_tokens[i] = (uint32_t)got;
        if (e->n_sequences == SEQUENCES || (size_t)(e->batch.n_tokens + got) > e->n_ubatch) {
            int rc = batch_flush(e, out);
            if (rc < 0)
                return rc;
        }
        batch_add(e, i, (size_t)got);
    }
    return batch_flush(e, out);
}

int engine_ids(struct engine *e, struct text text, int32_t *ids, size_t max_ids, size_t *n_ids)
{
    const struct llama_vocab *vocab = llama_model_get_vocab(e->model);
    int32_t got =
        llama_tokenize(vocab, text.ptr, (int32_t)text.len, ids, (int32_t)max_ids, true, true);
    if (got < 0)
        return -E2BIG;
    *n_ids = (size_t)got;
    return 0;
}
