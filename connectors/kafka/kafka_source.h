/*
 * kafka_source.h: the inside of a Kafka source, for its own files and for a sink on the same
 * cluster that publishes and commits in one transaction.
 *
 * Owns:    what kafka_source.c (polling, credit, acks), kafka_group.c (assignments and their end),
 *          kafka_commits.c, kafka_lag.c, kafka_skips.c and kafka_message.c share.
 * Threads: the loop thread.
 */
#ifndef KAFKA_SOURCE_H
#define KAFKA_SOURCE_H

#include "connectors/connector.h"
#include "connectors/endpoint.h"
#include "connectors/intake.h"
#include "connectors/kafka/kafka.h"
#include "connectors/kafka/kafka_client.h"
#include "connectors/kafka/kafka_offsets.h"
#include "connectors/kafka/kafka_skips.h"

/* What can be in trouble, as bits of a health. */
#define PART_BROKERS 1u
#define PART_TOPIC   2u
#define PART_ACCESS  4u
#define PART_COMMIT  8u
#define PART_GROUP   16u

/*
 * One assignment of one partition. When the same partition is assigned again, that is another one:
 * whatever belongs to the first is too late then.
 */
struct kafka_partition {
    struct kafka_partition *next;
    char *topic;
    int32_t partition;
    char *name; /* "topic/3" */
    struct kafka_offsets offsets;
    size_t n_messages;  /* that point here */
    bool revoked;       /* not ours any more; freed with the last message */
    bool leaving;       /* being finished before it is given up */
    bool paused;        /* the library does not tell, and resuming what is not paused rewinds it */
    bool dirty;         /* there is more to store */
    bool commit_back;   /* what is to be committed may lie before what the group has */
    int64_t stored;     /* the offset stored last, -1: none */
    int64_t committed;  /* the one of them that the group has confirmed last, -1: none */
    int64_t seen_end;   /* the furthest end of the partition that was seen, -1: none */
    int64_t reset_from; /* the offset that the library has reset last, -1: none */
    int64_t accounted;  /* up to here losses were reported */
    int64_t begin;      /* where a keeper had us begin, until the first message; else 0 */
    bool unanswered;    /* the keeper has not said yet where */
};

struct kafka_message {
    struct taken taken; /* first member */
    rd_kafka_message_t *native;
    struct kafka_partition *part;
};

struct kafka_source {
    struct source base;
    struct endpoint end;
    struct kafka_config config;
    struct kafka_client *client;
    rd_kafka_t *rk; /* the client's */
    rd_kafka_queue_t *queue, *closing_queue;
    struct kafka_partition *parts; /* assigned */
    struct intake intake;
    rd_kafka_topic_partition_list_t *claimed;   /* to be assigned when the keeper has answered */
    rd_kafka_topic_partition_list_t *leaving;   /* to be unassigned; NULL: no revoke under way */
    rd_kafka_topic_partition_list_t *unflushed; /* closing: stored and not confirmed; or NULL */
    rd_kafka_resp_err_t commit_err;             /* of the last commit that failed */
    uint64_t leave_by_ms;
    struct kafka_ask *ask; /* for the lag of the group; NULL: none under way */
    struct kafka_skips skips;
    unsigned n_ticks;
    uint64_t n_late_acks; /* not told of yet */
    char last_error[240]; /* what the library said of a broker */
    bool abandoned;
    bool is_cooperative; /* the protocol of the assignments */
};

/* ---- kafka_partition.c */

/* NULL: not ours. */
struct kafka_partition *kafka_partition_find(const struct kafka_source *source, const char *topic,
                                             int32_t partition);
/* On the list, with nothing known of it. NULL: no memory. */
struct kafka_partition *kafka_partition_open(struct kafka_source *source, const char *topic,
                                             int32_t partition);
/* Off the list already. */
void kafka_partition_free(struct kafka_partition *part);
/* A message of a part is gone; the part too when it was the last of one that is not ours. */
void kafka_partition_release(struct kafka_partition *part);

/* ---- kafka_message.c */

/* Takes native. NULL: no memory, and native is gone. */
struct kafka_message *kafka_message_open(struct source *source, struct kafka_partition *part,
                                         rd_kafka_message_t *native);
void kafka_message_close(struct kafka_message *message);

/* ---- kafka_group.c */

void kafka_group_on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t err,
                              rd_kafka_topic_partition_list_t *list, void *opaque);
/* Give up what is leaving when all of it is finished or its time is over. */
void kafka_group_advance(struct kafka_source *source);
/* At once. */
void kafka_group_leave(struct kafka_source *source);
/* The log behind this partition began anew: all that was taken of it is too late. NULL: memory. */
struct kafka_partition *kafka_group_renew(struct kafka_source *source,
                                          struct kafka_partition *part);
/* Take messages no more, or again. */
void kafka_group_pause(struct kafka_source *source, bool pause);
/* Hand the offsets that may be committed to the library. */
void kafka_group_store(struct kafka_source *source);
void kafka_group_report_lag(struct kafka_source *source);
void kafka_group_close(struct kafka_source *source);

/* ---- kafka_claims.c */

/* Answers the library's question; list NULL: nothing is ours. */
void kafka_claims_answer(struct kafka_source *source, bool is_assign,
                         const rd_kafka_topic_partition_list_t *list);
/* Assigned: ask the keeper where each of the partitions, which are on our list, begins. */
void kafka_claims_ask(struct kafka_source *source, const rd_kafka_topic_partition_list_t *list);
/* begin of source_ops. */
void kafka_claims_begin(struct source *base, const char *name, int64_t order);
/* A message was read: has the partition begun anew before where the keeper thinks it is? */
void kafka_claims_on_message(struct kafka_source *source, struct kafka_partition *part,
                             int64_t offset);
/* The assignment is over before it was answered. */
void kafka_claims_drop(struct kafka_source *source);

/* ---- kafka_commits.c */

/* The library's callback, after each commit of its own. */
void kafka_commits_on_result(rd_kafka_t *rk, rd_kafka_resp_err_t err,
                             rd_kafka_topic_partition_list_t *offsets, void *opaque);
/* When the group is about to be left; what is stored by now counts. */
void kafka_commits_expect(struct kafka_source *source);
/* When it is left: tell on_failed what was expected and has not come, if anything. */
void kafka_commits_settle(struct kafka_source *source);

/* ---- kafka_lag.c */

/* About once a second. */
void kafka_lag_tick(struct kafka_source *source);
void kafka_lag_close(struct kafka_source *source);

/* ---- kafka_source.c, for the sink that commits for us */

struct kafka_partition *kafka_source_partition(const struct message *message);
int64_t kafka_source_offset(const struct message *message);
/* Takes: it is done, and that is committed already. */
void kafka_source_finish(struct message *message);
/* A thread may hang in a call to the consumer: it is left as it is when the source is closed. */
void kafka_source_abandon(struct kafka_source *source);

#endif
