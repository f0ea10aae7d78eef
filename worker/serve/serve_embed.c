/*
 * serve_embed.c: see serve_embed.h.
 *
 * The thread that ends the last text of a request writes its answer: 768 values take 90 us as JSON,
 * and the loop has other connections to look after.
 */
#include "worker/serve/serve_embed.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "worker/http/http_server.h"
#include "worker/pipeline/cache.h"
#include "worker/pipeline/embedder.h"
#include "worker/serve/serve_write.h"

/* A session_parallel. */
static size_t share(void *ctx, session_part *step, void *arg, size_t n_parts)
{
    const struct pool_thread *thread = ctx;
    return pool_share(thread->all->pool, thread->index, step, arg, n_parts);
}

static int thread_open(struct pool_thread *thread, const struct session_options *session,
                       struct cache *cache)
{
    const struct serve_threads *all = thread->all;
    struct session_options options = *session;
    options.parallel = share;
    options.parallel_ctx = thread;
    int rc = all->embedder->open(&thread->session, all->model, &options);
    if (rc == 0 && cache)
        rc = cache_lane_open(&thread->cache, cache, all->embedder, thread->session);
    size_t dim = all->rules->dim;
    thread->vectors = calloc(SERVE_SLICE_TEXTS * dim, sizeof *thread->vectors);
    for (size_t i = 0; thread->vectors && i < SERVE_SLICE_TEXTS; i++)
        thread->rows[i] = thread->vectors + i * dim;
    return rc ? rc : thread->vectors ? 0 : -ENOMEM;
}

int serve_threads_open(struct serve_threads *threads, size_t n,
                       const struct session_options *session, struct cache *cache,
                       void (*wakeup)(void *ctx), void *ctx)
{
    struct pool_place *places = calloc(n, sizeof *places);
    threads->threads = calloc(n, sizeof *threads->threads);
    int rc = places && threads->threads ? 0 : -ENOMEM;
    threads->n = threads->threads ? n : 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        threads->threads[i] = (struct pool_thread){.all = threads, .index = i};
        rc = thread_open(&threads->threads[i], session, cache);
        places[i] = (struct pool_place){&threads->threads[i], threads->threads[i].session};
    }
    if (rc == 0)
        rc = pool_join(&threads->user, threads->pool, places, wakeup, ctx);
    free(places);
    if (rc != 0)
        serve_threads_close(threads);
    return rc;
}

void serve_threads_close(struct serve_threads *threads)
{
    /* Waits for jobs that run: from here on nobody uses these sessions. */
    pool_leave(threads->user);
    threads->user = NULL;
    for (size_t i = 0; i < threads->n; i++) {
        cache_lane_close(threads->threads[i].cache);
        threads->embedder->close(threads->threads[i].session);
        free(threads->threads[i].bytes);
        free(threads->threads[i].vectors);
    }
    free(threads->threads);
    threads->threads = NULL;
    threads->n = 0;
}

/* 1. Reading. */

static int make_room(const struct serve_threads *all, struct serve_request *request)
{
    size_t n = request->n_texts;
    request->results = arena_alloc(&request->arena, n * sizeof *request->results);
    request->vectors = arena_alloc(&request->arena, n * all->rules->dim * sizeof *request->vectors);
    return request->results && request->vectors ? 0 : -ENOMEM;
}

/* Its model is known now, and so what waits before it. */
static void admit(const struct serve_threads *to, struct serve_request *request)
{
    uint32_t wait_s;
    if (!serve_queue_admit(to->queue, request, to->queue_tokens, to->queue_ns, &wait_s))
        serve_fail_overloaded(request, wait_s);
}

void serve_run_read(struct job *job, struct pool_thread *thread)
{
    const struct serve_threads *first = thread->all;
    struct serve_request *request =
        (struct serve_request *)(void *)((char *)job - offsetof(struct serve_request, job));
    serve_read(request, first->rules, first->n_models);
    const struct serve_threads *to = first + (request->rules - first->rules);
    if (!request->status && make_room(to, request) != 0)
        serve_fail(request, HTTP_UNAVAILABLE, NULL, "out_of_memory", "out of memory");
    if (!request->status && request->route->kind == SERVE_TOKENIZE)
        serve_write_tokens(request, &to->threads[thread->index]);
    if (!request->status && first->n_models > 1)
        admit(to, request);
    /* From here on other threads may take its texts, and even answer it. */
    job->then = serve_queue_add(to->queue, request);
    /* Reading was a job of the first model's user; takers belong to the model that is meant. */
    for (struct job *taker = job->then; taker; taker = taker->next)
        taker->user = to->user;
}

/* 2. Embedding. */

static size_t render(const struct serve_pick *pick, char *to, size_t size)
{
    return serve_render(pick->request, pick->text, to, size);
}

static bool is_ids(const struct serve_pick *pick)
{
    return pick->request->texts[pick->text].ids != NULL;
}

/* What a finished row is: a unit vector, or a score. */
static bool is_sound(const struct serve_request *request, const float *row, size_t dim)
{
    return request->route->kind == SERVE_RERANK ? isfinite(*row) : embedder_is_unit(row, dim);
}

static void store(const struct serve_pick *pick, const float *row,
                  const struct embed_result *result, size_t dim)
{
    struct serve_request *request = pick->request;
    struct embed_result *to = &request->results[pick->text];
    *to = *result;
    /* Sessions cut as the server is configured; what this client wants is known here only. */
    if (result->truncated && request->refuses_long)
        to->status = -E2BIG;
    else if (row && result->status == 0 && !is_sound(request, row, dim))
        to->status = -EDOM;
    if (row)
        memcpy(request->vectors + pick->text * dim, row, dim * sizeof *row);
}

/* A text that the client does not want cut, and that may be too long, is counted first: mostly a
 * token has at least a byte, and of others `store` hears when the session has cut them. */
static bool is_refused(const struct pool_thread *thread, const struct serve_pick *pick,
                       struct text text)
{
    const struct serve_threads *all = thread->all;
    struct embed_result result;
    size_t n_ids;
    if (!pick->request->refuses_long || text.len + 2 <= all->rules->info->max_tokens)
        return false;
    /* Its status does not matter: where it fails n_tokens is 0, and embed fails alike. */
    all->embedder->tokenize(thread->session, text, NULL, 0, &n_ids, &result);
    bool is_too_long = result.n_tokens > all->rules->info->max_tokens;
    if (is_too_long) {
        result.status = -E2BIG;
        store(pick, NULL, &result, all->rules->dim);
    }
    return is_too_long;
}

/* Texts of a slice, prompted, into thread->texts; which picks they are into `which`. How many, or
 * -ENOMEM. */
static ssize_t load(struct pool_thread *thread, const struct serve_slice *slice,
                    size_t which[SERVE_SLICE_TEXTS])
{
    size_t n_bytes = 0, at = 0;
    ssize_t n = 0;
    for (size_t i = 0; i < slice->n; i++)
        n_bytes += is_ids(&slice->picks[i]) ? 0 : render(&slice->picks[i], NULL, 0);
    if (n_bytes > thread->bytes_room) {
        char *bytes = realloc(thread->bytes, n_bytes);
        if (!bytes)
            return -ENOMEM;
        thread->bytes = bytes;
        /* It stays as large as the largest slice was; texts in it are bounded by max_text_size. */
        thread->bytes_room = n_bytes;
    }
    for (size_t i = 0; i < slice->n; i++) {
        if (is_ids(&slice->picks[i]))
            continue;
        char *to = thread->bytes + at;
        struct text text = {to, render(&slice->picks[i], to, n_bytes - at)};
        at += text.len;
        if (is_refused(thread, &slice->picks[i], text))
            continue;
        which[n] = i;
        assert(which[n] < slice->n);
        assert(n < SERVE_SLICE_TEXTS && at <= n_bytes);
        thread->texts[n++] = text;
    }
    return n;
}

static void embed_texts(struct pool_thread *thread, const struct serve_slice *slice)
{
    struct serve_threads *all = thread->all;
    size_t which[SERVE_SLICE_TEXTS], dim = all->rules->dim;
    ssize_t n = load(thread, slice, which);
    if (n < 0) {
        const struct embed_result failed = {.status = -ENOMEM};
        for (size_t i = 0; i < slice->n; i++)
            store(&slice->picks[i], NULL, &failed, dim);
        return;
    }
    if (n > 0 && thread->cache) {
        struct cache_hits hits;
        cache_embed(thread->cache, thread->texts, (size_t)n, thread->rows, thread->results, &hits);
        atomic_fetch_add(&all->memory_hits, hits.memory);
        atomic_fetch_add(&all->disk_hits, hits.disk);
        atomic_fetch_add(&all->misses, hits.misses);
    } else if (n > 0) {
        all->embedder->embed(thread->session, thread->texts, (size_t)n, thread->rows,
                             thread->results);
    }
    for (ssize_t i = 0; i < n; i++)
        store(&slice->picks[which[i]], thread->rows[i], &thread->results[i], dim);
}

/* Token ids are nobody's text: no prompt, no cache. */
static void embed_ids(const struct pool_thread *thread, const struct serve_slice *slice)
{
    const struct serve_threads *all = thread->all;
    for (size_t i = 0; i < slice->n; i++) {
        const struct serve_pick *pick = &slice->picks[i];
        const struct serve_text *text = &pick->request->texts[pick->text];
        struct embed_result result = {.status = -E2BIG, .n_tokens = (uint32_t)text->n_ids};
        if (!text->ids)
            continue;
        /* Row 0 is free: the texts of this slice are stored by now. */
        if (!pick->request->refuses_long || text->n_ids <= all->rules->info->max_tokens)
            all->embedder->embed_ids(thread->session, text->ids, text->n_ids, thread->vectors,
                                     &result);
        store(pick, thread->vectors, &result, all->rules->dim);
    }
}

/* Of a reranker, which has no prompts and whose scores are not kept. Texts of one request stand
 * together. */
static void rerank_texts(struct pool_thread *thread, const struct serve_slice *slice)
{
    for (size_t i = 0, n; i < slice->n; i += n) {
        const struct serve_request *request = slice->picks[i].request;
        for (n = 0; i + n < slice->n && slice->picks[i + n].request == request; n++) {
            const struct bytes text = request->texts[slice->picks[i + n].text].text;
            thread->texts[n] = (struct text){text.ptr, text.len};
        }
        const struct text query = {request->query.ptr, request->query.len};
        thread->all->embedder->rerank(thread->session, query, thread->texts, n, thread->vectors,
                                      thread->results);
        for (size_t k = 0; k < n; k++)
            store(&slice->picks[i + k], thread->vectors + k, &thread->results[k], 1);
    }
}

void serve_run_slice(struct job *job, struct pool_thread *thread)
{
    struct serve_threads *all = thread->all;
    struct serve_request *done[SERVE_SLICE_TEXTS];
    struct serve_slice slice;
    /* What waits is chosen only now that a thread has time: late, and so fair. */
    serve_queue_take(all->queue, &slice, uv_hrtime(), &job->then);
    if (slice.n == 0)
        return;
    if (all->rules->info->is_reranker) {
        rerank_texts(thread, &slice);
    } else {
        embed_texts(thread, &slice);
        embed_ids(thread, &slice);
    }
    size_t n = serve_queue_done(all->queue, &slice, uv_hrtime(), done);
    for (size_t i = 0; i < n; i++) {
        serve_write_results(done[i], all);
        serve_queue_finish(all->queue, done[i]);
    }
}
