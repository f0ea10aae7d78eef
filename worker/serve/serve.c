/*
 * serve.c: see serve.h. The way of a request, in the order in which it happens:
 *
 *     on_request    it is there, whole: route, key, drain, admission
 *     (pool)        its body is read (serve_run_read); its texts wait in the queue
 *     (pool)        threads take slices of what waits (serve_run_slice); the one that ends its last
 *                   text writes the answer
 *     on_jobs       it is finished and answered
 *     on_done       its answer is taken, or its client gone; it is forgotten
 *
 * A request belongs to two at once, its connection and the pool, and either may end first: it is
 * freed when both have.
 */
#include "worker/serve/serve_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "worker/codec/prompt.h"
#include "worker/serve/serve_write.h"

/* A larger body is a list of texts and gives way to those with few. */
enum { QUERY_BYTES = 4096 };

/* Answers that wait for their clients; who reads none has 30 seconds (serve_life.c). */
enum { ANSWERS_BYTES_MAX = 256 << 20 };

/* Bodies that no thread has read, in largest ones, where their models are not known before. */
enum { UNREAD_TIMES = 8 };

#define MODEL_PATH "/v1/models/" /* before the name of one */

/* The page is one file, asks this server only, and is in nobody's frame. */
#define PAGE_POLICY                                                                                \
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "                  \
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

static const struct serve_route routes[] = {
    {"/v1/embeddings", "POST", DIALECT_OPENAI, SERVE_EMBED, false},
    {"/v1/models", "GET", DIALECT_OPENAI, SERVE_MODELS, false},
    {MODEL_PATH "{model}", "GET", DIALECT_OPENAI, SERVE_MODEL, false},
    {"/v1/rerank", "POST", DIALECT_OPENAI, SERVE_RERANK, false},
    {"/v2/rerank", "POST", DIALECT_OPENAI, SERVE_RERANK, false}, /* Cohere's clients since 5.13 */
    {"/embed", "POST", DIALECT_TEI, SERVE_EMBED, false},
    {"/rerank", "POST", DIALECT_TEI, SERVE_RERANK, false},
    {"/tokenize", "POST", DIALECT_TEI, SERVE_TOKENIZE, false},
    {"/info", "GET", DIALECT_TEI, SERVE_INFO, false},
    {"/api/embed", "POST", DIALECT_OLLAMA, SERVE_EMBED, false},
    {"/health", "GET", DIALECT_OPENAI, SERVE_HEALTH, true},
    {"/readyz", "GET", DIALECT_OPENAI, SERVE_HEALTH, true},
    {"/openapi.json", "GET", DIALECT_OPENAI, SERVE_OPENAPI, true},
    {"/", "GET", DIALECT_OPENAI, SERVE_PAGE, true},
    {"/livez", "GET", DIALECT_OPENAI, SERVE_LIVE, true},
};

enum { N_ROUTES = sizeof routes / sizeof routes[0] };

/* 1. The life of a request. */

static struct serve_request *request_open(struct serve *serve, struct http_request *http,
                                          const struct serve_route *route)
{
    struct serve_request *request = calloc(1, sizeof *request);
    if (!request)
        return NULL;
    struct buffer *body = http_request_body(http);
    /* By size alone, before anything is parsed: the loop must not read a body of megabytes. */
    request->lane = body->len > QUERY_BYTES ? &serve->lists : &serve->queries;
    request->rules =
        route ? serve_rules_default(serve->rules, serve->n_models, route->kind) : serve->rules;
    request->http = http;
    request->route = route;
    request->body = *body;
    request->n_bytes_in = body->len;
    /* The request's from here on: the connection may be gone before a thread has read it. */
    *body = (struct buffer){0};
    request->arrived_ns = uv_hrtime();
    request->deadline_ns = request->arrived_ns + serve->options.timeout_ms * 1000000;
    LIST_INSERT_HEAD(&serve->all, request, all);
    http_request_set_user(http, request);
    return request;
}

/* Once its connection and the pool have let go of it. */
void serve_request_free(struct serve_request *request)
{
    /* Three let go of it, in any order: the connection, the job that reads it, the queue. The last
     * one frees it. */
    if (request->http || !request->is_finished || !request->is_read)
        return;
    LIST_REMOVE(request, all);
    arena_close(&request->arena);
    buffer_close(&request->body);
    buffer_close(&request->answer);
    free(request);
}

static double seconds_from(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) * 1e-9 : 0;
}

/* A text that had the words of a prompt already. */
static void doubled_find(const struct serve_request *request, struct serve_seen *seen)
{
    if (request->route->kind != SERVE_EMBED)
        return;
    for (size_t i = 0; i < request->n_texts && !seen->doubled; i++)
        if (!request->texts[i].ids)
            seen->doubled =
                prompt_doubled(request->rules->info, request->prompt, request->texts[i].text);
    seen->prompt = request->prompt;
}

static void stats_add(struct serve *serve, const struct serve_seen *seen)
{
    struct serve_model_stats *model = &serve->stats.models[seen->model];
    serve->stats.texts += seen->n_texts;
    serve->stats.tokens += seen->n_tokens;
    serve->stats.truncated += seen->n_truncated;
    model->requests++;
    model->texts += seen->n_texts;
    model->tokens += seen->n_tokens;
    model->truncated += seen->n_truncated;
    model->cached += seen->n_cached;
}

/* Returns how many of its texts were cut. */
static size_t report(struct serve *serve, const struct serve_request *request, const char *method,
                     bool is_gone)
{
    uint64_t now_ns = uv_hrtime();
    struct serve_seen seen = {.method = method,
                              .path = request->route ? request->route->path : "other",
                              .status = request->status,
                              .model = (size_t)(request->rules - serve->rules),
                              .is_list = request->lane == &serve->lists,
                              .is_gone = is_gone,
                              .n_bytes_in = request->n_bytes_in,
                              .n_bytes_out = request->answer.len,
                              .took_s = seconds_from(request->arrived_ns, now_ns)};
    seen.wait_s = request->begun_ns ? seconds_from(request->arrived_ns, request->begun_ns) : 0;
    serve->stats.requests++;
    /* One refused before it has results may have default rules, which name no model of it. */
    if (serve->n_models > 1 && request->results)
        seen.model_name = request->rules->name[0];
    if (request->status == HTTP_OK && request->results) {
        for (size_t i = 0; i < request->n_texts; i++) {
            size_t max = request->rules->info->max_tokens, n = request->results[i].n_tokens;
            seen.n_tokens += n < max ? n : max;
            seen.n_truncated += request->results[i].truncated;
        }
        doubled_find(request, &seen);
        seen.n_texts = request->n_texts;
        seen.n_cached = request->n_cached;
        stats_add(serve, &seen);
    }
    if (serve->options.on_seen)
        serve->options.on_seen(serve->options.ctx, &seen);
    return seen.n_truncated;
}

void serve_answer(struct serve *serve, struct serve_request *request)
{
    struct http_request *http = request->http;
    char seconds[16], n_truncated[24], dim[24];
    if (!request->status) /* dropped before it had one, which most likely nobody reads */
        serve_fail(request, HTTP_UNAVAILABLE, NULL, "cancelled", "the request was cancelled");
    size_t n_cut =
        report(serve, request, http ? http_request_method(http) : request->route->method, !http);
    if (!http)
        return;
    struct http_answer out = {
        .status = request->status, .type = request->type, .body = request->answer};
    /* From here on http's, and freed with its response. */
    request->answer = (struct buffer){0};
    /* By room and not by length: that is what a slow client keeps from others. */
    request->n_bytes_out = out.body.room;
    /* Until the client has read it (http's on_done): what waits for slow clients is bounded. */
    serve->n_bytes_out += request->n_bytes_out;
    size_t n = 0;
    if (request->retry_after_s) {
        snprintf(seconds, sizeof seconds, "%u", request->retry_after_s);
        out.fields[n++] = (struct http_field){"Retry-After", seconds};
    }
    if (n_cut) {
        snprintf(n_truncated, sizeof n_truncated, "%zu", n_cut);
        out.fields[n++] = (struct http_field){"X-Embedding-Truncated", n_truncated};
    }
    if (request->status == HTTP_UNAUTHORIZED)
        out.fields[n++] = (struct http_field){"WWW-Authenticate", "Bearer"};
    if (request->route && request->route->kind == SERVE_PAGE)
        out.fields[n++] = (struct http_field){"Content-Security-Policy", PAGE_POLICY};
    if (request->status == HTTP_UNSUPPORTED_TYPE) /* RFC 7694 */
        out.fields[n++] = (struct http_field){"Accept-Encoding", "identity"};
    if (request->status == HTTP_BAD_METHOD)
        out.fields[n++] = (struct http_field){"Allow", request->allowed};
    if (request->form == FORM_OCTETS && request->status == HTTP_OK) {
        snprintf(dim, sizeof dim, "%zu", request->dim);
        out.fields[n++] = (struct http_field){"X-Embedding-Dim", dim};
        out.fields[n++] =
            (struct http_field){"X-Embedding-Dtype", codec_dtype_name(request->dtype)};
    }
    assert(n < HTTP_FIELDS_MAX);
    http_answer(http, &out);
}

/* One that never was the pool's. */
static void answer_now(struct serve *serve, struct serve_request *request)
{
    request->is_read = request->is_finished = true;
    serve_answer(serve, request);
}

/* 2. From the connection. */

static bool is_at(const struct serve_route *route, const char *path)
{
    if (route->kind == SERVE_MODEL)
        return strncmp(path, MODEL_PATH, strlen(MODEL_PATH)) == 0 && path[strlen(MODEL_PATH)];
    return strcmp(path, route->path) == 0;
}

static const struct serve_route *route_find(const struct serve *serve, struct http_request *http,
                                            const char **allowed)
{
    const char *path = http_request_path(http), *method = http_request_method(http);
    *allowed = NULL;
    for (size_t i = 0; i < N_ROUTES; i++) {
        if (!is_at(&routes[i], path) || (routes[i].kind == SERVE_PAGE && !serve->options.has_page))
            continue;
        /* The answer to HEAD is that to GET, whose body libmicrohttpd leaves out. */
        if (strcmp(method, routes[i].method) == 0 ||
            (strcmp(method, "HEAD") == 0 && strcmp(routes[i].method, "GET") == 0))
            return &routes[i];
        *allowed = routes[i].method;
    }
    return NULL;
}

static void answer_short(struct serve *serve, struct serve_request *request)
{
    if (request->route->kind == SERVE_MODELS) {
        serve_write_models(request, serve->rules, serve->n_models);
    } else if (request->route->kind == SERVE_MODEL) {
        serve_write_model(request, serve->rules, serve->n_models,
                          http_request_path(request->http) + strlen(MODEL_PATH));
    } else if (request->route->kind == SERVE_OPENAPI) {
        serve_write_openapi(request);
    } else if (request->route->kind == SERVE_PAGE) {
        serve_write_page(request);
    } else if (request->route->kind == SERVE_INFO) {
        serve_write_info(request, serve->rules, serve->options.queue_tokens);
    } else if (request->route->kind == SERVE_HEALTH && serve->is_draining) {
        serve_fail(request, HTTP_UNAVAILABLE, NULL, "draining", "this server is stopping");
    } else {
        buffer_put_text(&request->answer, "{\"status\":\"ok\"}");
        request->status = HTTP_OK;
        request->type = "application/json";
    }
    answer_now(serve, request);
}

/* Of several models that which is meant is known only when it is read; until then what counts is
 * the memory of bodies. */
static bool admit(struct serve *serve, struct serve_request *request, uint32_t *wait_s)
{
    if (serve->n_models == 1)
        return serve_queue_admit(&request->lane->queues[0], request, serve->options.queue_tokens,
                                 serve->options.timeout_ms * 1000000, wait_s);
    *wait_s = 1;
    if (serve->n_bytes_unread > UNREAD_TIMES * serve->options.body_bytes)
        return false;
    serve->n_bytes_unread += request->n_bytes_in;
    return true;
}

/* Why texts are not taken now; false: they are. */
static bool is_refused(struct serve *serve, struct serve_request *request)
{
    uint32_t wait_s;
    if (serve->is_draining) {
        request->retry_after_s = 1; /* another one of these servers takes it */
        serve_fail(request, HTTP_UNAVAILABLE, NULL, "draining", "this server is stopping");
        return true;
    }
    if (serve->n_bytes_out > ANSWERS_BYTES_MAX) {
        request->retry_after_s = 1;
        serve_fail(request, HTTP_UNAVAILABLE, NULL, "answers_not_taken",
                   "too many bytes of answers wait for clients to read them; try again later");
        return true;
    }
    if (admit(serve, request, &wait_s))
        return false;
    serve_fail_overloaded(request, wait_s);
    return true;
}

static bool has_texts(enum serve_kind kind)
{
    return kind == SERVE_EMBED || kind == SERVE_RERANK || kind == SERVE_TOKENIZE;
}

static enum serve_form form_of(const char *accept)
{
    if (accept && strstr(accept, "application/msgpack"))
        return FORM_MSGPACK;
    return accept && strstr(accept, "application/octet-stream") ? FORM_OCTETS : FORM_JSON;
}

/* A compressed body is refused: no known client compresses what it asks, and a few bytes could
 * become very many. */
static bool is_compressed(struct http_request *http)
{
    const char *encoding = http_request_header(http, "Content-Encoding");
    return encoding && encoding[0] && strcasecmp(encoding, "identity") != 0;
}

static bool has_key(const struct serve *serve, const struct serve_route *route,
                    struct http_request *http)
{
    return route->is_open || !serve->keys ||
           serve_keys_allow(serve->keys, http_request_header(http, "Authorization"));
}

/* What strangers send must not take the memory that there is for all bodies. */
bool serve_wants_body(void *ctx, struct http_request *http)
{
    const struct serve *serve = ctx;
    const char *allowed;
    const struct serve_route *route = route_find(serve, http, &allowed);
    return route && has_texts(route->kind) && has_key(serve, route, http);
}

void serve_on_request(void *ctx, struct http_request *http)
{
    struct serve *serve = ctx;
    const char *allowed;
    const struct serve_route *route = route_find(serve, http, &allowed);
    struct serve_request *request = request_open(serve, http, route);
    if (!request) {
        http_answer_text(http, HTTP_UNAVAILABLE, "text/plain", "out of memory\n");
        return;
    }
    request->allowed = allowed;
    if (!route && allowed)
        serve_fail(request, HTTP_BAD_METHOD, NULL, NULL, "this path takes %s", allowed);
    else if (!route)
        serve_fail(request, HTTP_NOT_FOUND, NULL, NULL,
                   "unknown path; POST /v1/embeddings embeds texts");
    else if (!has_key(serve, route, http))
        serve_fail(request, HTTP_UNAUTHORIZED, NULL, "invalid_api_key",
                   "send one of this server's keys as `Authorization: Bearer KEY`");
    else if (!has_texts(route->kind))
        return answer_short(serve, request);
    else if (is_compressed(http))
        serve_fail(request, HTTP_UNSUPPORTED_TYPE, NULL, "content_encoding",
                   "the body is compressed (header Content-Encoding); send it uncompressed");
    if (route && route->kind == SERVE_EMBED)
        request->form = form_of(http_request_header(http, "Accept"));
    if (request->status || !serve_rules_can(request, serve->rules, serve->n_models) ||
        is_refused(serve, request))
        return answer_now(serve, request);
    serve->n_open++;
    request->job.run = serve_run_read;
    request->job.lane = request->lane == &serve->queries ? POOL_QUERY : POOL_LIST;
    /* Reading is short, and until it is done nobody knows how much there is to embed. */
    request->job.urgent = true;
    /* The first model's threads read requests to all of them. */
    pool_user_submit(request->lane->threads[0].user, &request->job);
}

/* Without a body, which was too large or had no room; or the server stops before it was finished.
 */
void serve_on_refused(void *ctx, struct http_request *http, unsigned status, const char *why)
{
    struct serve *serve = ctx;
    struct serve_request *request = http_request_user(http); /* of one that is cut off at the end */
    const char *allowed;
    if (!request)
        request = request_open(serve, http, route_find(serve, http, &allowed));
    if (!request) {
        http_answer_text(http, status, "text/plain", why);
        return;
    }
    serve_fail(request, status, NULL, NULL, "%s", why);
    answer_now(serve, request);
}

/* A closed connection and a half-closed one, whose client still reads, look the same from here. So
 * it has until the next tick but one, which is enough for a text where little waits. */
void serve_on_gone(void *ctx, struct http_request *http)
{
    struct serve_request *request = http_request_user(http);
    (void)ctx;
    if (request)
        request->gone_ns = uv_hrtime();
}

void serve_on_done(void *ctx, struct http_request *http)
{
    struct serve *serve = ctx;
    struct serve_request *request = http_request_user(http);
    if (!request)
        return;
    /* Before it is dropped: what is answered from now on has nobody to go to. */
    request->http = NULL;
    serve->n_bytes_out -= request->n_bytes_out;
    request->n_bytes_out = 0;
    serve_queue_drop(request->lane->queues, request);
    serve_request_free(request);
    /* Perhaps this was the last: the wakeup looks, outside of a call from http. */
    if (serve->is_draining && !serve->is_closing)
        wakeup_send(&serve->wakeup);
}

/* 3. From the pool. */

static void submit(struct pool_user *user, struct job *jobs)
{
    for (struct job *next; jobs; jobs = next) {
        /* Read before: the pool links the job into its own list. */
        next = jobs->next;
        pool_user_submit(user, jobs);
    }
}

static void on_finished(struct serve *serve, struct serve_request *request)
{
    assert(serve->n_open > 0);
    serve->n_open--;
    serve_answer(serve, request);
    serve_request_free(request);
}

static void on_read(struct serve *serve, struct serve_request *request)
{
    if (serve->n_models > 1) {
        assert(serve->n_bytes_unread >= request->n_bytes_in);
        serve->n_bytes_unread -= request->n_bytes_in;
    }
    request->is_read = true;
    serve_request_free(request); /* answered, and that taken, before its job came back */
}

/* Of one model. */
static void lane_collect(struct serve *serve, struct serve_lane *lane, size_t model)
{
    struct pool_user *user = lane->threads[model].user;
    struct serve_queue *queue = &lane->queues[model];
    for (struct job *job = pool_user_finished(user), *next; job; job = next) {
        next = job->next;
        if (job->run == serve_run_slice)
            submit(user, serve_queue_return(queue, job));
        else
            on_read(serve, (struct serve_request *)(void *)((char *)job -
                                                            offsetof(struct serve_request, job)));
    }
    struct serve_request *request;
    while ((request = serve_queue_finished(queue)))
        on_finished(serve, request);
}

void serve_on_jobs(void *ctx)
{
    struct serve *serve = ctx;
    /* Woken before the close, called after it: the users of the pool are gone. */
    if (serve->is_closing)
        return;
    for (size_t i = 0; i < serve->n_models; i++) {
        lane_collect(serve, &serve->queries, i);
        lane_collect(serve, &serve->lists, i);
    }
    if (serve->is_draining && LIST_EMPTY(&serve->all)) /* answers are taken, too */
        serve->close(serve, true);
}

static void queue_expire(struct serve *serve, struct serve_queue *queue, uint64_t now_ns)
{
    struct serve_request *request;
    /* Dropped under the lock, so no thread writes its answer any more: that is ours. */
    while ((request = serve_queue_expire(queue, now_ns)))
        serve_fail(request, HTTP_UNAVAILABLE, NULL, "timeout",
                   "the request was not finished within %llu ms",
                   (unsigned long long)serve->options.timeout_ms);
}

void serve_on_tick(uv_timer_t *tick)
{
    struct serve *serve = tick->data;
    struct serve_request *request;
    uint64_t now_ns = uv_hrtime();
    for (size_t i = 0; i < serve->n_models; i++) {
        queue_expire(serve, &serve->queries.queues[i], now_ns);
        queue_expire(serve, &serve->lists.queues[i], now_ns);
    }
    LIST_FOREACH(request, &serve->all, all)
    {
        if (request->gone_ns && now_ns - request->gone_ns >= SERVE_TICK_MS * 1000000ull)
            serve_queue_drop(request->lane->queues, request);
    }
    if (serve->is_draining && uv_now(serve->loop) >= serve->drained_by_ms)
        serve->close(serve, serve->n_open == 0);
    else
        serve_on_jobs(serve);
}
