/*
 * transfer.c: see transfer.h. In the order of a message: on_messages, on_published, then the end.
 */
#include "worker/commands/transfer.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"
#include "worker/pipeline/records.h"

struct transfer_item {
    struct record record;       /* first member */
    struct transfer_item *next; /* when free */
    struct part part;
    size_t size; /* of the value: the origin may be gone when it is published */
    struct arena arena;
};

struct transfer {
    struct observer observer; /* first member */
    struct transfer_options options;
    uv_loop_t *loop;
    struct source *source; /* NULL when closed, as is sink */
    struct sink *sink;
    uv_timer_t idle, deadline;
    size_t n_handles;
    struct transfer_item *items; /* [max_messages] */
    struct transfer_item *spare;
    size_t n_inflight, bytes_inflight, granted, granted_bytes;
    bool draining, ending, source_failed;
    uint64_t end_by_ms;
    enum pipeline_end how;
    enum side failed_side;
    char failure[400];
    struct pipeline_stats stats;
    void (*ended)(void *ctx, enum pipeline_end how);
    void *ctx;
};

static void end(struct transfer *transfer, enum pipeline_end how);
static void on_idle(uv_timer_t *timer);

static void fail(struct transfer *transfer, enum side side, int err, const char *why)
{
    if (!transfer->ending) {
        transfer->failed_side = side;
        snprintf(transfer->failure, sizeof transfer->failure, "the %s is gone for good: %s (%s)",
                 observer_sides[side], why, uv_strerror(err));
    }
    end(transfer, PIPELINE_FAILED);
}

/* Ask for what there is room for, or end when there is nothing left to do. */
static void advance(struct transfer *transfer)
{
    const struct transfer_options *o = &transfer->options;
    if (transfer->ending)
        return;
    if (o->total > 0 && transfer->stats.received >= o->total)
        transfer->draining = true;
    size_t n = o->max_messages - transfer->n_inflight, n_bytes = 0;
    if (transfer->bytes_inflight < o->max_bytes)
        n_bytes = o->max_bytes - transfer->bytes_inflight;
    if (o->total > 0 && n > o->total - transfer->stats.received)
        n = (size_t)(o->total - transfer->stats.received);
    /* Bytes without messages, or messages without bytes, would let through one message all the
     * same. */
    if (transfer->draining || n == 0 || n_bytes == 0)
        n = n_bytes = 0;
    /* Credit is absolute, not added: asked for again only when it has changed. */
    if (n != transfer->granted || n_bytes != transfer->granted_bytes) {
        transfer->granted = n;
        transfer->granted_bytes = n_bytes;
        transfer->source->ops->request(transfer->source, n, n_bytes);
    }
    if (transfer->draining && transfer->n_inflight == 0)
        end(transfer, PIPELINE_DRAINED);
}

static void dead_letter(struct record *record, const char *code, const char *reason)
{
    record->dead_code = code;
    record->dead_reason = reason;
}

/* NULL: the output has failed. */
static struct record *load(struct transfer *transfer, struct message *message)
{
    const struct transfer_options *options = &transfer->options;
    char err[300] = "";
    struct transfer_item *item = transfer->spare;
    /* There is one: no more was asked for than there are free items. */
    assert(item);
    transfer->spare = item->next;
    item->part = (struct part){.id = message->key, .value = message->value};
    item->record = (struct record){.origin = message,
                                   .parts = &item->part,
                                   .n_parts = 1,
                                   .headers = message->headers,
                                   .n_headers = message->n_headers};
    if (message->problem.code) {
        item->record.dead_code = message->problem.code;
        item->record.dead_reason = message->problem.reason;
    } else if (message->value.len == 0 && !options->takes_empty) {
        dead_letter(&item->record, DEAD_LETTER(empty_text), "the message is empty");
    } else if (options->shape) {
        int rc = options->shape(options->shape_ctx, message, &item->record, &item->arena, err,
                                sizeof err);
        if (rc != 0) {
            fail(transfer, SIDE_OUTPUT, rc, err);
            return NULL;
        }
    }
    item->size = message->value.len;
    transfer->n_inflight++;
    transfer->bytes_inflight += item->size;
    return &item->record;
}

static void on_messages(void *ctx, struct message **messages, size_t n)
{
    struct transfer *transfer = ctx;
    struct record *records[64];
    if (transfer->ending)
        return; /* the source is about to be closed, which releases them */
    transfer->stats.received += n;
    transfer->granted -= n < transfer->granted ? n : transfer->granted;
    if (transfer->options.idle_ms > 0)
        uv_timer_start(&transfer->idle, on_idle, transfer->options.idle_ms, 0);
    /* Handed over by 64s: the array is on the stack, and a sink writes what it gets in one go. */
    for (size_t i = 0, filled = 0; i < n; i++) {
        struct record *record = load(transfer, messages[i]);
        /* What of this turn was not handed over comes again: nothing of it is acked. */
        if (!record)
            return;
        records[filled++] = record;
        if (filled == 64 || i + 1 == n) {
            transfer->sink->ops->publish(transfer->sink, records, filled);
            filled = 0;
        }
    }
    transfer->stats.inflight_texts = transfer->n_inflight;
    transfer->granted_bytes = 0; /* what is left of it is not known */
    advance(transfer);
}

/* As a dead letter, that one without its payload, and then with nothing else of the message. */
static void publish_refused(struct transfer *transfer, struct record *record, enum published how)
{
    struct transfer_item *item = (struct transfer_item *)record;
    bool was_dead = record->dead_code;
    const struct bytes *position = &record->origin->position;
    char why[300];
    if (was_dead && item->part.value.len == 0 && item->part.id.len == 0 && record->n_headers == 0) {
        snprintf(why, sizeof why, "it refuses even the dead letter of %.*s, which is empty",
                 position->len < 200 ? (int)position->len : 200, position->ptr);
        return fail(transfer, SIDE_OUTPUT, -E2BIG, why);
    }
    item->part = (struct part){.id = record->origin->key, .value = {"", 0}};
    record->parts = &item->part;
    record->n_parts = 1;
    /* Second refusal: the reason alone is left. It may be a header that is too long. */
    if (was_dead) {
        item->part.id = item->part.value;
        record->n_headers = 0;
    } else if (how == PUBLISH_TOO_LARGE) {
        dead_letter(record, DEAD_LETTER(output_too_large),
                    "the message is larger than the output takes");
    } else {
        char *reason =
            arena_copy(&item->arena, record->refused_reason, strlen(record->refused_reason) + 1);
        if (!reason)
            return fail(transfer, SIDE_OUTPUT, -ENOMEM, "out of memory");
        dead_letter(record, record->refused_code, reason);
        /* The sink refused for another reason than size, so the original bytes fit. */
        if (record->origin->value.ptr)
            item->part.value = record->origin->value;
    }
    transfer->sink->ops->publish(transfer->sink, &record, 1);
}

static void on_published(void *ctx, struct record *record, enum published how)
{
    struct transfer *transfer = ctx;
    struct transfer_item *item = (struct transfer_item *)record;
    if (how == PUBLISH_TOO_LARGE || how == PUBLISH_REFUSED) {
        if (!transfer->ending)
            publish_refused(transfer, record, how);
        return;
    }
    if (how == PUBLISH_NOT_OURS)
        transfer->stats.not_ours++;
    else if (record->dead_code)
        transfer->stats.dead_letters++;
    else
        transfer->stats.texts = transfer->stats.embedded_texts = ++transfer->stats.messages;
    assert(transfer->n_inflight > 0);
    transfer->n_inflight--;
    transfer->bytes_inflight -= item->size;
    transfer->stats.inflight_texts = transfer->n_inflight;
    /* A source that has failed is closing: it takes no ack, and what was written comes again. */
    if (how == PUBLISHED && !transfer->source_failed)
        transfer->source->ops->ack(transfer->source, record->origin);
    if (how == PUBLISH_NOT_OURS && !transfer->source_failed)
        transfer->source->ops->release(transfer->source, record->origin);
    arena_reset(&item->arena);
    item->next = transfer->spare;
    transfer->spare = item;
    advance(transfer);
}

static void on_end(void *ctx)
{
    struct transfer *transfer = ctx;
    transfer->draining = true;
    advance(transfer);
}

static void on_idle(uv_timer_t *timer)
{
    struct transfer *transfer = timer->data;
    if (transfer->n_inflight > 0) /* the output is slow, and the input has not ended */
        uv_timer_start(timer, on_idle, transfer->options.idle_ms, 0);
    else
        on_end(transfer);
}

static void on_deadline(uv_timer_t *timer)
{
    end(timer->data, PIPELINE_DEADLINE);
}

void transfer_drain(struct transfer *transfer)
{
    if (transfer->ending || transfer->end_by_ms)
        return;
    transfer->end_by_ms = uv_now(transfer->loop) + transfer->options.drain_ms;
    uv_timer_start(&transfer->deadline, on_deadline, transfer->options.drain_ms, 0);
    on_end(transfer);
}

static void on_source_failed(void *ctx, int err, const char *why)
{
    struct transfer *transfer = ctx;
    transfer->source_failed = true;
    /* All was done, but the last acks went down with the source. */
    if (transfer->ending && transfer->how == PIPELINE_DRAINED) {
        transfer->how = PIPELINE_UNFLUSHED;
        snprintf(transfer->failure, sizeof transfer->failure, "%s", why);
    }
    fail(transfer, SIDE_INPUT, err, why);
}

static void on_sink_failed(void *ctx, int err, const char *why)
{
    fail(ctx, SIDE_OUTPUT, err, why);
}

/* The end: sink, source, timers, each when the one before is closed. */

static void on_handle_closed(uv_handle_t *handle)
{
    struct transfer *transfer = handle->data;
    assert(transfer->n_handles > 0);
    if (--transfer->n_handles == 0 && transfer->ended)
        transfer->ended(transfer->ctx, transfer->how);
}

static void on_source_closed(void *ctx)
{
    struct transfer *transfer = ctx;
    transfer->source = NULL;
    uv_close((uv_handle_t *)&transfer->idle, on_handle_closed);
    uv_close((uv_handle_t *)&transfer->deadline, on_handle_closed);
}

enum { CLOSE_MS = 1000 };

static void on_sink_closed(void *ctx)
{
    struct transfer *transfer = ctx;
    transfer->sink = NULL;
    transfer->source->ops->close(transfer->source, CLOSE_MS, on_source_closed, transfer);
}

static void end(struct transfer *transfer, enum pipeline_end how)
{
    if (transfer->ending)
        return;
    transfer->ending = true;
    transfer->how = how;
    uv_timer_stop(&transfer->idle);
    uv_timer_stop(&transfer->deadline);
    if (!transfer->source_failed)
        transfer->source->ops->request(transfer->source, 0, 0);
    transfer->sink->ops->close(transfer->sink, CLOSE_MS, on_sink_closed, transfer);
}

static const struct source_events source_events = {
    .on_messages = on_messages,
    .on_state = observer_on_source_state,
    .on_end = on_end,
    .on_failed = on_source_failed,
    .on_count = observer_on_count,
    .on_skipped = observer_on_skipped,
    .on_notice = observer_on_source_notice,
};
static const struct sink_events sink_events = {
    .on_published = on_published,
    .on_state = observer_on_sink_state,
    .on_failed = on_sink_failed,
    .on_count = observer_on_count,
    .on_notice = observer_on_sink_notice,
};

int transfer_open(struct transfer **out, uv_loop_t *loop, const struct source_ops *source,
                  const struct sink_ops *sink, const struct settings *settings,
                  const struct transfer_options *options,
                  void (*ended)(void *ctx, enum pipeline_end how), void *ctx, char *err,
                  size_t err_size)
{
    struct transfer *transfer = calloc(1, sizeof *transfer);
    if (transfer)
        transfer->items = calloc(options->max_messages, sizeof *transfer->items);
    if (!transfer || !transfer->items) {
        snprintf(err, err_size, "out of memory");
        free(transfer);
        return -ENOMEM;
    }
    transfer->options = *options;
    transfer->loop = loop;
    transfer->ctx = ctx;
    transfer->observer = (struct observer){options->observer, ctx};
    for (size_t i = options->max_messages; i-- > 0;) {
        transfer->items[i].next = transfer->spare;
        transfer->spare = &transfer->items[i];
    }
    uv_timer_init(loop, &transfer->idle);
    uv_timer_init(loop, &transfer->deadline);
    transfer->idle.data = transfer->deadline.data = transfer;
    transfer->n_handles = 2;
    /* Set even if the rest fails: the caller closes it once the loop has nothing left. */
    *out = transfer;
    int rc =
        source->open(&transfer->source, loop, settings, &source_events, transfer, err, err_size);
    if (rc == 0)
        rc = sink->open(&transfer->sink, loop, settings, transfer->source, &sink_events, transfer,
                        err, err_size);
    if (rc != 0) { /* the loop is turned until all of it is closed, then transfer_close */
        transfer->ending = true;
        if (transfer->source)
            transfer->source->ops->close(transfer->source, 0, on_source_closed, transfer);
        else
            on_source_closed(transfer);
        return rc;
    }
    transfer->ended = ended;
    if (options->idle_ms > 0)
        uv_timer_start(&transfer->idle, on_idle, options->idle_ms, 0);
    advance(transfer);
    return 0;
}

const char *transfer_failure(const struct transfer *transfer)
{
    return transfer->failure;
}

enum side transfer_failed_side(const struct transfer *transfer)
{
    return transfer->failed_side;
}

const struct pipeline_stats *transfer_stats(const struct transfer *transfer)
{
    return &transfer->stats;
}

void transfer_close(struct transfer *transfer)
{
    if (!transfer)
        return;
    for (size_t i = 0; i < transfer->options.max_messages; i++)
        arena_close(&transfer->items[i].arena);
    free(transfer->items);
    free(transfer);
}
