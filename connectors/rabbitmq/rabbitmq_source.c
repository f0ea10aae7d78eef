/*
 * rabbitmq_source.c: a consumer of one RabbitMQ queue.
 *
 * Owns:    the connection it consumes by, credit, the messages that are with us, their acks.
 * Refuses: channel and consumer: rabbitmq_consumer.c. Publishing: rabbitmq_sink.c, by a connection
 *          of its own, for the server does not read one that publishes while memory is short, and
 *          acks would not be heard.
 * Threads: the loop thread.
 * Why:     acks are sent when the output is confirmed. AMQP does not confirm them; a method that
 *          has an answer, sent behind them, does (rabbitmq_consumer.c).
 */
#include "connectors/rabbitmq/rabbitmq_source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GIVE_MAX       64                 /* messages in one event */
#define HELD_BYTES_MAX ((size_t)32 << 20) /* beyond, what comes is not read */
#define TICK_MS        1000

static struct rabbitmq_source *self(struct source *source)
{
    return (struct rabbitmq_source *)source;
}

/* ---- what is reported */

void rabbitmq_source_fail(struct rabbitmq_source *source, int err, const char *why)
{
    bool is_news = !source->failed && !source->closing;
    source->failed = true;
    if (is_news)
        source->base.events->on_failed(source->base.ctx, err, why);
}

static void on_state_changed(void *ctx, enum link_state state, const char *why)
{
    struct rabbitmq_source *source = ctx;
    if (!source->failed && !source->closing)
        source->base.events->on_state(source->base.ctx, state, why);
}

void rabbitmq_source_notice(struct rabbitmq_source *source, const char *code, const char *text)
{
    if (source->base.events->on_notice)
        source->base.events->on_notice(source->base.ctx, NOTICE_WARN, code, text);
}

static void on_pause_over(uv_timer_t *timer)
{
    struct rabbitmq_source *source = timer->data;
    source->paused = false;
    rabbitmq_source_pump(source);
}

void rabbitmq_source_refused(struct rabbitmq_source *source, const char *why)
{
    char text[HEALTH_WHY_SIZE];
    snprintf(text, sizeof text, "rabbitmq %s: queue %.120s: %.400s",
             rabbitmq_link_where(source->link), source->config.queue, why);
    health_wait(&source->health, PART_CONSUMER, text);
    if (source->paused)
        return;
    source->paused = true;
    uv_timer_start(&source->pause_timer, on_pause_over, backoff_next(&source->backoff), 0);
}

/* ---- messages that are with us */

static void forget_held(struct rabbitmq_source *source, struct rabbitmq_message *message)
{
    TAILQ_REMOVE(&source->held, message, entry);
    source->n_held--;
    source->held_bytes -= message->size;
    rabbitmq_message_close(message);
}

void rabbitmq_source_void(struct rabbitmq_source *source)
{
    struct rabbitmq_message *message;
    while ((message = TAILQ_FIRST(&source->held)))
        forget_held(source, message);
    TAILQ_FOREACH(message, &source->given, entry)
    {
        source->n_void += message->epoch != 0;
        message->epoch = 0;
    }
    source->epoch++;
}

static void answer(struct rabbitmq_source *source, struct rabbitmq_message *message, uint32_t id,
                   const void *method)
{
    bool is_sent = message->epoch == source->epoch && source->consumer >= CONSUMER_IDLE &&
                   !source->is_bye_sent &&
                   rabbitmq_link_method(source->link, RABBITMQ_WORK, id, method) == 0;
    bool is_ack = id != AMQP_BASIC_NACK_METHOD;
    source->n_unconfirmed += is_ack;
    if (is_ack && !is_sent && source->base.events->on_count)
        source->base.events->on_count(source->base.ctx, "late_acks", 1);
}

void rabbitmq_source_return_held(struct rabbitmq_source *source)
{
    struct rabbitmq_message *message;
    while ((message = TAILQ_FIRST(&source->held))) {
        amqp_basic_nack_t nack = {.delivery_tag = message->tag, .requeue = 1};
        answer(source, message, AMQP_BASIC_NACK_METHOD, &nack);
        forget_held(source, message);
    }
}

/* Takes one that the pipeline had. */
static void given_done(struct rabbitmq_source *source, struct rabbitmq_message *message)
{
    TAILQ_REMOVE(&source->given, message, entry);
    source->n_given--;
    source->n_void -= message->epoch == 0;
    rabbitmq_message_close(message);
}

static void give(struct rabbitmq_source *source)
{
    struct message *messages[GIVE_MAX];
    while (source->n_held && source->credit && source->credit_bytes && !source->closing) {
        size_t n = 0;
        while (n < GIVE_MAX && source->n_held && source->credit && source->credit_bytes) {
            struct rabbitmq_message *message = TAILQ_FIRST(&source->held);
            size_t size = message->size ? message->size : 1;
            TAILQ_REMOVE(&source->held, message, entry);
            source->n_held--;
            source->held_bytes -= message->size;
            TAILQ_INSERT_TAIL(&source->given, message, entry);
            source->n_given++;
            source->credit--;
            source->credit_bytes -= size < source->credit_bytes ? size : source->credit_bytes;
            messages[n++] = &message->base;
        }
        source->base.events->on_messages(source->base.ctx, messages, n);
    }
    if (source->n_held < source->least_held)
        source->least_held = source->n_held;
}

static void source_finish(struct rabbitmq_source *source);

void rabbitmq_source_pump(struct rabbitmq_source *source)
{
    if (source->closing) {
        if (source->failed || !rabbitmq_link_ready(source->link) ||
            source->consumer == CONSUMER_NONE)
            source_finish(source);
        else if (source->consumer >= CONSUMER_IDLE)
            rabbitmq_consumer_leave(source);
    } else if (!source->failed) {
        give(source);
        if (source->closing || source->failed)
            return;
        rabbitmq_link_pause(source->link, source->held_bytes > HELD_BYTES_MAX);
        rabbitmq_consumer_steer(source);
    }
    if (source->link)
        rabbitmq_link_flush(source->link);
}

static void on_pump(uv_timer_t *timer)
{
    rabbitmq_source_pump(timer->data);
}

/* For calls of the pipeline: the work is done from the loop. */
static void pump_soon(struct rabbitmq_source *source)
{
    if (!uv_is_active((uv_handle_t *)&source->pump_timer))
        uv_timer_start(&source->pump_timer, on_pump, 0, 0);
}

/* ---- the connection */

static void on_ready(void *ctx)
{
    struct rabbitmq_source *source = ctx;
    health_good(&source->health, PART_BROKER);
    rabbitmq_consumer_on_ready(source);
}

static void on_lost(void *ctx, const char *why)
{
    struct rabbitmq_source *source = ctx;
    source->consumer = CONSUMER_NONE;
    source->is_probe_open = source->is_probing = source->is_syncing = false;
    rabbitmq_source_void(source);
    health_wait(&source->health, PART_BROKER, why);
    if (source->closing)
        rabbitmq_source_pump(source);
}

static void on_link_failed(void *ctx, int err, const char *why)
{
    struct rabbitmq_source *source = ctx;
    source->consumer = CONSUMER_NONE;
    rabbitmq_source_void(source);
    rabbitmq_source_fail(source, err, why);
    if (source->closing)
        rabbitmq_source_pump(source);
}

static void on_blocked(void *ctx, const char *why)
{
    (void)ctx, (void)why; /* nothing is published here */
}

static void on_content(void *ctx, uint16_t channel, struct rabbitmq_content *content)
{
    struct rabbitmq_source *source = ctx;
    (void)channel;
    if (content->method != AMQP_BASIC_DELIVER_METHOD || source->closing || source->failed)
        return;
    struct rabbitmq_message *message =
        rabbitmq_message_open(&source->base, source->config.queue, content);
    if (!message) {
        rabbitmq_link_drop(source->link, "no memory for a message");
        return;
    }
    if (message->is_of_stream) {
        rabbitmq_message_close(message);
        rabbitmq_source_fail(source, -ENOTSUP,
                             "rabbitmq.queue is a stream, of which RabbitMQ keeps no position for "
                             "this protocol; name a quorum or classic queue");
        return;
    }
    message->epoch = source->epoch;
    message->taken_ms = uv_now(source->loop);
    TAILQ_INSERT_TAIL(&source->held, message, entry);
    source->n_held++;
    source->held_bytes += message->size;
    rabbitmq_link_good(source->link);
    pump_soon(source);
}

static void on_tick(uv_timer_t *timer)
{
    struct rabbitmq_source *source = timer->data;
    if (source->closing || source->failed)
        return;
    rabbitmq_consumer_tick(source);
    rabbitmq_source_pump(source);
}

/* ---- the contract */

static void source_free(struct rabbitmq_source *source)
{
    struct rabbitmq_message *message;
    while ((message = TAILQ_FIRST(&source->held)))
        forget_held(source, message);
    while ((message = TAILQ_FIRST(&source->given)))
        given_done(source, message);
    rabbitmq_config_clear(&source->config);
    free(source);
}

static void timer_open(struct rabbitmq_source *source, uv_timer_t *timer)
{
    uv_timer_init(source->loop, timer);
    timer->data = source;
    source->n_open++;
}

static int rabbitmq_source_open(struct source **out, uv_loop_t *loop,
                                const struct settings *settings, const struct source_events *events,
                                void *ctx, char *err, size_t err_size)
{
    static const struct rabbitmq_link_events link_events = {
        on_ready, on_lost, on_link_failed, on_blocked, rabbitmq_consumer_on_method, on_content};
    struct rabbitmq_source *source = calloc(1, sizeof *source);
    char name[200];
    if (!source) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    source->loop = loop;
    source->base = (struct source){&rabbitmq_source_ops, events, ctx};
    source->epoch = 1;
    TAILQ_INIT(&source->held);
    TAILQ_INIT(&source->given);
    int rc = rabbitmq_config_read(&source->config, settings, err, err_size);
    if (rc)
        goto fail;
    source->prefetch = source->config.prefetch < 16 ? source->config.prefetch : 16;
    rabbitmq_connection_name("source", name, sizeof name);
    struct rabbitmq_link_options options = {&source->config.urls, source->config.tls, name,
                                            source->config.timeout_ms,
                                            source->config.has_certificate};
    rc = rabbitmq_link_open(&source->link, loop, &options, &link_events, source);
    if (rc) {
        snprintf(err, err_size, "out of memory");
        goto fail;
    }
    source->n_open = 1;
    health_open(&source->health, PART_BROKER | PART_CONSUMER, on_state_changed, source);
    timer_open(source, &source->pump_timer);
    timer_open(source, &source->pause_timer);
    timer_open(source, &source->close_timer);
    timer_open(source, &source->tick_timer);
    uv_timer_start(&source->tick_timer, on_tick, TICK_MS, TICK_MS);
    *out = &source->base;
    return 0;
fail:
    source_free(source);
    return rc;
}

static void rabbitmq_source_request(struct source *base, size_t n, size_t n_bytes)
{
    struct rabbitmq_source *source = self(base);
    source->credit = n;
    source->credit_bytes = n ? n_bytes : 0;
    pump_soon(source);
}

static void rabbitmq_source_ack(struct source *base, struct message *message)
{
    struct rabbitmq_source *source = self(base);
    struct rabbitmq_message *own = (struct rabbitmq_message *)message;
    amqp_basic_ack_t ack = {.delivery_tag = own->tag};
    answer(source, own, AMQP_BASIC_ACK_METHOD, &ack);
    given_done(source, own);
    pump_soon(source);
}

void rabbitmq_source_reject(struct source *base, struct message *message)
{
    struct rabbitmq_source *source = self(base);
    struct rabbitmq_message *own = (struct rabbitmq_message *)message;
    amqp_basic_reject_t reject = {.delivery_tag = own->tag, .requeue = 0};
    answer(source, own, AMQP_BASIC_REJECT_METHOD, &reject);
    given_done(source, own);
    pump_soon(source);
}

static void rabbitmq_source_release(struct source *base, struct message *message)
{
    struct rabbitmq_source *source = self(base);
    struct rabbitmq_message *own = (struct rabbitmq_message *)message;
    amqp_basic_nack_t nack = {.delivery_tag = own->tag, .requeue = 1};
    answer(source, own, AMQP_BASIC_NACK_METHOD, &nack);
    given_done(source, own);
    pump_soon(source);
}

static void source_closed(struct rabbitmq_source *source)
{
    void (*closed)(void *) = source->closed;
    void *ctx = source->closed_ctx;
    if (--source->n_open)
        return;
    source_free(source);
    closed(ctx);
}

static void on_timer_closed(uv_handle_t *handle)
{
    source_closed(handle->data);
}

static void on_link_closed(void *ctx)
{
    source_closed(ctx);
}

static void source_finish(struct rabbitmq_source *source)
{
    uv_timer_t *timers[] = {&source->pump_timer, &source->pause_timer, &source->close_timer,
                            &source->tick_timer};
    char why[300];
    if (!source->link)
        return;
    if (source->n_unconfirmed && !source->quiet) {
        snprintf(why, sizeof why,
                 "queue %.100s: the server has not confirmed the acks of %zu messages",
                 source->config.queue, source->n_unconfirmed);
        source->base.events->on_failed(source->base.ctx, -ETIMEDOUT, why);
    }
    rabbitmq_link_close(source->link, on_link_closed, source);
    source->link = NULL;
    for (size_t i = 0; i < sizeof timers / sizeof timers[0]; i++)
        uv_close((uv_handle_t *)timers[i], on_timer_closed);
}

static void on_close_deadline(uv_timer_t *timer)
{
    source_finish(timer->data);
}

static void rabbitmq_source_close(struct source *base, uint64_t deadline_ms,
                                  void (*closed)(void *ctx), void *ctx)
{
    struct rabbitmq_source *source = self(base);
    if (!source)
        return;
    source->closing = true;
    source->quiet = source->failed;
    source->closed = closed;
    source->closed_ctx = ctx;
    uv_timer_start(&source->close_timer, on_close_deadline, deadline_ms, 0);
    uv_timer_start(&source->pump_timer, on_pump, 0, 0);
}

const struct source_ops rabbitmq_source_ops = {
    .open = rabbitmq_source_open,
    .request = rabbitmq_source_request,
    .ack = rabbitmq_source_ack,
    .release = rabbitmq_source_release,
    .close = rabbitmq_source_close,
    .check = rabbitmq_config_check,
};
