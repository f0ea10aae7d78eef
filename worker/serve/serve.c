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
#include "worker/serve/serve.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/codec/prompt.h"
#include "worker/http/http_server.h"
#include "worker/pipeline/embedder.h"
#include "worker/serve/serve_keys.h"
#include "worker/serve/serve_write.h"

enum {
    CONNECTION_BYTES = 32 * 1024,
    BODIES_TIMES = 8, /* bodies in memory at once, in largest ones */
    TICK_MS = 250,
    ROOM_TIMES = 2, /* connections that may be there with those that are being closed */
};

struct serve {
    struct serve_options options;
    uv_loop_t *loop;
    struct http_server *http;
    struct serve_keys *keys; /* NULL: everybody may ask */
    struct serve_rules rules;
    struct serve_queue queue;
    struct serve_threads threads;
    uv_async_t bell;
    uv_timer_t tick; /* deadlines */
    size_t n_handles;
    LIST_HEAD(, serve_request) all;
    size_t n_open; /* requests with texts, from admission to their end */
    struct serve_stats stats;
    bool is_draining, is_closing, in_time;
    uint64_t drained_by_ms;
    void (*ended)(void *ctx, bool in_time);
    void *ended_ctx;
};

static const struct serve_route routes[] = {
    {"/v1/embeddings", "POST", DIALECT_OPENAI, SERVE_EMBED, false},
    {"/v1/models", "GET", DIALECT_OPENAI, SERVE_MODELS, false},
    {"/embed", "POST", DIALECT_TEI, SERVE_EMBED, false},
    {"/tokenize", "POST", DIALECT_TEI, SERVE_TOKENIZE, false},
    {"/info", "GET", DIALECT_TEI, SERVE_INFO, false},
    {"/api/embed", "POST", DIALECT_OLLAMA, SERVE_EMBED, false},
    {"/health", "GET", DIALECT_OPENAI, SERVE_HEALTH, true},
    {"/readyz", "GET", DIALECT_OPENAI, SERVE_HEALTH, true},
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
    request->serve = serve;
    request->http = http;
    request->route = route;
    request->body = *body;
    request->n_bytes_in = body->len;
    *body = (struct buffer){0};
    request->arrived_ns = uv_hrtime();
    request->deadline_ns = request->arrived_ns + serve->options.timeout_ms * 1000000;
    LIST_INSERT_HEAD(&serve->all, request, all);
    http_request_set_user(http, request);
    return request;
}

/* Once its connection and the pool have let go of it. */
static void request_free(struct serve_request *request)
{
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

/* Returns how many of its texts were cut. */
static size_t report(struct serve *serve, const struct serve_request *request, const char *method,
                     bool is_gone)
{
    uint64_t now_ns = uv_hrtime();
    struct serve_seen seen = {.method = method,
                              .path = request->route ? request->route->path : "other",
                              .status = request->status,
                              .is_gone = is_gone,
                              .n_bytes_in = request->n_bytes_in,
                              .n_bytes_out = request->answer.len,
                              .took_s = seconds_from(request->arrived_ns, now_ns)};
    seen.wait_s = request->begun_ns ? seconds_from(request->arrived_ns, request->begun_ns) : 0;
    serve->stats.requests++;
    if (request->status == HTTP_OK && request->results) {
        for (size_t i = 0; i < request->n_texts; i++) {
            size_t max = serve->rules.info->max_tokens, n = request->results[i].n_tokens;
            seen.n_tokens += n < max ? n : max;
            seen.n_truncated += request->results[i].truncated;
        }
        seen.n_texts = request->n_texts;
        seen.n_cached = request->n_cached;
        serve->stats.texts += seen.n_texts;
        serve->stats.tokens += seen.n_tokens;
        serve->stats.truncated += seen.n_truncated;
    }
    if (serve->options.on_seen)
        serve->options.on_seen(serve->options.ctx, &seen);
    return seen.n_truncated;
}

static void answer(struct serve *serve, struct serve_request *request)
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
    request->answer = (struct buffer){0};
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
    answer(serve, request);
}

/* 2. From the connection. */

static const struct serve_route *route_find(struct http_request *http, const char **allowed)
{
    const char *path = http_request_path(http), *method = http_request_method(http);
    *allowed = NULL;
    for (size_t i = 0; i < N_ROUTES; i++) {
        if (strcmp(path, routes[i].path) != 0)
            continue;
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
        serve_write_models(request, &serve->rules);
    } else if (request->route->kind == SERVE_INFO) {
        serve_write_info(request, &serve->rules, serve->options.queue_tokens);
    } else if (request->route->kind == SERVE_HEALTH && serve->is_draining) {
        serve_fail(request, HTTP_UNAVAILABLE, NULL, "draining", "this server is stopping");
    } else {
        buffer_put_text(&request->answer, "{\"status\":\"ok\"}");
        request->status = HTTP_OK;
        request->type = "application/json";
    }
    answer_now(serve, request);
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
    if (serve_queue_admit(&serve->queue, request, serve->options.queue_tokens,
                          serve->options.timeout_ms * 1000000, &wait_s))
        return false;
    request->retry_after_s = wait_s;
    serve_fail(request, HTTP_TOO_MANY, NULL, "overloaded",
               "too much is waiting; try again in %u seconds", wait_s);
    return true;
}

static enum serve_form form_of(const char *accept)
{
    if (accept && strstr(accept, "application/msgpack"))
        return FORM_MSGPACK;
    return accept && strstr(accept, "application/octet-stream") ? FORM_OCTETS : FORM_JSON;
}

static void on_request(void *ctx, struct http_request *http)
{
    struct serve *serve = ctx;
    const char *allowed;
    const struct serve_route *route = route_find(http, &allowed);
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
                   "there is no such path; POST /v1/embeddings embeds texts");
    else if (!route->is_open && serve->keys &&
             !serve_keys_allow(serve->keys, http_request_header(http, "Authorization")))
        serve_fail(request, HTTP_UNAUTHORIZED, NULL, "invalid_api_key",
                   "send one of this server's keys as `Authorization: Bearer KEY`");
    else if (route->kind != SERVE_EMBED && route->kind != SERVE_TOKENIZE)
        return answer_short(serve, request);
    request->form = form_of(http_request_header(http, "Accept"));
    if (request->status || is_refused(serve, request))
        return answer_now(serve, request);
    serve->n_open++;
    request->job.run = serve_run_read;
    request->job.urgent = true;
    pool_submit(serve->threads.pool, &request->job);
}

/* Without a body, which was too large or had no room; or the server stops before it was finished.
 */
static void on_refused(void *ctx, struct http_request *http, unsigned status, const char *why)
{
    struct serve *serve = ctx;
    struct serve_request *request = http_request_user(http); /* of one that is cut off at the end */
    const char *allowed;
    if (!request)
        request = request_open(serve, http, route_find(http, &allowed));
    if (!request) {
        http_answer_text(http, status, "text/plain", why);
        return;
    }
    serve_fail(request, status, NULL, NULL, "%s", why);
    answer_now(serve, request);
}

/* A closed connection and a half-closed one, whose client still reads, look the same from here. So
 * it has until the next tick but one, which is enough for a text where little waits. */
static void on_gone(void *ctx, struct http_request *http)
{
    struct serve_request *request = http_request_user(http);
    (void)ctx;
    if (request)
        request->gone_ns = uv_hrtime();
}

static void on_done(void *ctx, struct http_request *http)
{
    struct serve *serve = ctx;
    struct serve_request *request = http_request_user(http);
    if (!request)
        return;
    request->http = NULL;
    if (!request->is_finished)
        serve_queue_drop(&serve->queue, request);
    request_free(request);
    if (serve->is_draining && !serve->is_closing)
        uv_async_send(&serve->bell);
}

/* 3. From the pool. */

static void submit(struct serve *serve, struct job *jobs)
{
    for (struct job *next; jobs; jobs = next) {
        next = jobs->next;
        pool_submit(serve->threads.pool, jobs);
    }
}

static void on_finished(struct serve *serve, struct serve_request *request)
{
    serve->n_open--;
    answer(serve, request);
    request_free(request);
}

static void close_all(struct serve *serve, bool in_time);

static void on_jobs(uv_async_t *bell)
{
    struct serve *serve = bell->data;
    for (struct job *job = pool_finished(serve->threads.pool), *next; job; job = next) {
        next = job->next;
        if (job->run == serve_run_slice) {
            submit(serve, serve_queue_return(&serve->queue, job));
            continue;
        }
        struct serve_request *request =
            (struct serve_request *)(void *)((char *)job - offsetof(struct serve_request, job));
        request->is_read = true;
    }
    struct serve_request *request;
    while ((request = serve_queue_finished(&serve->queue)))
        on_finished(serve, request);
    if (serve->is_draining && LIST_EMPTY(&serve->all)) /* answers are taken, too */
        close_all(serve, true);
}

static void ring(void *ctx)
{
    uv_async_send(&((struct serve *)ctx)->bell);
}

static void on_tick(uv_timer_t *tick)
{
    struct serve *serve = tick->data;
    struct serve_request *request;
    uint64_t now_ns = uv_hrtime();
    while ((request = serve_queue_expire(&serve->queue, now_ns)))
        serve_fail(request, HTTP_UNAVAILABLE, NULL, "timeout",
                   "the request was not finished within %llu ms",
                   (unsigned long long)serve->options.timeout_ms);
    LIST_FOREACH(request, &serve->all, all)
    {
        if (request->gone_ns && !request->is_finished &&
            now_ns - request->gone_ns >= TICK_MS * 1000000ull)
            serve_queue_drop(&serve->queue, request);
    }
    if (serve->is_draining && uv_now(serve->loop) >= serve->drained_by_ms)
        close_all(serve, serve->n_open == 0);
    else
        on_jobs(&serve->bell);
}

/* 4. Open and close. */

static int rules_open(struct serve *serve, char *err, size_t err_size)
{
    const struct serve_options *o = &serve->options;
    struct serve_rules *rules = &serve->rules;
    rules->info = o->embedder->info(serve->threads.model);
    rules->dim = o->session.dim ? o->session.dim : rules->info->dim;
    rules->prompt = prompt_find(rules->info, (struct bytes){o->prompt, strlen(o->prompt)});
    rules->max_texts = o->max_texts;
    rules->max_text_bytes = o->max_text_bytes;
    rules->refuses_long = o->session.too_long == TOO_LONG_ERROR;
    if (rules->info->is_reranker) {
        snprintf(err, err_size, "the model is a reranker: it gives scores and no embeddings");
        return -EINVAL;
    }
    if (!rules->prompt) {
        snprintf(err, err_size, "unknown prompt '%.60s'; valid prompts: %s", o->prompt,
                 prompt_names());
        return -EINVAL;
    }
    return serve_rules_name(rules, o->models, err, err_size);
}

/* What the model puts around the tokens of a text, by those of an empty one. */
static void find_ends(struct serve *serve)
{
    struct serve_rules *rules = &serve->rules;
    struct embed_result result;
    int32_t ids[4];
    size_t n = 0;
    struct pool_thread *thread = &serve->threads.threads[0];
    if (serve->options.embedder->tokenize &&
        serve->options.embedder->tokenize(thread->session, (struct text){"", 0}, ids, 4, &n,
                                          &result) == 0 &&
        n == 2) {
        memcpy(rules->ends, ids, sizeof rules->ends);
        rules->n_ends = 2;
    }
}

static int open_http(struct serve *serve, char *err, size_t err_size)
{
    const struct serve_options *o = &serve->options;
    const struct http_server_options options = {
        .where = o->where,
        .clients = {.max = o->connections,
                    .of_address = o->connections, /* a proxy is one */
                    .room = ROOM_TIMES * o->connections,
                    .header_ms = 10000,
                    .body_ms = 30000,
                    .answer_ms = 30000,
                    .idle_ms = 75000, /* more than proxies keep theirs, so that they close first */
                    .spares_waiting = true},
        .connection_bytes = CONNECTION_BYTES,
        .body_bytes = o->body_bytes,
        .bodies_bytes = BODIES_TIMES * o->body_bytes,
        .on_request = on_request,
        .on_refused = on_refused,
        .on_gone = on_gone,
        .on_done = on_done,
        .ctx = serve};
    return http_server_open(&serve->http, serve->loop, &options, err, err_size);
}

static void free_all(struct serve *serve)
{
    assert(LIST_EMPTY(&serve->all));
    serve_threads_close(&serve->threads);
    serve_queue_close(&serve->queue);
    serve_keys_close(serve->keys);
    free(serve);
}

static void on_closed(uv_handle_t *handle)
{
    struct serve *serve = handle->data;
    if (--serve->n_handles > 0)
        return;
    void (*ended)(void *ctx, bool in_time) = serve->ended;
    void *ctx = serve->ended_ctx;
    bool in_time = serve->in_time;
    free_all(serve);
    if (ended)
        ended(ctx, in_time);
}

static int open_handles(struct serve *serve)
{
    int rc = uv_async_init(serve->loop, &serve->bell, on_jobs);
    if (rc != 0)
        return rc;
    uv_timer_init(serve->loop, &serve->tick);
    serve->bell.data = serve->tick.data = serve;
    serve->n_handles = 2;
    uv_timer_start(&serve->tick, on_tick, TICK_MS, TICK_MS);
    uv_unref((uv_handle_t *)&serve->bell);
    uv_unref((uv_handle_t *)&serve->tick);
    return 0;
}

static int open_parts(struct serve *serve, const struct model *model, char *err, size_t err_size)
{
    const struct serve_options *o = &serve->options;
    serve->threads.model = model;
    serve->threads.rules = &serve->rules;
    serve->threads.queue = &serve->queue;
    int rc = rules_open(serve, err, err_size);
    if (rc == 0 && o->key_file && o->key_file[0])
        rc = serve_keys_open(&serve->keys, o->key_file, err, err_size);
    if (rc != 0)
        return rc;
    snprintf(err, err_size, "cannot start %zu inference threads: out of memory", o->n_threads);
    rc = serve_queue_open(&serve->queue, serve, o->n_threads, serve_run_slice);
    if (rc == 0)
        rc = open_handles(serve);
    if (rc == 0)
        rc = serve_threads_open(&serve->threads, o->n_threads, model, o->embedder, &o->session,
                                o->cache, ring, serve);
    if (rc == 0)
        find_ends(serve);
    return rc ? rc : open_http(serve, err, err_size);
}

int serve_open(struct serve **out, uv_loop_t *loop, const struct model *model,
               const struct serve_options *options, char *err, size_t err_size)
{
    struct serve *serve = calloc(1, sizeof *serve);
    snprintf(err, err_size, "out of memory");
    if (!serve)
        return -ENOMEM;
    serve->options = *options;
    serve->loop = loop;
    LIST_INIT(&serve->all);
    if (!serve->options.embedder)
        serve->options.embedder = &embedder_sessions;
    int rc = open_parts(serve, model, err, err_size);
    if (rc == 0) {
        *out = serve;
        return 0;
    }
    if (serve->n_handles == 0) {
        free_all(serve);
        return rc;
    }
    uv_close((uv_handle_t *)&serve->bell, on_closed);
    uv_close((uv_handle_t *)&serve->tick, on_closed);
    return rc;
}

const char *serve_address(const struct serve *serve)
{
    return http_server_address(serve->http);
}

bool serve_is_draining(const struct serve *serve)
{
    return serve->is_draining;
}

struct serve_stats serve_stats(struct serve *serve)
{
    struct serve_load load = serve_queue_load(&serve->queue);
    struct serve_stats stats = serve->stats;
    stats.memory_hits = atomic_load(&serve->threads.memory_hits);
    stats.disk_hits = atomic_load(&serve->threads.disk_hits);
    stats.cache_misses = atomic_load(&serve->threads.misses);
    stats.waiting_tokens = load.n_tokens;
    stats.tokens_per_second = load.tokens_per_second;
    stats.open_requests = serve->n_open;
    return stats;
}

/* Threads first, so that nothing of theirs comes any more; what is not finished is answered by 503
 * as the connections close. */
static void close_all(struct serve *serve, bool in_time)
{
    if (serve->is_closing)
        return;
    serve->is_closing = true;
    serve->in_time = in_time;
    struct serve_request *request, *next;
    LIST_FOREACH(request, &serve->all, all)
    {
        if (!request->is_finished)
            serve_queue_drop(&serve->queue, request);
    }
    pool_cancel(serve->threads.pool);
    serve_threads_close(&serve->threads);
    while ((request = serve_queue_finished(&serve->queue)))
        answer(serve, request);
    LIST_FOREACH(request, &serve->all, all)
    {
        request->is_read = request->is_finished = true;
    }
    http_server_close(serve->http);
    for (request = LIST_FIRST(&serve->all); request; request = next) {
        next = LIST_NEXT(request, all);
        request->http = NULL;
        request_free(request);
    }
    uv_close((uv_handle_t *)&serve->bell, on_closed);
    uv_close((uv_handle_t *)&serve->tick, on_closed);
}

void serve_drain(struct serve *serve, void (*ended)(void *ctx, bool in_time), void *ctx)
{
    if (serve->is_draining)
        return;
    serve->is_draining = true;
    serve->ended = ended;
    serve->ended_ctx = ctx;
    serve->drained_by_ms = uv_now(serve->loop) + serve->options.drain_ms;
    http_server_drain(serve->http);
    uv_ref((uv_handle_t *)&serve->tick);
    uv_async_send(&serve->bell);
}
