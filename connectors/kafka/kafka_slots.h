/*
 * kafka_slots.h: the records a Kafka sink was given and that are not confirmed yet, in order.
 *
 * Owns:    the ring of slots; what a refusal of one record means for it.
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

struct kafka_slot {
    struct kafka_slot *prev, *next;
    struct record *record;
    bool sent;       /* with the library; at least once only */
    bool alone;      /* refused as too large in company: the limit is on what is sent together */
    bool plain_time; /* the topic refuses the input's timestamp */
};

/* slots.head.next is the oldest; a walk ends at &slots.head. */
struct kafka_slots {
    struct kafka_slot head;
    size_t n;
};

void kafka_slots_open(struct kafka_slots *slots);
/* At the end. 0, or -ENOMEM: those left out are not in it. */
int kafka_slots_add(struct kafka_slots *slots, struct record **records, size_t n);
/* Takes it out and frees it; returns its record. */
struct record *kafka_slots_take(struct kafka_slots *slots, struct kafka_slot *slot);
void kafka_slots_clear(struct kafka_slots *slots);

enum kafka_verdict {
    VERDICT_NONE,      /* nothing of this record's own */
    VERDICT_AGAIN,     /* noted in the slot; it may pass the next time */
    VERDICT_TOO_LARGE, /* can never be written */
    VERDICT_WAIT,      /* the topic refuses it; told, and to be tried again after a pause */
};

/* write: the part of health that a topic's refusal is told under. */
enum kafka_verdict kafka_slot_refuse(struct kafka_slot *slot, rd_kafka_resp_err_t err,
                                     const struct kafka_config *config, struct health *health,
                                     unsigned write);

#endif
