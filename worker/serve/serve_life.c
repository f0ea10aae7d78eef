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

/* Of one of the models: scores have no dimension to be cut to. */
static struct session_options session_of(const struct serve *serve, size_t model)
{
    struct session_options session = serve->options.session;
    if (serve->n_models > 1 &&
        serve->options.embedder->info(serve->models[model].model)->is_reranker)
        session.dim = 0;
    return session;
}

static int rules_open(struct serve *serve, size_t at, char *err, size_t err_size)
{
    const struct serve_options *o = &serve->options;
    const struct serve_model *model = &serve->models[at];
    struct serve_rules *rules = &serve->rules[at];
    size_t dim = session_of(serve, at).dim;
    rules->info = o->embedder->info(model->model);
    rules->dim = dim ? dim : rules->info->dim;
    rules->prompt = prompt_find(rules->info, bytes_of(o->prompt));
    rules->max_texts = o->max_texts;
    rules->max_text_bytes = o->max_text_bytes;
    rules->refuses_long = o->session.too_long == TOO_LONG_ERROR;
    assert(!rules->info->is_reranker || o->embedder->rerank);
    if (!rules->prompt) {
        snprintf(err, err_size, "unknown prompt '%.60s'; valid prompts: %s", o->prompt,
                 prompt_names());
        return -EINVAL;
    }
    return serve_rules_name(rules, model->name ? model->name : o->models, err, err_size);
}

/* All models have names that tell them apart. */
static int all_rules_open(struct serve *serve, char *err, size_t err_size)
{
    for (size_t i = 0; i < serve->n_models; i++) {
        const struct serve_rules *rules = &serve->rules[i];
        int rc = rules_open(serve, i, err, err_size);
        if (rc != 0)
            return rc;
        const struct bytes name = {rules->name[0], strlen(rules->name[0])};
        for (size_t j = 0; j < i; j++)
            if (serve_rules_find(&serve->rules[j], name)) {
                snprintf(err, err_size, "two models have the name '%s'", rules->name[0]);
                return -EINVAL;
            }
        serve->stats.models[i] =
            (struct serve_model_stats){.name = rules->name[0], .info = rules->info};
    }
    serve->stats.n_models = serve->n_models;
    return 0;
}

/* What the model puts around the tokens of a text, by those of an empty one. */
static void find_ends(struct serve *serve, size_t model)
{
    struct serve_rules *rules = &serve->rules[model];
    struct embed_result result;
    int32_t ids[4];
    size_t n = 0;
    const struct pool_thread *thread = &serve->queries.threads[model].threads[0];
    /* Two ids: one before and one behind, as most models have it; else nothing is said. */
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
    /* The soft limit is often 1,024 for the sake of select(), which is not used here. */
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
    int rc = 0;
    for (size_t i = 0; i < serve->n_models && rc == 0; i++) {
        struct serve_threads *threads = &lane->threads[i];
        *threads = (struct serve_threads){.model = serve->models[i].model,
                                          .embedder = o->embedder,
                                          .rules = &serve->rules[i],
                                          .n_models = serve->n_models,
                                          .queue_tokens = o->queue_tokens,
                                          .queue_ns = o->timeout_ms * 1000000,
                                          .queue = &lane->queues[i],
                                          .pool = o->pool ? o->pool : serve->pool};
        rc = serve_queue_open(&lane->queues[i], i ? lane->queues : NULL, which, o->n_threads,
                              serve_run_slice);
        const struct session_options session = session_of(serve, i);
        if (rc == 0)
            rc = serve_threads_open(threads, o->n_threads, &session, serve->models[i].cache, ring,
                                    serve);
    }
    return rc;
}

/* The first model's first: they read requests to all models. */
static void lane_leave(struct serve *serve, struct serve_lane *lane)
{
    for (size_t i = 0; i < serve->n_models; i++)
        serve_threads_close(&lane->threads[i]);
}

static void lane_close(struct serve *serve, struct serve_lane *lane)
{
    lane_leave(serve, lane);
    for (size_t i = serve->n_models; i-- > 0;)
        serve_queue_close(&lane->queues[i]);
}

static void free_all(struct serve *serve)
{
    assert(LIST_EMPTY(&serve->all));
    lane_close(serve, &serve->queries);
    lane_close(serve, &serve->lists);
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
    /* Neither keeps the loop alive: serve.h promises it. */
    uv_unref((uv_handle_t *)&serve->wakeup.poll);
    uv_unref((uv_handle_t *)&serve->tick);
    return 0;
}

static int open_parts(struct serve *serve, char *err, size_t err_size)
{
    const struct serve_options *o = &serve->options;
    int rc = all_rules_open(serve, err, err_size);
    if (rc == 0 && o->key_file && o->key_file[0])
        rc = serve_keys_open(&serve->keys, o->key_file, err, err_size);
    if (rc != 0)
        return rc;
    /* Of all that fails from here until open_http, which says its own. */
    snprintf(err, err_size, "cannot start %zu inference threads: out of memory", o->n_threads);
    rc = open_handles(serve);
    if (rc == 0 && !o->pool)
        rc = pool_open(&serve->pool, o->n_threads, NULL, NULL, NULL);
    if (rc == 0)
        rc = lane_open(serve, &serve->queries, POOL_QUERY);
    if (rc == 0)
        rc = lane_open(serve, &serve->lists, POOL_LIST);
    for (size_t i = 0; i < serve->n_models && rc == 0; i++)
        find_ends(serve, i);
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
    /* Each is finished by whoever has it: here, or by the job that reads or embeds it. */
    LIST_FOREACH(request, &serve->all, all)
    {
        serve_queue_drop(request->lane->queues, request);
    }
    /* Waits for these jobs. What they finished is answered as it is ... */
    lane_leave(serve, &serve->queries);
    lane_leave(serve, &serve->lists);
    for (size_t i = 0; i < serve->n_models; i++)
        while ((request = serve_queue_finished(&serve->queries.queues[i])) ||
               (request = serve_queue_finished(&serve->lists.queues[i])))
            serve_answer(serve, request);
    /* ... and what was never begun becomes http's to refuse (serve_on_refused). */
    LIST_FOREACH(request, &serve->all, all)
    {
        request->is_read = request->is_finished = true;
    }
    http_server_close(serve->http);
    serve->http = NULL; /* statistics may still be asked for */
    /* Those left had lost their connections before: nobody is there to be answered. */
    for (request = LIST_FIRST(&serve->all); request; request = next) {
        next = LIST_NEXT(request, all);
        request->http = NULL;
        serve_request_free(request);
    }
    wakeup_close(&serve->wakeup, on_closed);
    uv_close((uv_handle_t *)&serve->tick, on_tick_closed);
}

int serve_open(struct serve **out, uv_loop_t *loop, const struct serve_model *models,
               size_t n_models, const struct serve_options *options, char *err, size_t err_size)
{
    struct serve *serve = calloc(1, sizeof *serve);
    assert(n_models > 0 && n_models <= SERVE_MODELS_MAX);
    snprintf(err, err_size, "out of memory");
    if (!serve)
        return -ENOMEM;
    serve->options = *options;
    memcpy(serve->models, models, n_models * sizeof *models);
    serve->n_models = n_models;
    serve->loop = loop;
    /* A pointer, so that serve.c need not call this file, which calls it. */
    serve->close = close_all;
    LIST_INIT(&serve->all);
    if (!serve->options.embedder)
        serve->options.embedder = &embedder_sessions;
    int rc = open_parts(serve, err, err_size);
    if (rc == 0) {
        *out = serve;
        return 0;
    }
    /* Nothing is on the loop yet. Else its handles are closed first, and on_closed frees all. */
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

/* Of all models together. */
static struct serve_lane_stats lane_stats(struct serve_lane *lane, struct serve_stats *sum)
{
    struct serve_lane_stats stats = {0};
    for (size_t i = 0; i < sum->n_models; i++) {
        struct serve_load load = serve_queue_load(&lane->queues[i]);
        stats.waiting_tokens += load.n_tokens;
        stats.tokens_per_second += load.tokens_per_second;
        stats.slices += load.n_slices;
        stats.slice_texts += load.n_texts;
        sum->memory_hits += atomic_load(&lane->threads[i].memory_hits);
        sum->disk_hits += atomic_load(&lane->threads[i].disk_hits);
        sum->cache_misses += atomic_load(&lane->threads[i].misses);
    }
    return stats;
}

struct serve_stats serve_stats(struct serve *serve)
{
    struct serve_stats stats = serve->stats;
    stats.queries = lane_stats(&serve->queries, &stats);
    stats.lists = lane_stats(&serve->lists, &stats);
    stats.open_requests = serve->n_open;
    stats.connections = serve->http ? http_server_connections(serve->http) : 0;
    for (size_t i = 0; i < POOL_LANES; i++)
        stats.lanes[i] = pool_lane_stats(serve->queries.threads[0].pool, (enum pool_lane)i);
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
    /* Now the loop has to stay until the deadline; before, only connections kept it. */
    uv_ref((uv_handle_t *)&serve->tick);
    wakeup_send(&serve->wakeup);
}
