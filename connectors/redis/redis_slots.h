/*
 * redis_slots.h: the records a Redis sink was given and that are not confirmed yet, in queues.
 *
 * Owns:    what is known of a record on its way: sent how, refused how often.
 * Refuses: when to send, and what a refusal means: redis_sink.c, redis_refusal.c.
 * Threads: the loop thread.
 */
#ifndef REDIS_SLOTS_H
#define REDIS_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connectors/connector.h"

struct redis_sink;

struct redis_slot {
    struct redis_sink *sink;
    struct record *record;
    struct redis_slot *next;
    bool acks;           /* the command sent last acks the origin too */
    bool is_script;      /* it is several commands in one script */
    bool whole;          /* send the script itself: the server did not know its digest */
    unsigned lost;       /* connections that ended while it was the next to be answered */
    unsigned strikes;    /* refusals after each of which another record was accepted */
    uint64_t n_accepted; /* by its destination, when it was refused last */
};

struct redis_slot_queue {
    struct redis_slot *first, *last;
    size_t n;
};

void redis_slots_push(struct redis_slot_queue *queue, struct redis_slot *slot);
struct redis_slot *redis_slots_pop(struct redis_slot_queue *queue); /* NULL: it is empty */
/* All of `from`, to the end of `to`. */
void redis_slots_move(struct redis_slot_queue *to, struct redis_slot_queue *from);
void redis_slots_free(struct redis_slot_queue *queue);

#endif
