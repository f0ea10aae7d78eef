/*
 * postgres_slots.c: the records that a PostgreSQL sink was given, until they are committed.
 *
 * Owns:    which transaction each is in, telling the pipeline.
 * Refuses: which transaction they go into, and when.
 * Threads: the loop thread.
 */
#include "connectors/postgres/postgres_sink_internal.h"

void postgres_slots_last(struct postgres_sink *sink, struct postgres_slot *slot)
{
    slots_remove(&sink->slots, &slot->base);
    slots_push(&sink->slots, &slot->base);
}

/* Off the list before the event, in which it may be published anew. */
void postgres_slots_done(struct postgres_sink *sink, struct postgres_slot *slot, enum published how)
{
    struct record *record = slot->base.record;
    slots_remove(&sink->slots, &slot->base);
    sink->n_flying -= slot->flight != 0;
    slots_give(&sink->pool, &slot->base);
    sink->base.events->on_published(sink->base.ctx, record, how);
}

void postgres_slots_refuse(struct postgres_sink *sink, struct postgres_slot *slot, const char *code,
                           const char *why)
{
    slot->base.record->refused_code = code;
    slot->base.record->refused_reason = why;
    postgres_slots_done(sink, slot, PUBLISH_REFUSED);
}

struct postgres_slot *postgres_slots_ground(struct postgres_sink *sink, unsigned flight)
{
    struct postgres_slot *first = NULL;
    for (struct slot *at = sink->slots.first; at; at = at->next) {
        struct postgres_slot *slot = (struct postgres_slot *)at;
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
