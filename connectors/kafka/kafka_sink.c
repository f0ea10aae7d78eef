/*
 * kafka_sink.c: outputs and dead letters into Kafka, at least once.
 *
 * Owns:    the producer, the records given until they are confirmed, in order; trying again.
 * Refuses: what a record looks like in Kafka: kafka_record.c. Transactions: kafka_transactions.c.
 * Threads: the loop thread.
 * Why:     the library retries what the network does by itself and without end. What comes back is
 *          either confirmed, or refused by a topic (absent, forbidden, too small), and then all
 *          that was given later waits behind it, but for what was already on its way: that passes.
 *          So does everything when nobody knows what the refusal means: kafka_slots.c.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"
#include "connectors/endpoint.h"
#include "connectors/kafka/kafka.h"
#include "connectors/kafka/kafka_client.h"
#include "connectors/kafka/kafka_record.h"
#include "connectors/kafka/kafka_slots.h"
#include "connectors/kafka/kafka_transactions.h"

#define BROKERS 1u
#define WRITE   2u

struct kafka_sink {
    struct sink base;
    struct endpoint end;
    const struct settings *settings;
    struct kafka_config config;
    struct kafka_client *client;
    rd_kafka_queue_t *queue;
    struct kafka_slots slots;
    size_t n_sent;        /* of those, with the library */
    char last_error[240]; /* what the library said of a broker */
    bool renew;           /* the producer is of no use any more */
};

static struct kafka_sink *self(struct sink *sink)
{
    return (struct kafka_sink *)sink;
}

/* ---- what is told */

static void on_error(rd_kafka_t *rk, int code, const char *text, void *opaque)
{
    struct kafka_sink *sink = kafka_client_owner(opaque);
    char why[400], fatal[240];
    (void)rk;
    switch ((rd_kafka_resp_err_t)code) {
    case RD_KAFKA_RESP_ERR__FATAL:
        rd_kafka_fatal_error(rk, fatal, sizeof fatal);
        snprintf(why, sizeof why, "the producer is recreated: %.240s", fatal);
        health_wait(&sink->end.health, WRITE, why);
        sink->renew = true;
        return;
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__RESOLVE:
        snprintf(sink->last_error, sizeof sink->last_error, "%s", text);
        kafka_client_note(opaque, (rd_kafka_resp_err_t)code, text);
        return;
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR__SSL:
        snprintf(why, sizeof why, "%.300s; reconnecting until it succeeds", text);
        health_wait(&sink->end.health, BROKERS, why);
        return;
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
        snprintf(why, sizeof why, "%.160s: %.200s; reconnecting until it succeeds", text,
                 sink->last_error);
        health_wait(&sink->end.health, BROKERS, why);
        return;
    default: /* what it means for a record comes with its delivery report */
        kafka_client_note(opaque, (rd_kafka_resp_err_t)code, text);
    }
}

/* There is no event for a broker that is back: see kafka_source.c. */
static int on_statistics(rd_kafka_t *rk, char *json, size_t len, void *opaque)
{
    struct kafka_sink *sink = kafka_client_owner(opaque);
    (void)rk, (void)len;
    if (strstr(json, "\"state\":\"UP\""))
        health_good(&sink->end.health, BROKERS);
    return 0;
}

static void on_line(void *ctx, const struct kafka_line *line)
{
    struct kafka_sink *sink = ctx;
    endpoint_notice(&sink->end, kafka_log_class(line->level, line->facility, line->text),
                    line->facility, line->text);
}

/* ---- slots */

static void slot_done(struct kafka_sink *sink, struct kafka_slot *slot, enum published how)
{
    struct record *record = kafka_slots_take(&sink->slots, slot);
    sink->base.events->on_published(sink->base.ctx, record, how);
}

static void slot_refused(struct kafka_sink *sink, struct kafka_slot *slot, rd_kafka_resp_err_t err)
{
    struct kafka_reported reported = {.health = &sink->end.health, .write = WRITE};
    switch (kafka_slot_refuse(&sink->slots, slot, err, &sink->config, &reported)) {
    case VERDICT_TOO_LARGE:
        slot_done(sink, slot, PUBLISH_TOO_LARGE);
        return;
    case VERDICT_REFUSED:
        slot->base.record->refused_code = DEAD_LETTER(output_refused);
        slot->base.record->refused_reason = reported.why;
        slot_done(sink, slot, PUBLISH_REFUSED);
        return;
    case VERDICT_AGAIN:
        return;
    case VERDICT_NONE:
    case VERDICT_WAIT:
        endpoint_pause(&sink->end);
        if (slot->aside)
            endpoint_doubt(&sink->end);
    }
}

static void on_delivered(rd_kafka_t *rk, const rd_kafka_message_t *native, void *opaque)
{
    struct kafka_sink *sink = kafka_client_owner(opaque);
    struct kafka_slot *slot = native->_private;
    (void)rk;
    sink->n_sent--;
    /* Back with us: whatever comes of it, the library has no pointer to it any more. */
    slot->sent = false;
    if (native->err) {
        slot_refused(sink, slot, native->err);
        return;
    }
    health_good(&sink->end.health, BROKERS | WRITE);
    sink->end.backoff.attempts = 0;
    kafka_slot_confirmed(slot, &sink->config, &sink->base);
    kafka_slots_passed(&sink->slots, slot);
    slot_done(sink, slot, PUBLISHED);
}

/* ---- sending */

/* False: no more for now. */
static bool slot_send(struct kafka_sink *sink, struct kafka_slot *slot)
{
    rd_kafka_resp_err_t err =
        kafka_record_produce(sink->client->rk, &sink->config, slot->base.record, &slot->form, slot);
    if (!err) {
        slot->sent = true;
        sink->n_sent++;
        return true;
    }
    if (err == RD_KAFKA_RESP_ERR__QUEUE_FULL)
        return false; /* deliveries go on */
    if (err == RD_KAFKA_RESP_ERR__FATAL)
        sink->renew = true;
    if (err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)
        slot->alone = true; /* our own limit, which is on one record */
    slot_refused(sink, slot, err);
    /* Refused on the spot; others may still go, unless it is the destination. */
    return !sink->end.paused;
}

/* In order. One that is not to have company waits until all before it are confirmed. */
static void send_all(struct kafka_sink *sink)
{
    struct kafka_slot *slot = kafka_slots_first(&sink->slots), *next;
    for (; slot && !sink->end.paused && !sink->end.failed; slot = next) {
        next = kafka_slots_next(slot);
        if (kafka_slots_lets_pass(&sink->slots, slot))
            continue;
        if (slot->sent) {
            if (slot->alone)
                return;
            continue;
        }
        /* Others are in the library, which may put it into one batch with them. */
        if (slot->alone && sink->n_sent)
            return;
        if (!slot->base.record->n_parts) { /* given up */
            slot_done(sink, slot, PUBLISHED);
            continue;
        }
        bool was_alone = slot->alone;
        if (!slot_send(sink, slot) || was_alone)
            return;
    }
}

static int client_open(struct kafka_sink *sink, char *err, size_t err_size);

static void client_close(struct kafka_sink *sink, uint64_t deadline_ms)
{
    if (!sink->client)
        return;
    rd_kafka_queue_destroy(sink->queue);
    /* What it still has is ours as well: no report of it is wanted, and none is polled for. */
    rd_kafka_purge(sink->client->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT |
                                         RD_KAFKA_PURGE_F_NON_BLOCKING);
    kafka_client_close(sink->client, deadline_ms, endpoint_drop, &sink->end);
    sink->client = NULL;
}

/* The producer is of no use any more: everything not confirmed goes through a new one. */
static void renew(struct kafka_sink *sink)
{
    char err[400];
    sink->renew = false;
    struct kafka_slot *slot = kafka_slots_first(&sink->slots);
    for (; slot; slot = kafka_slots_next(slot))
        /* Some may have been written: at least once, not exactly. */
        slot->sent = false;
    sink->n_sent = 0;
    client_close(sink, 5000);
    if (client_open(sink, err, sizeof err))
        endpoint_fail(&sink->end, -ENOMEM, err);
    else
        endpoint_pause(&sink->end);
}

static void sink_pump(void *owner)
{
    struct kafka_sink *sink = owner;
    if (!sink->client)
        return;
    /* Reports first: what they confirm or refuse decides what is sent below. */
    while (rd_kafka_poll(sink->client->rk, 0) > 0) {
    }
    kafka_client_read_log(sink->client, on_line, sink);
    if (sink->renew && !sink->end.failed)
        renew(sink);
    if (sink->end.closing && (sink->end.failed || !sink->slots.queue.n))
        endpoint_finish(&sink->end);
    else
        send_all(sink);
}

static void on_wake(void *ctx, bool is_tick)
{
    (void)is_tick;
    sink_pump(ctx);
}

/* ---- the contract */

static int client_open(struct kafka_sink *sink, char *err, size_t err_size)
{
    rd_kafka_conf_t *conf;
    int rc =
        kafka_conf_open(&conf, RD_KAFKA_PRODUCER, &sink->config, sink->settings, err, err_size);
    if (rc)
        return rc;
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivered);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_stats_cb(conf, on_statistics);
    rc = kafka_client_open(&sink->client, sink->end.loop, RD_KAFKA_PRODUCER, conf, sink, on_wake,
                           sink, err, err_size);
    if (rc)
        return rc;
    endpoint_hold(&sink->end);
    sink->queue = rd_kafka_queue_get_main(sink->client->rk);
    kafka_client_watch(sink->client, sink->queue);
    sink->config.message_max = kafka_message_max(sink->client->rk);
    return 0;
}

static void sink_finish(void *owner, bool is_late)
{
    (void)is_late;
    client_close(owner, 500);
}

static void sink_free(void *owner)
{
    struct kafka_sink *sink = owner;
    kafka_slots_close(&sink->slots);
    kafka_config_clear(&sink->config);
    free(sink);
}

static const struct endpoint_ops endpoint_ops = {
    .pump = sink_pump,
    .finish = sink_finish,
    .free = sink_free,
};

static int kafka_sink_open(struct sink **out, uv_loop_t *loop, const struct settings *settings,
                           struct source *peer, const struct sink_events *events, void *ctx,
                           char *err, size_t err_size)
{
    if (settings_is(settings, "delivery", "exactly-once"))
        return kafka_transactions_open(out, loop, settings, peer, events, ctx, err, err_size);
    struct kafka_sink *sink = calloc(1, sizeof *sink);
    if (!sink) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    sink->base = (struct sink){.ops = &kafka_sink_ops, .events = events, .ctx = ctx};
    sink->base.layout = SINK_PER_MESSAGE;
    sink->settings = settings;
    kafka_slots_open(&sink->slots);
    int rc = kafka_config_read(&sink->config, settings, err, err_size);
    if (rc) {
        sink_free(sink);
        return rc;
    }
    endpoint_open_sink(&sink->end, loop, &sink->base, BROKERS, &endpoint_ops, sink);
    rc = client_open(sink, err, err_size);
    if (rc)
        endpoint_finish(&sink->end);
    else
        *out = &sink->base;
    return rc;
}

static void kafka_sink_publish(struct sink *base, struct record **records, size_t n)
{
    struct kafka_sink *sink = self(base);
    if (kafka_slots_add(&sink->slots, records, n))
        endpoint_fail_soon(&sink->end);
    endpoint_pump_soon(&sink->end);
}

static void kafka_sink_close(struct sink *base, uint64_t deadline_ms, void (*closed)(void *ctx),
                             void *ctx)
{
    if (base)
        endpoint_close(&self(base)->end, deadline_ms, closed, ctx);
}

const struct sink_ops kafka_sink_ops = {
    .check = kafka_check_options,
    .open = kafka_sink_open,
    .publish = kafka_sink_publish,
    .close = kafka_sink_close,
};
