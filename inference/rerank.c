/*
 * rerank.c: scores of texts for a query, by a cross-encoder.
 *
 * Owns:    making one row of ids of query and text, and which of the two is cut when they are too
 *          long.
 * Why:     query and text go through the model as one, so each pair costs a pass; the query is
 *          tokenised once for all of them.
 * Source:  pairs as the tokenizers of the models make them, for BERT [CLS] q [SEP] d [SEP] with
 *          what is behind the first [SEP] of the second type, for XLM-RoBERTa <s> q </s></s> d
 *          </s>; cut as the strategy "longest_first", which sentence-transformers' CrossEncoder
 *          uses.
 */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "inference/session.h"

struct pairs {
    int32_t *query, *text; /* [max_tokens] with their ends */
    uint8_t *types;        /* [max_tokens] of the pack in hand */
};

int pairs_open(struct session *s)
{
    size_t max_tokens = s->model->info.max_tokens;
    struct pairs *pairs = calloc(1, sizeof *pairs);
    if (!pairs)
        return -ENOMEM;
    s->pairs = pairs;
    pairs->query = malloc(max_tokens * sizeof *pairs->query);
    pairs->text = malloc(max_tokens * sizeof *pairs->text);
    pairs->types = malloc(max_tokens);
    /* Whatever is there is freed by session_close, which calls pairs_close. */
    return pairs->query && pairs->text && pairs->types ? 0 : -ENOMEM;
}

void pairs_close(struct session *s)
{
    if (!s->pairs)
        return;
    free(s->pairs->query);
    free(s->pairs->text);
    free(s->pairs->types);
    free(s->pairs);
}

/* How many tokens of either part stay, ends left out, when there is room for so many of both. The
 * longer loses first; with both longer than half, both are cut to it. */
static void lengths_cut(size_t room, size_t *query, size_t *text)
{
    bool query_is_longer = *query > *text;
    size_t *small = query_is_longer ? text : query, *large = query_is_longer ? query : text;
    if (*query + *text <= room)
        return;
    /* The longer one gives way first, down to the length of the other. */
    *large = room > 2 * *small ? room - *small : *small;
    if (*small + *large > room) {
        /* Of an odd number the longer part has one more. */
        *small = room / 2;
        *large = room - *small;
    }
}

/* Tokens of a text without its ends, and these. 0 or a negative errno. */
static int part_encode(struct session *s, struct text text, int32_t *ids, size_t *n)
{
    size_t n_ids, n_total;
    int rc = tokenizer_encode(s->model->tokenizer, s->tokens, text, s->options.bad_utf8, ids,
                              s->model->info.max_tokens, &n_ids, &n_total);
    /* Without both ends: bert_bind_output has refused a tokenizer that does not put them. */
    assert(rc || n_total >= 2);
    if (rc == 0)
        *n = n_total - 2;
    return rc;
}

struct pair {
    size_t n_query, n_text, n_ends;
};

/* A text is encoded, and what stays of the pair is settled. 0 or the status of the result. */
static int pair_measure(struct session *s, struct text text, size_t n_query, struct pair *pair,
                        struct embed_result *result)
{
    size_t max_tokens = s->model->info.max_tokens;
    *result = (struct embed_result){0};
    pair->n_query = n_query;
    /* RoBERTa and its kin have two ends between query and text. */
    pair->n_ends = tokenizer_is_wordpiece(s->model->tokenizer) ? 3 : 4;
    int rc = part_encode(s, text, s->pairs->text, &pair->n_text);
    if (rc)
        return rc;
    size_t whole = pair->n_query + pair->n_text + pair->n_ends;
    result->n_tokens = whole > UINT32_MAX ? UINT32_MAX : (uint32_t)whole;
    if (whole > max_tokens && s->options.too_long == TOO_LONG_ERROR)
        return -E2BIG;
    result->truncated = whole > max_tokens;
    lengths_cut(max_tokens - pair->n_ends, &pair->n_query, &pair->n_text);
    return 0;
}

/* To the pack in hand, from `used` on. Returns where it ends. */
static size_t pair_write(struct session *s, const struct pair *pair, size_t used)
{
    const struct pairs *p = s->pairs;
    int32_t *ids = s->ids + used, end = tokenizer_eos(s->model->tokenizer);
    size_t n = 0;
    ids[n++] = p->text[0]; /* bos */
    /* + 1: behind its bos. A pair takes n_ends less than the max_tokens ids that were kept. */
    memcpy(ids + n, p->query + 1, pair->n_query * sizeof *ids);
    n += pair->n_query;
    for (size_t i = 2; i < pair->n_ends; i++)
        ids[n++] = end;
    memset(p->types + used, 0, n);
    memcpy(ids + n, p->text + 1, pair->n_text * sizeof *ids);
    /* RoBERTa and XLM-RoBERTa know one type only. */
    memset(p->types + used + n, pair->n_ends == 3, pair->n_text + 1);
    n += pair->n_text;
    ids[n++] = end;
    assert(used + n <= s->model->info.max_tokens);
    return used + n;
}

static void pack_score(struct session *s, float *scores)
{
    struct pack pack = {
        .ids = s->ids, .starts = s->starts, .types = s->pairs->types, .n_texts = s->n_texts};
    if (!s->n_texts)
        return;
    forward_run(s->forward, &pack, s->vectors);
    for (size_t i = 0; i < s->n_texts; i++)
        scores[s->rows[i]] = s->vectors[i];
    s->n_texts = 0;
}

void session_rerank(struct session *s, struct text query, const struct text *texts, size_t n,
                    float *scores, struct embed_result *results)
{
    size_t max_tokens = s->model->info.max_tokens, used = 0, n_query = 0;
    size_t most = max_tokens < PACK_TOKENS ? max_tokens : PACK_TOKENS;
    assert(s->model->info.is_reranker);
    int rc = part_encode(s, query, s->pairs->query, &n_query);
    s->n_texts = 0;
    for (size_t i = 0; i < n; i++) {
        struct pair pair;
        scores[i] = 0;
        /* A query that could not be read fails each of its pairs. */
        results[i] = (struct embed_result){.status = rc};
        if (rc == 0)
            results[i].status = pair_measure(s, texts[i], n_query, &pair, &results[i]);
        if (results[i].status)
            continue;
        size_t size = pair.n_query + pair.n_text + pair.n_ends;
        /* By itself a pair may be longer than a pack, up to max_tokens. */
        if (used && used + size > most) {
            pack_score(s, scores);
            used = 0;
        }
        s->starts[s->n_texts] = (uint32_t)used;
        s->rows[s->n_texts++] = i;
        used = pair_write(s, &pair, used);
        s->starts[s->n_texts] = (uint32_t)used;
    }
    pack_score(s, scores);
}

float rerank_sigmoid(float score)
{
    return (float)(1 / (1 + exp(-(double)score)));
}
