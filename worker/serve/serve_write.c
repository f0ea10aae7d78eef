/*
 * serve_write.c: see serve_write.h.
 */
#include "worker/serve/serve_write.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/json.h"
#include "worker/http/http_server.h"
#include "worker/pipeline/embedder.h"
#include "worker/serve/serve_files.h"

enum { DIGITS = 9 }; /* bring any float32 back exactly */

static size_t tokens_of(const struct serve_rules *rules, const struct embed_result *result)
{
    size_t max = rules->info->max_tokens;
    /* n_tokens is of the whole text, and of one that was cut the model has seen `max`. */
    return result->n_tokens < max ? result->n_tokens : max;
}

static size_t tokens_of_all(const struct serve_request *request, const struct serve_rules *rules)
{
    size_t n = 0;
    for (size_t i = 0; i < request->n_texts; i++)
        n += tokens_of(rules, &request->results[i]);
    return n;
}

static const char *input_of(const struct serve_request *request)
{
    return serve_input_name(request->route);
}

/* 1. Errors of texts. */

static void refuse_text(struct serve_request *request, const struct serve_rules *rules, size_t i)
{
    const struct embed_result *result = &request->results[i];
    bool is_tei = request->route->dialect == DIALECT_TEI;
    bool is_pair = request->route->kind == SERVE_RERANK;
    switch (result->status) {
    case -E2BIG:
        serve_fail(request, is_tei ? HTTP_TOO_LARGE : HTTP_BAD_REQUEST, input_of(request),
                   "text_too_long",
                   "`%s`: text %zu has %u tokens%s and the model takes %zu; shorten it, or send "
                   "truncate: true",
                   input_of(request), i, result->n_tokens, is_pair ? " with the query" : "",
                   rules->info->max_tokens);
        break;
    case -EILSEQ:
        serve_fail(
            request, is_tei ? HTTP_UNPROCESSABLE : HTTP_BAD_REQUEST, input_of(request), "bad_utf8",
            is_pair ? "`%s`: text %zu, or the query, is not UTF-8" : "`%s`: text %zu is not UTF-8",
            input_of(request), i);
        break;
    case -ENOMEM:
        serve_fail(request, HTTP_UNAVAILABLE, NULL, "out_of_memory", "out of memory");
        break;
    default:
        serve_fail(request, is_tei ? HTTP_FAILED : HTTP_INTERNAL, NULL, "bad_embedding",
                   is_pair ? "the score of text %zu is not a number"
                           : "the embedding of text %zu is not a unit vector",
                   i);
        break;
    }
}

/* 2. Vectors. */

static void put_floats(struct buffer *to, const float *row, size_t dim)
{
    buffer_put_text(to, "[");
    for (size_t i = 0; i < dim; i++) {
        if (i)
            buffer_put_text(to, ",");
        json_put_real(to, row[i], DIGITS);
    }
    buffer_put_text(to, "]");
}

static void put_row(struct buffer *to, const struct serve_request *request, const float *row)
{
    if (!request->wants_base64) {
        put_floats(to, row, request->dim);
        return;
    }
    /* Little-endian float32, which is what this machine has. */
    _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rows are written as they are");
    json_put_base64(to, (struct bytes){(const char *)row, request->dim * sizeof *row});
}

static void put_usage(struct buffer *to, size_t n_tokens)
{
    buffer_put_text(to, ",\"usage\":{\"prompt_tokens\":");
    json_put_natural(to, n_tokens);
    buffer_put_text(to, ",\"total_tokens\":");
    json_put_natural(to, n_tokens);
    buffer_put_text(to, "}");
}

static void put_openai(struct buffer *to, const struct serve_request *request,
                       const struct serve_rules *rules)
{
    buffer_put_text(to, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < request->n_texts; i++) {
        buffer_put_text(to, i ? ",{\"object\":\"embedding\",\"index\":"
                              : "{\"object\":\"embedding\",\"index\":");
        json_put_natural(to, i);
        buffer_put_text(to, ",\"embedding\":");
        put_row(to, request, request->vectors + i * request->dim);
        /* Not of OpenAI's API: only where a text was cut. */
        buffer_put_text(to, request->results[i].truncated ? ",\"truncated\":true}" : "}");
    }
    buffer_put_text(to, "],\"model\":");
    json_put_text(to, rules->name[0]);
    put_usage(to, tokens_of_all(request, rules));
    buffer_put_text(to, "}");
}

static void put_rows(struct buffer *to, const struct serve_request *request)
{
    buffer_put_text(to, "[");
    for (size_t i = 0; i < request->n_texts; i++) {
        buffer_put_text(to, i ? "," : "");
        put_row(to, request, request->vectors + i * request->dim);
    }
    buffer_put_text(to, "]");
}

static void put_ollama(struct buffer *to, const struct serve_request *request,
                       const struct serve_rules *rules)
{
    buffer_put_text(to, "{\"model\":");
    json_put_text(to, rules->name[0]);
    buffer_put_text(to, ",\"embeddings\":");
    put_rows(to, request);
    buffer_put_text(to, ",\"total_duration\":");
    json_put_natural(to, uv_hrtime() - request->arrived_ns);
    /* Models are loaded before anybody can connect. */
    buffer_put_text(to, ",\"load_duration\":0,\"prompt_eval_count\":");
    json_put_natural(to, tokens_of_all(request, rules));
    buffer_put_text(to, "}");
}

/* A record as on a queue (docs/wire-format.md); the ids of texts are their places. */
static void put_record(struct buffer *to, struct serve_request *request,
                       const struct serve_rules *rules)
{
    /* Digits of a place in the list, which has at most SERVE_TOKENS_MAX entries, and a NUL. */
    enum { NUMBER = 12 };
    const struct message message = {.position = {"http", 4}, .timestamp_ms = -1};
    const struct model_info *info = rules->info;
    struct encode_options options = {.format = OUTPUT_MSGPACK,
                                     .model = info->name,
                                     .fingerprint = info->fingerprint,
                                     .dim = request->dim,
                                     .dtype = request->dtype};
    if (info->precision && strcmp(info->precision, "fast") == 0)
        options.precision = "fast";
    size_t n = request->n_texts;
    struct item *items = arena_alloc(&request->arena, n * sizeof *items);
    char *numbers = arena_alloc(&request->arena, n * NUMBER);
    if (!items || !numbers) {
        to->status = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        int len = snprintf(numbers + i * NUMBER, NUMBER, "%zu", i);
        items[i] = (struct item){.id = {numbers + i * NUMBER, (size_t)len}, .id_is_number = true};
    }
    const struct request as_message = {
        .items = items, .n_items = n, .many = true, .id = {"0", 1}, .id_is_number = true};
    if (codec_encode(&options, &as_message, &message, 0, n, request->prompt->name, request->vectors,
                     request->results, to) != 0)
        to->status = -ENOMEM;
}

static void put_octets(struct buffer *to, const struct serve_request *request)
{
    size_t row_bytes = codec_dtype_bytes(request->dtype, request->dim);
    for (size_t i = 0; i < request->n_texts; i++) {
        char *row = buffer_extend(to, row_bytes);
        /* NULL: no memory, which the buffer remembers until answer_settle. */
        if (row)
            codec_dtype_pack(request->dtype, request->vectors + i * request->dim, request->dim,
                             row);
    }
}

static void put_json(struct buffer *to, const struct serve_request *request,
                     const struct serve_rules *rules)
{
    switch (request->route->dialect) {
    case DIALECT_OPENAI:
        put_openai(to, request, rules);
        break;
    case DIALECT_TEI:
        put_rows(to, request);
        break;
    case DIALECT_OLLAMA:
        put_ollama(to, request, rules);
        break;
    }
}

/* Rows to the dimension that was asked for, one behind the other. */
static void shorten(struct serve_request *request, const struct serve_threads *threads)
{
    size_t whole = threads->rules->dim, dim = request->dim;
    /* From the first to the last: the place of a shorter row was read before. */
    for (size_t i = 0; dim < whole && i < request->n_texts; i++) {
        float *row = request->vectors + i * whole;
        model_shorten(threads->model, row, dim);
        memmove(request->vectors + i * dim, row, dim * sizeof *row);
    }
}

static void answer_settle(struct serve_request *request, const char *type)
{
    /* A put that found no memory is remembered: what was written is of no use. */
    if (request->answer.status) {
        serve_fail(request, HTTP_UNAVAILABLE, NULL, "out_of_memory", "out of memory");
        return;
    }
    request->status = HTTP_OK;
    request->type = type;
}

/* 3. Scores. */

struct rank {
    float score; /* as the model's head gives it */
    size_t text;
};

/* The best first, of equal ones that which was sent first. */
static int ranks_compare(const void *left, const void *right)
{
    const struct rank *a = left, *b = right;
    int order = (a->score < b->score) - (a->score > b->score);
    return order ? order : (a->text > b->text) - (a->text < b->text);
}

static void put_rank(struct buffer *to, const struct serve_request *request,
                     const struct rank *rank)
{
    bool is_tei = request->route->dialect == DIALECT_TEI;
    float score = request->wants_raw_scores ? rank->score : rerank_sigmoid(rank->score);
    buffer_put_text(to, "{\"index\":");
    json_put_natural(to, rank->text);
    if (request->wants_texts) {
        buffer_put_text(to, is_tei ? ",\"text\":" : ",\"document\":{\"text\":");
        json_put_string(to, request->texts[rank->text].text);
        buffer_put_text(to, is_tei ? "" : "}");
    }
    buffer_put_text(to, is_tei ? ",\"score\":" : ",\"relevance_score\":");
    json_put_real(to, score, DIGITS);
    buffer_put_text(to, request->results[rank->text].truncated ? ",\"truncated\":true}" : "}");
}

/* A list for text-embeddings-inference; what Cohere's and Jina's clients read for the others. */
static void put_scores(struct buffer *to, struct serve_request *request,
                       const struct serve_rules *rules)
{
    bool is_tei = request->route->dialect == DIALECT_TEI;
    size_t n = request->n_texts, n_tokens = tokens_of_all(request, rules);
    struct rank *ranks = arena_alloc(&request->arena, n * sizeof *ranks);
    if (!ranks) {
        to->status = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < n; i++)
        /* One value each, in place of a vector. */
        ranks[i] = (struct rank){request->vectors[i], i};
    qsort(ranks, n, sizeof *ranks, ranks_compare);
    /* The tokens were counted of all texts, of which the best are shown. */
    n = request->top < n ? request->top : n;
    buffer_put_text(to, is_tei ? "[" : "{\"object\":\"list\",\"results\":[");
    for (size_t i = 0; i < n; i++) {
        buffer_put_text(to, i ? "," : "");
        put_rank(to, request, &ranks[i]);
    }
    buffer_put_text(to, "]");
    if (is_tei)
        return;
    buffer_put_text(to, ",\"model\":");
    json_put_text(to, rules->name[0]);
    put_usage(to, n_tokens);
    buffer_put_text(to, "}");
}

static void put_answer(struct serve_request *request, const struct serve_rules *rules)
{
    if (request->route->kind == SERVE_RERANK)
        put_scores(&request->answer, request, rules);
    else if (request->form == FORM_MSGPACK)
        put_record(&request->answer, request, rules);
    else if (request->form == FORM_OCTETS)
        put_octets(&request->answer, request);
    else
        put_json(&request->answer, request, rules);
}

void serve_write_results(struct serve_request *request, const struct serve_threads *threads)
{
    static const char *const types[] = {"application/json", "application/msgpack",
                                        "application/octet-stream"};
    const struct serve_rules *rules = threads->rules;
    /* The first text without a result is the whole answer: no client gets half a list. */
    for (size_t i = 0; i < request->n_texts; i++) {
        if (request->results[i].status) {
            refuse_text(request, rules, i);
            return;
        }
        request->n_cached += request->results[i].cached;
    }
    /* Before anything is written: vectors are shortened where they lie. */
    shorten(request, threads);
    put_answer(request, rules);
    answer_settle(request, types[request->form]);
}

/* 4. Tokens. */

static void put_tokens(struct buffer *to, const struct serve_rules *rules, const int32_t *ids,
                       size_t n, bool with_ends)
{
    assert(rules->n_ends == 0 || n >= rules->n_ends);
    size_t first = with_ends || rules->n_ends == 0 ? 0 : 1;
    size_t end = with_ends || rules->n_ends == 0 ? n : n - 1;
    buffer_put_text(to, "[");
    for (size_t i = first; i < end; i++) {
        bool is_end = rules->n_ends && (i == 0 || i == n - 1);
        buffer_put_text(to, i > first ? ",{\"id\":" : "{\"id\":");
        json_put_integer(to, ids[i]);
        buffer_put_text(to, is_end ? ",\"special\":true}" : ",\"special\":false}");
    }
    buffer_put_text(to, "]");
}

/* All ids of a text, whose status it returns; -ENOMEM, too, with *ids NULL. */
static int tokens_find(struct serve_request *request, const struct pool_thread *thread,
                       struct text text, int32_t **ids, size_t *n, struct embed_result *result)
{
    /* A token has a byte, and bos and eos have none; but a unigram model puts U+2581 before the
     * text, and its map makes several characters of one. */
    size_t room = text.len + 2;
    for (;;) {
        *ids = arena_alloc(&request->arena, room * sizeof **ids);
        if (!*ids)
            return -ENOMEM;
        int status = thread->all->embedder->tokenize(thread->session, text, *ids, room, n, result);
        if (result->n_tokens <= room)
            return status;
        room = result->n_tokens;
    }
}

void serve_write_tokens(struct serve_request *request, const struct pool_thread *thread)
{
    const struct serve_rules *rules = thread->all->rules;
    struct buffer *to = &request->answer;
    buffer_put_text(to, "[");
    for (size_t i = 0; i < request->n_texts && !to->status; i++) {
        if (request->texts[i].ids) {
            serve_fail(request, HTTP_UNPROCESSABLE, "inputs", NULL,
                       "`inputs`: entry %zu is token ids already", i);
            return;
        }
        size_t len = serve_render(request, i, NULL, 0), n = 0;
        char *bytes = arena_alloc(&request->arena, len + 1);
        int32_t *ids = NULL;
        int status = -ENOMEM;
        if (bytes) {
            serve_render(request, i, bytes, len);
            status = tokens_find(request, thread, (struct text){bytes, len}, &ids, &n,
                                 &request->results[i]);
        }
        if (!ids) {
            to->status = -ENOMEM;
            break;
        }
        /* Too long for an embedding is not too long to be shown: all ids are there. */
        if (status && status != -E2BIG) {
            refuse_text(request, rules, i);
            return;
        }
        buffer_put_text(to, i ? "," : "");
        put_tokens(to, rules, ids, n, request->adds_specials);
    }
    buffer_put_text(to, "]");
    answer_settle(request, "application/json");
}

/* 5. The rest. */

static void put_prompts(struct buffer *to, const struct serve_rules *rules)
{
    buffer_put_text(to, "{");
    for (const struct prompt *p = rules->info->prompts; p && p->name; p++) {
        buffer_put_text(to, p == rules->info->prompts ? "" : ",");
        json_put_text(to, p->name);
        buffer_put_text(to, ":");
        json_put_text(to, p->lead);
    }
    buffer_put_text(to, "}");
}

/* What vectors are like; of a reranker there are none. */
static void put_vectors_info(struct buffer *to, const struct serve_rules *rules)
{
    buffer_put_text(to, ",\"dim\":");
    json_put_natural(to, rules->dim);
    buffer_put_text(to, ",\"default_prompt\":");
    json_put_text(to, rules->prompt->name);
    buffer_put_text(to, ",\"prompts\":");
    put_prompts(to, rules);
}

void serve_write_info(struct serve_request *request, const struct serve_rules *rules,
                      size_t max_tokens_waiting)
{
    const struct model_info *info = rules->info;
    struct buffer *to = &request->answer;
    buffer_put_text(to, "{\"model_id\":");
    json_put_text(to, rules->name[0]);
    buffer_put_text(to, ",\"model_sha\":");
    json_put_text(to, info->fingerprint);
    buffer_put_text(to, ",\"model_dtype\":\"float32\",\"model_type\":");
    if (info->is_reranker) {
        buffer_put_text(to, "{\"reranker\":{\"id2label\":{\"0\":\"LABEL_0\"},"
                            "\"label2id\":{\"LABEL_0\":0}}}");
    } else {
        buffer_put_text(to, "{\"embedding\":{\"pooling\":");
        json_put_text(to, info->pooling);
        buffer_put_text(to, "}}");
    }
    buffer_put_text(to, ",\"max_input_length\":");
    json_put_natural(to, info->max_tokens);
    buffer_put_text(to, ",\"max_batch_tokens\":");
    json_put_natural(to, max_tokens_waiting);
    buffer_put_text(to, ",\"max_client_batch_size\":");
    json_put_natural(to, rules->max_texts);
    buffer_put_text(to, ",\"auto_truncate\":");
    buffer_put_text(to, rules->refuses_long ? "false" : "true");
    buffer_put_text(to, ",\"version\":");
    json_put_text(to, EMBEDMILL_VERSION);
    buffer_put_text(to, ",\"precision\":");
    json_put_text(to, info->precision);
    buffer_put_text(to, ",\"kernels\":");
    json_put_text(to, info->kernels);
    if (!info->is_reranker)
        put_vectors_info(to, rules);
    buffer_put_text(to, "}");
    answer_settle(request, "application/json");
}

static void write_file(struct serve_request *request, struct bytes file, const char *type)
{
    buffer_put(&request->answer, file.ptr, file.len);
    answer_settle(request, type);
}

void serve_write_openapi(struct serve_request *request)
{
    write_file(request, serve_file_openapi(), "application/json");
}

void serve_write_page(struct serve_request *request)
{
    write_file(request, serve_file_page(), "text/html; charset=utf-8");
}

static void put_model(struct buffer *to, const struct serve_rules *rules, const char *name)
{
    buffer_put_text(to, "{\"id\":");
    json_put_text(to, name);
    buffer_put_text(to, ",\"object\":\"model\",\"created\":0,\"owned_by\":\"embedmill\","
                        "\"fingerprint\":");
    json_put_text(to, rules->info->fingerprint);
    buffer_put_text(to, "}");
}

void serve_write_models(struct serve_request *request, const struct serve_rules *rules,
                        size_t n_models)
{
    struct buffer *to = &request->answer;
    buffer_put_text(to, "{\"object\":\"list\",\"data\":[");
    for (size_t m = 0; m < n_models; m++)
        for (size_t i = 0; rules[m].name[i]; i++) {
            buffer_put_text(to, m + i ? "," : "");
            put_model(to, &rules[m], rules[m].name[i]);
        }
    buffer_put_text(to, "]}");
    answer_settle(request, "application/json");
}

void serve_write_model(struct serve_request *request, const struct serve_rules *rules,
                       size_t n_models, const char *name)
{
    const struct bytes asked = bytes_of(name);
    const struct serve_rules *found = serve_rules_named(request, rules, n_models, asked);
    if (!found)
        return;
    /* By the name that was asked for, which may be one of several. */
    put_model(&request->answer, found, serve_rules_find(found, asked));
    answer_settle(request, "application/json");
}
