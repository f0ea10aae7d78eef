/*
 * kafka_transactions.c: outputs into Kafka, each input exactly once.
 *
 * Owns:    the records given until their transaction is committed; which go together; trying again;
 *          the watch over the thread that makes transactions.
 * Refuses: the calls themselves: kafka_publisher.c.
 * Threads: the loop thread.
 * Why:     a transaction commits a prefix of each partition, so a record may join only when all
 *          before it are done or join too. It carries the membership of the moment when it was put
 *          together: when partitions have moved on since, the broker refuses all of it, and what
 *          is not ours any more is dropped. What still is ours is here still, so nothing has to be
 *          read again.
 */
#include "connectors/dead_letter_codes.h"
#include "connectors/kafka/kafka_transactions.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "connectors/endpoint.h"
#include "connectors/kafka/kafka_errors.h"
#include "connectors/kafka/kafka_publisher.h"
#include "connectors/kafka/kafka_slots.h"
#include "connectors/kafka/kafka_source.h"
#include "connectors/wakeup.h"

#define BROKERS 1u
#define WRITE   2u

struct kafka_transactions {
    struct sink base;
    struct endpoint end;
    const struct settings *settings;
    struct kafka_config config;
    struct kafka_source *source;
    char *id; /* transactional.id */
    int id_lock;
    struct kafka_client *client;
    rd_kafka_queue_t *queue;
    struct kafka_publisher *publisher;
    struct kafka_slots slots;
    bool is_ready;    /* transactions are initialised */
    bool was_refused; /* the last transaction, for a record */
    bool submitted;
    struct wakeup wakeup;
};

static int client_open(struct kafka_transactions *sink, char *err, size_t err_size);

/* ---- what is told */

static void report_news(struct kafka_transactions *sink)
{
    char trouble[240], why[300];
    if (!kafka_publisher_news(sink->publisher, trouble, sizeof trouble))
        return;
    snprintf(why, sizeof why, "%s; reconnecting until it succeeds", trouble);
    if (trouble[0])
        health_wait(&sink->end.health, BROKERS, why);
    else
        health_good(&sink->end.health, BROKERS);
}

static void watch(struct kafka_transactions *sink)
{
    char why[240];
    uint64_t ms;
    const char *call = kafka_publisher_call(sink->publisher, &ms);
    /* Said once: a failure while failed asks for a pump, which would come here again at once. */
    if (!call || ms < sink->config.transaction_ms || sink->end.failed)
        return;
    snprintf(why, sizeof why,
             "%s has not returned for %llu s (kafka.transaction_deadline); the library can hang "
             "there, so start the worker again: nothing is lost or doubled by that",
             call, (unsigned long long)(ms / 1000));
    endpoint_fail(&sink->end, -ETIMEDOUT, why);
}

static void on_line(void *ctx, const struct kafka_line *line)
{
    struct kafka_transactions *sink = ctx;
    endpoint_notice(&sink->end, kafka_log_class(line->level, line->facility, line->text),
                    line->facility, line->text);
}

/* ---- slots */

static void slot_done(struct kafka_transactions *sink, struct kafka_slot *slot, enum published how)
{
    struct record *record = kafka_slots_take(&sink->slots, slot);
    /* The record is the pipeline's again in the event, the message ours behind it. */
    struct message *origin = record->origin;
    sink->base.events->on_published(sink->base.ctx, record, how);
    if (how == PUBLISHED_AND_ACKED)
        kafka_source_finish(origin);
}

static struct kafka_partition *part_of(const struct kafka_slot *slot)
{
    return kafka_source_partition(slot->base.record->origin);
}

/* ---- a transaction put together */

static void add_offset(struct kafka_burst *burst, const struct kafka_partition *part)
{
    rd_kafka_topic_partition_t *found =
        rd_kafka_topic_partition_list_find(burst->offsets, part->topic, part->partition);
    if (!found)
        found = rd_kafka_topic_partition_list_add(burst->offsets, part->topic, part->partition);
    /* Up to the last that joined; raised with each, so that one entry does for a partition. */
    found->offset = kafka_offsets_begun(&part->offsets);
}

/* What was given and may go now. Those whose partition has moved on go back. */
static void fill(struct kafka_transactions *sink, struct kafka_burst *burst)
{
    struct kafka_slot *slot = kafka_slots_first(&sink->slots), *next;
    for (; slot && burst->n < KAFKA_BURST_MAX; slot = next) {
        struct kafka_partition *part = part_of(slot);
        next = kafka_slots_next(slot);
        /* Another worker has the partition, and would publish the same again: not ours to write. */
        if (part->revoked) {
            slot_done(sink, slot, PUBLISH_NOT_OURS);
            continue;
        }
        /* It stands aside, and lets others to its topic go first. */
        if (kafka_slots_lets_pass(&sink->slots, slot))
            continue;
        /* A suspect goes in a transaction of its own, so that a refusal names it and nothing
         * else. An offset is committed only when all before it in its partition are. */
        if ((slot->alone && burst->n) ||
            !kafka_offsets_begin(&part->offsets, kafka_source_offset(slot->base.record->origin)))
            continue;
        burst->items[burst->n++] =
            (struct kafka_item){.record = slot->base.record, .tag = slot, .form = slot->form};
        add_offset(burst, part);
        if (slot->alone)
            return;
    }
}

/*
 * All that is left waits behind a record that stands aside, for offsets are committed in order. So
 * the next one to the same topic is written alone and taken back: does it pass?
 */
static void fill_trial(struct kafka_transactions *sink, struct kafka_burst *burst)
{
    struct kafka_slot *slot = kafka_slots_first(&sink->slots), *aside = slot;
    while (aside && !kafka_slots_lets_pass(&sink->slots, aside))
        aside = kafka_slots_next(aside);
    if (!aside)
        return;
    while (slot && (slot->aside || !slot->base.record->n_parts ||
                    !slot->base.record->dead_code != !aside->base.record->dead_code))
        slot = kafka_slots_next(slot);
    assert(slot); /* lets_pass has counted it */
    burst->items[burst->n++] =
        (struct kafka_item){.record = slot->base.record, .tag = slot, .form = slot->form};
    burst->is_trial = true;
}

static void clear(struct kafka_burst *burst)
{
    if (burst->offsets)
        rd_kafka_topic_partition_list_destroy(burst->offsets);
    if (burst->group)
        rd_kafka_consumer_group_metadata_destroy(burst->group);
    burst->offsets = NULL;
    burst->group = NULL;
    burst->n = 0;
    burst->is_trial = false;
}

static void submit(struct kafka_transactions *sink)
{
    struct kafka_burst *burst = kafka_publisher_burst(sink->publisher);
    /* In doubt: nobody knows whether it was committed, so the same burst goes once more, to be
     * settled by the group's offsets. */
    if (!burst->in_doubt) {
        burst->offsets = rd_kafka_topic_partition_list_new(1);
        /* A lost assignment: whatever would be written now, the new owner writes too. */
        if (sink->is_ready && !rd_kafka_assignment_lost(sink->source->rk))
            fill(sink, burst);
        if (sink->is_ready && !burst->n)
            fill_trial(sink, burst);
        if (sink->is_ready && !burst->n) {
            clear(burst);
            return;
        }
        /* Taken now: if partitions move before the commit, the broker finds it out by this. */
        burst->group = rd_kafka_consumer_group_metadata(sink->source->rk);
    }
    sink->submitted = true;
    kafka_publisher_submit(sink->publisher);
}

/* ---- and what came of it */

/* The producer is of no use any more. */
static void renew(struct kafka_transactions *sink)
{
    char err[300];
    rd_kafka_queue_destroy(sink->queue);
    /* Closed beside the new one; the endpoint waits for both before it is gone. */
    kafka_client_close(sink->client, 5000, endpoint_drop, &sink->end);
    sink->client = NULL;
    /* The next burst begins with initialising the new producer's transactions. */
    sink->is_ready = false;
    if (client_open(sink, err, sizeof err))
        endpoint_fail(&sink->end, -ENOMEM, err);
}

/* One record was refused, and with it all. What that means for it. */
static enum kafka_verdict item_refused(struct kafka_transactions *sink,
                                       const struct kafka_item *item)
{
    struct kafka_slot *slot = item->tag;
    struct kafka_reported reported = {.health = &sink->end.health, .write = WRITE};
    enum kafka_verdict verdict =
        kafka_slot_refuse(&sink->slots, slot, item->err, &sink->config, &reported);
    if (verdict == VERDICT_TOO_LARGE)
        slot_done(sink, slot, PUBLISH_TOO_LARGE);
    if (verdict == VERDICT_REFUSED) {
        slot->base.record->refused_code = DEAD_LETTER(output_refused);
        slot->base.record->refused_reason = reported.why;
        slot_done(sink, slot, PUBLISH_REFUSED);
    }
    if (verdict == VERDICT_WAIT && slot->aside)
        endpoint_doubt(&sink->end);
    return verdict;
}

/* No more than that the group is being rebalanced, which mends itself. */
static bool is_rebalance(rd_kafka_resp_err_t err)
{
    return kafka_error_is_rebalance(err) || err == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID;
}

static void end_offsets(struct kafka_burst *burst, bool committed)
{
    for (size_t i = 0; i < burst->n; i++) {
        struct kafka_partition *part = part_of(burst->items[i].tag);
        int64_t offset = kafka_offsets_begun(&part->offsets); /* -1: ended with one before */
        if (committed && offset >= 0)
            part->committed = offset;
        kafka_offsets_end(&part->offsets, committed);
    }
}

static void on_committed(struct kafka_transactions *sink, struct kafka_burst *burst)
{
    end_offsets(burst, true);
    sink->was_refused = false;
    sink->is_ready = true;
    sink->end.backoff.attempts = 0;
    health_good(&sink->end.health, BROKERS | WRITE);
    for (size_t i = 0; i < burst->n && !sink->end.failed; i++) {
        kafka_slot_confirmed(burst->items[i].tag, &sink->config, &sink->base);
        if (burst->items[i].passed)
            kafka_slots_passed(&sink->slots, burst->items[i].tag);
        slot_done(sink, burst->items[i].tag, PUBLISHED_AND_ACKED);
    }
}

static void tell(struct kafka_transactions *sink, const struct kafka_burst *burst,
                 const char *what_next)
{
    char why[640];
    bool is_fenced = burst->err == RD_KAFKA_RESP_ERR__FENCED ||
                     burst->err == RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH;
    if (!burst->why[0] || is_rebalance(burst->err))
        return;
    snprintf(why, sizeof why, "%.300s; %s%s%.100s%s", burst->why, what_next,
             is_fenced ? ". If this goes on, another worker has the transactional.id " : "",
             is_fenced ? sink->id : "",
             is_fenced ? ": give each host its own name, or each worker a group.instance.id" : "");
    health_wait(&sink->end.health, WRITE, why);
}

static void on_aborted(struct kafka_transactions *sink, struct kafka_burst *burst)
{
    bool is_mended = false, is_reported = false;
    end_offsets(burst, false);
    /* It passed where those aside did not: one more sign that the fault is theirs. */
    if (burst->is_trial && burst->items[0].passed) {
        sink->end.backoff.attempts = 0;
        kafka_slots_passed(&sink->slots, burst->items[0].tag);
        return;
    }
    for (size_t i = 0; i < burst->n && !is_reported; i++) {
        enum kafka_verdict verdict = item_refused(sink, &burst->items[i]);
        is_mended |=
            verdict == VERDICT_AGAIN || verdict == VERDICT_TOO_LARGE || verdict == VERDICT_REFUSED;
        is_reported |= verdict == VERDICT_WAIT;
    }
    /* The library has spent sequence numbers on what was refused: the next transaction fails for
     * the gap, and only then does it begin anew. That is not news. */
    bool is_echo = sink->was_refused && !is_mended && !is_reported && !burst->renew;
    sink->was_refused = is_mended || is_reported;
    if ((is_mended && !is_reported) || is_echo)
        return;
    if (!is_reported)
        tell(sink, burst, "it is tried again");
    endpoint_pause(&sink->end);
}

static void on_unknown(struct kafka_transactions *sink, struct kafka_burst *burst)
{
    tell(sink, burst, "the group's offsets will tell whether it was committed");
    endpoint_pause(&sink->end);
}

static void take_result(struct kafka_transactions *sink)
{
    struct kafka_burst *burst = kafka_publisher_burst(sink->publisher);
    enum kafka_outcome outcome = burst->outcome;
    bool must_renew = burst->renew;
    assert(sink->submitted);
    sink->submitted = false;
    burst->in_doubt = outcome == OUTCOME_UNKNOWN;
    if (outcome == OUTCOME_COMMITTED)
        on_committed(sink, burst);
    else if (outcome == OUTCOME_ABORTED)
        on_aborted(sink, burst);
    else
        on_unknown(sink, burst);
    if (!burst->in_doubt)
        clear(burst);
    /* After the burst is settled: its results are of the old producer. */
    if (must_renew && !sink->end.failed)
        renew(sink);
}

static void sink_pump(void *owner)
{
    struct kafka_transactions *sink = owner;
    if (!sink->publisher)
        return;
    report_news(sink);
    if (sink->client)
        kafka_client_read_log(sink->client, on_line, sink);
    watch(sink);
    /* The burst belongs to the publisher's thread until it is idle. */
    if (!kafka_publisher_is_idle(sink->publisher)) {
        /* A call that hangs is not waited for: sink_finish leaves its thread alone. */
        if (sink->end.closing && sink->end.failed)
            endpoint_finish(&sink->end);
        return;
    }
    if (sink->submitted)
        take_result(sink);
    while (sink->client && rd_kafka_poll(sink->client->rk, 0) > 0) {
    }
    if (sink->end.closing && (sink->end.failed || !sink->slots.queue.n))
        endpoint_finish(&sink->end);
    else if (!sink->end.failed && !sink->end.paused && sink->client)
        submit(sink);
}

static void on_wake(void *ctx, bool is_tick)
{
    (void)is_tick;
    sink_pump(ctx);
}

/* On the publisher's thread. */
static void send_wakeup(void *ctx)
{
    struct kafka_transactions *sink = ctx;
    wakeup_send(&sink->wakeup);
}

/* ---- the contract */

static int client_open(struct kafka_transactions *sink, char *err, size_t err_size)
{
    rd_kafka_conf_t *conf;
    int rc =
        kafka_conf_open(&conf, RD_KAFKA_PRODUCER, &sink->config, sink->settings, err, err_size);
    if (rc)
        return rc;
    if (rd_kafka_conf_set(conf, "transactional.id", sink->id, err, err_size)) {
        rd_kafka_conf_destroy(conf);
        return -EINVAL;
    }
    kafka_publisher_configure(conf);
    rc = kafka_client_open(&sink->client, sink->end.loop, RD_KAFKA_PRODUCER, conf, sink->publisher,
                           on_wake, sink, err, err_size);
    if (rc)
        return rc;
    endpoint_hold(&sink->end);
    sink->queue = rd_kafka_queue_get_main(sink->client->rk);
    sink->config.message_max = kafka_message_max(sink->client->rk);
    kafka_client_watch(sink->client, sink->queue);
    kafka_publisher_use(sink->publisher, sink->client->rk);
    return 0;
}

static void on_wakeup_closed(void *ctx)
{
    endpoint_drop(&((struct kafka_transactions *)ctx)->end);
}

static void sink_finish(void *owner, bool is_late)
{
    struct kafka_transactions *sink = owner;
    struct kafka_publisher *publisher = sink->publisher;
    struct kafka_client *client = sink->client;
    (void)is_late;
    /* Nothing below may find them again: the pump can still run. */
    sink->publisher = NULL;
    sink->client = NULL;
    /* Else the burst is its thread's and goes unfreed with it. */
    if (publisher && kafka_publisher_is_idle(publisher))
        clear(kafka_publisher_burst(publisher));
    bool is_done = !publisher || kafka_publisher_close(publisher);
    if (!is_done) /* the thread may be asking it for offsets */
        kafka_source_abandon(sink->source);
    if (client)
        rd_kafka_queue_destroy(sink->queue);
    if (client && is_done)
        kafka_client_close(client, 500, endpoint_drop, &sink->end);
    else if (client)
        kafka_client_abandon(client, endpoint_drop, &sink->end);
    wakeup_close(&sink->wakeup, on_wakeup_closed);
}

static void sink_free(void *owner)
{
    struct kafka_transactions *sink = owner;
    kafka_slots_close(&sink->slots);
    if (sink->id_lock >= 0)
        close(sink->id_lock);
    free(sink->id);
    kafka_config_clear(&sink->config);
    free(sink);
}

static const struct endpoint_ops endpoint_ops = {
    .pump = sink_pump,
    .finish = sink_finish,
    .free = sink_free,
};

static void kafka_transactions_publish(struct sink *base, struct record **records, size_t n)
{
    struct kafka_transactions *sink = (struct kafka_transactions *)base;
    if (kafka_slots_add(&sink->slots, records, n))
        endpoint_fail_soon(&sink->end);
    endpoint_pump_soon(&sink->end);
}

static void kafka_transactions_close(struct sink *base, uint64_t deadline_ms,
                                     void (*closed)(void *ctx), void *ctx)
{
    endpoint_close(&((struct kafka_transactions *)base)->end, deadline_ms, closed, ctx);
}

static const struct sink_ops kafka_transactions_ops = {
    .open = NULL, /* by kafka_sink_ops */
    .publish = kafka_transactions_publish,
    .close = kafka_transactions_close,
};

/* What can be wrong before anything is open. */
static int prepare(struct kafka_transactions *sink, uv_loop_t *loop, struct source *peer, char *err,
                   size_t err_size)
{
    int rc = kafka_config_read(&sink->config, sink->settings, err, err_size);
    if (rc)
        return rc;
    if (!peer || peer->ops != &kafka_source_ops) {
        snprintf(err, err_size,
                 "delivery: exactly-once goes from Kafka to Kafka only; read from Kafka too");
        return -EINVAL;
    }
    sink->source = (struct kafka_source *)peer;
    rc = kafka_transactional_id(&sink->config, sink->settings, &sink->id, &sink->id_lock);
    if (!rc)
        rc = wakeup_open(&sink->wakeup, loop, sink_pump, sink);
    if (rc)
        snprintf(err, err_size, "cannot prepare transactions: %s", uv_strerror(rc));
    return rc;
}

int kafka_transactions_open(struct sink **out, uv_loop_t *loop, const struct settings *settings,
                            struct source *peer, const struct sink_events *events, void *ctx,
                            char *err, size_t err_size)
{
    struct kafka_transactions *sink = calloc(1, sizeof *sink);
    if (!sink) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    sink->base = (struct sink){.ops = &kafka_transactions_ops, .events = events, .ctx = ctx};
    sink->base.layout = SINK_PER_MESSAGE;
    sink->settings = settings;
    sink->id_lock = -1;
    kafka_slots_open(&sink->slots);
    int rc = prepare(sink, loop, peer, err, err_size);
    if (rc) {
        sink_free(sink);
        return rc;
    }
    endpoint_open_sink(&sink->end, loop, &sink->base, BROKERS | WRITE, &endpoint_ops, sink);
    endpoint_hold(&sink->end);
    rc = kafka_publisher_open(&sink->publisher, &sink->config, sink->source->rk, send_wakeup, sink);
    if (rc)
        snprintf(err, err_size, "cannot start the publisher thread: %s", uv_strerror(rc));
    else
        rc = client_open(sink, err, err_size);
    if (rc) {
        endpoint_finish(&sink->end);
        return rc;
    }
    endpoint_pump_soon(&sink->end);
    *out = &sink->base;
    return 0;
}
