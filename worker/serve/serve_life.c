/*
 * serve_life.c: how a server comes to be and how it goes. What happens between is serve.c.
 */
#include "worker/serve/serve_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "worker/codec/prompt.h"
#include "worker/pipeline/embedder.h"

enum {
    CONNECTION_BYTES = 32 * 1024,
    BODIES_TIMES = 8,   /* bodies in memory at once, in largest ones */
    FILES_BESIDE = 200, /* open files of all else: brokers, pipes, the model */
    ROOM_TIMES = 2,     /* connections that may be there with those that are being closed */
};

static void ring(void *ctx)
{
    wakeup_send(&((struct serve *)ctx)->wakeup);
}

static int rules_open(struct serve *serve, char *err, size_t err_size)
{
    const struct serve_options *o = &serve->options;
    struct serve_rules *rules = &serve->rules;
    rules->info = o->embedder->info(serve->model);
    rules->dim = o->session.dim ? o->session.dim : rules->info->dim;
    rules->prompt = prompt_find(rules->info, (struct bytes){o->prompt, strlen(o->prompt)});
    rules->max_texts = o->max_texts;
    rules->max_text_bytes = o->max_text_bytes;
    rules->refuses_long = o->session.too_long == TOO_LONG_ERROR;
    assert(!rules->info->is_reranker || o->embedder->rerank);
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
    const struct pool_thread *thread = &serve->queries.threads.threads[0];
    if (serve->options.embedder->tokenize &&
        serve->options.embedder->tokenize(thread->session, (struct text){"", 0}, ids, 4, &n,
                                          &result) == 0 &&
        n == 2) {
        memcpy(rules->ends, ids, sizeof rules->ends);
        rules->n_ends = 2;
    }
}

/* All connections that may be there at once take an open file each. */
static int files_allow(size_t n, char *err, size_t err_size)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= n)
        return 0;
    if (limit.rlim_max < n) {
        snprintf(err, err_size,
                 "http.connections takes %zu open files and the limit is %llu: lower it, or raise "
                 "that (ulimit -n, LimitNOFILE)",
                 n, (unsigned long long)limit.rlim_max);
        return -EINVAL;
    }
    limit.rlim_cur = n;
    snprintf(err, err_size, "cannot raise the limit of open files to %zu: ulimit -n does", n);
    return setrlimit(RLIMIT_NOFILE, &limit) == 0 ? 0 : -errno;
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
        .wants_body = serve_wants_body,
        .on_request = serve_on_request,
        .on_refused = serve_on_refused,
        .on_gone = serve_on_gone,
        .on_done = serve_on_done,
        .ctx = serve};
    int rc = files_allow(options.clients.room + FILES_BESIDE, err, err_size);
    return rc ? rc : http_server_open(&serve->http, serve->loop, &options, err, err_size);
}

static int lane_open(struct serve *serve, struct serve_lane *lane, enum pool_lane which)
{
    const struct serve_options *o = &serve->options;
    lane->threads.pool = o->pool ? o->pool : serve->pool;
    lane->threads.model = serve->model;
    lane->threads.embedder = o->embedder;
    lane->threads.rules = &serve->rules;
    lane->threads.queue = &lane->queue;
    int rc = serve_queue_open(&lane->queue, which, o->n_threads, serve_run_slice);
    return rc ? rc
              : serve_threads_open(&lane->threads, o->n_threads, &o->session, o->cache, ring,
                                   serve);
}

static void lane_close(struct serve_lane *lane)
{
    serve_threads_close(&lane->threads);
    serve_queue_close(&lane->queue);
}

static void free_all(struct serve *serve)
{
    assert(LIST_EMPTY(&serve->all));
    lane_close(&serve->queries);
    lane_close(&serve->lists);
    pool_close(serve->pool);
    serve_keys_close(serve->keys);
    free(serve);
}

static void on_closed(void *arg)
{
    struct serve *serve = arg;
    assert(serve->n_handles > 0);
    if (--serve->n_handles > 0)
        return;
    void (*ended)(void *ctx, bool in_time) = serve->ended;
    void *ctx = serve->ended_ctx;
    bool in_time = serve->in_time;
    free_all(serve);
    if (ended)
        ended(ctx, in_time);
}

static void on_tick_closed(uv_handle_t *tick)
{
    on_closed(tick->data);
}

static int open_handles(struct serve *serve)
{
    int rc = wakeup_open(&serve->wakeup, serve->loop, serve_on_jobs, serve);
    if (rc != 0)
        return rc;
    uv_timer_init(serve->loop, &serve->tick);
    serve->tick.data = serve;
    serve->n_handles = 2;
    uv_timer_start(&serve->tick, serve_on_tick, SERVE_TICK_MS, SERVE_TICK_MS);
    uv_unref((uv_handle_t *)&serve->wakeup.poll);
    uv_unref((uv_handle_t *)&serve->tick);
    return 0;
}

static int open_parts(struct serve *serve, const struct model *model, char *err, size_t err_size)
{
    const struct serve_options *o = &serve->options;
    serve->model = model;
    int rc = rules_open(serve, err, err_size);
    if (rc == 0 && o->key_file && o->key_file[0])
        rc = serve_keys_open(&serve->keys, o->key_file, err, err_size);
    if (rc != 0)
        return rc;
    snprintf(err, err_size, "cannot start %zu inference threads: out of memory", o->n_threads);
    rc = open_handles(serve);
    if (rc == 0 && !o->pool)
        rc = pool_open(&serve->pool, o->n_threads, NULL, NULL, NULL);
    if (rc == 0)
        rc = lane_open(serve, &serve->queries, POOL_QUERY);
    if (rc == 0)
        rc = lane_open(serve, &serve->lists, POOL_LIST);
    if (rc == 0)
        find_ends(serve);
    return rc ? rc : open_http(serve, err, err_size);
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
        serve_queue_drop(&request->lane->queue, request);
    }
    serve_threads_close(&serve->queries.threads);
    serve_threads_close(&serve->lists.threads);
    while ((request = serve_queue_finished(&serve->queries.queue)) ||
           (request = serve_queue_finished(&serve->lists.queue)))
        serve_answer(serve, request);
    LIST_FOREACH(request, &serve->all, all)
    {
        request->is_read = request->is_finished = true;
    }
    http_server_close(serve->http);
    serve->http = NULL; /* statistics may still be asked for */
    for (request = LIST_FIRST(&serve->all); request; request = next) {
        next = LIST_NEXT(request, all);
        request->http = NULL;
        serve_request_free(request);
    }
    wakeup_close(&serve->wakeup, on_closed);
    uv_close((uv_handle_t *)&serve->tick, on_tick_closed);
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
    serve->close = close_all;
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
    wakeup_close(&serve->wakeup, on_closed);
    uv_close((uv_handle_t *)&serve->tick, on_tick_closed);
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

static struct serve_lane_stats lane_stats(struct serve_lane *lane, struct serve_stats *sum)
{
    struct serve_load load = serve_queue_load(&lane->queue);
    sum->memory_hits += atomic_load(&lane->threads.memory_hits);
    sum->disk_hits += atomic_load(&lane->threads.disk_hits);
    sum->cache_misses += atomic_load(&lane->threads.misses);
    return (struct serve_lane_stats){load.n_tokens, load.tokens_per_second, load.n_slices,
                                     load.n_texts};
}

struct serve_stats serve_stats(struct serve *serve)
{
    struct serve_stats stats = serve->stats;
    stats.queries = lane_stats(&serve->queries, &stats);
    stats.lists = lane_stats(&serve->lists, &stats);
    stats.open_requests = serve->n_open;
    stats.connections = serve->http ? http_server_connections(serve->http) : 0;
    for (size_t i = 0; i < POOL_LANES; i++)
        stats.lanes[i] = pool_lane_stats(serve->queries.threads.pool, (enum pool_lane)i);
    return stats;
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
    wakeup_send(&serve->wakeup);
}
