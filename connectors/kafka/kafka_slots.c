/*
 * kafka_slots.c: see kafka_slots.h.
 */
#include "connectors/kafka/kafka_slots.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "connectors/kafka/kafka_record.h"

void kafka_slots_open(struct kafka_slots *slots)
{
    slots->head.prev = slots->head.next = &slots->head;
    slots->n = 0;
    slots->ahead_ms = 0;
}

int kafka_slots_add(struct kafka_slots *slots, struct record **records, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct kafka_slot *slot = malloc(sizeof *slot);
        if (!slot)
            return -ENOMEM;
        *slot = (struct kafka_slot){
            .record = records[i], .prev = slots->head.prev, .next = &slots->head};
        slot->prev->next = slot->next->prev = slot;
        slots->n++;
    }
    return 0;
}

struct record *kafka_slots_take(struct kafka_slots *slots, struct kafka_slot *slot)
{
    struct record *record = slot->record;
    slot->prev->next = slot->next;
    slot->next->prev = slot->prev;
    slots->n--;
    free(slot);
    return record;
}

void kafka_slots_clear(struct kafka_slots *slots)
{
    while (slots->n)
        kafka_slots_take(slots, slots->head.next);
}

/* How far the record's timestamp lies ahead of the clock, in ms; at most 0: it does not. */
static int64_t ahead_of(const struct kafka_slot *slot)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return slot->record->origin->timestamp_ms -
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
    if (slot->alone || (slots->ahead_ms && ahead >= slots->ahead_ms)) {
        slot->plain_time = true;
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
    const struct message *origin = slot->record->origin;
    char text[400];
    if (!slot->plain_time)
        return;
    if (sink->events->on_count)
        sink->events->on_count(sink->ctx, "replaced_timestamps", 1);
    if (!sink->events->on_notice)
        return;
    snprintf(text, sizeof text,
             "topic %.100s refuses the timestamp of %.*s (%lld ms since 1970): its output has the "
             "time of writing; correct the producer's clock, or raise "
             "message.timestamp.after.max.ms of the topic",
             kafka_record_topic(config, slot->record),
             (int)(origin->position.len < 120 ? origin->position.len : 120), origin->position.ptr,
             (long long)origin->timestamp_ms);
    sink->events->on_notice(sink->ctx, NOTICE_WARN, "TIMESTAMP", text);
}

enum kafka_verdict kafka_slot_refuse(struct kafka_slots *slots, struct kafka_slot *slot,
                                     rd_kafka_resp_err_t err, const struct kafka_config *config,
                                     struct health *health, unsigned write)
{
    enum kafka_refusal refusal = kafka_record_refusal(err);
    char why[400];
    if (refusal == REFUSAL_NONE)
        return VERDICT_NONE;
    if (refusal == REFUSAL_TOO_LARGE) {
        bool was_alone = slot->alone;
        slot->alone = true;
        return was_alone ? VERDICT_TOO_LARGE : VERDICT_AGAIN;
    }
    if (refusal == REFUSAL_TIME && !slot->plain_time)
        return refuse_time(slots, slot);
    kafka_record_explain(config, slot->record, err, why, sizeof why);
    health_wait(health, write, why);
    return VERDICT_WAIT;
}
