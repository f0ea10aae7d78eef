/*
 * kafka_slots.h: the records a Kafka sink was given and that are not confirmed yet, in order.
 *
 * Owns:    what a refusal of one record means for it.
 * Refuses: when to send, and what a refusal means for the others: kafka_sink.c and
 *          kafka_transactions.c.
 * Threads: the loop thread.
 */
#ifndef KAFKA_SLOTS_H
#define KAFKA_SLOTS_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stddef.h>

#include "connectors/connector.h"
#include "connectors/health.h"
#include "connectors/kafka/kafka.h"
#include "connectors/kafka/kafka_record.h"
#include "connectors/slots.h"

struct kafka_slot {
    struct slot base; /* first member */
    struct kafka_form form;
    bool sent;       /* with the library; at least once only */
    bool alone;      /* refused in company: the fault may be another's, and its own shows alone */
    bool time_doubt; /* refused once for a timestamp that may be a neighbour's */
    bool invalid_doubt; /* the same as an invalid record */
    bool aside; /* refused alone for an unknown reason: others go first, to see whether they pass */
    unsigned n_passed; /* how often others have passed since, and it was refused again */
};

struct kafka_slots {
    struct slot_queue queue;
    struct slot_pool pool;
    size_t n_to[2], n_aside[2]; /* to the topic for outputs, to that for dead letters */
    int64_t ahead_ms; /* the least that a timestamp lay ahead and was refused for it; 0: none was */
    bool needs_keys[2]; /* the topic for outputs, that for dead letters: as far as is known */
};

void kafka_slots_open(struct kafka_slots *slots);
/* At the end, with ids for keys where the topic needs keys. 0, or -ENOMEM: those left out are not
 * in it. */
int kafka_slots_add(struct kafka_slots *slots, struct record **records, size_t n);
/* The oldest, and the one behind another; NULL: there is none. */
struct kafka_slot *kafka_slots_first(const struct kafka_slots *slots);
struct kafka_slot *kafka_slots_next(const struct kafka_slot *slot);
/* Takes it out and frees it; returns its record. */
struct record *kafka_slots_take(struct kafka_slots *slots, struct kafka_slot *slot);
void kafka_slots_close(struct kafka_slots *slots);

enum kafka_verdict {
    VERDICT_NONE,      /* nothing of this record's own */
    VERDICT_AGAIN,     /* noted in the slot; it may pass the next time */
    VERDICT_TOO_LARGE, /* REFUSES_RECORD (connector.h): can never be written at this size */
    VERDICT_REFUSED,   /* REFUSES_RECORD: can never be written; reported->why is the sentence */
    VERDICT_WAIT,      /* REFUSES_DESTINATION: reported, and to be tried again after a pause */
};

/* Where a refusal is reported: the destination's to health, as its part `write`. */
struct kafka_reported {
    struct health *health;
    unsigned write;
    char why[400];
};
enum kafka_verdict kafka_slot_refuse(struct kafka_slots *slots, struct kafka_slot *slot,
                                     rd_kafka_resp_err_t err, const struct kafka_config *config,
                                     struct kafka_reported *reported);
/* This one has passed: those that stand aside before the same topic are tried once more. */
void kafka_slots_passed(struct kafka_slots *slots, const struct kafka_slot *passed);
/* Whether it is to let others go first: it stands aside, and there are others to the same topic. */
bool kafka_slots_lets_pass(const struct kafka_slots *slots, const struct kafka_slot *slot);
/* Its record is confirmed: count and report the timestamp that was not the input's, if so. */
void kafka_slot_confirmed(const struct kafka_slot *slot, const struct kafka_config *config,
                          const struct sink *sink);

#endif
