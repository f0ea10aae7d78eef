/*
 * pipeline_life.c: how a pipeline comes to be and how it goes. What happens between is pipeline.c.
 *
 * Opened in this order: batches and sessions, the pool and its wakeup, the source, the sink; closed
 * sink first (`end` in pipeline.c), then the source, then pool and handles here.
 */
#include "worker/pipeline/markdown.h"
#include "worker/pipeline/pipeline_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/pipeline/fanout.h"

static void on_closed(void *ctx)
{
    struct pipeline *p = ctx;
    assert(p->n_handles > 0);
    if (--p->n_handles > 0)
        return;
    /* NULL: pipeline_open has failed, and nobody else knows of p. */
    if (p->ended)
        p->ended(p->ctx, p->how);
    else
        pipeline_close(p);
}

static void on_handle_closed(uv_handle_t *handle)
{
    on_closed(handle->data);
}

/* The pool closes before its wakeup: a thread may be about to send it. */
static void close_handles(struct pipeline *p)
{
    /* Both wait for running jobs; a pool of several users stays for the others. */
    if (p->options.pool)
        pool_leave(p->user);
    else
        pool_close(p->pool);
    p->pool = NULL;
    p->user = NULL;
    wakeup_close(&p->wakeup, on_closed);
    uv_close((uv_handle_t *)&p->linger, on_handle_closed);
    uv_close((uv_handle_t *)&p->deadline, on_handle_closed);
}

static void on_source_closed(void *ctx)
{
    struct pipeline *p = ctx;
    p->source = NULL;
    close_handles(p);
}

int pipeline_fits(const struct pipeline_options *options, const struct model_info *info, char *err,
                  size_t err_size)
{
    const struct chunk_options *chunk = &options->chunk;
    size_t tokens = chunk->max_tokens ? chunk->max_tokens : info->max_tokens;
    if (options->session.dim > info->dim) {
        snprintf(err, err_size,
                 "dim is %zu and the model gives %zu values: set it to 0, which is all of them, or "
                 "to fewer",
                 options->session.dim, info->dim);
        return -EINVAL;
    }
    if (chunk->wanted && (tokens < CHUNK_TOKENS_MIN || tokens > info->max_tokens)) {
        snprintf(err, err_size,
                 "chunk_tokens is %zu: expected %d to %zu, which is what the model takes", tokens,
                 CHUNK_TOKENS_MIN, info->max_tokens);
        return -EINVAL;
    }
    return 0;
}

/* Batches, sessions and what is derived from the options. 0 or negative errno. */
static int prepare(struct pipeline *p, const struct model *model, char *err, size_t err_size)
{
    const struct pipeline_options *o = &p->options;
    struct stages *stages = &p->stages;
    *stages = (struct stages){.options = o, .info = p->info, .embedder = p->embedder};
    stages->prompt = prompt_find(p->info, bytes_of(o->prompt));
    if (!stages->prompt) {
        snprintf(err, err_size, "unknown prompt '%s'; valid prompts: %s", o->prompt,
                 prompt_names());
        return -EINVAL;
    }
    int status = pipeline_fits(o, p->info, err, err_size);
    if (status)
        return status;
    if (o->chunk.max_tokens == 0)
        p->options.chunk.max_tokens = p->info->max_tokens;
    size_t dim = o->session.dim ? o->session.dim : p->info->dim;
    bool is_fast = p->info->precision && strcmp(p->info->precision, "fast") == 0;
    stages->encode = (struct encode_options){.format = o->output_format,
                                             .model = p->info->name,
                                             .fingerprint = p->info->fingerprint,
                                             .precision = is_fast ? "fast" : NULL,
                                             .dim = dim,
                                             .dtype = o->dtype,
                                             .collection = o->collection};
    p->batches = calloc(o->n_batches + EXTRAS_MAX, sizeof *p->batches);
    p->threads = calloc(o->n_threads, sizeof *p->threads);
    if (!p->batches || !p->threads) {
        snprintf(err, err_size, "out of memory for %zu batches and %zu threads", o->n_batches,
                 o->n_threads);
        return -ENOMEM;
    }
    for (size_t i = 0; i < o->n_batches + EXTRAS_MAX; i++) {
        batch_open(&p->batches[i], dim, p->info->max_tokens);
        p->batches[i].is_extra = i >= o->n_batches;
        batch_list_add(i < o->n_batches ? &p->spare : &p->extras, &p->batches[i]);
    }
    for (size_t i = 0; i < o->n_threads; i++) {
        struct session_options session = o->session;
        session.parallel = stages_share;
        session.parallel_ctx = &p->threads[i];
        p->threads[i].stages = stages;
        p->threads[i].index = i;
        status = p->embedder->open(&p->threads[i].session, model, &session);
        if (status) {
            snprintf(err, err_size, "cannot open inference session %zu of %zu: %s", i + 1,
                     o->n_threads, uv_strerror(status));
            return status;
        }
        splitter_open(&p->threads[i].splitter, p->embedder, p->threads[i].session, &o->chunk,
                      o->decode.max_texts);
        if (o->cache &&
            cache_lane_open(&p->threads[i].cache, o->cache, p->embedder, p->threads[i].session)) {
            snprintf(err, err_size, "out of memory");
            return -ENOMEM;
        }
    }
    return 0;
}

/* A prompt that a message names itself is its own affair. */
void pipeline_made_with(const struct pipeline_options *o, const struct model_info *info,
                        char out[MADE_WITH_SIZE])
{
    char chunks[100] = "none";
    if (o->chunk.wanted)
        snprintf(chunks, sizeof chunks, "%zu tokens, %zu repeated%s, " CHUNKS_RULES,
                 o->chunk.max_tokens ? o->chunk.max_tokens : info->max_tokens, o->chunk.overlap,
                 o->chunk.by_markdown ? ", " MARKDOWN_RULES : "");
    snprintf(out, MADE_WITH_SIZE,
             "model: %.96s\nmodel_fingerprint: %s\nprecision: %s\ndim: %zu\ndtype: %s\n"
             "prompt: %.60s\nchunks: %s\n",
             info->name, info->fingerprint, info->precision ? info->precision : "exact",
             o->session.dim ? o->session.dim : info->dim, codec_dtype_name(o->dtype), o->prompt,
             chunks);
}

/* The pool, and the handles of the loop that go with it. 0 or negative errno. */
static int start_pool(struct pipeline *p, char *err, size_t err_size)
{
    size_t n = p->options.n_threads;
    struct pool_place *places = calloc(n, sizeof *places);
    /* Before the threads: one may send it as soon as it runs. */
    int status = places ? wakeup_open(&p->wakeup, p->loop, pipeline_on_jobs, p) : -ENOMEM;
    if (!status) {
        uv_timer_init(p->loop, &p->linger);
        uv_timer_init(p->loop, &p->deadline);
        p->linger.data = p->deadline.data = p;
        /* Three handles are on the loop: from here on only close_handles ends it. */
        p->n_handles = 3;
        for (size_t i = 0; i < n; i++)
            places[i] = (struct pool_place){&p->threads[i], p->threads[i].session};
        p->pool = p->options.pool;
        if (p->pool)
            status = pool_join(&p->user, p->pool, places, pipeline_send_wakeup, p);
        else
            status = pool_open(&p->pool, n, places, pipeline_send_wakeup, p);
    }
    /* A pool of its own has one user, who is in it from the start. */
    if (!status && !p->user)
        p->user = pool_first(p->pool);
    p->stages.pool = p->pool;
    p->stages.user = p->user;
    free(places);
    if (status)
        snprintf(err, err_size, "cannot start %zu inference threads: %s", n, uv_strerror(status));
    return status;
}

/* peer: what the sink acks. */
static int open_source(struct pipeline *p, const struct source_ops *source,
                       const struct settings *settings, struct source **peer, char *err,
                       size_t err_size)
{
    struct fanout *fanout = p->options.fanout;
    if (fanout) {
        p->source = fanout_join(fanout, p->options.fanout_index, &pipeline_source_events, p);
        *peer = fanout_source(fanout);
        return 0;
    }
    int rc = source->open(&p->source, p->loop, settings, &pipeline_source_events, p, err, err_size);
    *peer = p->source;
    return rc;
}

int pipeline_open(struct pipeline **out, uv_loop_t *loop, const struct model *model,
                  const struct source_ops *source, const struct sink_ops *sink,
                  const struct settings *settings, const struct pipeline_options *options,
                  void (*ended)(void *ctx, enum pipeline_end how), void *ctx, char *err,
                  size_t err_size)
{
    assert(options->n_threads && options->n_batches && options->batch_texts &&
           options->batch_bytes && ended);
    struct pipeline *p = calloc(1, sizeof *p);
    if (!p) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    p->options = *options;
    p->embedder = options->embedder ? options->embedder : &embedder_sessions;
    p->info = p->embedder->info(model);
    p->loop = loop;
    p->on_source_closed = on_source_closed;
    credit_open(&p->credit);
    p->ctx = ctx;
    p->observer = (struct observer){options->observer, ctx};

    int status = prepare(p, model, err, err_size);
    if (!status)
        status = start_pool(p, err, err_size);
    struct source *peer = NULL;
    if (!status)
        status = open_source(p, source, settings, &peer, err, err_size);
    if (!status)
        status =
            sink->open(&p->sink, loop, settings, peer, &pipeline_sink_events, p, err, err_size);
    if (status)
        goto fail;
    /* How it stores texts a sink says as it opens; stages read this when the first batch comes. */
    p->stages.encode.per_text = p->sink->layout == SINK_PER_TEXT ||
                                p->sink->layout == SINK_VECTORS || p->sink->layout == SINK_ROWS;
    if (p->sink->layout == SINK_ROWS)
        p->stages.encode.format = OUTPUT_FIELDS;
    if (codec_format_is_rows(p->stages.encode.format) && p->sink->layout == SINK_PER_MESSAGE)
        p->options.decode.max_texts = 1; /* who reads the broker takes a record for a row */
    p->stages.layout = p->sink->layout;
    pipeline_made_with(&p->options, p->info, p->made_with);
    if (!p->options.allow_mixed)
        p->sink->made_with = p->made_with;
    /* Only now: until here a failure frees p and is no event. */
    p->ended = ended;
    *out = p;
    /* Sources give nothing before they are asked: this is the first time. */
    pipeline_advance(p);
    return 0;

fail:
    /* Events of what is open already are ignored while it closes. */
    p->phase = ENDING;
    if (p->source)
        pipeline_close_source(p);
    else if (p->n_handles)
        close_handles(p);
    else
        pipeline_close(p);
    return status;
}

const struct pipeline_stats *pipeline_stats(const struct pipeline *p)
{
    return &p->stats;
}

/* All of them are counts of one type, without gaps. */
void pipeline_stats_add(struct pipeline_stats *to, const struct pipeline_stats *from)
{
    enum { N = sizeof *to / sizeof(uint64_t) };
    uint64_t sums[N], more[N];
    _Static_assert(sizeof *to == sizeof sums, "a pipeline_stats is counts");
    memcpy(sums, to, sizeof sums);
    memcpy(more, from, sizeof more);
    for (size_t i = 0; i < N; i++)
        sums[i] += more[i];
    memcpy(to, sums, sizeof sums);
}

struct pipeline_gauges pipeline_gauges(const struct pipeline *p)
{
    struct pipeline_gauges gauges = {.credit_messages = p->credit.granted,
                                     .credit_bytes = p->credit.granted_bytes,
                                     .inflight_bytes = p->inflight_bytes,
                                     .n_threads = p->options.n_threads,
                                     .draining = p->phase != RUNNING};
    struct pool_help help = p->pool ? pool_help(p->pool) : (struct pool_help){0};
    /* Jobs that wait for a thread count too, so no more than there are threads. */
    size_t n_busy = (p->user ? pool_user_jobs(p->user) : 0) + help.n_threads;
    gauges.busy_threads = n_busy < gauges.n_threads ? n_busy : gauges.n_threads;
    gauges.helping_threads = help.n_threads;
    gauges.help_ns = help.ended_ns;
    return gauges;
}

const char *pipeline_failure(const struct pipeline *p)
{
    return p->failure;
}

void pipeline_close(struct pipeline *p)
{
    if (!p)
        return;
    for (size_t i = 0; p->threads && i < p->options.n_threads; i++) {
        /* The lane borrows the session. */
        cache_lane_close(p->threads[i].cache);
        p->embedder->close(p->threads[i].session);
        scratch_close(&p->threads[i].scratch);
        splitter_close(&p->threads[i].splitter);
    }
    for (size_t i = 0; p->batches && i < p->options.n_batches + EXTRAS_MAX; i++)
        batch_close(&p->batches[i]);
    backlog_close(&p->backlog);
    free(p->threads);
    free(p->batches);
    free(p);
}
