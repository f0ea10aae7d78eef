/*
 * redis_sink_refused.c: what becomes of a record that Redis answered, or did not.
 *
 * Owns:    whose fault a refusal is when the error alone does not tell: the record is set aside and
 *          tried again while others pass.
 * Refuses: what an error says by itself: redis_refusal.c.
 * Threads: the loop thread.
 * Why:     one message must never stop the workers, and a server that refuses everything must not
 *          turn all messages into dead letters.
 */
#include <assert.h>
#include <errno.h>

#include "connectors/dead_letter_codes.h"
#include "connectors/redis/redis_sink_internal.h"

#define LARGE    (1u << 20) /* bytes of a value that may end a connection ... */
#define LOST_MAX 6          /* ... when so many in a row have ended over it */

/* Records that are refused, and perhaps for their own sake. */
#define SUSPECTS_MAX  64 /* set aside at once */
#define STRIKES       3  /* refusals with others accepted in between that prove it */
#define STRIKES_RIGHT 2  /* the same of a missing right, which does not come and go */
#define LONELY_TRIES  4  /* while nothing else is written */

/* How many records the destination of this one has accepted. */
static uint64_t *accepted_of(struct redis_sink *sink, const struct record *record)
{
    const struct redis_streams *streams = &sink->config.streams;
    const struct source *source = record->origin->source;
    const struct redis_stream *first = streams->items;

    /* A source of ours has read the same names into a list of its own. */
    if (source && source->ops == &redis_source_ops)
        first = ((const struct redis_source *)source)->config.streams.items;
    size_t i = (size_t)(redis_record_stream(&sink->config, record) - first);
    assert(i < streams->n);
    if (record->dead_code)
        return &sink->accepted[streams->n + i];
    return &sink->accepted[sink->config.output == REDIS_OUTPUT_STREAM ? i : 0];
}

static void explain(struct redis_slot *slot, const struct redis_refused *refused,
                    const char *advice, char why[HEALTH_WHY_SIZE])
{
    struct redis_sink *sink = slot->sink;
    struct redis_record_form form = {.config = &sink->config};

    redis_refusal_explain(&form, slot->record, refused, advice, &sink->scratch, &sink->args, why,
                          HEALTH_WHY_SIZE);
}

/* Nobody's fault but the record's own. */
static void slot_blamed(struct redis_slot *slot, const struct redis_refusal *refusal,
                        const struct redis_refused *refused)
{
    struct record *record = slot->record;
    char why[HEALTH_WHY_SIZE];

    if (refusal->fault.remedy == REMEDY_TOO_LARGE) {
        redis_sink_done(slot, PUBLISH_TOO_LARGE);
        return;
    }
    explain(slot, refused, refusal->fault.advice, why);
    record->refused_code = refusal->code;
    record->refused_reason = why;
    redis_sink_done(slot, PUBLISH_REFUSED);
}

/*
 * The record's own fault if its destination takes others meanwhile, else everybody's. It is set
 * aside, so that others can pass, and sent again when one has. While there are no others, it counts
 * that its destination ever took one; for a missing right only, since any other error may pass.
 */
static void slot_suspected(struct redis_slot *slot, const struct redis_refusal *refusal,
                           const struct redis_refused *refused)
{
    struct redis_sink *sink = slot->sink;
    uint64_t n_accepted = *accepted_of(sink, slot->record);
    bool is_right = refusal->is_right_missing;
    char why[HEALTH_WHY_SIZE];

    sink->n_tries += slot->strikes && n_accepted == slot->n_accepted;
    slot->strikes += !slot->strikes || n_accepted > slot->n_accepted;
    slot->n_accepted = n_accepted;
    bool is_alone = is_right && sink->n_tries >= LONELY_TRIES;
    if (is_alone && n_accepted && ++sink->n_blamed < SUSPECTS_MAX)
        slot->strikes = STRIKES_RIGHT;
    if (slot->strikes >= (is_right ? STRIKES_RIGHT : STRIKES)) {
        slot_blamed(slot, refusal, refused);
        return;
    }
    explain(slot, refused, refusal->fault.advice, why);
    redis_slots_push(&sink->suspects, slot);
    health_wait(&sink->state, PART_WRITE, why);
    if (is_alone || (is_right && sink->suspects.n >= SUSPECTS_MAX))
        redis_sink_fail(sink, -EACCES, why);
    else if (sink->suspects.n >= SUSPECTS_MAX)
        redis_sink_pause(sink);
}

void redis_sink_refused(struct redis_slot *slot, const struct redis_refused *refused)
{
    struct redis_sink *sink = slot->sink;
    struct redis_refusal refusal = redis_refusal_find(&sink->config, slot->record, refused);
    enum redis_remedy remedy = refusal.fault.remedy;
    char why[HEALTH_WHY_SIZE];

    if (refusal.scope == REFUSES_RECORD) {
        if (refusal.is_sure)
            slot_blamed(slot, &refusal, refused);
        else
            slot_suspected(slot, &refusal, refused);
        return;
    }
    if (remedy == REMEDY_GROUP && slot->acks) { /* no group: nothing is pending there */
        redis_sink_done(slot, PUBLISH_NOT_OURS);
        return;
    }
    redis_slots_push(&sink->again, slot);
    if (remedy == REMEDY_SCRIPT && !slot->whole) {
        slot->whole = true;
        return;
    }
    explain(slot, refused, refusal.fault.advice, why);
    if (refusal.scope == REFUSES_EVERYTHING) {
        redis_sink_fail(sink, -EACCES, why);
    } else if (remedy == REMEDY_RECONNECT) {
        redis_link_drop(sink->link, why); /* which is told as the loss of the connection */
    } else {
        health_wait(&sink->state, PART_WRITE, why);
        redis_sink_pause(sink);
    }
}

void redis_sink_reserved(struct redis_slot *slot, const char *stream)
{
    struct record *record = slot->record;
    char why[HEALTH_WHY_SIZE];

    snprintf(why, sizeof(why),
             "the key of a text would be the stream %.200s, which this worker uses; send another "
             "id, or choose another redis.output_prefix",
             stream);
    record->refused_code = DEAD_LETTER(key_reserved);
    record->refused_reason = why;
    redis_sink_done(slot, PUBLISH_REFUSED);
}

/* The connection ended before the reply. When that happens to the same record again and again, and
 * to a large one, it is the record that ends it: by a limit that the server does not tell, or
 * because more is to be sent than redis.timeout allows. */
void redis_sink_lost(struct redis_slot *slot, bool is_next)
{
    struct redis_sink *sink = slot->sink;

    if (is_next && redis_record_largest(slot->record) >= LARGE && ++slot->lost >= LOST_MAX)
        redis_sink_done(slot, PUBLISH_TOO_LARGE);
    else
        redis_slots_push(&sink->again, slot);
}

void redis_sink_accepted(struct redis_slot *slot, const redisReply *reply)
{
    struct redis_sink *sink = slot->sink;
    enum published how = PUBLISHED;

    health_good(&sink->state, PART_WRITE);
    sink->backoff.attempts = 0;
    redis_link_good(sink->link);
    if (slot->acks && reply->type == REDIS_REPLY_INTEGER && reply->integer == 0) {
        how = PUBLISH_NOT_OURS;
    } else {
        ++*accepted_of(sink, slot->record);
        sink->n_tries = sink->n_blamed = 0;
        redis_slots_move(&sink->again, &sink->suspects); /* now it will be seen whose fault it is */
        how = slot->acks ? PUBLISHED_AND_ACKED : PUBLISHED;
    }
    slot->whole = false;
    if (slot->is_script && reply->type == REDIS_REPLY_INTEGER && reply->integer > 1 &&
        sink->base.events->on_count)
        sink->base.events->on_count(sink->base.ctx, "outdated", (uint64_t)reply->integer - 1);
    redis_sink_done(slot, how);
}
