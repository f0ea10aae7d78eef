/*
 * session.c: texts to vectors with the scratch of one thread.
 *
 * Owns:    tokenising, packing texts until the pack is full, cutting vectors to the asked
 *          dimension.
 * Why:     a pack holds at most max_tokens tokens, so one long text and a hundred short ones cost
 *          the same scratch.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "inference/embed.h"
#include "inference/forward.h"
#include "inference/model.h"
#include "inference/session.h"

int session_open(struct session **out, const struct model *model,
                 const struct session_options *options)
{
    size_t max_tokens = model->info.max_tokens;
    /* Whole vectors of the widest table: `unit` has no rest of a row to care for. */
    if (options->dim > model->info.dim || options->dim % Q8_BLOCK)
        return -EINVAL;
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->model = model;
    s->options = *options;
    if (!s->options.dim)
        s->options.dim = model->info.dim;
    s->ids = malloc(max_tokens * sizeof *s->ids);
    s->starts = malloc((max_tokens + 1) * sizeof *s->starts);
    s->rows = malloc(max_tokens * sizeof *s->rows);
    /* A multiple of the alignment, as C11 wants it: a reranker's n_out is 1. */
    s->vectors = aligned_alloc(64, (max_tokens * model->n_out * sizeof *s->vectors + 63) / 64 * 64);
    if (model->n_prefixes)
        s->prefixes = malloc(max_tokens * sizeof *s->prefixes);
    int rc = tokenizer_scratch_open(&s->tokens, model->tokenizer);
    if (rc == 0)
        rc = forward_open(&s->forward, model, s, options);
    if (rc == 0 && model->info.is_reranker)
        rc = pairs_open(s);
    if (rc == 0 &&
        (!s->ids || !s->starts || !s->rows || !s->vectors || (model->n_prefixes && !s->prefixes)))
        rc = -ENOMEM;
    if (rc < 0) {
        session_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void session_close(struct session *s)
{
    if (!s)
        return;
    tokenizer_scratch_close(s->tokens);
    forward_close(s->forward);
    pairs_close(s);
    free(s->ids);
    free(s->starts);
    free(s->rows);
    free(s->vectors);
    free(s->prefixes);
    free(s);
}

int session_tokenize(struct session *s, struct text text, int32_t *ids, size_t max_ids,
                     size_t *n_ids, struct embed_result *result)
{
    size_t n_total = 0, limit = s->model->info.max_tokens;
    /* Ids that are only counted (max_ids 0) are cut where the model cuts. */
    if (max_ids && max_ids < limit)
        limit = max_ids;
    *n_ids = 0;
    *result = (struct embed_result){0};
    result->status = tokenizer_encode(s->model->tokenizer, s->tokens, text, s->options.bad_utf8,
                                      ids, max_ids, n_ids, &n_total);
    if (result->status < 0)
        return result->status;
    result->n_tokens = n_total > UINT32_MAX ? UINT32_MAX : (uint32_t)n_total;
    if (n_total > s->model->info.max_tokens && s->options.too_long == TOO_LONG_ERROR)
        result->status = -E2BIG;
    else
        result->truncated = n_total > limit;
    return result->status;
}

/* Run the pack in hand and hand its vectors out. */
static void pack_flush(struct session *s, float *const *rows)
{
    size_t whole = s->model->n_out, dim = s->options.dim;
    if (!s->n_texts)
        return;
    struct pack pack = {
        .ids = s->ids, .starts = s->starts, .n_texts = s->n_texts, .prefixes = s->prefixes};
    assert(s->starts[0] == 0 && s->starts[s->n_texts] <= s->model->info.max_tokens);
    forward_run(s->forward, &pack, s->vectors);
    for (size_t i = 0; i < s->n_texts; i++) {
        float *row = rows[s->rows[i]];
        memcpy(row, s->vectors + i * whole, dim * sizeof *row);
        /* The first dim of a unit vector have a length below 1. */
        if (dim < whole)
            s->model->kernels->unit(row, dim);
    }
    s->n_texts = 0;
}

/* A text of n_ids ids is in the pack, at the end; n_whole: tokens of those before it, with what was
 * computed before. Leaves out of the pack what is computed of this one. */
static void pack_add(struct session *s, size_t n_ids, size_t n_whole, size_t row)
{
    const struct model *m = s->model;
    uint32_t start = s->n_texts ? s->starts[s->n_texts] : 0;
    /* A text has an end at least (model_bind): a pack holds no more texts than tokens. */
    assert(n_ids > 0 && s->n_texts < m->info.max_tokens);
    int32_t *ids = s->ids + start;
    if (s->prefixes) {
        struct prefix_use use = prefix_find(m->prefixes, m->n_prefixes, ids, n_ids);
        assert(use.n < n_ids);
        n_ids -= use.n;
        /* Its keys and values are kept with the model: only what follows is computed. */
        memmove(ids, ids + use.n, n_ids * sizeof *ids);
        /* Its place among all tokens, those left out included: step_gather lays it out there. */
        use.row = (uint32_t)n_whole;
        s->prefixes[s->n_texts] = use;
    }
    s->starts[s->n_texts] = start;
    s->rows[s->n_texts++] = row;
    s->starts[s->n_texts] = start + (uint32_t)n_ids;
}

void session_embed(struct session *s, const struct text *texts, size_t n, float *const *rows,
                   struct embed_result *results)
{
    size_t max_tokens = s->model->info.max_tokens, n_whole = 0;
    size_t pack = max_tokens < PACK_TOKENS ? max_tokens : PACK_TOKENS;
    assert(!s->model->info.is_reranker);
    s->n_texts = 0;
    for (size_t i = 0; i < n; i++) {
        /* Into an empty pack goes a text of any length; behind others only what fits whole. */
        size_t n_ids, room = !n_whole ? max_tokens : n_whole < pack ? pack - n_whole : 0;
        size_t used = s->n_texts ? s->starts[s->n_texts] : 0;
        /* A text that fails leaves zeros, never what was there before. */
        memset(rows[i], 0, s->options.dim * sizeof *rows[i]);
        /* Into the pack at once. What does not fit is tokenised again, which is rare. */
        int rc = session_tokenize(s, texts[i], s->ids + used, room, &n_ids, &results[i]);
        if (rc == 0 && results[i].n_tokens > room && n_whole) { /* does not fit: a new pack */
            pack_flush(s, rows);
            n_whole = 0;
            rc = session_tokenize(s, texts[i], s->ids, max_tokens, &n_ids, &results[i]);
        }
        if (rc < 0)
            continue;
        pack_add(s, n_ids, n_whole, i);
        n_whole += n_ids;
    }
    pack_flush(s, rows);
}

int session_embed_ids(struct session *s, const int32_t *ids, size_t n, float *out,
                      struct embed_result *result)
{
    const struct model_info *info = &s->model->info;
    /* Client's ids: every one is looked up in a table by number, so each is checked. */
    size_t n_used = n < info->max_tokens ? n : info->max_tokens;
    memset(out, 0, s->options.dim * sizeof *out);
    *result = (struct embed_result){.n_tokens = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n,
                                    .truncated = n_used < n};
    if (n == 0)
        return result->status = -EINVAL;
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= info->n_vocab)
            return result->status = -EINVAL;
    if (n_used < n && s->options.too_long == TOO_LONG_ERROR)
        return result->status = -E2BIG;
    memcpy(s->ids, ids, n_used * sizeof *ids);
    assert(n_used > 0);
    s->ids[n_used - 1] = ids[n - 1]; /* eos is kept */
    s->n_texts = 0;
    pack_add(s, n_used, 0, 0);
    pack_flush(s, &out);
    return 0;
}

void model_shorten(const struct model *model, float *row, size_t dim)
{
    model->kernels->unit(row, dim);
}
