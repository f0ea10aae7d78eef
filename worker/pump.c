/*
 * pump.c: see pump.h. In the order of a message: on_messages, on_published, then the end.
 */
#include "worker/pump.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/records.h"

struct carrier {
    struct record record; /* first member */
    struct carrier *next; /* when free */
    struct part part;
    size_t size; /* of the value: the origin may be gone when it is published */
    struct arena arena;
};

struct pump {
    struct pump_options options;
    uv_loop_t *loop;
    struct source *source; /* NULL when closed, as is sink */
    struct sink *sink;
    uv_timer_t idle, deadline;
    size_t n_handles;
    struct carrier *carriers; /* [max_messages] */
    struct carrier *spare;
    size_t n_inflight, bytes_inflight, granted, granted_bytes;
    bool draining, ending, source_failed;
    uint64_t end_by_ms;
    enum pipeline_end how;
    char failure[400];
    struct pipeline_stats stats;
    void (*ended)(void *ctx, enum pipeline_end how);
    void *ctx;
};

static void end(struct pump *pump, enum pipeline_end how);
static void on_idle(uv_timer_t *timer);

static void fail(struct pump *pump, const char *side, int err, const char *why)
{
    if (!pump->ending)
        snprintf(pump->failure, sizeof pump->failure, "the %s is gone for good: %s (%s)", side, why,
                 uv_strerror(err));
    end(pump, PIPELINE_FAILED);
}

/* Ask for what there is room for, or end when there is nothing left to do. */
static void advance(struct pump *pump)
{
    const struct pump_options *o = &pump->options;
    if (pump->ending)
        return;
    if (o->total > 0 && pump->stats.received >= o->total)
        pump->draining = true;
    size_t n = o->max_messages - pump->n_inflight, n_bytes = 0;
    if (pump->bytes_inflight < o->max_bytes)
        n_bytes = o->max_bytes - pump->bytes_inflight;
    if (o->total > 0 && n > o->total - pump->stats.received)
        n = (size_t)(o->total - pump->stats.received);
    if (pump->draining || n == 0 || n_bytes == 0)
        n = n_bytes = 0;
    if (n != pump->granted || n_bytes != pump->granted_bytes) {
        pump->granted = n;
        pump->granted_bytes = n_bytes;
        pump->source->ops->request(pump->source, n, n_bytes);
    }
    if (pump->draining && pump->n_inflight == 0)
        end(pump, PIPELINE_DRAINED);
}

static void bury(struct record *record, const char *code, const char *reason)
{
    record->dead_code = code;
    record->dead_reason = reason;
}

/* NULL: no memory. */
static struct record *load(struct pump *pump, struct message *message)
{
    struct carrier *carrier = pump->spare;
    pump->spare = carrier->next;
    carrier->part = (struct part){.id = message->key, .value = message->value};
    carrier->record = (struct record){.origin = message,
                                      .parts = &carrier->part,
                                      .n_parts = 1,
                                      .headers = message->headers,
                                      .n_headers = message->n_headers};
    if (message->problem) {
        if (record_problem(message, &carrier->arena, &carrier->record.dead_code,
                           &carrier->record.dead_reason) != 0)
            return NULL;
    } else if (message->value.len == 0) {
        bury(&carrier->record, "empty_text", "the message is empty");
    } else if (pump->options.shape && pump->options.shape(pump->options.shape_ctx, message,
                                                          &carrier->record, &carrier->arena) != 0) {
        return NULL;
    }
    carrier->size = message->value.len;
    pump->n_inflight++;
    pump->bytes_inflight += carrier->size;
    return &carrier->record;
}

static void on_messages(void *ctx, struct message **messages, size_t n)
{
    struct pump *pump = ctx;
    struct record *records[64];
    if (pump->ending)
        return; /* the source is about to be closed, which releases them */
    pump->stats.received += n;
    pump->granted -= n < pump->granted ? n : pump->granted;
    if (pump->options.idle_ms > 0)
        uv_timer_start(&pump->idle, on_idle, pump->options.idle_ms, 0);
    for (size_t i = 0, filled = 0; i < n; i++) {
        struct record *record = load(pump, messages[i]);
        if (!record)
            return fail(pump, "input", -ENOMEM, "out of memory");
        records[filled++] = record;
        if (filled == 64 || i + 1 == n) {
            pump->sink->ops->publish(pump->sink, records, filled);
            filled = 0;
        }
    }
    pump->stats.inflight_texts = pump->n_inflight;
    pump->granted_bytes = 0; /* what is left of it is not known */
    advance(pump);
}

static void publish_smaller(struct pump *pump, struct record *record)
{
    if (record->dead_code)
        return fail(pump, "output", -E2BIG, "it refuses a dead letter as too large");
    struct carrier *carrier = (struct carrier *)record;
    carrier->part = (struct part){.id = record->origin->key};
    carrier->part.value = (struct bytes){"", 0};
    record->parts = &carrier->part;
    record->n_parts = 1;
    bury(record, "output_too_large", "the message is larger than the output takes");
    pump->sink->ops->publish(pump->sink, &record, 1);
}

static void on_published(void *ctx, struct record *record, enum published how)
{
    struct pump *pump = ctx;
    struct carrier *carrier = (struct carrier *)record;
    if (how == PUBLISH_TOO_LARGE) {
        if (!pump->ending)
            publish_smaller(pump, record);
        return;
    }
    if (how == PUBLISH_NOT_OURS)
        pump->stats.not_ours++;
    else if (record->dead_code)
        pump->stats.dead_letters++;
    else
        pump->stats.texts = pump->stats.embedded_texts = ++pump->stats.messages;
    pump->n_inflight--;
    pump->bytes_inflight -= carrier->size;
    pump->stats.inflight_texts = pump->n_inflight;
    if (how == PUBLISHED && !pump->source_failed)
        pump->source->ops->ack(pump->source, record->origin);
    if (how == PUBLISH_NOT_OURS && !pump->source_failed)
        pump->source->ops->release(pump->source, record->origin);
    arena_reset(&carrier->arena);
    carrier->next = pump->spare;
    pump->spare = carrier;
    advance(pump);
}

static void on_end(void *ctx)
{
    struct pump *pump = ctx;
    pump->draining = true;
    advance(pump);
}

static void on_idle(uv_timer_t *timer)
{
    struct pump *pump = timer->data;
    if (pump->n_inflight > 0) /* the output is slow, which is no end of the input */
        uv_timer_start(timer, on_idle, pump->options.idle_ms, 0);
    else
        on_end(pump);
}

static void on_deadline(uv_timer_t *timer)
{
    end(timer->data, PIPELINE_DEADLINE);
}

void pump_drain(struct pump *pump)
{
    if (pump->ending || pump->end_by_ms)
        return;
    pump->end_by_ms = uv_now(pump->loop) + pump->options.drain_ms;
    uv_timer_start(&pump->deadline, on_deadline, pump->options.drain_ms, 0);
    on_end(pump);
}

static void on_source_state(void *ctx, enum link_state state, const char *why)
{
    struct pump *pump = ctx;
    if (pump->options.on_link)
        pump->options.on_link(pump->ctx, "input", state, why);
}

static void on_sink_state(void *ctx, enum link_state state, const char *why)
{
    struct pump *pump = ctx;
    if (pump->options.on_link)
        pump->options.on_link(pump->ctx, "output", state, why);
}

static void on_count(void *ctx, const char *what, uint64_t n)
{
    struct pump *pump = ctx;
    if (pump->options.on_count)
        pump->options.on_count(pump->ctx, what, n);
}

static void on_source_failed(void *ctx, int err, const char *why)
{
    struct pump *pump = ctx;
    pump->source_failed = true;
    if (pump->ending && pump->how == PIPELINE_DRAINED) {
        pump->how = PIPELINE_UNFLUSHED;
        snprintf(pump->failure, sizeof pump->failure, "%s", why);
    }
    fail(pump, "input", err, why);
}

static void on_sink_failed(void *ctx, int err, const char *why)
{
    fail(ctx, "output", err, why);
}

/* The end: sink, source, timers, each when the one before is closed. */

static void on_handle_closed(uv_handle_t *handle)
{
    struct pump *pump = handle->data;
    if (--pump->n_handles == 0 && pump->ended)
        pump->ended(pump->ctx, pump->how);
}

static void on_source_closed(void *ctx)
{
    struct pump *pump = ctx;
    pump->source = NULL;
    uv_close((uv_handle_t *)&pump->idle, on_handle_closed);
    uv_close((uv_handle_t *)&pump->deadline, on_handle_closed);
}

enum { CLOSE_MS = 1000 };

static void on_sink_closed(void *ctx)
{
    struct pump *pump = ctx;
    pump->sink = NULL;
    pump->source->ops->close(pump->source, CLOSE_MS, on_source_closed, pump);
}

static void end(struct pump *pump, enum pipeline_end how)
{
    if (pump->ending)
        return;
    pump->ending = true;
    pump->how = how;
    uv_timer_stop(&pump->idle);
    uv_timer_stop(&pump->deadline);
    if (!pump->source_failed)
        pump->source->ops->request(pump->source, 0, 0);
    pump->sink->ops->close(pump->sink, CLOSE_MS, on_sink_closed, pump);
}

static const struct source_events source_events = {
    .on_messages = on_messages,
    .on_state = on_source_state,
    .on_end = on_end,
    .on_failed = on_source_failed,
    .on_count = on_count,
};
static const struct sink_events sink_events = {on_published, on_sink_state, on_sink_failed};

int pump_open(struct pump **out, uv_loop_t *loop, const struct source_ops *source,
              const struct sink_ops *sink, const struct settings *settings,
              const struct pump_options *options, void (*ended)(void *ctx, enum pipeline_end how),
              void *ctx, char *err, size_t err_size)
{
    struct pump *pump = calloc(1, sizeof *pump);
    if (pump)
        pump->carriers = calloc(options->max_messages, sizeof *pump->carriers);
    if (!pump || !pump->carriers) {
        snprintf(err, err_size, "out of memory");
        free(pump);
        return -ENOMEM;
    }
    pump->options = *options;
    pump->loop = loop;
    pump->ctx = ctx;
    for (size_t i = options->max_messages; i-- > 0;) {
        pump->carriers[i].next = pump->spare;
        pump->spare = &pump->carriers[i];
    }
    uv_timer_init(loop, &pump->idle);
    uv_timer_init(loop, &pump->deadline);
    pump->idle.data = pump->deadline.data = pump;
    pump->n_handles = 2;
    *out = pump;
    int rc = source->open(&pump->source, loop, settings, &source_events, pump, err, err_size);
    if (rc == 0)
        rc = sink->open(&pump->sink, loop, settings, pump->source, &sink_events, pump, err,
                        err_size);
    if (rc != 0) { /* the loop is turned until all of it is closed, then pump_close */
        pump->ending = true;
        if (pump->source)
            pump->source->ops->close(pump->source, 0, on_source_closed, pump);
        else
            on_source_closed(pump);
        return rc;
    }
    pump->ended = ended;
    if (options->idle_ms > 0)
        uv_timer_start(&pump->idle, on_idle, options->idle_ms, 0);
    advance(pump);
    return 0;
}

const char *pump_failure(const struct pump *pump)
{
    return pump->failure;
}

const struct pipeline_stats *pump_stats(const struct pump *pump)
{
    return &pump->stats;
}

void pump_close(struct pump *pump)
{
    if (!pump)
        return;
    for (size_t i = 0; i < pump->options.max_messages; i++)
        arena_close(&pump->carriers[i].arena);
    free(pump->carriers);
    free(pump);
}
