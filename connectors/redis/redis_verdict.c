/*
 * redis_verdict.c: see redis_verdict.h.
 */
#include "connectors/redis/redis_verdict.h"

#include <assert.h>
#include <stdio.h>

#include "connectors/dead_letter_codes.h"

#define LARGE    (1u << 20) /* bytes of a value that may end a connection ... */
#define LOST_MAX 6          /* ... when so many in a row have ended over it */

/* Of records that are refused, and perhaps for their own sake. */
#define STRIKES       3 /* refusals with others accepted in between that prove it */
#define STRIKES_RIGHT 2 /* the same of a missing right, which does not come and go */
#define LONELY_TRIES  4 /* while nothing else is written */

/* How many records the destination of this one has accepted. */
static uint64_t *accepted_of(const struct redis_judge *judge, const struct record *record)
{
    const struct redis_streams *streams = &judge->config->streams;
    size_t i = (size_t)(redis_record_stream(judge->config, record) - streams->items);

    assert(i < streams->n);
    if (record->dead_code)
        return &judge->accepted[streams->n + i];
    return &judge->accepted[judge->config->output == REDIS_OUTPUT_STREAM ? i : 0];
}

static void done(struct redis_verdict *out, enum published how)
{
    out->next = NEXT_DONE;
    out->how = how;
}

static void explain(struct redis_judge *judge, const struct redis_slot *slot,
                    const struct redis_refused *refused, const char *advice,
                    struct redis_verdict *out)
{
    struct redis_record_form form = {.config = judge->config};

    redis_refusal_explain(&form, slot->base.record, refused, advice, judge->scratch, judge->args,
                          out->why, sizeof(out->why));
}

/* Nobody's fault but the record's own; why is written already. */
static void blamed(const struct redis_refusal *refusal, struct redis_verdict *out)
{
    bool is_large = refusal->fault.remedy == REMEDY_TOO_LARGE;

    out->code = refusal->code;
    done(out, is_large ? PUBLISH_TOO_LARGE : PUBLISH_REFUSED);
}

/*
 * The record's own fault if its destination takes others meanwhile, else everybody's. It is set
 * aside, so that others can pass, and sent again when one has. While there are no others, it counts
 * that its destination ever took one; for a missing right only, since any other error may pass.
 */
static void suspected(struct redis_judge *judge, struct redis_slot *slot,
                      const struct redis_refusal *refusal, size_t n_aside,
                      struct redis_verdict *out)
{
    uint64_t n_accepted = *accepted_of(judge, slot->base.record);
    bool is_right = refusal->is_right_missing;

    /* Refused again, and nothing was accepted in between. */
    judge->n_tries += slot->strikes && n_accepted == slot->n_accepted;
    slot->strikes += !slot->strikes || n_accepted > slot->n_accepted;
    slot->n_accepted = n_accepted;
    bool is_alone = is_right && judge->n_tries >= LONELY_TRIES;
    if (is_alone && n_accepted && ++judge->n_blamed < REDIS_ASIDE_MAX)
        slot->strikes = STRIKES_RIGHT;
    if (slot->strikes >= (is_right ? STRIKES_RIGHT : STRIKES))
        blamed(refusal, out);
    else if (is_alone || (is_right && n_aside + 1 >= REDIS_ASIDE_MAX))
        out->next = NEXT_STOP;
    else
        out->next = NEXT_ASIDE;
}

void redis_verdict_refused(struct redis_judge *judge, struct redis_slot *slot,
                           const struct redis_refused *refused, size_t n_aside,
                           struct redis_verdict *out)
{
    struct redis_refusal refusal = redis_refusal_find(judge->config, slot->base.record, refused);
    enum redis_remedy remedy = refusal.fault.remedy;

    if (refusal.scope != REFUSES_RECORD && remedy == REMEDY_GROUP && slot->acks) {
        done(out, PUBLISH_NOT_OURS); /* no group: nothing is pending there */
        return;
    }
    if (refusal.scope != REFUSES_RECORD && remedy == REMEDY_SCRIPT && !slot->whole) {
        /* The script itself from now on. */
        slot->whole = true;
        out->next = NEXT_AGAIN;
        return;
    }
    explain(judge, slot, refused, refusal.fault.advice, out);
    if (refusal.scope == REFUSES_RECORD && refusal.is_sure)
        blamed(&refusal, out);
    else if (refusal.scope == REFUSES_RECORD)
        suspected(judge, slot, &refusal, n_aside, out);
    else if (refusal.scope == REFUSES_EVERYTHING)
        out->next = NEXT_STOP;
    else
        out->next = remedy == REMEDY_RECONNECT ? NEXT_RECONNECT : NEXT_PAUSE;
}

void redis_verdict_reserved(enum redis_reserved kind, const char *stream, struct redis_verdict *out)
{
    if (kind == RESERVED_STREAM)
        snprintf(out->why, sizeof(out->why),
                 "the key of a text would be the stream %.200s, which this worker uses; send "
                 "another id, or choose another redis.output_prefix",
                 stream);
    else if (kind == RESERVED_NOTE)
        snprintf(out->why, sizeof(out->why),
                 "the key of a text would be one in which embedmill keeps notes of its own "
                 "(embedmill:made-with: and others); send another id, or choose another "
                 "redis.output_prefix");
    else
        snprintf(out->why, sizeof(out->why),
                 "the id of a text ends in #, and under such a key the number of chunks of "
                 "another text is kept; send another id");
    out->code = DEAD_LETTER(key_reserved);
    done(out, PUBLISH_REFUSED);
}

/* When connections end over the same record again and again, and over a large one, it is the
 * record that ends them: by a limit that the server does not tell, or because more is to be sent
 * than redis.timeout allows. */
void redis_verdict_lost(struct redis_slot *slot, bool is_next, struct redis_verdict *out)
{
    bool is_large = is_next && redis_record_largest(slot->base.record) >= LARGE;

    if (is_large && ++slot->lost >= LOST_MAX)
        done(out, PUBLISH_TOO_LARGE);
    else
        out->next = NEXT_AGAIN;
}

void redis_verdict_accepted(struct redis_judge *judge, struct redis_slot *slot,
                            const redisReply *reply, struct redis_verdict *out)
{
    if (slot->acks && reply->type == REDIS_REPLY_INTEGER && reply->integer == 0) {
        done(out, PUBLISH_NOT_OURS);
        return;
    }
    ++*accepted_of(judge, slot->base.record);
    judge->n_tries = judge->n_blamed = 0;
    done(out, slot->acks ? PUBLISHED_AND_ACKED : PUBLISHED);
}
