/*
 * slots.c: see slots.h.
 */
#include "connectors/slots.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

void slots_insert(struct slot_queue *queue, struct slot *before, struct slot *slot)
{
    /* In front of `before`, or at the end. */
    assert(!queue->first == !queue->n);
    slot->prev = before ? before->prev : queue->last;
    slot->next = before;
    if (slot->prev)
        slot->prev->next = slot;
    else
        queue->first = slot;
    if (before)
        before->prev = slot;
    else
        queue->last = slot;
    queue->n++;
}

void slots_push(struct slot_queue *queue, struct slot *slot)
{
    slots_insert(queue, NULL, slot);
}

void slots_remove(struct slot_queue *queue, struct slot *slot)
{
    assert(queue->n > 0);
    if (slot->prev)
        slot->prev->next = slot->next;
    else
        queue->first = slot->next;
    if (slot->next)
        slot->next->prev = slot->prev;
    else
        queue->last = slot->prev;
    queue->n--;
}

struct slot *slots_pop(struct slot_queue *queue)
{
    struct slot *slot = queue->first;
    if (slot)
        slots_remove(queue, slot);
    return slot;
}

void slots_move(struct slot_queue *to, struct slot_queue *from)
{
    if (!from->n)
        return;
    from->first->prev = to->last;
    if (to->last)
        to->last->next = from->first;
    else
        to->first = from->first;
    to->last = from->last;
    to->n += from->n;
    assert(!to->last->next);
    *from = (struct slot_queue){0};
}

struct slot *slots_take(struct slot_pool *pool, struct record *record)
{
    struct slot *slot = pool->spare;
    assert(pool->size >= sizeof *slot);
    if (slot) {
        pool->spare = slot->next;
        /* A spare one still has the state of its last record, flags among it. */
        memset(slot, 0, pool->size);
    } else {
        slot = calloc(1, pool->size);
    }
    if (slot)
        slot->record = record;
    return slot;
}

void slots_give(struct slot_pool *pool, struct slot *slot)
{
    /* Kept until the sink closes: as many as were ever unconfirmed at once. */
    slot->next = pool->spare;
    pool->spare = slot;
}

void slots_give_all(struct slot_pool *pool, struct slot_queue *queue)
{
    struct slot *slot;
    while ((slot = slots_pop(queue)))
        slots_give(pool, slot);
}

void slots_close(struct slot_pool *pool)
{
    while (pool->spare) {
        struct slot *slot = pool->spare;
        pool->spare = slot->next;
        free(slot);
    }
}

int slots_add(struct slot_pool *pool, struct slot_queue *queue, struct record **records, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct slot *slot = slots_take(pool, records[i]);
        /* The records before it are queued and may be published before the worker ends. */
        if (!slot)
            return -ENOMEM;
        slots_push(queue, slot);
    }
    return 0;
}
