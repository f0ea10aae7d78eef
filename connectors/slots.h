/*
 * slots.h: the records a sink was given and that are not confirmed yet, in order.
 *
 * Owns:    queues of them, and their memory, which is used again.
 * Refuses: when to send, and what a refusal means: the sinks.
 * Threads: the loop thread.
 * Why:     the lists of <sys/queue.h> have no count and make no whole of two; sinks need both.
 */
#ifndef SLOTS_H
#define SLOTS_H

#include <stddef.h>

#include "connectors/connector.h"

/* First member of what a sink keeps of each record. */
struct slot {
    struct slot *prev, *next;
    struct record *record;
};

/* From the oldest to the newest. Zeroed: empty. */
struct slot_queue {
    struct slot *first, *last;
    size_t n;
};

/* before: one of the queue; NULL: the end. */
void slots_insert(struct slot_queue *queue, struct slot *before, struct slot *slot);
void slots_push(struct slot_queue *queue, struct slot *slot);
void slots_remove(struct slot_queue *queue, struct slot *slot);
struct slot *slots_pop(struct slot_queue *queue); /* NULL: it is empty */
/* All of `from`, to the end of `to`. */
void slots_move(struct slot_queue *to, struct slot_queue *from);

/* Where slots come from. size: of the sink's own struct. */
struct slot_pool {
    size_t size;
    struct slot *spare;
};

/* The rest is zeroed. NULL: no memory. */
struct slot *slots_take(struct slot_pool *pool, struct record *record);
void slots_give(struct slot_pool *pool, struct slot *slot);
void slots_give_all(struct slot_pool *pool, struct slot_queue *queue);
void slots_close(struct slot_pool *pool);

/* n records to the end of the queue. 0, or -ENOMEM: those left out are not in it, so they stay
 * unacked and come again after the exit. */
int slots_add(struct slot_pool *pool, struct slot_queue *queue, struct record **records, size_t n);

#endif
