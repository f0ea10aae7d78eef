/*
 * kafka_publisher.h: the thread that makes transactions.
 *
 * Owns:    every call of librdkafka's transactions, because each of them may block.
 * Refuses: which records and offsets are to go together, and what happens after a failure.
 * Threads: all functions here are for the loop thread. A burst belongs to the thread from submit
 *          until kafka_publisher_is_idle, and to the loop otherwise; else only news is shared.
 * Why:     one burst is one transaction, made in one go when all of it is embedded already: begin,
 *          produce, offsets, commit. So no transaction is ever open while somebody computes.
 */
#ifndef KAFKA_PUBLISHER_H
#define KAFKA_PUBLISHER_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "connectors/connector.h"
#include "connectors/kafka/kafka.h"
#include "connectors/kafka/kafka_record.h"

enum { KAFKA_BURST_MAX = 1024 };

struct kafka_item {
    struct record *record;
    void *tag; /* the loop's */
    struct kafka_form form;
    rd_kafka_resp_err_t err; /* of this record; 0 or a purge: another one's fault */
    bool passed;             /* the brokers have it */
};

enum kafka_outcome {
    OUTCOME_COMMITTED,
    OUTCOME_ABORTED, /* nothing of it counts; it can be tried again */
    OUTCOME_UNKNOWN, /* the commit failed in a way that leaves open whether it was made */
};

/* All records of a transaction and the offsets of their inputs. */
struct kafka_burst {
    struct kafka_item items[KAFKA_BURST_MAX]; /* [n]; 0: only get ready */
    size_t n;
    rd_kafka_topic_partition_list_t *offsets;
    rd_kafka_consumer_group_metadata_t *group; /* of the moment when the burst was put together */
    bool is_trial; /* only to see whether the items pass: it is aborted */
    bool in_doubt; /* it ended in OUTCOME_UNKNOWN: first look what the group has committed */
    enum kafka_outcome outcome;
    rd_kafka_resp_err_t err; /* why it is not committed, 0 when an item tells */
    bool renew;              /* this producer is of no use any more */
    char why[300];           /* the same as a sentence */
};

struct kafka_publisher;

/* consumer: whose offsets are looked up in doubt. done: called on the thread. 0 or -errno. */
int kafka_publisher_open(struct kafka_publisher **out, const struct kafka_config *config,
                         rd_kafka_t *consumer, void (*done)(void *ctx), void *ctx);
/* The burst to fill or to read; only while idle. */
struct kafka_burst *kafka_publisher_burst(struct kafka_publisher *publisher);
bool kafka_publisher_is_idle(const struct kafka_publisher *publisher);
/* The producer to use from the next burst on, made ready first. Only while idle. */
void kafka_publisher_use(struct kafka_publisher *publisher, rd_kafka_t *producer);
void kafka_publisher_submit(struct kafka_publisher *publisher);
/* The call that is under way and for how long; NULL when none is. */
const char *kafka_publisher_call(const struct kafka_publisher *publisher, uint64_t *ms);
/* Callbacks of a producer that is to be used: they come on whichever thread polls, and a thread
 * left alone still does, so they know the publisher only. */
void kafka_publisher_configure(rd_kafka_conf_t *conf);
/* Whether there is news of the brokers since the last call; text: the library's sentence, "": one
 * is up. */
bool kafka_publisher_news(struct kafka_publisher *publisher, char *text, size_t size);
/*
 * Takes. False: a call is under way and may never end; then the thread is left alone with its
 * memory, its producer and the consumer, which must not be destroyed, and touches nothing else any
 * more.
 */
bool kafka_publisher_close(struct kafka_publisher *publisher);

#endif
