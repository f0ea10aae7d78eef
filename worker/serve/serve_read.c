/*
 * serve_read.c: see serve_read.h.
 *
 * JSON is read as the msgpack value it stands for (worker/codec/json_reader.h), whose bounds are
 * checked by that reading; strings stay where they are, in the arena of the request.
 */
#include "worker/serve/serve_read.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "worker/codec/json_reader.h"
#include "worker/codec/msgpack_walk.h"
#include "worker/codec/prompt.h"
#include "worker/http/http_server.h"

enum { DEPTH_MAX = 8 };

/* One reading. */
struct reading {
    struct serve_request *request;
    const struct serve_rules *rules;
    const char *input; /* the name of that field */
    struct walk texts; /* its value; at NULL: not there */
};

/* What a bad field is called by status: FastAPI and TEI say 422, OpenAI 400. */
static unsigned bad_status(const struct serve_request *request)
{
    return request->route->dialect == DIALECT_TEI ? HTTP_UNPROCESSABLE : HTTP_BAD_REQUEST;
}

static void refuse_type(struct reading *r, const char *field, const char *expected,
                        const struct walk_value *found)
{
    serve_fail(r->request, bad_status(r->request), field, NULL, "`%s` is %s; expected %s", field,
               walk_type_name(found->type), expected);
}

/* 1. Texts and token ids. */

/* A number without a fraction, however it is written: 3.0 is 3, as for JSON Schema. */
static bool is_whole(const struct walk_value *value, int64_t *out)
{
    if (value->type == WALK_INT)
        *out = value->integer;
    else if (value->type == WALK_FLOAT && fabs(value->real) < 1e15 &&
             value->real == floor(value->real))
        /* Below 2^53 each double without a fraction is one integer. */
        *out = (int64_t)value->real;
    else
        return false;
    return true;
}

static bool ids_take(struct reading *r, struct walk *walk, uint32_t count, struct serve_text *out)
{
    /* Room for both ends, where the client has left them out. */
    int32_t *ids = arena_alloc(&r->request->arena, (count + 2) * sizeof *ids);
    struct walk_value value;
    size_t n = 0, n_ends = r->rules->n_ends;
    if (!ids) {
        serve_fail(r->request, HTTP_UNAVAILABLE, NULL, "out_of_memory", "out of memory");
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        msgpack_walk_next(walk, &value);
        int64_t id;
        if (!is_whole(&value, &id) || id < 0 || (uint64_t)id >= r->rules->info->n_vocab) {
            serve_fail(r->request, bad_status(r->request), r->input, NULL,
                       "`%s`: token %u of a list of tokens is not an id of this model, which are "
                       "0 to %zu; POST /tokenize gives them",
                       r->input, i, r->rules->info->n_vocab - 1);
            return false;
        }
        /* Clients send ids with and without the tokens at both ends; two of either would change
         * the vector. */
        if (i == 0 && n_ends && id != r->rules->ends[0])
            ids[n++] = r->rules->ends[0];
        ids[n++] = (int32_t)id;
    }
    assert(n > 0 && n <= (size_t)count + 1);
    if (n_ends && ids[n - 1] != r->rules->ends[1])
        ids[n++] = r->rules->ends[1];
    *out = (struct serve_text){.ids = ids, .n_ids = n};
    return true;
}

static bool is_rerank(const struct reading *r)
{
    return r->request->route->kind == SERVE_RERANK;
}

/* A document as an object: its member `text`, whatever else it has. Of none, *value stays as it is.
 */
static void document_open(struct walk *walk, struct walk_value *value)
{
    struct walk_value key, member;
    for (uint32_t i = 0, n = value->count; i < n; i++) {
        msgpack_walk_next(walk, &key);
        /* Into the value and over it: whatever it is, the next key comes behind all of it. */
        struct walk head = *walk;
        msgpack_walk_next(&head, &member);
        msgpack_walk_skip(walk);
        if (bytes_are(key.bytes, "text"))
            *value = member;
    }
}

static bool text_take(struct reading *r, struct walk *walk, size_t place, struct serve_text *out)
{
    struct serve_request *request = r->request;
    struct walk_value value;
    msgpack_walk_next(walk, &value);
    if (value.type == WALK_ARRAY && value.count > 0 && !is_rerank(r))
        return ids_take(r, walk, value.count, out);
    if (value.type == WALK_MAP && is_rerank(r))
        document_open(walk, &value);
    if (value.type != WALK_STR) {
        serve_fail(
            request, bad_status(request), r->input, NULL, "`%s`: entry %zu is %s; expected %s",
            r->input, place, walk_type_name(value.type),
            is_rerank(r) ? "a string or an object with `text`" : "a string or a list of token ids");
        return false;
    }
    if (value.bytes.len == 0) {
        serve_fail(request, HTTP_BAD_REQUEST, r->input, NULL,
                   "`%s`: entry %zu is empty; leave it out", r->input, place);
        return false;
    }
    if (value.bytes.len > r->rules->max_text_bytes) {
        serve_fail(request, HTTP_TOO_LARGE, r->input, "text_too_large",
                   "`%s`: entry %zu has %zu bytes and a text may have %zu", r->input, place,
                   value.bytes.len, r->rules->max_text_bytes);
        return false;
    }
    *out = (struct serve_text){.text = value.bytes};
    return true;
}

/* A list of numbers is one text; of anything else each entry is one. */
static bool is_one_text(struct walk walk, const struct walk_value *list)
{
    struct walk_value first;
    if (list->type != WALK_ARRAY)
        return true;
    if (list->count == 0)
        return false;
    msgpack_walk_next(&walk, &first);
    return first.type == WALK_INT || first.type == WALK_UINT || first.type == WALK_FLOAT;
}

static void texts_take(struct reading *r)
{
    struct serve_request *request = r->request;
    struct walk walk = r->texts, inside;
    struct walk_value list;
    if (!walk.at) {
        serve_fail(request, bad_status(request), r->input, NULL,
                   is_rerank(r) ? "`%s` is missing: send a list of texts"
                                : "`%s` is missing: send a text or a list of texts",
                   r->input);
        return;
    }
    msgpack_walk_next(&walk, &list);
    inside = walk;
    if (is_rerank(r) && list.type != WALK_ARRAY) {
        refuse_type(r, r->input, "a list of texts", &list);
        return;
    }
    if (list.type == WALK_ARRAY && list.count == 0) {
        serve_fail(request, HTTP_BAD_REQUEST, r->input, NULL, "`%s` is an empty list", r->input);
        return;
    }
    bool is_one = !is_rerank(r) && is_one_text(walk, &list);
    size_t n = is_one ? 1 : list.count;
    if (n > r->rules->max_texts) {
        serve_fail(request,
                   request->route->dialect == DIALECT_TEI ? HTTP_TOO_LARGE : HTTP_BAD_REQUEST,
                   r->input, "too_many_texts", "`%s` has %zu texts and a request may have %zu",
                   r->input, n, r->rules->max_texts);
        return;
    }
    struct serve_text *texts = arena_alloc(&request->arena, n * sizeof *texts);
    if (!texts) {
        serve_fail(request, HTTP_UNAVAILABLE, NULL, "out_of_memory", "out of memory");
        return;
    }
    assert(n > 0);
    /* One text is walked to as if it were the only entry of a list. */
    walk = is_one ? r->texts : inside;
    for (size_t i = 0; i < n; i++)
        if (!text_take(r, &walk, i, &texts[i]))
            return;
    request->texts = texts;
    request->n_texts = n;
}

/* 2. All other fields. */

static void dimensions_take(struct reading *r, const struct walk_value *value)
{
    static const size_t known[] = {128, 256, 512, 768};
    size_t most = r->rules->dim;
    int64_t dim;
    if (!is_whole(value, &dim)) {
        refuse_type(r, "dimensions", "a whole number", value);
        return;
    }
    /* As the option `dim` takes them. */
    bool is_known = (uint64_t)dim == most;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        is_known |= (uint64_t)dim == known[i] && known[i] < most;
    if (is_known)
        r->request->dim = (size_t)dim;
    else
        serve_fail(
            r->request, bad_status(r->request), "dimensions", NULL,
            "`dimensions` is %lld; this server gives %zu, or 128, 256, 512 or 768 where that "
            "is fewer",
            (long long)dim, most);
}

/* The names that others have for what a text is for; the rest of them prompt_find knows. */
static struct bytes prompt_alias(struct bytes name)
{
    static const char *const aliases[][2] = {{"search_query", "query"},
                                             {"search_document", "document"},
                                             {"retrieval.query", "query"},
                                             {"retrieval.passage", "document"},
                                             {"text-matching", "sentence_similarity"}};
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; i++)
        if (bytes_are(name, aliases[i][0]))
            return bytes_of(aliases[i][1]);
    return name;
}

static void prompt_take(struct reading *r, const char *field, const struct walk_value *value)
{
    if (value->type != WALK_STR) {
        refuse_type(r, field, "a string", value);
        return;
    }
    const struct prompt *found = prompt_find(r->rules->info, prompt_alias(value->bytes));
    if (found)
        r->request->prompt = found;
    else
        serve_fail(r->request, bad_status(r->request), field, "unknown_prompt",
                   "`%s` names an unknown prompt; valid names: %s", field, prompt_names());
}

static void format_take(struct reading *r, const struct walk_value *value)
{
    if (value->type == WALK_STR && bytes_are(value->bytes, "base64"))
        r->request->wants_base64 = true;
    else if (value->type != WALK_STR || !bytes_are(value->bytes, "float"))
        serve_fail(r->request, bad_status(r->request), "encoding_format", NULL,
                   "`encoding_format`: expected \"float\" or \"base64\"");
}

static void dtype_take(struct reading *r, const struct walk_value *value)
{
    static const char *const names[] = {"f4", "f2", "i1", "b1"};
    for (size_t i = 0; value->type == WALK_STR && i < sizeof names / sizeof names[0]; i++)
        if (bytes_are(value->bytes, names[i])) {
            r->request->dtype = (enum output_dtype)i;
            return;
        }
    serve_fail(r->request, bad_status(r->request), "dtype", NULL,
               "`dtype`: expected f4, f2, i1 or b1");
}

static void truncate_take(struct reading *r, const struct walk_value *value)
{
    bool is_end = value->type == WALK_STR &&
                  (bytes_are(value->bytes, "END") || bytes_are(value->bytes, "end"));
    bool is_none = value->type == WALK_STR &&
                   (bytes_are(value->bytes, "NONE") || bytes_are(value->bytes, "none"));
    if (value->type == WALK_BOOL)
        r->request->refuses_long = !value->is_true;
    else if (is_end || is_none)
        r->request->refuses_long = is_none;
    else
        refuse_type(r, "truncate", "true or false", value);
}

/* What would change the vectors in a way that is not built in is refused, not ignored. */
static void option_check(struct reading *r, const char *field, bool is_default,
                         const char *expected)
{
    if (!is_default)
        serve_fail(r->request, bad_status(r->request), field, NULL, "`%s`: expected %s", field,
                   expected);
}

static void direction_check(struct reading *r, const struct walk_value *value)
{
    option_check(r, "truncation_direction",
                 value->type == WALK_STR &&
                     (bytes_are(value->bytes, "Right") || bytes_are(value->bytes, "right")),
                 "\"Right\": a text is cut at its end");
}

static void string_take(struct reading *r, const char *field, const struct walk_value *value,
                        struct bytes *out)
{
    if (value->type == WALK_STR)
        *out = value->bytes;
    else
        refuse_type(r, field, "a string", value);
}

static void bool_take(struct reading *r, const char *field, const struct walk_value *value,
                      bool *out)
{
    if (value->type == WALK_BOOL)
        *out = value->is_true;
    else
        refuse_type(r, field, "true or false", value);
}

static void top_take(struct reading *r, const struct walk_value *value)
{
    int64_t top;
    /* WALK_UINT holds what is above INT64_MAX. */
    if (value->type == WALK_UINT || (value->type == WALK_FLOAT && value->real >= 1e15))
        r->request->top = SIZE_MAX; /* more than there can be */
    else if (is_whole(value, &top) && top > 0)
        r->request->top = (size_t)top;
    else
        serve_fail(r->request, bad_status(r->request), "top_n", NULL,
                   "`top_n`: expected a number of texts, 1 or more");
}

static void rerank_field_take(struct reading *r, struct bytes key, const struct walk_value *value)
{
    struct serve_request *request = r->request;
    bool is_tei = request->route->dialect == DIALECT_TEI;
    if (value->type == WALK_NIL)
        return;
    if (bytes_are(key, "query"))
        string_take(r, "query", value, &request->query);
    else if (bytes_are(key, "model"))
        string_take(r, "model", value, &request->model);
    else if (bytes_are(key, "truncate"))
        truncate_take(r, value);
    else if (is_tei && bytes_are(key, "truncation_direction"))
        direction_check(r, value);
    else if (is_tei && bytes_are(key, "raw_scores"))
        bool_take(r, "raw_scores", value, &request->wants_raw_scores);
    else if (is_tei && bytes_are(key, "return_text"))
        bool_take(r, "return_text", value, &request->wants_texts);
    else if (!is_tei && bytes_are(key, "return_documents"))
        bool_take(r, "return_documents", value, &request->wants_texts);
    else if (!is_tei && bytes_are(key, "top_n"))
        top_take(r, value);
}

static void query_check(struct reading *r)
{
    const struct bytes query = r->request->query;
    if (!query.ptr)
        serve_fail(r->request, bad_status(r->request), "query", NULL,
                   "`query` is missing: send what the texts should answer");
    else if (query.len == 0)
        serve_fail(r->request, HTTP_BAD_REQUEST, "query", NULL, "`query` is empty");
    else if (query.len > r->rules->max_text_bytes)
        serve_fail(r->request, HTTP_TOO_LARGE, "query", "text_too_large",
                   "`query` has %zu bytes and a text may have %zu", query.len,
                   r->rules->max_text_bytes);
}

static void field_take(struct reading *r, struct bytes key, const struct walk_value *value)
{
    struct serve_request *request = r->request;
    if (value->type == WALK_NIL)
        return;
    if (bytes_are(key, "dimensions"))
        dimensions_take(r, value);
    else if (bytes_are(key, "encoding_format"))
        format_take(r, value);
    else if (bytes_are(key, "prompt_name"))
        prompt_take(r, "prompt_name", value);
    else if (bytes_are(key, "input_type"))
        prompt_take(r, "input_type", value);
    else if (bytes_are(key, "task"))
        prompt_take(r, "task", value);
    else if (bytes_are(key, "truncate"))
        truncate_take(r, value);
    else if (bytes_are(key, "normalize"))
        option_check(r, "normalize", value->type == WALK_BOOL && value->is_true,
                     "true: vectors always have length 1");
    else if (bytes_are(key, "truncation_direction"))
        direction_check(r, value);
    else if (bytes_are(key, "add_special_tokens"))
        bool_take(r, "add_special_tokens", value, &request->adds_specials);
    else if (bytes_are(key, "dtype"))
        dtype_take(r, value);
    else if (bytes_are(key, "title"))
        string_take(r, "title", value, &request->title);
    else if (bytes_are(key, "model"))
        string_take(r, "model", value, &request->model);
}

/* Before all other fields, which are read by the rules of that model. */
static void model_take(struct reading *r, struct walk walk, size_t n_models)
{
    struct serve_request *request = r->request;
    struct walk_value map, key, value;
    msgpack_walk_next(&walk, &map);
    for (uint32_t i = 0; map.type == WALK_MAP && i < map.count; i++) {
        msgpack_walk_next(&walk, &key);
        struct walk head = walk;
        msgpack_walk_next(&head, &value);
        msgpack_walk_skip(&walk);
        /* Once only: keys_check has refused a key that is there twice. */
        if (bytes_are(key.bytes, "model") && value.type == WALK_STR)
            request->model = value.bytes;
    }
    request->rules = request->model.ptr
                         ? serve_rules_named(request, r->rules, n_models, request->model)
                         : serve_rules_default(r->rules, n_models, request->route->kind);
    if (!request->rules)
        request->rules = r->rules; /* it is refused */
    r->rules = request->rules;
}

static void defaults_take(struct serve_request *request)
{
    const struct serve_rules *rules = request->rules;
    request->prompt = request->route->kind == SERVE_TOKENIZE
                          ? prompt_find(rules->info, (struct bytes){"none", 4})
                          : rules->prompt;
    request->dim = rules->dim;
    request->max_tokens = rules->info->max_tokens;
    request->refuses_long = rules->refuses_long;
    request->adds_specials = true;
    request->top = SIZE_MAX;
}

static void fields_take(struct reading *r, struct walk walk)
{
    struct walk_value map, key, value;
    msgpack_walk_next(&walk, &map);
    if (map.type != WALK_MAP) {
        serve_fail(r->request, bad_status(r->request), NULL, NULL,
                   "the body is %s; expected an object", walk_type_name(map.type));
        return;
    }
    for (uint32_t i = 0; i < map.count && !r->request->status; i++) {
        msgpack_walk_next(&walk, &key);
        struct walk whole = walk, head = walk;
        msgpack_walk_next(&head, &value);
        msgpack_walk_skip(&walk);
        if (bytes_are(key.bytes, r->input)) {
            /* Read last: where another field is refused no text is looked at. */
            whole.end = walk.at;
            r->texts = value.type == WALK_NIL ? (struct walk){NULL, NULL} : whole;
        } else if (is_rerank(r)) {
            rerank_field_take(r, key.bytes, &value);
        } else {
            field_take(r, key.bytes, &value);
        }
    }
}

/* 3. JSON. */

static void refuse_json(struct serve_request *request, enum json_fault fault, size_t at)
{
    switch (fault) {
    case JSON_FAULT_END:
        serve_fail(request, HTTP_BAD_REQUEST, NULL, "bad_json", "the body ends inside a value");
        break;
    case JSON_FAULT_DEEP:
        serve_fail(request, HTTP_BAD_REQUEST, NULL, "bad_json",
                   "the body is nested more than %d deep", DEPTH_MAX);
        break;
    case JSON_FAULT_VALUES:
        serve_fail(request, HTTP_TOO_LARGE, NULL, "too_many_values",
                   "the body has more than %d values", SERVE_TOKENS_MAX);
        break;
    default:
        serve_fail(request, HTTP_BAD_REQUEST, NULL, "bad_json",
                   "the body is not JSON: see byte %zu", at);
        break;
    }
}

static struct json_reading reading_of(void)
{
    return (struct json_reading){.max_depth = DEPTH_MAX, .max_values = SERVE_TOKENS_MAX};
}

/* A key that is there twice, as on a queue: which of the two is meant is not ours to guess. */
static void keys_check(struct serve_request *request, struct bytes json, struct bytes packed,
                       const struct serve_rules *rules)
{
    struct json_reading reading = reading_of();
    switch (codec_find_duplicate(packed, rules->max_texts, &request->arena, &reading.wanted_key)) {
    case 0:
        break;
    case -EEXIST:
        /* Read once more, only for the place: msgpack has no places in the body. */
        json_reader_run(json, &reading);
        serve_fail(request, HTTP_BAD_REQUEST, NULL, "duplicate_field",
                   "the body has the same key twice in one object (at byte %zu); send each key "
                   "once",
                   (size_t)(reading.key_at - request->body.ptr));
        break;
    case -E2BIG:
        serve_fail(request, HTTP_TOO_LARGE, NULL, "too_many_values",
                   "the body has an object with too many keys");
        break;
    default: /* NUL in a key was refused before */
        serve_fail(request, HTTP_UNAVAILABLE, NULL, "out_of_memory", "out of memory");
        break;
    }
}

/* As msgpack in the arena. False: refused. */
static bool body_convert(struct serve_request *request, const struct serve_rules *rules,
                         struct bytes *packed)
{
    /* An empty body has no memory. */
    const struct bytes whole = {request->body.ptr ? request->body.ptr : "", request->body.len};
    const struct bytes json = codec_json_lead(whole);
    /* Twice: to learn how long it is as msgpack, then to write that. */
    struct json_reading reading = reading_of();
    enum json_fault fault = json_reader_run(json, &reading);
    if (fault) {
        refuse_json(request, fault, reading.at ? (size_t)(reading.at - whole.ptr) : 0);
        return false;
    }
    packed->len = reading.packed_len;
    reading = reading_of();
    packed->ptr = reading.packed = arena_alloc(&request->arena, packed->len);
    if (!reading.packed) {
        serve_fail(request, HTTP_UNAVAILABLE, NULL, "out_of_memory", "out of memory");
        return false;
    }
    json_reader_run(json, &reading);
    keys_check(request, json, *packed, rules);
    return !request->status;
}

const char *serve_input_name(const struct serve_route *route)
{
    bool is_tei = route->dialect == DIALECT_TEI;
    if (route->kind == SERVE_RERANK)
        return is_tei ? "texts" : "documents";
    return is_tei ? "inputs" : "input";
}

void serve_read(struct serve_request *request, const struct serve_rules *rules, size_t n_models)
{
    struct reading r = {.request = request, .rules = rules};
    r.input = serve_input_name(request->route);
    request->rules = rules;
    struct bytes packed;
    if (!body_convert(request, rules, &packed))
        return;
    const struct walk body = {packed.ptr, packed.ptr + packed.len};
    model_take(&r, body, n_models);
    defaults_take(request);
    if (serve_rules_can(request, rules, n_models))
        fields_take(&r, body);
    assert(request->status || r.texts.at == NULL || r.texts.end <= body.end);
    buffer_close(&request->body); /* the arena has all that is needed */
    if (!request->status && is_rerank(&r))
        query_check(&r);
    if (!request->status)
        texts_take(&r);
}

size_t serve_render(const struct serve_request *request, size_t text, char *to, size_t size)
{
    return prompt_render(request->prompt, request->title, request->texts[text].text, to, size);
}
