/*
 * postgres_slots.c: the records that a PostgreSQL sink was given, until they are committed.
 *
 * Owns:    their order, their memory, which transaction each is in, telling the pipeline.
 * Refuses: which transaction they go into, and when.
 * Threads: the loop thread.
 */
#include <stdlib.h>

#include "connectors/postgres/postgres_sink_internal.h"

void postgres_slots_open(struct postgres_sink *sink)
{
    sink->slots.next = sink->slots.prev = &sink->slots;
}

static void list_remove(struct postgres_slot *slot)
{
    slot->prev->next = slot->next;
    slot->next->prev = slot->prev;
}

static void list_add(struct postgres_slot *at, struct postgres_slot *slot)
{
    slot->prev = at->prev;
    slot->next = at;
    at->prev->next = slot;
    at->prev = slot;
}

void postgres_slots_close(struct postgres_sink *sink)
{
    while (sink->slots.next && sink->slots.next != &sink->slots) {
        struct postgres_slot *slot = sink->slots.next;
        list_remove(slot);
        free(slot);
    }
    while (sink->spare) {
        struct postgres_slot *slot = sink->spare;
        sink->spare = slot->next;
        free(slot);
    }
}

struct postgres_slot *postgres_slots_take(struct postgres_sink *sink, struct record *record)
{
    struct postgres_slot *slot = sink->spare;
    if (slot)
        sink->spare = slot->next;
    else
        slot = malloc(sizeof *slot);
    if (slot)
        *slot = (struct postgres_slot){.record = record};
    return slot;
}

void postgres_slots_insert(struct postgres_sink *sink, struct postgres_slot *before,
                           struct postgres_slot *slot)
{
    list_add(before, slot);
    sink->n_slots++;
}

void postgres_slots_last(struct postgres_sink *sink, struct postgres_slot *slot)
{
    list_remove(slot);
    list_add(&sink->slots, slot);
}

/* Off the list before the event, in which it may be published anew. */
void postgres_slots_done(struct postgres_sink *sink, struct postgres_slot *slot, enum published how)
{
    struct record *record = slot->record;
    list_remove(slot);
    sink->n_slots--;
    sink->n_flying -= slot->flight != 0;
    slot->next = sink->spare;
    sink->spare = slot;
    sink->base.events->on_published(sink->base.ctx, record, how);
}

void postgres_slots_refuse(struct postgres_sink *sink, struct postgres_slot *slot, const char *code,
                           const char *why)
{
    slot->record->refused_code = code;
    slot->record->refused_reason = why;
    postgres_slots_done(sink, slot, PUBLISH_REFUSED);
}

struct postgres_slot *postgres_slots_ground(struct postgres_sink *sink, unsigned flight)
{
    struct postgres_slot *first = NULL;
    for (struct postgres_slot *slot = sink->slots.next; slot != &sink->slots; slot = slot->next) {
        if (slot->flight != flight)
            continue;
        slot->flight = 0;
        sink->n_flying--;
        first = first ? first : slot;
    }
    return first;
}

void postgres_sink_wait(struct postgres_sink *sink, unsigned part, const char *why)
{
    health_wait(&sink->end.health, part, why);
    endpoint_pause(&sink->end);
}
