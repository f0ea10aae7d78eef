/*
 * kafka_lag.c: see kafka_lag.h; and for a running worker the lag of its whole group.
 *
 * Owns:    asking every five seconds how far all members together are behind.
 * Refuses: the lag of our own partitions, which the library knows without asking: kafka_group.c.
 * Threads: the loop thread, but for lag_of_topics: its calls block, so each time it is done on a
 *          thread that lives no longer than that.
 * Why:     a worker sees its own partitions only, and may have none. Whoever looks at one worker
 *          wants to know whether the group keeps up.
 */
#include "connectors/kafka/kafka_lag.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "connectors/kafka/kafka_source.h"

#define ASK_TICKS  5 /* from one question to the next ... */
#define FIRST_TICK 3 /* ... and when the first is asked */
#define CALL_MS    5000

/* The second of the two that are done with it, thread and loop, frees it. */
struct kafka_ask {
    rd_kafka_t *rk;
    rd_kafka_topic_partition_list_t *topics;
    int64_t lag; /* the answer, when the thread is done */
    atomic_int n_done;
};

static void ask_leave(struct kafka_ask *ask)
{
    if (atomic_fetch_add(&ask->n_done, 1) == 0)
        return;
    rd_kafka_topic_partition_list_destroy(ask->topics);
    free(ask);
}

/* ---- on any thread */

int64_t kafka_lag_of(rd_kafka_t *rk, const rd_kafka_topic_partition_t *part, int timeout_ms)
{
    int64_t low, high;
    if (part->err ||
        rd_kafka_query_watermark_offsets(rk, part->topic, part->partition, &low, &high, timeout_ms))
        return -1;
    /* No offset, or one before what is still there: what was deleted waits for nobody. */
    int64_t from = part->offset >= low ? part->offset : low;
    return high > from ? high - from : 0;
}

static void add_partitions(rd_kafka_topic_partition_list_t *parts, const char *wanted,
                           const struct rd_kafka_metadata *found)
{
    for (int i = 0; i < found->topic_cnt; i++) {
        const struct rd_kafka_metadata_topic *topic = &found->topics[i];
        if (!kafka_topic_matches(wanted, topic->topic))
            continue;
        for (int j = 0; j < topic->partition_cnt; j++)
            /* Two patterns may match one topic. */
            if (!rd_kafka_topic_partition_list_find(parts, topic->topic, topic->partitions[j].id))
                rd_kafka_topic_partition_list_add(parts, topic->topic, topic->partitions[j].id);
    }
}

/* All partitions of what is subscribed to, patterns too. */
static rd_kafka_resp_err_t list_partitions(rd_kafka_t *rk,
                                           const rd_kafka_topic_partition_list_t *topics,
                                           rd_kafka_topic_partition_list_t *parts)
{
    rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR;
    for (int i = 0; !err && i < topics->cnt; i++) {
        const struct rd_kafka_metadata *found;
        const char *wanted = topics->elems[i].topic;
        bool is_pattern = wanted[0] == '^';
        rd_kafka_topic_t *topic = is_pattern ? NULL : rd_kafka_topic_new(rk, wanted, NULL);
        err = rd_kafka_metadata(rk, is_pattern, topic, &found, CALL_MS);
        if (!err) {
            add_partitions(parts, wanted, found);
            rd_kafka_metadata_destroy(found);
        }
        if (topic)
            rd_kafka_topic_destroy(topic);
    }
    return err;
}

/* Of all partitions together; -1 when one of them is not known. */
static int64_t lag_of_topics(rd_kafka_t *rk, const rd_kafka_topic_partition_list_t *topics)
{
    int64_t lag = 0, one = 0;
    rd_kafka_topic_partition_list_t *parts = rd_kafka_topic_partition_list_new(8);
    if (list_partitions(rk, topics, parts) || !parts->cnt || rd_kafka_committed(rk, parts, CALL_MS))
        lag = -1;
    for (int i = 0; lag >= 0 && i < parts->cnt; i++) {
        one = kafka_lag_of(rk, &parts->elems[i], CALL_MS);
        lag = one < 0 ? -1 : lag + one;
    }
    rd_kafka_topic_partition_list_destroy(parts);
    return lag;
}

static void run(void *arg)
{
    struct kafka_ask *ask = arg;
    ask->lag = lag_of_topics(ask->rk, ask->topics);
    ask_leave(ask);
}

/* ---- on the loop */

static void ask_open(struct kafka_source *source)
{
    struct kafka_ask *ask = calloc(1, sizeof *ask);
    if (!ask)
        return;
    ask->rk = source->rk;
    ask->topics = rd_kafka_topic_partition_list_copy(source->config.topics);
    if (kafka_client_help(source->client, run, ask)) { /* no thread: another time */
        rd_kafka_topic_partition_list_destroy(ask->topics);
        free(ask);
        return;
    }
    source->ask = ask;
}

void kafka_lag_tick(struct kafka_source *source)
{
    struct kafka_ask *ask = source->ask;
    if (!source->base.events->on_lag)
        return;
    /* A handle has one helper at a time, and the other may be it (kafka_client_help). */
    if (!ask && !source->skips.inquiry && source->n_ticks % ASK_TICKS == FIRST_TICK)
        ask_open(source);
    if (!ask || atomic_load(&ask->n_done) == 0)
        return;
    source->ask = NULL;
    kafka_client_helped(source->client);
    source->base.events->on_lag(source->base.ctx, NULL, ask->lag);
    ask_leave(ask);
}

void kafka_lag_close(struct kafka_source *source)
{
    if (source->ask)
        ask_leave(source->ask);
    source->ask = NULL;
}
