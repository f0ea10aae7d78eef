/*
 * postgres_slots.c: the records that a PostgreSQL sink was given, until they are committed.
 *
 * Owns:    which transaction each is in, telling the pipeline.
 * Refuses: which transaction they go into, and when.
 * Threads: the loop thread.
 */
#include <assert.h>

#include "connectors/postgres/postgres_sink_internal.h"

static void on_aside_timer(uv_timer_t *timer)
{
    struct postgres_sink *sink = timer->data;
    postgres_slots_again(sink, true);
    endpoint_pump(&sink->end);
}

void postgres_slots_aside(struct postgres_sink *sink, struct postgres_slot *slot)
{
    slots_remove(&sink->slots, &slot->base);
    slots_push(&sink->aside, &slot->base);
    /* Due already for one that stood aside before: that time is early enough. */
    if (!uv_is_active((uv_handle_t *)&sink->aside_timer))
        uv_timer_start(&sink->aside_timer, on_aside_timer, backoff_next(&sink->aside_backoff), 0);
}

void postgres_slots_again(struct postgres_sink *sink, bool all)
{
    for (struct slot *at = sink->aside.first, *next; at; at = next) {
        next = at->next;
        if (!all && ((struct postgres_slot *)at)->is_locked)
            continue;
        slots_remove(&sink->aside, at);
        /* At the end: what came meanwhile has its turn first. */
        slots_push(&sink->slots, at);
    }
    if (!sink->aside.n)
        uv_timer_stop(&sink->aside_timer);
}

void postgres_slots_suspect(struct postgres_sink *sink, unsigned flight)
{
    for (struct slot *at = sink->slots.first; at; at = at->next) {
        struct postgres_slot *slot = (struct postgres_slot *)at;
        if (slot->flight != flight || slot->is_slow)
            continue;
        slot->is_slow = true;
        sink->n_slow++;
    }
}

void postgres_slots_judged(struct postgres_sink *sink, struct postgres_slot *slot)
{
    sink->n_slow -= slot->is_slow;
    slot->is_slow = false;
}

/* Off the list before the event, in which it may be published anew. */
void postgres_slots_done(struct postgres_sink *sink, struct postgres_slot *slot, enum published how)
{
    struct record *record = slot->base.record;
    postgres_slots_judged(sink, slot);
    if (slot->is_alone)
        sink->aside_backoff.attempts = 0;
    slots_remove(&sink->slots, &slot->base);
    /* One that is given up by fill was in no transaction. */
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
    assert(flight);
    for (struct slot *at = sink->slots.first; at; at = at->next) {
        struct postgres_slot *slot = (struct postgres_slot *)at;
        if (slot->flight != flight)
            continue;
        /* It keeps its place in the queue, and goes again with the next transaction. */
        slot->flight = 0;
        sink->n_flying--;
        first = first ? first : slot;
    }
    return first;
}

void postgres_sink_shrink(struct postgres_sink *sink, size_t limit)
{
    sink->limit = limit ? limit : 1;
    sink->n_shrinks++;
}

void postgres_sink_wait(struct postgres_sink *sink, unsigned part, const char *why)
{
    health_wait(&sink->end.health, part, why);
    endpoint_pause(&sink->end);
}
