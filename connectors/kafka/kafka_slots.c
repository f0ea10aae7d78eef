/*
 * kafka_slots.c: see kafka_slots.h.
 */
#include "connectors/kafka/kafka_slots.h"

#include <errno.h>
#include <stdlib.h>

#include "connectors/kafka/kafka_record.h"

void kafka_slots_open(struct kafka_slots *slots)
{
    slots->head.prev = slots->head.next = &slots->head;
    slots->n = 0;
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

enum kafka_verdict kafka_slot_refuse(struct kafka_slot *slot, rd_kafka_resp_err_t err,
                                     const struct kafka_config *config, struct health *health,
                                     unsigned write)
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
    if (refusal == REFUSAL_TIME && !slot->plain_time) {
        slot->plain_time = true;
        return VERDICT_AGAIN;
    }
    kafka_record_explain(config, slot->record, err, why, sizeof why);
    health_wait(health, write, why);
    return VERDICT_WAIT;
}
