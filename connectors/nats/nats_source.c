/*
 * nats_source.c: a worker of a durable JetStream consumer.
 *
 * Owns:    credit, the messages that are with us, the way to the end.
 * Refuses: the consumer: nats_consumer.c; asking for messages: nats_pull.c; acks: nats_ack.c.
 * Threads: the loop thread.
 * Why:     everything that may be sent next is decided in one place, nats_source_pump, called
 *          after every event and, through a timer of 0 ms, after every call of the pipeline; so
 *          no event fires inside a call and no question is asked twice or forgotten.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/nats/nats_source.h"

#define GIVE_MAX     64  /* messages in one event */
#define MEAN_AT_OPEN 512 /* bytes of a message, before one was seen */

static struct nats_source *self(struct source *source)
{
    return (struct nats_source *)source;
}

/* ---- what is told */

void nats_source_fail(struct nats_source *source, int err, const char *why)
{
    bool is_news = !source->failed && !source->closing;
    source->failed = true;
    if (is_news)
        source->base.events->on_failed(source->base.ctx, err, why);
}

/* After failing and while closing nobody wants to hear of it. */
static void on_state_changed(void *ctx, enum link_state state, const char *why)
{
    struct nats_source *source = ctx;
    if (!source->failed && !source->closing)
        source->base.events->on_state(source->base.ctx, state, why);
}

void nats_source_wait(struct nats_source *source, unsigned part, const char *why)
{
    health_wait(&source->health, part, why);
}

/* ---- credit */

size_t nats_source_want(const struct nats_source *source)
{
    size_t n = source->credit;
    size_t by_bytes = source->credit_bytes / (source->mean_bytes ? source->mean_bytes : 1);
    if (by_bytes == 0 && source->credit_bytes)
        by_bytes = 1;
    if (by_bytes < n)
        n = by_bytes;
    return n > source->held.n ? n - source->held.n : 0;
}

static void give(struct nats_source *source)
{
    struct message *messages[GIVE_MAX];
    while (source->held.n && source->credit && source->credit_bytes && !source->closing) {
        size_t n = 0;
        while (n < GIVE_MAX && source->held.n && source->credit && source->credit_bytes) {
            struct nats_message *message = nats_list_first(&source->held);
            size_t size = message->base.value.len + 1;
            source->credit--;
            source->credit_bytes -= size < source->credit_bytes ? size : source->credit_bytes;
            nats_list_remove(&source->held, message);
            nats_list_add(&source->given, message);
            messages[n++] = &message->base;
        }
        source->base.events->on_messages(source->base.ctx, messages, n);
    }
}

/* ---- what is to be done now */

static void finish(struct nats_source *source);

static void return_all(struct nats_source *source, struct nats_list *list)
{
    struct nats_message *message;
    while ((message = nats_list_first(list))) {
        nats_ack_return(source, message);
        nats_list_remove(list, message);
        nats_message_close(message);
    }
}

/* When nothing comes any more, what is unfinished goes back; when all acks are confirmed, that is
 * the end. */
static void close_step(struct nats_source *source)
{
    if (source->failed || !nats_client_is_up(source->client)) {
        if (source->failed || !source->done.n)
            finish(source);
        return;
    }
    if (source->pull.is_open) /* for a second at most */
        return;
    if (!source->is_returned) {
        return_all(source, &source->held);
        return_all(source, &source->given);
        source->is_returned = true;
    }
    if (!source->done.n)
        finish(source);
}

void nats_source_pump(struct nats_source *source)
{
    if (source->is_finished)
        return;
    if (nats_client_is_up(source->client) && !source->failed)
        nats_ack_send(source);
    if (!source->failed)
        give(source);
    if (source->is_finished)
        return;
    nats_pull_step(source);
    if (source->closing)
        close_step(source);
}

static void on_pump(uv_timer_t *timer)
{
    nats_source_pump(timer->data);
}

/* For calls of the pipeline: the work is done from the loop. */
static void pump_soon(struct nats_source *source)
{
    if (!source->is_finished && !uv_is_active((uv_handle_t *)&source->pump_timer))
        uv_timer_start(&source->pump_timer, on_pump, 0, 0);
}

static void on_tick(uv_timer_t *timer)
{
    struct nats_source *source = timer->data;
    uint64_t now = uv_now(source->loop);
    nats_consumer_tick(source, now);
    nats_pull_tick(source, now);
    nats_ack_renew(source, now, false);
    nats_source_pump(source);
}

/* ---- the connection */

static void on_up(void *ctx)
{
    struct nats_source *source = ctx;
    health_good(&source->health, PART_LINK);
    nats_pull_reset(source);
    source->consumer.is_asked = false;
    nats_consumer_check(source);
    nats_ack_renew(source, uv_now(source->loop), true);
    nats_source_pump(source);
}

static void on_down(void *ctx, const char *why)
{
    struct nats_source *source = ctx;
    char text[500];
    snprintf(text, sizeof text, "%.400s; reconnecting until it succeeds", why);
    nats_pull_reset(source);
    source->consumer.is_asked = false;
    nats_source_wait(source, PART_LINK, text);
    nats_source_pump(source);
}

static void on_failed(void *ctx, int err, const char *why)
{
    nats_source_fail(ctx, err, why);
    nats_source_pump(ctx);
}

static void on_denied(void *ctx, const char *what)
{
    struct nats_source *source = ctx;
    char why[500];
    unsigned part = strstr(what, ".CONSUMER.MSG.NEXT.") ? PART_PULL
                    : strstr(what, "$JS.ACK.")          ? PART_ACK
                                                        : PART_CONSUMER;
    if (strstr(what, "$JS.EVENT."))
        return; /* told of nowhere else, and not needed */
    if (strstr(what, ".p.") && strstr(what, "Subscription"))
        part = PART_PULL;
    snprintf(why, sizeof why, "%.300s: allow this user that; it is tried again", what);
    nats_source_wait(source, part, why);
}

static void on_message(void *ctx, enum nats_channel channel, natsMsg *native)
{
    struct nats_source *source = ctx;
    (void)channel;
    nats_pull_on_message(source, native);
    nats_source_pump(source);
}

static const struct nats_client_events client_events = {on_up, on_down, on_failed, on_denied,
                                                        on_message};

/* ---- the contract */

static void source_free(struct nats_source *source)
{
    nats_list_clear(&source->held);
    nats_list_clear(&source->given);
    nats_list_clear(&source->done);
    nats_config_clear(&source->config);
    free(source);
}

static void timer_open(struct nats_source *source, uv_timer_t *timer)
{
    uv_timer_init(source->loop, timer);
    timer->data = source;
    source->n_open++;
}

static int nats_source_open(struct source **out, uv_loop_t *loop, const struct settings *settings,
                            const struct source_events *events, void *ctx, char *err,
                            size_t err_size)
{
    struct nats_source *source = calloc(1, sizeof *source);
    if (!source) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    source->loop = loop;
    source->mean_bytes = MEAN_AT_OPEN;
    source->base = (struct source){.ops = &nats_source_ops, .events = events, .ctx = ctx};
    nats_list_open(&source->held);
    nats_list_open(&source->given);
    nats_list_open(&source->done);
    health_open(&source->health, PART_LINK | PART_CONSUMER, on_state_changed, source);
    int rc = nats_config_read(&source->config, settings, err, err_size);
    if (!rc)
        rc = nats_client_open(&source->client, loop, &source->config, "embedmill source",
                              &client_events, source, err, err_size);
    if (rc) {
        source_free(source);
        return rc;
    }
    source->n_open++;
    timer_open(source, &source->pump_timer);
    timer_open(source, &source->tick_timer);
    timer_open(source, &source->close_timer);
    uv_timer_start(&source->tick_timer, on_tick, NATS_TICK_MS, NATS_TICK_MS);
    *out = &source->base;
    return 0;
}

static void nats_source_request(struct source *base, size_t n, size_t n_bytes)
{
    struct nats_source *source = self(base);
    source->credit = n;
    source->credit_bytes = n ? n_bytes : 0;
    pump_soon(source);
}

static void nats_source_ack(struct source *base, struct message *message)
{
    struct nats_source *source = self(base);
    struct nats_message *own = (struct nats_message *)message;
    nats_list_remove(&source->given, own);
    nats_list_add(&source->done, own);
    pump_soon(source);
}

static void nats_source_release(struct source *base, struct message *message)
{
    struct nats_source *source = self(base);
    struct nats_message *own = (struct nats_message *)message;
    if (!source->is_finished)
        nats_ack_return(source, own);
    nats_list_remove(&source->given, own);
    nats_message_close(own);
}

void nats_source_mark_dead(struct message *message)
{
    if (message->source && message->source->ops == &nats_source_ops)
        ((struct nats_message *)message)->is_dead = true;
}

static void source_freed(struct nats_source *source)
{
    void (*closed)(void *) = source->closed;
    void *ctx = source->closed_ctx;
    if (--source->n_open)
        return;
    source_free(source);
    if (closed)
        closed(ctx);
}

static void on_client_closed(void *ctx)
{
    source_freed(ctx);
}

static void on_timer_closed(uv_handle_t *handle)
{
    source_freed(handle->data);
}

static void finish(struct nats_source *source)
{
    uv_timer_t *timers[] = {&source->pump_timer, &source->tick_timer, &source->close_timer};
    if (source->is_finished)
        return;
    source->is_finished = true;
    nats_ack_tell_rest(source);
    /* What was given back is flushed before the connection ends. */
    nats_client_close(source->client, NATS_CLOSE_MS, on_client_closed, source);
    for (size_t i = 0; i < sizeof timers / sizeof timers[0]; i++)
        uv_close((uv_handle_t *)timers[i], on_timer_closed);
}

static void on_close_deadline(uv_timer_t *timer)
{
    finish(timer->data);
}

static void nats_source_close(struct source *base, uint64_t deadline_ms, void (*closed)(void *ctx),
                              void *ctx)
{
    struct nats_source *source = self(base);
    if (!source)
        return;
    source->closing = true;
    source->quiet = source->failed;
    source->closed = closed;
    source->closed_ctx = ctx;
    uv_timer_start(&source->close_timer, on_close_deadline, deadline_ms, 0);
    pump_soon(source);
}

const struct source_ops nats_source_ops = {
    .open = nats_source_open,
    .request = nats_source_request,
    .ack = nats_source_ack,
    .release = nats_source_release,
    .close = nats_source_close,
    .check = nats_config_check,
};
