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
    bool alone;      /* refused in company: the fault may be another's, and its own shows alone */
    bool time_doubt; /* refused once for a timestamp that may be a neighbour's */
    bool plain_time; /* the topic refuses the input's timestamp */
};

/* slots.head.next is the oldest; a walk ends at &slots.head. */
struct kafka_slots {
    struct kafka_slot head;
    size_t n;
    int64_t ahead_ms; /* the least that a timestamp lay ahead and was refused for it; 0: none was */
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
enum kafka_verdict kafka_slot_refuse(struct kafka_slots *slots, struct kafka_slot *slot,
                                     rd_kafka_resp_err_t err, const struct kafka_config *config,
                                     struct health *health, unsigned write);
/* Its record is confirmed: count and report the timestamp that was not the input's, if so. */
void kafka_slot_confirmed(const struct kafka_slot *slot, const struct kafka_config *config,
                          const struct sink *sink);

#endif
