/*
 * kafka_source.c: a consumer in a Kafka group.
 *
 * Owns:    polling by credit, the messages that are with us and their acks, what is reported of
 *          faults.
 * Refuses: assignments and offsets: kafka_group.c, kafka_commits.c. Publishing: kafka_sink.c,
 *          kafka_transactions.c.
 * Threads: the loop thread.
 * Why:     without credit nothing is taken, and the library stops fetching when its own queue is
 *          full. But a consumer that does not poll is expelled, so the tick polls all the same and
 *          what it brings is held. Only when that goes on for long are partitions paused: pausing
 *          throws away what was fetched ahead, which a busy worker would pay for at every batch.
 */
#include "connectors/kafka/kafka_source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/kafka/kafka_errors.h"

#define POLL_MAX  512 /* polled before the loop has its turn */
#define HELD_MAX  16  /* then partitions are paused */
#define LAG_TICKS 3

static struct kafka_source *self(struct source *source)
{
    return (struct kafka_source *)source;
}

/* ---- what is told */

static void on_line(void *ctx, const struct kafka_line *line)
{
    struct kafka_source *source = ctx;
    bool is_skip = strcmp(line->facility, "OFFSET") == 0 && kafka_skips_on_line(source, line->text);
    /* A jump is reported as skipped messages, with numbers: the line itself adds nothing. */
    endpoint_notice(&source->end,
                    is_skip ? NOTICE_DETAIL
                            : kafka_log_class(line->level, line->facility, line->text),
                    line->facility, line->text);
}

static void on_fatal(struct kafka_source *source)
{
    char why[300], text[200] = "";
    rd_kafka_resp_err_t err = rd_kafka_fatal_error(source->rk, text, sizeof text);
    snprintf(why, sizeof why, "group %.60s: %s%s", source->config.group, text,
             err == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID
                 ? ": another worker has the same group.instance.id, give each its own; or this "
                   "one's session ended while it was cut off, start it again"
                 : "");
    endpoint_fail(&source->end, -EACCES, why);
}

/* An error that concerns a topic or the group. */
static void on_refusal(struct kafka_source *source, rd_kafka_resp_err_t err, const char *text)
{
    char why[400];
    switch (kafka_error_hindrance(err)) {
    /* health says each of these once; a message of the partition takes it back (take). */
    case HINDRANCE_TOPIC:
        snprintf(why, sizeof why,
                 "%.240s: create the topic, or correct kafka.topic; it is looked for every few "
                 "seconds",
                 text);
        health_wait(&source->end.health, PART_TOPIC, why);
        return;
    case HINDRANCE_ACCESS:
        snprintf(why, sizeof why,
                 "%.240s: allow this user to read the topic and to use group %.60s; it is tried "
                 "again",
                 text, source->config.group);
        health_wait(&source->end.health, PART_ACCESS, why);
        return;
    case HINDRANCE_GROUP:
        snprintf(why, sizeof why, "group %.60s: %.180s: %.120s; it is tried again",
                 source->config.group, text, kafka_error_advice(err));
        health_wait(&source->end.health, PART_GROUP, why);
        return;
    case HINDRANCE_END:
        snprintf(why, sizeof why,
                 "%.240s: what the group would read next is not in the topic any more; set the "
                 "group's offsets, or auto.offset.reset=earliest",
                 text);
        endpoint_fail(&source->end, -ERANGE, why);
        return;
    case HINDRANCE_MENDS:
        endpoint_notice(&source->end, NOTICE_WARN, rd_kafka_err2name(err), text);
    }
}

/* What else there is to say about brokers that cannot be reached. */
static const char *hint_for(const struct kafka_source *source, rd_kafka_resp_err_t err,
                            const char *text)
{
    if (err == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
        return source->last_error;
    if (strstr(text, "SCRAM") && rd_kafka_version() < 0x020601ff)
        return " (a broker of Kafka 4 takes SCRAM from librdkafka 2.6.1 or newer only)";
    return "";
}

static void on_error(rd_kafka_t *rk, int code, const char *text, void *opaque)
{
    struct kafka_source *source = kafka_client_owner(opaque);
    rd_kafka_resp_err_t err = (rd_kafka_resp_err_t)code;
    char why[400];
    (void)rk;
    switch (err) {
    case RD_KAFKA_RESP_ERR__FATAL:
        on_fatal(source);
        return;
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR__SSL:
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
        snprintf(why, sizeof why, "%.200s%s%.160s; reconnecting until it succeeds", text,
                 err == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN ? ": " : "",
                 hint_for(source, err, text));
        health_wait(&source->end.health, PART_BROKERS, why);
        return;
    /* One broker of several: only when all are down is the source, and then this says why. */
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__RESOLVE:
        snprintf(source->last_error, sizeof source->last_error, "%s", text);
        kafka_client_note(opaque, err, text);
        return;
    default:
        on_refusal(source, err, text);
    }
}

/* There is no event for a broker that is back, so the statistics are asked: a state of UP is
 * written nowhere else in them. */
static int on_statistics(rd_kafka_t *rk, char *json, size_t len, void *opaque)
{
    struct kafka_source *source = kafka_client_owner(opaque);
    (void)rk, (void)len;
    if (strstr(json, "\"state\":\"UP\""))
        health_good(&source->end.health, PART_BROKERS);
    return 0;
}

/* ---- messages in */

/* Of a partition: which and where stands before what the library says. */
static void on_message_error(struct kafka_source *source, const rd_kafka_message_t *native)
{
    char text[400];
    if (native->err == RD_KAFKA_RESP_ERR__BAD_MSG ||
        native->err == RD_KAFKA_RESP_ERR__BAD_COMPRESSION) {
        kafka_skips_on_unreadable(source, native);
        return;
    }
    snprintf(text, sizeof text, "%.100s", native->rkt ? rd_kafka_topic_name(native->rkt) : "");
    size_t len = strlen(text);
    if (len && native->partition >= 0)
        len += (size_t)snprintf(text + len, sizeof text - len, "/%d", (int)native->partition);
    if (len && native->offset >= 0)
        len += (size_t)snprintf(text + len, sizeof text - len, " at offset %lld",
                                (long long)native->offset);
    snprintf(text + len, sizeof text - len, "%s%.240s", len ? ": " : "",
             rd_kafka_message_errstr(native));
    on_refusal(source, native->err, text);
}

static void take_error(struct kafka_source *source, rd_kafka_message_t *native)
{
    if (native->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        struct kafka_partition *part =
            kafka_partition_find(source, rd_kafka_topic_name(native->rkt), native->partition);
        if (part) {
            /* What lies between the last message and the end is none: marks of
             * transactions, gaps. */
            kafka_offsets_skip(&part->offsets, native->offset);
            part->dirty = true;
        }
        health_good(&source->end.health, PART_BROKERS | PART_TOPIC | PART_ACCESS | PART_GROUP);
    } else if (native->err == RD_KAFKA_RESP_ERR__FATAL) {
        on_fatal(source);
    } else {
        on_message_error(source, native);
    }
    rd_kafka_message_destroy(native);
}

static void take(struct kafka_source *source, rd_kafka_message_t *native)
{
    if (native->err) {
        take_error(source, native);
        return;
    }
    struct kafka_partition *part =
        kafka_partition_find(source, rd_kafka_topic_name(native->rkt), native->partition);
    /* Fetched before the partition was taken away: its new owner reads it. */
    if (!part || part->leaving) {
        rd_kafka_message_destroy(native);
        return;
    }
    /* Under way from here on: nothing behind it is committed before it is done. */
    int rc = kafka_offsets_take(&part->offsets, native->offset);
    if (rc == -EINVAL) {
        /* An offset before one that was taken: the topic was made anew, or the group's offsets
         * were set back. */
        part = kafka_group_renew(source, part);
        rc = part ? kafka_offsets_take(&part->offsets, native->offset) : -ENOMEM;
    }
    struct kafka_message *message = NULL;
    if (!rc)
        kafka_claims_on_message(source, part, native->offset);
    if (rc)
        rd_kafka_message_destroy(native);
    else
        message = kafka_message_open(&source->base, part, native);
    if (!message) {
        endpoint_fail(&source->end, -ENOMEM, "out of memory");
        return;
    }
    /* Also without credit: a tick has polled it, and a later request gives it. */
    taken_push(&source->intake.held, &message->taken);
    health_good(&source->end.health, PART_BROKERS | PART_TOPIC | PART_ACCESS | PART_GROUP);
}

static bool is_hungry(const struct kafka_source *source)
{
    return credit_left_any(&source->intake.credit) && !source->end.closing && !source->end.failed;
}

static void report_late(struct kafka_source *source)
{
    source_count(&source->base, COUNTER_LATE_ACKS, source->n_late_acks);
    source->n_late_acks = 0;
}

static void pump(struct kafka_source *source, bool is_tick)
{
    size_t n = 0;
    if (source->end.finished)
        return;
    kafka_client_read_log(source->client, on_line, source);
    kafka_skips_tick(source);
    intake_give(&source->intake, &source->base, &source->end);
    while (n < POLL_MAX && (is_tick || is_hungry(source))) {
        rd_kafka_message_t *native = rd_kafka_consumer_poll(source->rk, 0);
        /* A tick polls once without credit, which keeps max.poll.interval.ms from running out. */
        is_tick = false;
        if (!native)
            break;
        take(source, native);
        intake_give(&source->intake, &source->base, &source->end);
        n++;
    }
    /* There may be more, and the descriptor only tells when an empty queue fills. */
    if (n == POLL_MAX)
        endpoint_pump_soon(&source->end);
    report_late(source);
    /* Paused, the library stops fetching; polling goes on, as the group demands. */
    kafka_group_pause(source, source->intake.held.n >= HELD_MAX && !is_hungry(source));
    kafka_group_store(source);
    kafka_group_advance(source);
}

/* ---- the end */

static void drop_all(struct kafka_source *source)
{
    struct taken *taken;
    while ((taken = taken_pop(&source->intake.held)) || (taken = taken_pop(&source->intake.given)))
        kafka_message_close((struct kafka_message *)taken);
}

/* The group is left, or there is no time for it. */
static void source_finish(void *owner, bool is_late)
{
    struct kafka_source *source = owner;
    kafka_commits_settle(source);
    drop_all(source);
    kafka_group_close(source);
    kafka_lag_close(source);
    kafka_skips_close(source);
    /* The library wants its queues back before the handle is destroyed. */
    if (source->closing_queue)
        rd_kafka_queue_destroy(source->closing_queue);
    rd_kafka_queue_destroy(source->queue);
    if (source->abandoned)
        kafka_client_abandon(source->client, endpoint_drop, &source->end);
    else
        kafka_client_close(source->client, is_late ? 200 : 5000, endpoint_drop, &source->end);
}

static void source_free(void *owner)
{
    struct kafka_source *source = owner;
    kafka_config_clear(&source->config);
    free(source);
}

/* The library commits what was stored and leaves the group; its callbacks come by the queue. */
static void begin_close(struct kafka_source *source)
{
    if (source->claimed) /* the library waits for an answer before it can leave */
        kafka_claims_answer(source, true, source->claimed);
    kafka_claims_drop(source);
    kafka_group_store(source);
    kafka_commits_expect(source);
    /* Neither was acked, so the group's offset is before them: they come again. */
    drop_all(source);
    kafka_group_leave(source);
    source->closing_queue = rd_kafka_queue_new(source->rk);
    kafka_client_watch(source->client, source->closing_queue);
    rd_kafka_error_t *error = rd_kafka_consumer_close_queue(source->rk, source->closing_queue);
    if (!error)
        return;
    rd_kafka_error_destroy(error);
    endpoint_finish(&source->end);
}

static void on_wake(void *ctx, bool is_tick)
{
    struct kafka_source *source = ctx;
    if (source->end.finished)
        return;
    if (!source->end.closing) {
        if (is_tick && ++source->n_ticks % LAG_TICKS == 0)
            kafka_group_report_lag(source);
        if (is_tick)
            kafka_lag_tick(source);
        pump(source, is_tick);
        return;
    }
    if (!source->closing_queue)
        begin_close(source);
    if (source->end.finished)
        return;
    /* Asked first: the results of the last commits are in the queue by then. Not
     * rd_kafka_queue_poll_callback: it aborts on a message that was fetched meanwhile. */
    bool is_closed = rd_kafka_consumer_closed(source->rk);
    rd_kafka_message_t *late;
    while ((late = rd_kafka_consume_queue(source->closing_queue, 0)))
        rd_kafka_message_destroy(late);
    if (is_closed)
        endpoint_finish(&source->end);
    else
        endpoint_pump_in(&source->end, 10); /* nothing tells that it is closed */
}

static void source_pump(void *owner)
{
    struct kafka_source *source = owner;
    if (source->end.closing)
        on_wake(source, false);
    else
        pump(source, false);
}

static const struct endpoint_ops endpoint_ops = {
    .pump = source_pump,
    .finish = source_finish,
    .free = source_free,
};

/* ---- the contract */

static int client_open(struct kafka_source *source, uv_loop_t *loop,
                       const struct settings *settings, char *err, size_t err_size)
{
    rd_kafka_conf_t *conf;
    int rc = kafka_conf_open(&conf, RD_KAFKA_CONSUMER, &source->config, settings, err, err_size);
    if (rc)
        return rc;
    kafka_skips_open(&source->skips, conf);
    rd_kafka_conf_set_rebalance_cb(conf, kafka_group_on_rebalance);
    rd_kafka_conf_set_error_cb(conf, on_error);
    rd_kafka_conf_set_stats_cb(conf, on_statistics);
    rd_kafka_conf_set_offset_commit_cb(conf, kafka_commits_on_result);
    rc = kafka_client_open(&source->client, loop, RD_KAFKA_CONSUMER, conf, source, on_wake, source,
                           err, err_size);
    if (rc)
        return rc;
    source->rk = source->client->rk;
    /* All events by one queue: else errors and statistics would need a poll of their own. */
    rd_kafka_poll_set_consumer(source->rk);
    source->queue = rd_kafka_queue_get_consumer(source->rk);
    kafka_client_watch(source->client, source->queue);
    return 0;
}

static int kafka_source_open(struct source **out, uv_loop_t *loop, const struct settings *settings,
                             const struct source_events *events, void *ctx, char *err,
                             size_t err_size)
{
    struct kafka_source *source = calloc(1, sizeof *source);
    if (!source) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    source->base = (struct source){.ops = &kafka_source_ops, .events = events, .ctx = ctx};
    int rc = kafka_config_read(&source->config, settings, err, err_size);
    if (!rc)
        rc = client_open(source, loop, settings, err, err_size);
    if (rc) {
        source_free(source);
        return rc;
    }
    endpoint_open_source(&source->end, loop, &source->base, PART_BROKERS, &endpoint_ops, source);
    endpoint_hold(&source->end); /* the client */
    /* The last step: from here on rebalances may come by the queue. */
    rd_kafka_resp_err_t refusal = rd_kafka_subscribe(source->rk, source->config.topics);
    if (refusal) {
        snprintf(err, err_size, "kafka.topic: %s", rd_kafka_err2str(refusal));
        endpoint_finish(&source->end);
        return -EINVAL;
    }
    *out = &source->base;
    return 0;
}

static void kafka_source_request(struct source *base, size_t n, size_t n_bytes)
{
    struct kafka_source *source = self(base);
    source->intake.credit = (struct credit_left){n, n_bytes};
    endpoint_pump_soon(&source->end);
}

static void let_go(struct kafka_source *source, struct kafka_message *message)
{
    taken_remove(&source->intake.given, &message->taken);
    kafka_message_close(message);
    /* It may have been the last that the revoke waits for. */
    if (source->leaving && !source->end.closing)
        endpoint_pump_soon(&source->end);
}

static void kafka_source_ack(struct source *base, struct message *message)
{
    struct kafka_source *source = self(base);
    struct kafka_message *acked = (struct kafka_message *)message;
    struct kafka_partition *part = acked->part;
    /* Its offset was given up with the partition: the new owner reads it, and its output comes
     * twice. */
    if (part->revoked) {
        source->n_late_acks++;
    } else {
        kafka_offsets_done(&part->offsets, acked->native->offset);
        part->dirty = true;
    }
    let_go(source, acked);
    endpoint_pump_soon(&source->end);
}

/* Of a partition that is still ours the message counts as not done from here on: the group comes
 * back to it when the partition is assigned the next time. */
static void kafka_source_release(struct source *base, struct message *message)
{
    let_go(self(base), (struct kafka_message *)message);
}

struct kafka_partition *kafka_source_partition(const struct message *message)
{
    return ((const struct kafka_message *)message)->part;
}

int64_t kafka_source_offset(const struct message *message)
{
    return ((const struct kafka_message *)message)->native->offset;
}

void kafka_source_abandon(struct kafka_source *source)
{
    source->abandoned = true;
}

void kafka_source_finish(struct message *message)
{
    let_go(self(message->source), (struct kafka_message *)message);
}

static void kafka_source_close(struct source *base, uint64_t deadline_ms, void (*closed)(void *ctx),
                               void *ctx)
{
    if (base)
        endpoint_close(&self(base)->end, deadline_ms, closed, ctx);
}

const struct source_ops kafka_source_ops = {
    .check = kafka_check_options,
    .open = kafka_source_open,
    .request = kafka_source_request,
    .ack = kafka_source_ack,
    .release = kafka_source_release,
    .close = kafka_source_close,
    .begin = kafka_claims_begin,
};
