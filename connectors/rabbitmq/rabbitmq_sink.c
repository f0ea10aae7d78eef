/*
 * rabbitmq_sink.c: outputs and dead letters into RabbitMQ, each confirmed.
 *
 * Owns:    a connection of its own, a channel for outputs and one for dead letters, the records
 *          given until they are confirmed; trying again.
 * Refuses: what a record looks like: rabbitmq_record.c.
 * Threads: the loop thread.
 * Why:     a refusal closes its channel, and nothing of what was under way there is known to be
 *          stored; so what goes to different places has channels of its own. Messages are
 *          mandatory: one that no queue takes comes back before it is acked, and it was not stored.
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

/* ---- records */

static size_t n_slots(const struct rabbitmq_sink *sink)
{
    size_t n = sink->fresh.n;
    for (size_t i = 0; i < RABBITMQ_PLACES; i++)
        n += sink->places[i].waiting.n + sink->places[i].sent.n + sink->places[i].aside.n;
    return n;
}

/* The origin's queue has an exchange for what is rejected. */
static void reject(struct rabbitmq_sink *sink, struct slot *slot)
{
    struct message *origin = slot->record->origin;
    /* The sink takes the origin after the event: rejecting it is what acks it. */
    rabbitmq_slot_done(sink, slot, PUBLISHED_AND_ACKED);
    rabbitmq_source_reject(origin->source, origin);
}

/* New ones go where they belong; those that need no server are done. */
static void sort_new(struct rabbitmq_sink *sink)
{
    struct slot *slot;
    while ((slot = slots_pop(&sink->fresh))) {
        const struct record *record = slot->record;
        const struct message *origin = record->origin;
        bool is_rejected = record->dead_code && sink->config.rejects && origin->source &&
                           origin->source->ops == &rabbitmq_source_ops;
        if (!record->n_parts) /* given up */
            rabbitmq_slot_done(sink, slot, PUBLISHED);
        /* The broker moves it to the queue's dead-letter exchange itself; nothing is published. */
        else if (is_rejected)
            reject(sink, slot);
        else {
            ((struct rabbitmq_slot *)slot)->nth = ++sink->n_sorted;
            slots_push(&sink->places[record->dead_code != NULL].waiting, slot);
        }
    }
}

static void sink_pump(void *owner)
{
    struct rabbitmq_sink *sink = owner;
    if (!sink->end.failed)
        sort_new(sink);
    /* All is confirmed, or the connection is refused for good. */
    if (sink->end.closing && (sink->end.failed || !n_slots(sink))) {
        endpoint_finish(&sink->end);
        return;
    }
    /* Blocked: the server is short of memory or disk, and reads nothing from publishers. */
    if (sink->end.failed || sink->is_blocked || !rabbitmq_link_ready(sink->link))
        return;
    for (size_t i = 0; i < RABBITMQ_PLACES; i++)
        rabbitmq_place_send(&sink->places[i]);
    if (sink->link)
        rabbitmq_link_flush(sink->link);
}

/* ---- the connection */

static void on_ready(void *ctx)
{
    struct rabbitmq_sink *sink = ctx;
    if (!rabbitmq_link_has(sink->link, "publisher_confirms")) {
        endpoint_fail(&sink->end, -ENOTSUP, "the server has no publisher confirms; RabbitMQ has");
        return;
    }
    for (size_t i = 0; i < RABBITMQ_PLACES; i++)
        rabbitmq_place_open(&sink->places[i]);
    health_good(&sink->end.health, PART_SERVER);
}

static void on_lost(void *ctx, const char *why)
{
    struct rabbitmq_sink *sink = ctx;
    /* If the alarm still lasts, the next connection is blocked, too. */
    sink->is_blocked = false;
    health_good(&sink->end.health, PART_ALARM);
    for (size_t i = 0; i < RABBITMQ_PLACES; i++)
        /* Why only where the server closed it with an error: then a message may be the cause. */
        rabbitmq_place_lost(&sink->places[i], rabbitmq_link_was_faulted(sink->link) ? why : NULL);
    health_wait(&sink->end.health, PART_SERVER, why);
}

static void on_link_failed(void *ctx, int err, const char *why)
{
    struct rabbitmq_sink *sink = ctx;
    endpoint_fail(&sink->end, err, why);
}

static void on_blocked(void *ctx, const char *why)
{
    struct rabbitmq_sink *sink = ctx;
    sink->is_blocked = why != NULL;
    if (why)
        health_wait(&sink->end.health, PART_ALARM, why);
    else
        health_good(&sink->end.health, PART_ALARM);
    endpoint_pump(&sink->end);
}

static struct rabbitmq_place *place_of(struct rabbitmq_sink *sink, uint16_t channel)
{
    /* Channel 1: outputs, 2: dead letters. Each has its own numbers of confirms. */
    return channel >= 1 && channel <= RABBITMQ_PLACES ? &sink->places[channel - 1] : NULL;
}

static void on_method(void *ctx, uint16_t channel, uint32_t id, const void *decoded)
{
    struct rabbitmq_sink *sink = ctx;
    struct rabbitmq_place *place = place_of(sink, channel);
    if (!place || sink->end.failed)
        return;
    rabbitmq_place_on_method(place, id, decoded);
    endpoint_pump(&sink->end);
}

static void on_content(void *ctx, uint16_t channel, struct rabbitmq_content *content)
{
    struct rabbitmq_sink *sink = ctx;
    struct rabbitmq_place *place = place_of(sink, channel);
    if (place && content->method == AMQP_BASIC_RETURN_METHOD && !sink->end.failed)
        rabbitmq_place_on_return(place, content);
}

static void on_tick(uv_timer_t *timer)
{
    struct rabbitmq_sink *sink = timer->data;
    for (size_t i = 0; i < RABBITMQ_PLACES && !sink->is_blocked; i++)
        rabbitmq_place_watch(&sink->places[i]);
}

/* ---- the contract */

static void sink_free(void *owner)
{
    struct rabbitmq_sink *sink = owner;
    slots_give_all(&sink->slots, &sink->fresh);
    for (size_t i = 0; i < RABBITMQ_PLACES; i++) {
        slots_give_all(&sink->slots, &sink->places[i].waiting);
        slots_give_all(&sink->slots, &sink->places[i].aside);
        slots_give_all(&sink->slots, &sink->places[i].sent);
    }
    slots_close(&sink->slots);
    empty_amqp_pool(&sink->pool);
    rabbitmq_config_clear(&sink->config);
    free(sink);
}

static void sink_finish(void *owner, bool is_late)
{
    struct rabbitmq_sink *sink = owner;
    (void)is_late;
    if (sink->link)
        /* Records that are not confirmed are dropped with the slots: their origins stay unacked. */
        rabbitmq_link_close(sink->link, endpoint_drop, &sink->end);
    sink->link = NULL;
    endpoint_close_handle(&sink->end, (uv_handle_t *)&sink->tick_timer);
    for (size_t i = 0; i < RABBITMQ_PLACES; i++)
        endpoint_close_handle(&sink->end, (uv_handle_t *)&sink->places[i].pause_timer);
}

static const struct endpoint_ops endpoint_ops = {sink_pump, NULL, sink_finish, sink_free};

static int rabbitmq_sink_open(struct sink **out, uv_loop_t *loop, const struct settings *settings,
                              struct source *peer, const struct sink_events *events, void *ctx,
                              char *err, size_t err_size)
{
    static const struct rabbitmq_link_events link_events = {on_ready,   on_lost,   on_link_failed,
                                                            on_blocked, on_method, on_content};
    struct rabbitmq_sink *sink = calloc(1, sizeof *sink);
    char name[200];
    (void)peer;
    snprintf(err, err_size, "out of memory");
    if (!sink)
        return -ENOMEM;
    sink->base = (struct sink){.ops = &rabbitmq_sink_ops, .events = events, .ctx = ctx};
    sink->base.layout = SINK_PER_MESSAGE;
    sink->slots.size = sizeof(struct rabbitmq_slot);
    init_amqp_pool(&sink->pool, 4096);
    for (size_t i = 0; i < RABBITMQ_PLACES; i++)
        rabbitmq_place_init(&sink->places[i], sink, (uint16_t)(i + 1));
    int rc = rabbitmq_config_read(&sink->config, settings, err, err_size);
    if (rc) {
        sink_free(sink);
        return rc;
    }
    endpoint_open_sink(&sink->end, loop, &sink->base, PART_SERVER, &endpoint_ops, sink);
    endpoint_timer(&sink->end, &sink->tick_timer);
    for (size_t i = 0; i < RABBITMQ_PLACES; i++) {
        endpoint_timer(&sink->end, &sink->places[i].pause_timer);
        sink->places[i].pause_timer.data = &sink->places[i];
    }
    rabbitmq_connection_name("sink", name, sizeof name);
    struct rabbitmq_link_options options = {&sink->config.output_urls, sink->config.tls, name,
                                            sink->config.timeout_ms, sink->config.has_certificate};
    rc = rabbitmq_link_open(&sink->link, loop, &options, &link_events, sink);
    if (rc) {
        endpoint_finish(&sink->end);
        return rc;
    }
    endpoint_hold(&sink->end);
    uv_timer_start(&sink->tick_timer, on_tick, TICK_MS, TICK_MS);
    *out = &sink->base;
    return 0;
}

static void rabbitmq_sink_publish(struct sink *base, struct record **records, size_t n)
{
    struct rabbitmq_sink *sink = self(base);
    if (slots_add(&sink->slots, &sink->fresh, records, n))
        endpoint_fail_soon(&sink->end);
    endpoint_pump_soon(&sink->end);
}

static void rabbitmq_sink_close(struct sink *base, uint64_t deadline_ms, void (*closed)(void *ctx),
                                void *ctx)
{
    if (base)
        endpoint_close(&self(base)->end, deadline_ms, closed, ctx);
}

const struct sink_ops rabbitmq_sink_ops = {
    .check = rabbitmq_config_check,
    .open = rabbitmq_sink_open,
    .publish = rabbitmq_sink_publish,
    .close = rabbitmq_sink_close,
};
