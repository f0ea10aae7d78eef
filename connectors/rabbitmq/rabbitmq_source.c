/*
 * rabbitmq_source.c: a consumer of one RabbitMQ queue.
 *
 * Owns:    the connection it consumes by, credit.
 * Refuses: channel and consumer: rabbitmq_consumer.c. The messages that are with us and their
 *          acks: rabbitmq_hold.c. Publishing: rabbitmq_sink.c, by a connection
 *          of its own, for the server does not read one that publishes while memory is short, and
 *          acks would not be heard.
 * Threads: the loop thread.
 * Why:     acks are sent when the output is confirmed. AMQP does not confirm them; a method that
 *          has an answer, sent behind them, does (rabbitmq_consumer.c).
 */
#include "connectors/rabbitmq/rabbitmq_source.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HELD_BYTES_MAX ((size_t)32 << 20) /* beyond, what comes is not read */
#define TICK_MS        1000

static struct rabbitmq_source *self(struct source *source)
{
    return (struct rabbitmq_source *)source;
}

static void give(struct rabbitmq_source *source)
{
    intake_give(&source->intake, &source->base, &source->end);
    /* rabbitmq_consumer_tick reads it: what was never used of the prefetch is too much of it. */
    if (source->intake.held.n < source->least_held)
        source->least_held = source->intake.held.n;
}

static void source_pump(void *owner)
{
    struct rabbitmq_source *source = owner;
    if (source->end.closing) {
        /* Nothing can be sent any more: what was not acked comes again by itself. */
        if (source->end.failed || !rabbitmq_link_ready(source->link) ||
            source->consumer == CONSUMER_NONE)
            endpoint_finish(&source->end);
        else if (source->consumer >= CONSUMER_IDLE)
            rabbitmq_consumer_leave(source);
    } else if (!source->end.failed) {
        give(source);
        if (source->end.closing || source->end.failed)
            return;
        /* The server pushes; not reading the socket is the only way to stop it at once. */
        rabbitmq_link_pause(source->link, source->intake.held.bytes > HELD_BYTES_MAX);
        rabbitmq_consumer_steer(source);
    }
    if (source->link)
        rabbitmq_link_flush(source->link);
}

/* ---- the connection */

static void on_ready(void *ctx)
{
    struct rabbitmq_source *source = ctx;
    health_good(&source->end.health, PART_BROKER);
    rabbitmq_consumer_on_ready(source);
}

static void on_lost(void *ctx, const char *why)
{
    struct rabbitmq_source *source = ctx;
    source->consumer = CONSUMER_NONE;
    source->is_probe_open = source->is_probing = source->is_syncing = false;
    /* The server has put all that was not acked back into the queue: others may have it already. */
    rabbitmq_hold_void(source);
    health_wait(&source->end.health, PART_BROKER, why);
    /* No reconnecting for a goodbye. */
    if (source->end.closing)
        endpoint_pump(&source->end);
}

static void on_link_failed(void *ctx, int err, const char *why)
{
    struct rabbitmq_source *source = ctx;
    source->consumer = CONSUMER_NONE;
    rabbitmq_hold_void(source);
    endpoint_fail(&source->end, err, why);
}

static void on_blocked(void *ctx, const char *why)
{
    (void)ctx, (void)why; /* nothing is published here */
}

static void on_content(void *ctx, uint16_t channel, struct rabbitmq_content *content)
{
    struct rabbitmq_source *source = ctx;
    (void)channel;
    if (content->method != AMQP_BASIC_DELIVER_METHOD || source->end.closing || source->end.failed)
        return;
    struct rabbitmq_message *message =
        rabbitmq_message_open(&source->base, source->config.queue, content);
    if (!message) {
        /* Not acked, so the server gives it out again when the connection is gone. */
        rabbitmq_link_drop(source->link, "no memory for a message");
        return;
    }
    if (message->is_of_stream) {
        rabbitmq_message_close(message);
        endpoint_fail(&source->end, -ENOTSUP,
                      "rabbitmq.queue is a stream, of which RabbitMQ keeps no position for "
                      "this protocol; name a quorum or classic queue");
        return;
    }
    /* Tags count within a channel: an ack with one of an older epoch would ack another message. */
    message->epoch = source->epoch;
    message->taken_ms = uv_now(source->end.loop);
    taken_push(&source->intake.held, &message->taken);
    rabbitmq_link_good(source->link);
    endpoint_pump_soon(&source->end);
}

static void on_tick(uv_timer_t *timer)
{
    struct rabbitmq_source *source = timer->data;
    if (source->end.closing || source->end.failed)
        return;
    rabbitmq_consumer_tick(source);
    endpoint_pump(&source->end);
}

/* ---- the contract */

static void source_free(void *owner)
{
    struct rabbitmq_source *source = owner;
    rabbitmq_hold_clear(source);
    rabbitmq_config_clear(&source->config);
    free(source);
}

static void source_finish(void *owner, bool is_late)
{
    struct rabbitmq_source *source = owner;
    char why[300];
    (void)is_late;
    if (source->n_unconfirmed) {
        snprintf(why, sizeof why,
                 "queue %.100s: the server has not confirmed the acks of %zu messages",
                 source->config.queue, source->n_unconfirmed);
        /* Sent, but maybe not arrived: those messages may come again. */
        endpoint_unflushed(&source->end, why);
    }
    /* The link outlives this call: its close says goodbye, and drops the hold. */
    if (source->link)
        rabbitmq_link_close(source->link, endpoint_drop, &source->end);
    source->link = NULL;
    endpoint_close_handle(&source->end, (uv_handle_t *)&source->tick_timer);
}

static const struct endpoint_ops endpoint_ops = {source_pump, NULL, source_finish, source_free};

static int rabbitmq_source_open(struct source **out, uv_loop_t *loop,
                                const struct settings *settings, const struct source_events *events,
                                void *ctx, char *err, size_t err_size)
{
    static const struct rabbitmq_link_events link_events = {
        on_ready, on_lost, on_link_failed, on_blocked, rabbitmq_consumer_on_method, on_content};
    struct rabbitmq_source *source = calloc(1, sizeof *source);
    char name[200];
    snprintf(err, err_size, "out of memory");
    if (!source)
        return -ENOMEM;
    source->base = (struct source){.ops = &rabbitmq_source_ops, .events = events, .ctx = ctx};
    source->epoch = 1;
    int rc = rabbitmq_config_read(&source->config, settings, err, err_size);
    if (rc) {
        source_free(source);
        return rc;
    }
    /* Small at first: rabbitmq_consumer.c doubles it when the pipeline waits. */
    source->prefetch = source->config.prefetch < 16 ? source->config.prefetch : 16;
    endpoint_open_source(&source->end, loop, &source->base, PART_BROKER | PART_CONSUMER,
                         &endpoint_ops, source);
    endpoint_timer(&source->end, &source->tick_timer);
    rabbitmq_connection_name("source", name, sizeof name);
    struct rabbitmq_link_options options = {&source->config.urls, source->config.tls, name,
                                            source->config.timeout_ms,
                                            source->config.has_certificate};
    rc = rabbitmq_link_open(&source->link, loop, &options, &link_events, source);
    if (rc) {
        endpoint_finish(&source->end);
        return rc;
    }
    endpoint_hold(&source->end);
    uv_timer_start(&source->tick_timer, on_tick, TICK_MS, TICK_MS);
    *out = &source->base;
    return 0;
}

static void rabbitmq_source_request(struct source *base, size_t n, size_t n_bytes)
{
    struct rabbitmq_source *source = self(base);
    source->intake.credit = (struct credit_left){n, n_bytes};
    endpoint_pump_soon(&source->end);
}

static void rabbitmq_source_ack(struct source *base, struct message *message)
{
    struct rabbitmq_source *source = self(base);
    struct rabbitmq_message *own = (struct rabbitmq_message *)message;
    amqp_basic_ack_t ack = {.delivery_tag = own->tag};
    rabbitmq_hold_answer(source, own, AMQP_BASIC_ACK_METHOD, &ack);
    rabbitmq_hold_done(source, own);
    endpoint_pump_soon(&source->end);
}

void rabbitmq_source_reject(struct source *base, struct message *message)
{
    struct rabbitmq_source *source = self(base);
    struct rabbitmq_message *own = (struct rabbitmq_message *)message;
    amqp_basic_reject_t reject = {.delivery_tag = own->tag, .requeue = 0};
    rabbitmq_hold_answer(source, own, AMQP_BASIC_REJECT_METHOD, &reject);
    rabbitmq_hold_done(source, own);
    endpoint_pump_soon(&source->end);
}

static void rabbitmq_source_release(struct source *base, struct message *message)
{
    struct rabbitmq_source *source = self(base);
    struct rabbitmq_message *own = (struct rabbitmq_message *)message;
    amqp_basic_nack_t nack = {.delivery_tag = own->tag, .requeue = 1};
    rabbitmq_hold_answer(source, own, AMQP_BASIC_NACK_METHOD, &nack);
    rabbitmq_hold_done(source, own);
    endpoint_pump_soon(&source->end);
}

static void rabbitmq_source_close(struct source *base, uint64_t deadline_ms,
                                  void (*closed)(void *ctx), void *ctx)
{
    if (base)
        endpoint_close(&self(base)->end, deadline_ms, closed, ctx);
}

const struct source_ops rabbitmq_source_ops = {
    .open = rabbitmq_source_open,
    .request = rabbitmq_source_request,
    .ack = rabbitmq_source_ack,
    .release = rabbitmq_source_release,
    .close = rabbitmq_source_close,
    .check = rabbitmq_config_check,
};
