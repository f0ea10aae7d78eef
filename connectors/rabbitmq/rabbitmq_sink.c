/*
 * rabbitmq_sink.c: outputs and dead letters into RabbitMQ, each confirmed.
 *
 * Owns:    a connection of its own, a channel for outputs and one for dead letters, the records
 *          given until they are confirmed; trying again.
 * Refuses: what a record looks like: rabbitmq_record.c.
 * Threads: the loop thread.
 * Why:     a refusal closes its channel, and nothing of what was under way there is known to be
 *          stored; so what goes to different places has channels of its own. Messages are
 * mandatory: one that no queue takes comes back before it is acked, and it was not stored.
 */
#include "connectors/rabbitmq/rabbitmq_sink.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/rabbitmq/rabbitmq_source.h"

#define TICK_MS 1000

static struct rabbitmq_sink *self(struct sink *sink)
{
    return (struct rabbitmq_sink *)sink;
}

/* ---- what is reported */

static void on_state_changed(void *ctx, enum link_state state, const char *why)
{
    struct rabbitmq_sink *sink = ctx;
    if (!sink->failed && !sink->closing)
        sink->base.events->on_state(sink->base.ctx, state, why);
}

static void sink_fail(struct rabbitmq_sink *sink, int err, const char *why)
{
    bool is_news = !sink->failed && !sink->closing;
    sink->failed = true;
    if (is_news)
        sink->base.events->on_failed(sink->base.ctx, err, why);
}

/* ---- records */

void rabbitmq_sink_done(struct rabbitmq_sink *sink, struct rabbitmq_slot *slot, enum published how)
{
    struct record *record = slot->record;
    free(slot);
    sink->n_slots--;
    sink->base.events->on_published(sink->base.ctx, record, how);
}

/* The origin's queue has an exchange for what is rejected. */
static void reject(struct rabbitmq_sink *sink, struct rabbitmq_slot *slot)
{
    struct message *origin = slot->record->origin;
    rabbitmq_sink_done(sink, slot, PUBLISHED_AND_ACKED);
    rabbitmq_source_reject(origin->source, origin);
}

/* New ones go where they belong; those that need no server are done. */
static void sort_new(struct rabbitmq_sink *sink)
{
    struct rabbitmq_slot *slot;
    while ((slot = TAILQ_FIRST(&sink->fresh))) {
        const struct record *record = slot->record;
        const struct message *origin = record->origin;
        bool is_rejected = record->dead_code && sink->config.rejects && origin->source &&
                           origin->source->ops == &rabbitmq_source_ops;
        TAILQ_REMOVE(&sink->fresh, slot, entry);
        if (!record->n_parts) /* given up */
            rabbitmq_sink_done(sink, slot, PUBLISHED);
        else if (is_rejected)
            reject(sink, slot);
        else
            TAILQ_INSERT_TAIL(&sink->places[record->dead_code != NULL].waiting, slot, entry);
    }
}

static void finish(struct rabbitmq_sink *sink);

void rabbitmq_sink_pump(struct rabbitmq_sink *sink)
{
    if (sink->no_memory)
        sink_fail(sink, -ENOMEM, "out of memory");
    if (!sink->failed)
        sort_new(sink);
    if (sink->closing && (sink->failed || !sink->n_slots)) {
        finish(sink);
        return;
    }
    if (sink->failed || sink->is_blocked || !rabbitmq_link_ready(sink->link))
        return;
    for (size_t i = 0; i < RABBITMQ_PLACES; i++)
        rabbitmq_place_send(&sink->places[i]);
    if (sink->link)
        rabbitmq_link_flush(sink->link);
}

static void on_pump(uv_timer_t *timer)
{
    rabbitmq_sink_pump(timer->data);
}

/* ---- the connection */

static void on_ready(void *ctx)
{
    struct rabbitmq_sink *sink = ctx;
    if (!rabbitmq_link_has(sink->link, "publisher_confirms")) {
        sink_fail(sink, -ENOTSUP, "the server has no publisher confirms; RabbitMQ has");
        return;
    }
    for (size_t i = 0; i < RABBITMQ_PLACES; i++)
        rabbitmq_place_open(&sink->places[i]);
    health_good(&sink->health, PART_SERVER);
}

static void on_lost(void *ctx, const char *why)
{
    struct rabbitmq_sink *sink = ctx;
    sink->is_blocked = false;
    health_good(&sink->health, PART_ALARM);
    for (size_t i = 0; i < RABBITMQ_PLACES; i++)
        rabbitmq_place_lost(&sink->places[i], rabbitmq_link_was_faulted(sink->link) ? why : NULL);
    health_wait(&sink->health, PART_SERVER, why);
}

static void on_link_failed(void *ctx, int err, const char *why)
{
    struct rabbitmq_sink *sink = ctx;
    sink_fail(sink, err, why);
    if (sink->closing)
        rabbitmq_sink_pump(sink);
}

static void on_blocked(void *ctx, const char *why)
{
    struct rabbitmq_sink *sink = ctx;
    sink->is_blocked = why != NULL;
    if (why)
        health_wait(&sink->health, PART_ALARM, why);
    else
        health_good(&sink->health, PART_ALARM);
    rabbitmq_sink_pump(sink);
}

static struct rabbitmq_place *place_of(struct rabbitmq_sink *sink, uint16_t channel)
{
    return channel >= 1 && channel <= RABBITMQ_PLACES ? &sink->places[channel - 1] : NULL;
}

static void on_method(void *ctx, uint16_t channel, uint32_t id, const void *decoded)
{
    struct rabbitmq_sink *sink = ctx;
    struct rabbitmq_place *place = place_of(sink, channel);
    if (!place || sink->failed)
        return;
    rabbitmq_place_on_method(place, id, decoded);
    rabbitmq_sink_pump(sink);
}

static void on_content(void *ctx, uint16_t channel, struct rabbitmq_content *content)
{
    struct rabbitmq_sink *sink = ctx;
    struct rabbitmq_place *place = place_of(sink, channel);
    if (place && content->method == AMQP_BASIC_RETURN_METHOD && !sink->failed)
        rabbitmq_place_on_return(place, content);
}

static void on_tick(uv_timer_t *timer)
{
    struct rabbitmq_sink *sink = timer->data;
    for (size_t i = 0; i < RABBITMQ_PLACES && !sink->is_blocked; i++)
        rabbitmq_place_watch(&sink->places[i]);
}

/* ---- the contract */

static void sink_free(struct rabbitmq_sink *sink)
{
    struct rabbitmq_slot *slot;
    while ((slot = TAILQ_FIRST(&sink->fresh))) {
        TAILQ_REMOVE(&sink->fresh, slot, entry);
        free(slot);
    }
    for (size_t i = 0; i < RABBITMQ_PLACES; i++)
        rabbitmq_place_clear(&sink->places[i]);
    empty_amqp_pool(&sink->pool);
    rabbitmq_config_clear(&sink->config);
    free(sink);
}

static void sink_closed(struct rabbitmq_sink *sink)
{
    void (*closed)(void *) = sink->closed;
    void *ctx = sink->closed_ctx;
    if (--sink->n_open)
        return;
    sink_free(sink);
    closed(ctx);
}

static void on_handle_closed(uv_handle_t *handle)
{
    sink_closed(handle->data);
}

static void on_link_closed(void *ctx)
{
    sink_closed(ctx);
}

static void on_place_handle_closed(uv_handle_t *handle)
{
    struct rabbitmq_place *place = handle->data;
    sink_closed(place->sink);
}

static void finish(struct rabbitmq_sink *sink)
{
    uv_timer_t *timers[] = {&sink->pump_timer, &sink->close_timer, &sink->tick_timer};
    if (!sink->link)
        return;
    rabbitmq_link_close(sink->link, on_link_closed, sink);
    sink->link = NULL;
    for (size_t i = 0; i < sizeof timers / sizeof timers[0]; i++)
        uv_close((uv_handle_t *)timers[i], on_handle_closed);
    for (size_t i = 0; i < RABBITMQ_PLACES; i++)
        uv_close((uv_handle_t *)&sink->places[i].pause_timer, on_place_handle_closed);
}

static void on_close_deadline(uv_timer_t *timer)
{
    finish(timer->data);
}

static void open_handles(struct rabbitmq_sink *sink, uv_loop_t *loop)
{
    uv_timer_t *timers[] = {&sink->pump_timer, &sink->close_timer, &sink->tick_timer};
    for (size_t i = 0; i < sizeof timers / sizeof timers[0]; i++) {
        uv_timer_init(loop, timers[i]);
        timers[i]->data = sink;
        sink->n_open++;
    }
    for (size_t i = 0; i < RABBITMQ_PLACES; i++) {
        uv_timer_init(loop, &sink->places[i].pause_timer);
        sink->places[i].pause_timer.data = &sink->places[i];
        sink->n_open++;
    }
    uv_timer_start(&sink->tick_timer, on_tick, TICK_MS, TICK_MS);
}

static int rabbitmq_sink_open(struct sink **out, uv_loop_t *loop, const struct settings *settings,
                              struct source *peer, const struct sink_events *events, void *ctx,
                              char *err, size_t err_size)
{
    static const struct rabbitmq_link_events link_events = {on_ready,   on_lost,   on_link_failed,
                                                            on_blocked, on_method, on_content};
    struct rabbitmq_sink *sink = calloc(1, sizeof *sink);
    char name[200];
    (void)peer;
    if (!sink) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    sink->base = (struct sink){.ops = &rabbitmq_sink_ops, .events = events, .ctx = ctx};
    sink->base.layout = SINK_PER_MESSAGE;
    sink->loop = loop;
    TAILQ_INIT(&sink->fresh);
    init_amqp_pool(&sink->pool, 4096);
    int rc = rabbitmq_config_read(&sink->config, settings, err, err_size);
    for (size_t i = 0; i < RABBITMQ_PLACES; i++)
        rabbitmq_place_init(&sink->places[i], sink, (uint16_t)(i + 1));
    if (rc)
        goto fail;
    rabbitmq_connection_name("sink", name, sizeof name);
    struct rabbitmq_link_options options = {&sink->config.output_urls, sink->config.tls, name,
                                            sink->config.timeout_ms, sink->config.has_certificate};
    rc = rabbitmq_link_open(&sink->link, loop, &options, &link_events, sink);
    if (rc) {
        snprintf(err, err_size, "out of memory");
        goto fail;
    }
    sink->n_open = 1;
    open_handles(sink, loop);
    health_open(&sink->health, PART_SERVER, on_state_changed, sink);
    *out = &sink->base;
    return 0;
fail:
    sink_free(sink);
    return rc;
}

static void rabbitmq_sink_publish(struct sink *base, struct record **records, size_t n)
{
    struct rabbitmq_sink *sink = self(base);
    for (size_t i = 0; i < n; i++) {
        struct rabbitmq_slot *slot = calloc(1, sizeof *slot);
        if (!slot) { /* those left out come again after the exit */
            sink->no_memory = true;
            break;
        }
        slot->record = records[i];
        TAILQ_INSERT_TAIL(&sink->fresh, slot, entry);
        sink->n_slots++;
    }
    if (!uv_is_active((uv_handle_t *)&sink->pump_timer))
        uv_timer_start(&sink->pump_timer, on_pump, 0, 0);
}

static void rabbitmq_sink_close(struct sink *base, uint64_t deadline_ms, void (*closed)(void *ctx),
                                void *ctx)
{
    struct rabbitmq_sink *sink = self(base);
    if (!sink)
        return;
    sink->closing = true;
    sink->closed = closed;
    sink->closed_ctx = ctx;
    uv_timer_start(&sink->close_timer, on_close_deadline, deadline_ms, 0);
    uv_timer_start(&sink->pump_timer, on_pump, 0, 0);
}

const struct sink_ops rabbitmq_sink_ops = {
    .check = rabbitmq_config_check,
    .open = rabbitmq_sink_open,
    .publish = rabbitmq_sink_publish,
    .close = rabbitmq_sink_close,
};
