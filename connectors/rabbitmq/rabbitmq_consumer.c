/*
 * rabbitmq_consumer.c: the channels of a source.
 *
 * Owns:    when there is a consumer and with which prefetch; what a refused queue means; messages
 *          that take nearly as long as the server's consumer_timeout; lag.
 * Threads: the loop thread.
 * Why:     the server hands out as much as the prefetch allows, not what the pipeline asks for. So
 *          a consumer begins with a small one; it is ended and begun again with twice as much when
 *          the pipeline waits, with half when most of it lies idle here: what lies here no other
 *          worker can have, and what is given back may count as a failed delivery. Channel 1
 *          consumes; on channel 2 the queue's length is asked, where a refusal ends nothing else.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/rabbitmq/rabbitmq_source.h"

#define LAG_TICKS      5
#define LOOK_MS        5000 /* a prefetch that is too large for so long is halved */
#define RETURN_PERCENT 50   /* of consumer_timeout: what was not even begun is given back */
#define VOID_PERCENT   90   /* ... and what is being worked on */

/* Another one each time: RabbitMQ 3.10 ends the connection (541) when the tag of a consumer that
 * left messages of a quorum queue unacked is used again on their channel. */
static amqp_bytes_t consumer_tag(struct rabbitmq_source *source)
{
    snprintf(source->consumer_tag, sizeof source->consumer_tag, "embedmill-%llu",
             (unsigned long long)source->n_consumers);
    return rabbitmq_text(source->consumer_tag);
}

/* Not 0: nothing more can be sent. The connection was dropped, with all that follows from that, and
 * while closing it may be freed: what the caller knew of link and messages is over. */
static int call(struct rabbitmq_source *source, uint16_t channel, uint32_t id, const void *method)
{
    int rc = rabbitmq_link_method(source->link, channel, id, method);
    if (rc && rabbitmq_link_ready(source->link))
        rabbitmq_link_drop(source->link, "no memory");
    return rc;
}

static void open_channel(struct rabbitmq_source *source, uint16_t channel)
{
    static const amqp_channel_open_t open = {.out_of_band = {0, NULL}};
    call(source, channel, AMQP_CHANNEL_OPEN_METHOD, &open);
}

void rabbitmq_consumer_on_ready(struct rabbitmq_source *source)
{
    /* Before the call, which may lose the connection and set CONSUMER_NONE. */
    source->consumer = CONSUMER_CHANNEL;
    open_channel(source, RABBITMQ_WORK);
    if (source->base.events->on_lag)
        open_channel(source, RABBITMQ_PROBE);
}

/* ---- acks are confirmed by the answer to what is sent behind them */

static void sync_acks(struct rabbitmq_source *source)
{
    amqp_basic_qos_t qos = {.prefetch_count = source->prefetch};
    if (source->is_syncing || !source->n_unconfirmed || source->consumer < CONSUMER_IDLE)
        return;
    source->is_syncing = true;
    source->n_syncing = source->n_unconfirmed;
    /* It changes nothing: methods of a channel are done in order, so its
     * answer is behind the acks. */
    call(source, RABBITMQ_WORK, AMQP_BASIC_QOS_METHOD, &qos);
}

static void on_synced(struct rabbitmq_source *source)
{
    assert(!source->is_syncing || source->n_syncing <= source->n_unconfirmed);
    if (source->is_syncing)
        source->n_unconfirmed -= source->n_syncing;
    source->is_syncing = false;
}

/* ---- the consumer */

static void start(struct rabbitmq_source *source)
{
    /* Never global: RabbitMQ 4.3 refuses that, and ours is one consumer. */
    amqp_basic_qos_t qos = {.prefetch_count = source->prefetch};
    source->n_consumers++;
    amqp_basic_consume_t consume = {.queue = rabbitmq_text(source->config.queue),
                                    .consumer_tag = consumer_tag(source)};
    source->consumer = CONSUMER_STARTING;
    source->is_syncing = true; /* as good as sync_acks */
    source->n_syncing = source->n_unconfirmed;
    /* The prefetch counts for consumers that are started behind it. */
    if (call(source, RABBITMQ_WORK, AMQP_BASIC_QOS_METHOD, &qos) == 0)
        call(source, RABBITMQ_WORK, AMQP_BASIC_CONSUME_METHOD, &consume);
}

static void end(struct rabbitmq_source *source)
{
    amqp_basic_cancel_t cancel = {.consumer_tag = consumer_tag(source)};
    /* Deliveries may still come until cancel-ok; they are taken like all others. */
    source->consumer = CONSUMER_ENDING;
    call(source, RABBITMQ_WORK, AMQP_BASIC_CANCEL_METHOD, &cancel);
}

/* Begin a look at how the prefetch fits. */
static size_t n_here(const struct rabbitmq_source *source)
{
    /* What is void was given back: the server counts it against nobody's prefetch. */
    return source->intake.held.n + source->intake.given.n - source->n_void;
}

static void look(struct rabbitmq_source *source)
{
    source->looked_ms = uv_now(source->end.loop);
    source->least_held = SIZE_MAX;
    source->is_short = false;
}

static void resize(struct rabbitmq_source *source)
{
    uint64_t now = uv_now(source->end.loop);
    size_t most = source->config.prefetch, n = source->prefetch;
    size_t n_ours = n_here(source);
    if (source->intake.credit.n && !source->intake.held.n && n_ours >= n && n < most)
        /* All of the prefetch is in use and the pipeline wants more: it was the limit. */
        n = 2 * n < most ? 2 * n : most;
    else if (now - source->looked_ms >= LOOK_MS && source->least_held != SIZE_MAX &&
             source->least_held > n / 2 && n > 1)
        /* Half of it was never even given to the pipeline: other consumers could have had that. */
        n /= 2;
    if (now - source->looked_ms >= LOOK_MS)
        look(source);
    if (n == source->prefetch)
        return;
    source->prefetch = (uint16_t)n;
    end(source); /* its end begins the next one */
}

void rabbitmq_consumer_steer(struct rabbitmq_source *source)
{
    if (source->end.paused || source->end.failed || source->end.closing)
        return;
    if (source->consumer == CONSUMER_NONE && rabbitmq_link_ready(source->link)) {
        source->consumer = CONSUMER_CHANNEL;
        open_channel(source, RABBITMQ_WORK);
    } else if (source->consumer == CONSUMER_IDLE) {
        if (source->is_stalled && source->n_void)
            return; /* until the pipeline moves again */
        source->is_stalled = false;
        start(source);
    } else if (source->consumer == CONSUMER_ON && source->is_stalled) {
        end(source);
    } else if (source->consumer == CONSUMER_ON) {
        resize(source);
    }
}

/* ---- time */

/* The oldest of each: both lists are in the order of coming, but for what is void. */
static uint64_t age_of(const struct rabbitmq_source *source, const struct taken_list *list)
{
    for (const struct taken *taken = list->first; taken; taken = taken->next) {
        const struct rabbitmq_message *message = (const struct rabbitmq_message *)taken;
        if (message->epoch == source->epoch)
            return uv_now(source->end.loop) - message->taken_ms;
    }
    return 0;
}

static void give_back_given(struct rabbitmq_source *source)
{
    char text[300];
    size_t n = 0;
    for (struct taken *taken = source->intake.given.first; taken; taken = taken->next) {
        struct rabbitmq_message *message = (struct rabbitmq_message *)taken;
        amqp_basic_nack_t nack = {.delivery_tag = message->tag, .requeue = 1};
        if (message->epoch != source->epoch)
            continue;
        if (call(source, RABBITMQ_WORK, AMQP_BASIC_NACK_METHOD, &nack) != 0)
            return; /* the connection was dropped for it: this message and the rest are void */
        /* Of no channel any more: its ack, when it comes, is not sent. */
        message->epoch = 0;
        source->n_void++;
        n++;
    }
    snprintf(text, sizeof text,
             "queue %.100s: %zu messages were held for nearly rabbitmq.consumer_timeout and are "
             "given back; their outputs may come twice. Is the output's broker away, or is a "
             "message too large for the time?",
             source->config.queue, n);
    endpoint_notice(&source->end, NOTICE_WARN, "CONSUMER_TIMEOUT", text);
}

static void watch_time(struct rabbitmq_source *source)
{
    uint64_t limit = source->config.consumer_ms;
    if (!limit || source->consumer < CONSUMER_IDLE)
        return;
    /* The server would close the channel for one of them, and all others would
     * be redelivered, too. */
    if (age_of(source, &source->intake.held) >= limit * RETURN_PERCENT / 100) {
        source->is_stalled = true;
        rabbitmq_hold_return(source);
    }
    if (age_of(source, &source->intake.given) >= limit * VOID_PERCENT / 100) {
        source->is_stalled = true;
        rabbitmq_hold_return(source);
        give_back_given(source);
    }
}

static void probe(struct rabbitmq_source *source)
{
    amqp_queue_declare_t declare = {.queue = rabbitmq_text(source->config.queue), .passive = 1};
    if (!source->base.events->on_lag || source->is_probing || !rabbitmq_link_ready(source->link))
        return;
    if (!source->is_probe_open) {
        /* A refusal has closed it; its open-ok asks (rabbitmq_consumer_on_method). */
        open_channel(source, RABBITMQ_PROBE);
        return;
    }
    /* One question at a time, or a slow server would be asked more and more. */
    source->is_probing = true;
    call(source, RABBITMQ_PROBE, AMQP_QUEUE_DECLARE_METHOD, &declare);
}

void rabbitmq_consumer_tick(struct rabbitmq_source *source)
{
    sync_acks(source);
    watch_time(source);
    /* The channel's open-ok has asked once already; from there on it is every five seconds. */
    if (source->ticks++ % LAG_TICKS == 1 && source->base.events->on_lag)
        probe(source);
}

void rabbitmq_consumer_leave(struct rabbitmq_source *source)
{
    amqp_basic_cancel_t cancel = {.consumer_tag = consumer_tag(source)};
    amqp_basic_nack_t nack = {.delivery_tag = 0, .multiple = 1, .requeue = 1};
    amqp_channel_close_t bye = {.reply_code = 200, .reply_text = rabbitmq_text("done")};
    if (source->is_bye_sent)
        return;
    source->is_bye_sent = true;
    rabbitmq_link_pause(source->link, false); /* or its answer is not heard */
    source->is_syncing = true;
    source->n_syncing = source->n_unconfirmed;
    /* In this order, and all at once: what is under way to us is given back as well. */
    if ((source->consumer == CONSUMER_ON || source->consumer == CONSUMER_STARTING) &&
        call(source, RABBITMQ_WORK, AMQP_BASIC_CANCEL_METHOD, &cancel) != 0)
        return;
    if (call(source, RABBITMQ_WORK, AMQP_BASIC_NACK_METHOD, &nack) == 0)
        call(source, RABBITMQ_WORK, AMQP_CHANNEL_CLOSE_METHOD, &bye);
}

/* ---- answers */

/* Something of the queue was refused: say so and try again after a pause. */
static void refused(struct rabbitmq_source *source, const char *why)
{
    char text[HEALTH_WHY_SIZE];
    snprintf(text, sizeof text, "rabbitmq %s: queue %.120s: %.400s",
             rabbitmq_link_where(source->link), source->config.queue, why);
    health_wait(&source->end.health, PART_CONSUMER, text);
    endpoint_pause(&source->end);
}

static const char *advice_on(uint16_t code, const char *text)
{
    switch (code) {
    case AMQP_NOT_FOUND:
        return strstr(text, "down") ? "its node is down; start it"
                                    : "declare it; the worker waits until it exists";
    case AMQP_ACCESS_REFUSED:
        return strstr(text, "exclusive") ? "another consumer has it for itself alone"
                                         : "allow this user to read it (rabbitmqctl "
                                           "set_permissions)";
    case AMQP_RESOURCE_LOCKED:
        return "another connection has it for itself alone";
    case AMQP_PRECONDITION_FAILED:
        return strstr(text, "timed out") ? "set rabbitmq.consumer_timeout to the server's "
                                           "consumer_timeout"
                                         : "see the server's log";
    default:
        return "see the server's log";
    }
}

static void on_work_closed(struct rabbitmq_source *source, const amqp_channel_close_t *close)
{
    char text[256], why[500];
    rabbitmq_text_copy(text, sizeof text, close->reply_text);
    snprintf(why, sizeof why, "%s (%s)", text, advice_on(close->reply_code, text));
    source->consumer = CONSUMER_NONE;
    source->is_syncing = false;
    /* With its channel every message that was not acked goes back to the queue. */
    rabbitmq_hold_void(source);
    if (source->end.closing)
        endpoint_pump(&source->end);
    else
        refused(source, why);
}

static void on_probe_closed(struct rabbitmq_source *source)
{
    source->is_probe_open = source->is_probing = false;
    /* The next question opens the channel again. */
    source->base.events->on_lag(source->base.ctx, source->config.queue, -1);
}

static void on_length(struct rabbitmq_source *source, const amqp_queue_declare_ok_t *found)
{
    size_t n_ours = n_here(source);
    source->is_probing = false;
    source->base.events->on_lag(source->base.ctx, source->config.queue,
                                (int64_t)found->message_count + (int64_t)n_ours);
}

static void on_consuming(struct rabbitmq_source *source)
{
    source->consumer = CONSUMER_ON;
    /* The queue is there: the next refusal is news and waits a short time only. */
    source->end.backoff.attempts = 0;
    look(source);
    rabbitmq_link_good(source->link);
    health_good(&source->end.health, PART_CONSUMER);
}

static void on_work_method(struct rabbitmq_source *source, uint32_t id, const void *decoded)
{
    switch (id) {
    case AMQP_CHANNEL_OPEN_OK_METHOD:
        source->consumer = CONSUMER_IDLE;
        break;
    case AMQP_BASIC_QOS_OK_METHOD:
        on_synced(source);
        break;
    case AMQP_BASIC_CONSUME_OK_METHOD:
        if (source->consumer == CONSUMER_STARTING)
            on_consuming(source);
        break;
    case AMQP_BASIC_CANCEL_OK_METHOD:
        if (source->consumer == CONSUMER_ENDING)
            /* endpoint_pump below begins the next consumer, with the prefetch as it is now. */
            source->consumer = CONSUMER_IDLE;
        break;
    case AMQP_BASIC_CANCEL_METHOD: /* the queue was deleted, or its node is gone */
        source->consumer = CONSUMER_IDLE;
        if (!source->end.closing)
            refused(source, "the server ended our consumer (was the queue deleted?); the worker "
                            "waits until it exists");
        break;
    case AMQP_CHANNEL_CLOSE_OK_METHOD: /* of rabbitmq_consumer_leave */
        on_synced(source);
        source->consumer = CONSUMER_NONE;
        break;
    case AMQP_CHANNEL_CLOSE_METHOD:
        on_work_closed(source, decoded);
        return;
    default:
        return;
    }
    endpoint_pump(&source->end);
}

void rabbitmq_consumer_on_method(void *ctx, uint16_t channel, uint32_t id, const void *decoded)
{
    struct rabbitmq_source *source = ctx;
    if (channel == RABBITMQ_WORK)
        on_work_method(source, id, decoded);
    else if (source->end.closing || source->end.failed)
        return;
    else if (id == AMQP_CHANNEL_OPEN_OK_METHOD) {
        source->is_probe_open = true;
        probe(source);
        rabbitmq_link_flush(source->link);
    } else if (id == AMQP_QUEUE_DECLARE_OK_METHOD)
        on_length(source, decoded);
    else if (id == AMQP_CHANNEL_CLOSE_METHOD)
        on_probe_closed(source);
}
