/*
 * kafka_slots.c: see kafka_slots.h.
 */
#include "connectors/kafka/kafka_slots.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "connectors/kafka/kafka_errors.h"

#define PASSES_MAX 3 /* of others, while one record is refused again and again */

static bool is_dead(const struct record *record)
{
    return record->dead_code;
}

void kafka_slots_open(struct kafka_slots *slots)
{
    *slots = (struct kafka_slots){.pool.size = sizeof(struct kafka_slot)};
}

int kafka_slots_add(struct kafka_slots *slots, struct record **records, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct kafka_slot *slot = (struct kafka_slot *)slots_take(&slots->pool, records[i]);
        if (!slot)
            return -ENOMEM;
        /* Learnt from an earlier refusal of that topic: this one need not be refused first. */
        slot->form.id_as_key = slots->needs_keys[is_dead(records[i])];
        slots_push(&slots->queue, &slot->base);
        slots->n_to[is_dead(records[i])] += records[i]->n_parts > 0;
    }
    return 0;
}

struct kafka_slot *kafka_slots_first(const struct kafka_slots *slots)
{
    return (struct kafka_slot *)slots->queue.first;
}

struct kafka_slot *kafka_slots_next(const struct kafka_slot *slot)
{
    return (struct kafka_slot *)slot->base.next;
}

struct record *kafka_slots_take(struct kafka_slots *slots, struct kafka_slot *slot)
{
    struct record *record = slot->base.record;
    slots_remove(&slots->queue, &slot->base);
    slots->n_to[is_dead(record)] -= record->n_parts > 0;
    slots->n_aside[is_dead(record)] -= slot->aside;
    slots_give(&slots->pool, &slot->base);
    return record;
}

void kafka_slots_close(struct kafka_slots *slots)
{
    slots_give_all(&slots->pool, &slots->queue);
    slots_close(&slots->pool);
}

/* How far the record's timestamp lies ahead of the clock, in ms; at most 0: it does not. */
static int64_t ahead_of(const struct kafka_slot *slot)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return slot->base.record->origin->timestamp_ms -
           ((int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000);
}

/*
 * The broker refuses a whole batch for one timestamp that is too far ahead, or too old, and does
 * not say whose. So a record is sent alone, or lies as far ahead as one that was refused alone,
 * before it loses its timestamp. What lies ahead at all is suspected first, and the rest go
 * together once more: a thousand neighbours are not sent singly.
 */
static enum kafka_verdict refuse_time(struct kafka_slots *slots, struct kafka_slot *slot)
{
    int64_t ahead = ahead_of(slot);
    if (slot->form.plain_time) { /* the time of writing: the fault of a neighbour, or past help */
        bool was_alone = slot->alone;
        slot->alone = true;
        return was_alone ? VERDICT_REFUSED : VERDICT_AGAIN;
    }
    if (slot->alone || (slots->ahead_ms && ahead >= slots->ahead_ms)) {
        slot->form.plain_time = true;
        /* Others that lie as far ahead lose theirs at the first refusal,
         * without being sent alone. */
        if (ahead > 0 && (!slots->ahead_ms || ahead < slots->ahead_ms))
            slots->ahead_ms = ahead;
    } else if (slot->time_doubt || ahead > 0) {
        slot->alone = true;
    }
    slot->time_doubt = true;
    return VERDICT_AGAIN;
}

void kafka_slot_confirmed(const struct kafka_slot *slot, const struct kafka_config *config,
                          const struct sink *sink)
{
    const struct message *origin = slot->base.record->origin;
    char text[400];
    if (!slot->form.plain_time)
        return;
    sink_count(sink, COUNTER_REPLACED_TIMESTAMPS, 1);
    if (!sink->events->on_notice)
        return;
    snprintf(text, sizeof text,
             "topic %.100s refuses the timestamp of %.*s (%lld ms since 1970): its output has the "
             "time of writing; correct the producer's clock, or raise "
             "message.timestamp.after.max.ms of the topic",
             kafka_record_topic(config, slot->base.record),
             (int)(origin->position.len < 120 ? origin->position.len : 120), origin->position.ptr,
             (long long)origin->timestamp_ms);
    sink->events->on_notice(sink->ctx, NOTICE_WARN, "TIMESTAMP", text);
}

/*
 * A batch is refused for one record in it that is invalid. The keyless ones are given keys at once,
 * for that is what compacted topics want; what is refused again is sent alone, and refused alone it
 * is known to be the one.
 */
static enum kafka_verdict refuse_invalid(struct kafka_slots *slots, struct kafka_slot *slot)
{
    bool was_alone = slot->alone;
    if (kafka_record_is_keyless(slot->base.record) && !slot->form.id_as_key)
        slot->form.id_as_key = slots->needs_keys[is_dead(slot->base.record)] = true;
    else if (was_alone)
        return VERDICT_REFUSED;
    else if (slot->invalid_doubt)
        slot->alone = true;
    slot->invalid_doubt = true;
    return VERDICT_AGAIN;
}

/*
 * The code says nothing about whose fault it is: of a proxy, of a plugin of the broker, of a
 * release to come. Alone at first. Refused alone it stands aside: when others pass three times and
 * it does not, it is its own fault; when nothing passes, it is the destination's, which somebody
 * will mend.
 */
static enum kafka_verdict refuse_unknown(struct kafka_slots *slots, struct kafka_slot *slot)
{
    bool was_alone = slot->alone;
    slot->alone = true;
    if (!was_alone)
        return VERDICT_AGAIN;
    if (slot->n_passed >= PASSES_MAX)
        return VERDICT_REFUSED;
    slots->n_aside[is_dead(slot->base.record)] += !slot->aside;
    slot->aside = true;
    return VERDICT_WAIT;
}

void kafka_slots_passed(struct kafka_slots *slots, const struct kafka_slot *passed)
{
    bool to = is_dead(passed->base.record);
    struct kafka_slot *slot = kafka_slots_first(slots);
    for (; slots->n_aside[to]; slot = kafka_slots_next(slot)) {
        assert(slot);
        if (!slot->aside || is_dead(slot->base.record) != to)
            continue;
        slot->aside = false;
        /* At PASSES_MAX the fault is its own (refuse_unknown). */
        slot->n_passed++;
        slots->n_aside[to]--;
    }
}

bool kafka_slots_lets_pass(const struct kafka_slots *slots, const struct kafka_slot *slot)
{
    bool to = is_dead(slot->base.record);
    /* When all to this topic stand aside, nobody can show anything: they go as they come. */
    return slot->aside && slots->n_to[to] > slots->n_aside[to];
}

enum kafka_verdict kafka_slot_refuse(struct kafka_slots *slots, struct kafka_slot *slot,
                                     rd_kafka_resp_err_t err, const struct kafka_config *config,
                                     struct kafka_reported *reported)
{
    enum kafka_refusal refusal = kafka_error_refusal(err);
    if (refusal == REFUSAL_NONE)
        return VERDICT_NONE;
    kafka_record_explain(config, slot->base.record, err, reported->why, sizeof reported->why);
    /* A batch is refused whole: only what was sent alone is known to be too large itself. */
    if (refusal == REFUSAL_TOO_LARGE) {
        bool was_alone = slot->alone;
        slot->alone = true;
        return was_alone ? VERDICT_TOO_LARGE : VERDICT_AGAIN;
    }
    if (refusal == REFUSAL_RECORD)
        return refuse_invalid(slots, slot);
    if (refusal == REFUSAL_TIME)
        return refuse_time(slots, slot);
    if (refusal == REFUSAL_UNKNOWN) {
        enum kafka_verdict verdict = refuse_unknown(slots, slot);
        if (verdict != VERDICT_WAIT)
            return verdict;
    }
    health_wait(reported->health, reported->write, reported->why);
    return VERDICT_WAIT;
}
