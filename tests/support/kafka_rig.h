/*
 * kafka_rig.h: a Kafka source and sink against librdkafka's mock cluster, playing the pipeline.
 *
 * Owns:    the mock cluster, a client that fills topics and reads them back, what the pipeline
 *          would own: messages given and records under way.
 * Threads: one; the loop runs inside kafka_rig_wait only.
 */
#ifndef KAFKA_RIG_H
#define KAFKA_RIG_H

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "connectors/connector.h"

#define RIG_INBOX 1024

struct kafka_rig {
    uv_loop_t loop;
    uv_timer_t tick;
    rd_kafka_t *feeder, *asker;
    rd_kafka_mock_cluster_t *cluster;
};

/* One worker: its source, its sink and what came of them. */
struct kafka_post {
    struct kafka_rig *rig;
    struct settings *settings;
    struct source *source;
    struct sink *sink;
    struct message *inbox[RIG_INBOX]; /* given and not taken by the test yet */
    size_t n_inbox, n_given;
    size_t n_published, n_acked_too, n_not_ours, n_too_large, n_refused, n_under_way;
    size_t n_ups, n_waits, n_failed, n_rebalances, n_late;
    enum link_state source_state, sink_state;
    char why[512];   /* of the last wait or failure */
    char whys[8192]; /* of all, as far as they fit */
    int64_t lag;     /* the last told of "in/0" */
    int64_t group_lag;
    bool source_closed, sink_closed;
};

/* A message read back; bytes end with a NUL beside. */
struct kafka_found {
    char key[64], value[256], headers[1024]; /* headers: "name=value;"... */
    bool is_tombstone, has_key;
    int64_t timestamp, offset;
};

void kafka_rig_open(struct kafka_rig *rig, int n_brokers);
void kafka_rig_close(struct kafka_rig *rig);
/* Produce; value NULL: a tombstone. Headers: a=b. */
void kafka_rig_feed(struct kafka_rig *rig, const char *topic, const char *key, const char *value);
/* Read a topic of one partition from its begin, at least n messages; how many there are. */
size_t kafka_rig_read(struct kafka_rig *rig, const char *topic, struct kafka_found *found, size_t n,
                      size_t room);
/* The offset committed for partition 0 of the topic by the group, always the same; -1: none. */
int64_t kafka_rig_committed(struct kafka_rig *rig, const char *group, const char *topic);
bool kafka_rig_wait(struct kafka_rig *rig, uint64_t ms, bool (*is_done)(void *ctx), void *ctx);
void kafka_rig_run(struct kafka_rig *rig, uint64_t ms);

/* options: name, value, ... NULL, beside brokers of the rig. 0 or the error of open. */
int kafka_post_open(struct kafka_post *post, struct kafka_rig *rig, const char *const *options,
                    char *err, size_t err_size);
void kafka_post_close(struct kafka_post *post, uint64_t deadline_ms);
bool kafka_post_has(struct kafka_post *post, size_t n_inbox, uint64_t ms);
struct message *kafka_post_take(struct kafka_post *post);
/* Publish value (NULL: that of the message) for it; code: as a dead letter. The message is acked
 * when that is confirmed, and a record too large or refused becomes a dead letter, as in the
 * pipeline. */
void kafka_post_publish(struct kafka_post *post, struct message *message, const char *value,
                        size_t len, const char *code);
bool kafka_post_quiet(struct kafka_post *post, uint64_t ms); /* nothing under way */

#endif
