/*
 * serve_write.c: see serve_write.h.
 */
#include "worker/serve/serve_write.h"

#include <errno.h>
#include <string.h>

#include "connectors/json.h"
#include "worker/http/http_server.h"
#include "worker/pipeline/embedder.h"

enum { DIGITS = 9 }; /* bring any float32 back exactly */

static size_t tokens_of(const struct serve_rules *rules, const struct embed_result *result)
{
    size_t max = rules->info->max_tokens;
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
    return request->route->dialect == DIALECT_TEI ? "inputs" : "input";
}

/* 1. Errors of texts. */

static void refuse_text(struct serve_request *request, const struct serve_rules *rules, size_t i)
{
    const struct embed_result *result = &request->results[i];
    bool is_tei = request->route->dialect == DIALECT_TEI;
    switch (result->status) {
    case -E2BIG:
        serve_fail(request, is_tei ? HTTP_TOO_LARGE : HTTP_BAD_REQUEST, input_of(request),
                   "text_too_long",
                   "`%s`: text %zu has %u tokens and the model takes %zu; shorten it, or send "
                   "truncate: true",
                   input_of(request), i, result->n_tokens, rules->info->max_tokens);
        break;
    case -EILSEQ:
        serve_fail(request, is_tei ? HTTP_UNPROCESSABLE : HTTP_BAD_REQUEST, input_of(request),
                   "bad_utf8", "`%s`: text %zu is not UTF-8", input_of(request), i);
        break;
    case -ENOMEM:
        serve_fail(request, HTTP_UNAVAILABLE, NULL, "out_of_memory", "out of memory");
        break;
    default:
        serve_fail(request, is_tei ? HTTP_FAILED : HTTP_INTERNAL, NULL, "bad_embedding",
                   "the embedding of text %zu is not a unit vector", i);
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

static void put_openai(struct buffer *to, const struct serve_request *request,
                       const struct serve_rules *rules)
{
    buffer_put_text(to, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < request->n_texts; i++) {
        buffer_put_text(to, i ? ",{\"object\":\"embedding\",\"index\":"
                              : "{\"object\":\"embedding\",\"index\":");
        json_put_natural(to, i);
        buffer_put_text(to, ",\"embedding\":");
        put_row(to, request, request->vectors + i * rules->dim);
        buffer_put_text(to, request->results[i].truncated ? ",\"truncated\":true}" : "}");
    }
    buffer_put_text(to, "],\"model\":");
    json_put_text(to, rules->name[0]);
    size_t n_tokens = tokens_of_all(request, rules);
    buffer_put_text(to, ",\"usage\":{\"prompt_tokens\":");
    json_put_natural(to, n_tokens);
    buffer_put_text(to, ",\"total_tokens\":");
    json_put_natural(to, n_tokens);
    buffer_put_text(to, "}}");
}

void serve_write_vectors(struct serve_request *request, const struct serve_threads *threads)
{
    const struct serve_rules *rules = threads->rules;
    struct buffer *to = &request->answer;
    for (size_t i = 0; i < request->n_texts; i++) {
        if (request->results[i].status) {
            refuse_text(request, rules, i);
            return;
        }
        request->n_cached += request->results[i].cached;
        if (request->dim < rules->dim)
            model_shorten(threads->model, request->vectors + i * rules->dim, request->dim);
    }
    put_openai(to, request, rules);
    if (to->status) {
        serve_fail(request, HTTP_UNAVAILABLE, NULL, "out_of_memory", "out of memory");
        return;
    }
    request->status = HTTP_OK;
    request->type = "application/json";
}

/* 3. The rest. */

void serve_write_models(struct serve_request *request, const struct serve_rules *rules)
{
    struct buffer *to = &request->answer;
    buffer_put_text(to, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; rules->name[i]; i++) {
        buffer_put_text(to, i ? ",{\"id\":" : "{\"id\":");
        json_put_text(to, rules->name[i]);
        buffer_put_text(to, ",\"object\":\"model\",\"created\":0,\"owned_by\":\"embedmill\"}");
    }
    buffer_put_text(to, "]}");
    request->status = HTTP_OK;
    request->type = "application/json";
}
