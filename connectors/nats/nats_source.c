/*
 * nats_source.c: a worker of a durable JetStream consumer.
 *
 * Owns:    credit, the messages that are with us, the way to the end.
 * Refuses: the consumer: nats_consumer.c; asking for messages: nats_pull.c; acks: nats_ack.c.
 * Threads: the loop thread.
 * Why:     everything that may be sent next is decided in one place, source_pump, called
 *          after every event and, through a timer of 0 ms, after every call of the pipeline; so
 *          no event fires inside a call and no question is asked twice or forgotten.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/nats/nats_source.h"

#define MEAN_AT_OPEN 512 /* bytes of a message, before one was seen */

static struct nats_source *self(struct source *source)
{
    return (struct nats_source *)source;
}

/* ---- what is to be done now */

static void return_all(struct nats_source *source)
{
    struct taken *taken;
    while ((taken = taken_pop(&source->intake.held)) ||
           (taken = taken_pop(&source->intake.given))) {
        struct nats_message *message = (struct nats_message *)taken;
        nats_ack_return(source, message);
        nats_message_close(message);
    }
}

/* When nothing comes any more, what is unfinished goes back; when all acks are confirmed, that is
 * the end. */
static void close_step(struct nats_source *source)
{
    if (source->end.failed || !nats_client_is_up(source->client)) {
        /* While the link is away acks wait for it, until the deadline of close. */
        if (source->end.failed || !source->done.n)
            endpoint_finish(&source->end);
        return;
    }
    /* Messages of an open request would still arrive, and nobody would give them back. */
    if (source->pull.is_open) /* for a second at most */
        return;
    if (!source->is_returned) {
        return_all(source);
        source->is_returned = true;
    }
    if (!source->done.n)
        endpoint_finish(&source->end);
}

static void source_pump(void *owner)
{
    struct nats_source *source = owner;
    if (nats_client_is_up(source->client) && !source->end.failed)
        nats_ack_send(source);
    if (!source->end.failed)
        intake_give(&source->intake, &source->base, &source->end);
    /* After giving: what the pipeline has taken makes room for more. */
    nats_pull_step(source);
    if (source->end.closing)
        close_step(source);
}

static void on_tick(uv_timer_t *timer)
{
    struct nats_source *source = timer->data;
    uint64_t now = uv_now(source->end.loop);
    nats_consumer_tick(source, now);
    nats_pull_tick(source, now);
    nats_ack_renew(source, now, false);
    endpoint_pump(&source->end);
}

/* ---- the connection */

static void on_up(void *ctx)
{
    struct nats_source *source = ctx;
    health_good(&source->end.health, PART_LINK);
    /* Requests and subscriptions are those of a connection: all of them are gone. */
    nats_pull_reset(source);
    source->consumer.is_asked = false;
    /* Silence on the old connection is no refusal on this one. */
    source->refused_ms = 0;
    nats_consumer_check(source);
    /* The server may have counted down while the link was away: all that is held is renewed. */
    nats_ack_renew(source, uv_now(source->end.loop), true);
    endpoint_pump(&source->end);
}

static void on_down(void *ctx, const char *why)
{
    struct nats_source *source = ctx;
    char text[500];
    snprintf(text, sizeof text, "%.400s; reconnecting until it succeeds", why);
    nats_pull_reset(source);
    source->consumer.is_asked = false;
    health_wait(&source->end.health, PART_LINK, text);
    endpoint_pump(&source->end);
}

static void on_failed(void *ctx, int err, const char *why)
{
    struct nats_source *source = ctx;
    endpoint_fail(&source->end, err, why);
    endpoint_pump(&source->end);
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
    health_wait(&source->end.health, part, why);
}

static void on_message(void *ctx, enum nats_channel channel, natsMsg *native)
{
    struct nats_source *source = ctx;
    (void)channel;
    nats_pull_on_message(source, native);
    endpoint_pump(&source->end);
}

static const struct nats_client_events client_events = {on_up, on_down, on_failed, on_denied,
                                                        on_message};

/* ---- the contract */

static void source_free(void *owner)
{
    struct nats_source *source = owner;
    struct taken *taken;
    while ((taken = taken_pop(&source->intake.held)) ||
           (taken = taken_pop(&source->intake.given)) || (taken = taken_pop(&source->done)))
        nats_message_close((struct nats_message *)taken);
    nats_config_clear(&source->config);
    free(source);
}

static void source_finish(void *owner, bool is_late)
{
    struct nats_source *source = owner;
    (void)is_late;
    /* Before the lists are freed: it counts them. */
    nats_ack_report_rest(source);
    /* What was given back is flushed before the connection ends. */
    nats_client_close(source->client, NATS_CLOSE_MS, endpoint_drop, &source->end);
    endpoint_close_handle(&source->end, (uv_handle_t *)&source->tick_timer);
}

static const struct endpoint_ops endpoint_ops = {source_pump, NULL, source_finish, source_free};

static int nats_source_open(struct source **out, uv_loop_t *loop, const struct settings *settings,
                            const struct source_events *events, void *ctx, char *err,
                            size_t err_size)
{
    struct nats_source *source = calloc(1, sizeof *source);
    if (!source) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    source->mean_bytes = MEAN_AT_OPEN;
    source->base = (struct source){.ops = &nats_source_ops, .events = events, .ctx = ctx};
    int rc = nats_config_read(&source->config, settings, err, err_size);
    if (!rc)
        rc = nats_client_open(&source->client, loop, &source->config, "embedmill source",
                              &client_events, source, err, err_size);
    if (rc) {
        source_free(source);
        return rc;
    }
    endpoint_open_source(&source->end, loop, &source->base, PART_LINK | PART_CONSUMER,
                         &endpoint_ops, source);
    endpoint_hold(&source->end); /* the client */
    endpoint_timer(&source->end, &source->tick_timer);
    uv_timer_start(&source->tick_timer, on_tick, NATS_TICK_MS, NATS_TICK_MS);
    *out = &source->base;
    return 0;
}

static void nats_source_request(struct source *base, size_t n, size_t n_bytes)
{
    struct nats_source *source = self(base);
    source->intake.credit = (struct credit_left){n, n_bytes};
    endpoint_pump_soon(&source->end);
}

static void nats_source_ack(struct source *base, struct message *message)
{
    struct nats_source *source = self(base);
    struct nats_message *own = (struct nats_message *)message;
    struct taken *taken = &own->taken;
    taken_remove(&source->intake.given, taken);
    /* Its consumer is gone: an ack would be another message's, of a stream made again. */
    if (own->is_void) {
        source_count(&source->base, COUNTER_LATE_ACKS, 1);
        nats_message_close(own);
    } else {
        taken_push(&source->done, taken);
    }
    endpoint_pump_soon(&source->end);
}

static void nats_source_release(struct source *base, struct message *message)
{
    struct nats_source *source = self(base);
    struct nats_message *own = (struct nats_message *)message;
    /* Before the close it goes back at once; afterwards the server redelivers it after ack_wait. */
    if (!source->end.finished)
        nats_ack_return(source, own);
    taken_remove(&source->intake.given, &own->taken);
    nats_message_close(own);
}

void nats_source_mark_dead(struct message *message)
{
    if (message->source && message->source->ops == &nats_source_ops)
        ((struct nats_message *)message)->is_dead = true;
}

static void nats_source_close(struct source *base, uint64_t deadline_ms, void (*closed)(void *ctx),
                              void *ctx)
{
    if (base)
        endpoint_close(&self(base)->end, deadline_ms, closed, ctx);
}

const struct source_ops nats_source_ops = {
    .open = nats_source_open,
    .request = nats_source_request,
    .ack = nats_source_ack,
    .release = nats_source_release,
    .close = nats_source_close,
    .check = nats_config_check,
};
