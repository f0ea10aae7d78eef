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

#include "connectors/kafka/kafka_errors.h"
#include "connectors/kafka/kafka_publisher.h"
#include "connectors/kafka/kafka_slots.h"
#include "connectors/kafka/kafka_source.h"

#define BROKERS 1u
#define WRITE   2u

struct kafka_transactions {
    struct sink base;
    uv_loop_t *loop;
    const struct settings *settings;
    struct kafka_config config;
    struct kafka_source *source;
    char *id; /* transactional.id */
    int id_lock;
    struct kafka_client *client;
    rd_kafka_queue_t *queue;
    struct kafka_publisher *publisher;
    struct health health;
    struct backoff backoff;
    struct kafka_slots slots;
    bool is_ready;    /* transactions are initialised */
    bool was_refused; /* the last transaction, for a record */
    bool submitted, paused, failed, closing, no_memory;
    uv_async_t bell;
    uv_timer_t pump_timer, pause_timer, close_timer;
    size_t n_open; /* handles and clients still to be closed */
    void (*closed)(void *ctx);
    void *closed_ctx;
};

static void pump(struct kafka_transactions *sink);
static int client_open(struct kafka_transactions *sink, char *err, size_t err_size);
static void finish(struct kafka_transactions *sink);
static void on_client_dropped(void *ctx);

/* ---- what is told */

static void on_state_changed(void *ctx, enum link_state state, const char *why)
{
    struct kafka_transactions *sink = ctx;
    if (!sink->failed && !sink->closing)
        sink->base.events->on_state(sink->base.ctx, state, why);
}

static void sink_fail(struct kafka_transactions *sink, int err, const char *why)
{
    bool is_news = !sink->failed && !sink->closing;
    sink->failed = true;
    if (is_news)
        sink->base.events->on_failed(sink->base.ctx, err, why);
}

static void tell_news(struct kafka_transactions *sink)
{
    char trouble[240], why[300];
    if (!kafka_publisher_news(sink->publisher, trouble, sizeof trouble))
        return;
    snprintf(why, sizeof why, "%s; connecting again, for ever", trouble);
    if (trouble[0])
        health_wait(&sink->health, BROKERS, why);
    else
        health_good(&sink->health, BROKERS);
}

static void watch(struct kafka_transactions *sink)
{
    char why[240];
    uint64_t ms;
    const char *call = kafka_publisher_call(sink->publisher, &ms);
    if (!call || ms < sink->config.transaction_ms)
        return;
    snprintf(why, sizeof why,
             "%s has not returned for %llu s (kafka.transaction_deadline); the library can hang "
             "there, so start the worker again: nothing is lost or doubled by that",
             call, (unsigned long long)(ms / 1000));
    sink_fail(sink, -ETIMEDOUT, why);
}

static void on_line(void *ctx, const struct kafka_line *line)
{
    struct kafka_transactions *sink = ctx;
    if (sink->base.events->on_notice)
        sink->base.events->on_notice(sink->base.ctx,
                                     kafka_log_class(line->level, line->facility, line->text),
                                     line->facility, line->text);
}

/* ---- slots */

static void slot_done(struct kafka_transactions *sink, struct kafka_slot *slot, enum published how)
{
    struct record *record = kafka_slots_take(&sink->slots, slot);
    struct message *origin = record->origin;
    sink->base.events->on_published(sink->base.ctx, record, how);
    if (how == PUBLISHED_AND_ACKED)
        kafka_source_finish(origin);
}

static struct kafka_part *part_of(const struct kafka_slot *slot)
{
    return kafka_source_part(slot->record->origin);
}

/* ---- a transaction put together */

static void add_offset(struct kafka_burst *burst, const struct kafka_part *part)
{
    rd_kafka_topic_partition_t *found =
        rd_kafka_topic_partition_list_find(burst->offsets, part->topic, part->partition);
    if (!found)
        found = rd_kafka_topic_partition_list_add(burst->offsets, part->topic, part->partition);
    found->offset = kafka_offsets_begun(&part->offsets);
}

/* What was given and may go now. Those whose partition has moved on go back. */
static void fill(struct kafka_transactions *sink, struct kafka_burst *burst)
{
    struct kafka_slot *slot = sink->slots.head.next, *next;
    for (; slot != &sink->slots.head && burst->n < KAFKA_BURST_MAX; slot = next) {
        struct kafka_part *part = part_of(slot);
        next = slot->next;
        if (part->revoked) {
            slot_done(sink, slot, PUBLISH_NOT_OURS);
            continue;
        }
        if (kafka_slots_lets_pass(&sink->slots, slot))
            continue;
        if ((slot->alone && burst->n) ||
            !kafka_offsets_begin(&part->offsets, kafka_source_offset(slot->record->origin)))
            continue;
        burst->items[burst->n++] =
            (struct kafka_item){.record = slot->record, .tag = slot, .form = slot->form};
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
    const struct kafka_slot *end = &sink->slots.head;
    struct kafka_slot *aside = end->next, *slot = end->next;
    while (aside != end && !kafka_slots_lets_pass(&sink->slots, aside))
        aside = aside->next;
    if (aside == end)
        return;
    while (slot != end && (slot->aside || !slot->record->n_parts ||
                           !slot->record->dead_code != !aside->record->dead_code))
        slot = slot->next;
    assert(slot != end); /* lets_pass has counted it */
    burst->items[burst->n++] =
        (struct kafka_item){.record = slot->record, .tag = slot, .form = slot->form};
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
    if (!burst->in_doubt) {
        burst->offsets = rd_kafka_topic_partition_list_new(1);
        if (sink->is_ready && !rd_kafka_assignment_lost(sink->source->rk))
            fill(sink, burst);
        if (sink->is_ready && !burst->n)
            fill_trial(sink, burst);
        if (sink->is_ready && !burst->n) {
            clear(burst);
            return;
        }
        burst->group = rd_kafka_consumer_group_metadata(sink->source->rk);
    }
    sink->submitted = true;
    kafka_publisher_submit(sink->publisher);
}

/* ---- and what came of it */

static void on_pause_over(uv_timer_t *timer)
{
    struct kafka_transactions *sink = timer->data;
    sink->paused = false;
    pump(sink);
}

static void sink_pause(struct kafka_transactions *sink)
{
    if (sink->paused)
        return;
    sink->paused = true;
    uv_timer_start(&sink->pause_timer, on_pause_over, backoff_next(&sink->backoff), 0);
}

/* The producer is of no use any more. */
static void renew(struct kafka_transactions *sink)
{
    char err[300];
    rd_kafka_queue_destroy(sink->queue);
    kafka_client_close(sink->client, 5000, on_client_dropped, sink);
    sink->client = NULL;
    sink->is_ready = false;
    if (client_open(sink, err, sizeof err))
        sink_fail(sink, -ENOMEM, err);
}

/* One record was refused, and with it all. What that means for it. */
static enum kafka_verdict item_refused(struct kafka_transactions *sink,
                                       const struct kafka_item *item)
{
    struct kafka_slot *slot = item->tag;
    struct kafka_reported reported = {.health = &sink->health, .write = WRITE};
    enum kafka_verdict verdict =
        kafka_slot_refuse(&sink->slots, slot, item->err, &sink->config, &reported);
    if (verdict == VERDICT_TOO_LARGE)
        slot_done(sink, slot, PUBLISH_TOO_LARGE);
    if (verdict == VERDICT_REFUSED) {
        slot->record->refused_code = DEAD_LETTER(output_refused);
        slot->record->refused_reason = reported.why;
        slot_done(sink, slot, PUBLISH_REFUSED);
    }
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
        struct kafka_part *part = part_of(burst->items[i].tag);
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
    sink->backoff.attempts = 0;
    health_good(&sink->health, BROKERS | WRITE);
    for (size_t i = 0; i < burst->n && !sink->failed; i++) {
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
    health_wait(&sink->health, WRITE, why);
}

static void on_aborted(struct kafka_transactions *sink, struct kafka_burst *burst)
{
    bool is_mended = false, is_told = false;
    end_offsets(burst, false);
    if (burst->is_trial && burst->items[0].passed) {
        kafka_slots_passed(&sink->slots, burst->items[0].tag);
        return;
    }
    for (size_t i = 0; i < burst->n && !is_told; i++) {
        enum kafka_verdict verdict = item_refused(sink, &burst->items[i]);
        is_mended |=
            verdict == VERDICT_AGAIN || verdict == VERDICT_TOO_LARGE || verdict == VERDICT_REFUSED;
        is_told |= verdict == VERDICT_WAIT;
    }
    /* The library has spent sequence numbers on what was refused: the next transaction fails for
     * the gap, and only then does it begin anew. That is no news. */
    bool is_echo = sink->was_refused && !is_mended && !is_told && !burst->renew;
    sink->was_refused = is_mended || is_told;
    if ((is_mended && !is_told) || is_echo)
        return;
    if (!is_told)
        tell(sink, burst, "it is tried again");
    sink_pause(sink);
}

static void on_unknown(struct kafka_transactions *sink, struct kafka_burst *burst)
{
    tell(sink, burst, "the group's offsets will tell whether it was committed");
    sink_pause(sink);
}

static void take_result(struct kafka_transactions *sink)
{
    struct kafka_burst *burst = kafka_publisher_burst(sink->publisher);
    enum kafka_outcome outcome = burst->outcome;
    bool must_renew = burst->renew;
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
    if (must_renew && !sink->failed)
        renew(sink);
}

static void pump(struct kafka_transactions *sink)
{
    if (!sink->publisher)
        return;
    tell_news(sink);
    if (sink->client)
        kafka_client_read_log(sink->client, on_line, sink);
    if (sink->no_memory)
        sink_fail(sink, -ENOMEM, "out of memory");
    watch(sink);
    if (!kafka_publisher_is_idle(sink->publisher)) {
        if (sink->closing && sink->failed)
            finish(sink);
        return;
    }
    if (sink->submitted)
        take_result(sink);
    while (sink->client && rd_kafka_poll(sink->client->rk, 0) > 0) {
    }
    if (sink->closing && (sink->failed || !sink->slots.n))
        finish(sink);
    else if (!sink->failed && !sink->paused && sink->client)
        submit(sink);
}

static void on_wake(void *ctx, bool is_tick)
{
    (void)is_tick;
    pump(ctx);
}

static void on_bell(uv_async_t *bell)
{
    pump(bell->data);
}

static void on_pump(uv_timer_t *timer)
{
    pump(timer->data);
}

/* On the publisher's thread. */
static void ring_bell(void *ctx)
{
    struct kafka_transactions *sink = ctx;
    uv_async_send(&sink->bell);
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
    rc = kafka_client_open(&sink->client, sink->loop, RD_KAFKA_PRODUCER, conf, sink->publisher,
                           on_wake, sink, err, err_size);
    if (rc)
        return rc;
    sink->n_open++;
    sink->queue = rd_kafka_queue_get_main(sink->client->rk);
    sink->config.message_max = kafka_message_max(sink->client->rk);
    kafka_client_watch(sink->client, sink->queue);
    kafka_publisher_use(sink->publisher, sink->client->rk);
    return 0;
}

static void sink_free(struct kafka_transactions *sink)
{
    kafka_slots_clear(&sink->slots);
    if (sink->id_lock >= 0)
        close(sink->id_lock);
    free(sink->id);
    kafka_config_clear(&sink->config);
    free(sink);
}

static void sink_freed(struct kafka_transactions *sink)
{
    void (*closed)(void *) = sink->closed;
    void *ctx = sink->closed_ctx;
    if (--sink->n_open)
        return;
    sink_free(sink);
    if (closed)
        closed(ctx);
}

static void on_client_dropped(void *ctx)
{
    sink_freed(ctx);
}

static void on_handle_closed(uv_handle_t *handle)
{
    sink_freed(handle->data);
}

static void close_handles(struct kafka_transactions *sink)
{
    uv_close((uv_handle_t *)&sink->bell, on_handle_closed);
    uv_close((uv_handle_t *)&sink->pump_timer, on_handle_closed);
    uv_close((uv_handle_t *)&sink->pause_timer, on_handle_closed);
    uv_close((uv_handle_t *)&sink->close_timer, on_handle_closed);
}

static void finish(struct kafka_transactions *sink)
{
    struct kafka_publisher *publisher = sink->publisher;
    struct kafka_client *client = sink->client;
    if (!publisher)
        return;
    sink->publisher = NULL;
    sink->client = NULL;
    if (kafka_publisher_is_idle(publisher))
        clear(kafka_publisher_burst(publisher));
    bool is_done = kafka_publisher_close(publisher);
    if (!is_done) /* the thread may be asking it for offsets */
        kafka_source_abandon(sink->source);
    if (client)
        rd_kafka_queue_destroy(sink->queue);
    if (client && is_done)
        kafka_client_close(client, 500, on_client_dropped, sink);
    else if (client)
        kafka_client_abandon(client, on_client_dropped, sink);
    close_handles(sink);
}

static void on_close_deadline(uv_timer_t *timer)
{
    finish(timer->data);
}

static int start(struct kafka_transactions *sink, char *err, size_t err_size)
{
    int rc = kafka_transactional_id(&sink->config, sink->settings, &sink->id, &sink->id_lock);
    if (!rc)
        rc = uv_async_init(sink->loop, &sink->bell, on_bell);
    if (rc) {
        snprintf(err, err_size, "cannot prepare transactions: %s", uv_strerror(rc));
        return rc;
    }
    uv_timer_init(sink->loop, &sink->pump_timer);
    uv_timer_init(sink->loop, &sink->pause_timer);
    uv_timer_init(sink->loop, &sink->close_timer);
    sink->bell.data = sink->pump_timer.data = sink->pause_timer.data = sink->close_timer.data =
        sink;
    sink->n_open = 4;
    rc = kafka_publisher_open(&sink->publisher, &sink->config, sink->source->rk, ring_bell, sink);
    if (rc)
        snprintf(err, err_size, "cannot start the publisher thread: %s", uv_strerror(rc));
    else
        rc = client_open(sink, err, err_size);
    return rc;
}

static void kafka_transactions_publish(struct sink *base, struct record **records, size_t n)
{
    struct kafka_transactions *sink = (struct kafka_transactions *)base;
    if (kafka_slots_add(&sink->slots, records, n)) /* those left out come again after the exit */
        sink->no_memory = true;
    if (!uv_is_active((uv_handle_t *)&sink->pump_timer))
        uv_timer_start(&sink->pump_timer, on_pump, 0, 0);
}

static void kafka_transactions_close(struct sink *base, uint64_t deadline_ms,
                                     void (*closed)(void *ctx), void *ctx)
{
    struct kafka_transactions *sink = (struct kafka_transactions *)base;
    sink->closing = true;
    sink->closed = closed;
    sink->closed_ctx = ctx;
    uv_timer_start(&sink->close_timer, on_close_deadline, deadline_ms, 0);
    uv_timer_start(&sink->pump_timer, on_pump, 0, 0);
}

static const struct sink_ops kafka_transactions_ops = {
    .open = NULL, /* by kafka_sink_ops */
    .publish = kafka_transactions_publish,
    .close = kafka_transactions_close,
};

static int transactions_open(struct kafka_transactions *sink, struct source *peer, char *err,
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
    return start(sink, err, err_size);
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
    sink->loop = loop;
    sink->settings = settings;
    sink->id_lock = -1;
    kafka_slots_open(&sink->slots);
    health_open(&sink->health, BROKERS | WRITE, on_state_changed, sink);
    int rc = transactions_open(sink, peer, err, err_size);
    if (rc && sink->publisher)
        finish(sink); /* frees it while the loop runs */
    else if (rc && sink->n_open)
        close_handles(sink);
    else if (rc)
        sink_free(sink);
    if (rc)
        return rc;
    uv_timer_start(&sink->pump_timer, on_pump, 0, 0);
    *out = &sink->base;
    return 0;
}
