/*
 * redis_slots.c: see redis_slots.h.
 */
#include "connectors/redis/redis_slots.h"

#include <stdlib.h>

void redis_slots_push(struct redis_slot_queue *queue, struct redis_slot *slot)
{
    slot->next = NULL;
    if (queue->last)
        queue->last->next = slot;
    else
        queue->first = slot;
    queue->last = slot;
    queue->n++;
}

struct redis_slot *redis_slots_pop(struct redis_slot_queue *queue)
{
    struct redis_slot *slot = queue->first;

    if (!slot)
        return NULL;
    queue->first = slot->next;
    if (!queue->first)
        queue->last = NULL;
    queue->n--;
    return slot;
}

void redis_slots_move(struct redis_slot_queue *to, struct redis_slot_queue *from)
{
    struct redis_slot *slot;

    while ((slot = redis_slots_pop(from)))
        redis_slots_push(to, slot);
}

void redis_slots_free(struct redis_slot_queue *queue)
{
    struct redis_slot *slot;

    while ((slot = redis_slots_pop(queue)))
        free(slot);
}
