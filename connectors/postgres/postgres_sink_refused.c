/*
 * postgres_sink_refused.c: whose fault it is that a transaction was refused, and what follows.
 *
 * Owns:    the way from a refused transaction to the one record at fault, or to waiting.
 * Refuses: what a code means: postgres_refusal.c.
 * Threads: the loop thread.
 * Why:     a constraint may refuse one row or all rows there will ever be. It is the row's own
 *          fault when others are accepted; while none is, nobody is buried for it.
 */
#include <stdio.h>
#include <string.h>

#include "connectors/postgres/postgres_sink_internal.h"

#define REFUSED_MAX 16 /* dead letters in a row before the table itself is suspected */
#define TRIALS_MAX  32 /* of records behind one that is refused, before it is sent again */
#define DOUBTS_MAX  3  /* so often others pass, and what is refused is refused for its own sake */
#define SLOW_MAX    1  /* the same of what is too slow, while others are quick */
#define SUSPECTS    32 /* of what was too slow together, into so many transactions */

/* Words for people: what was done to which table, what the server said, what to do. */
static void explain(const struct postgres_session *session, const struct postgres_refused *refused,
                    const struct postgres_refusal *refusal, char *out, size_t size)
{
    const struct postgres_table *its = &session->table;
    const char *table = refused->step == STEP_LETTERS     ? its->letters
                        : refused->step == STEP_OFFSETS   ? its->offsets
                        : refused->step == STEP_DELETED   ? its->deleted
                        : refused->step == STEP_MADE_WITH ? its->made_with
                                                          : its->name;
    snprintf(out, size, "writing to table %.200s: %.300s (SQLSTATE %s; %s)",
             *table ? table : session->sink->config.table, refused->text, refused->sqlstate,
             refusal->advice);
}

/* Others are to show whether it is the table that refuses. Where the order counts they may not go
 * before it: one of them is tried, and taken back. */
static void let_others(struct postgres_sink *sink, struct postgres_slot *slot, const char *why)
{
    health_wait(&sink->end.health, PART_WRITE, why);
    /* Sent alone now: it is not one of several suspects any more. */
    postgres_slots_judged(sink, slot);
    slot->is_alone = true;
    if (sink->peer) {
        /* Behind the pause, one after another, each taken back. */
        sink->n_trials = TRIALS_MAX;
        endpoint_pause(&sink->end);
    } else {
        postgres_slots_aside(sink, slot);
    }
    endpoint_doubt(&sink->end);
}

/* The one record that was sent, if its fault it is. */
static void refuse_record(struct postgres_sink *sink, struct postgres_slot *slot,
                          const struct postgres_refusal *refusal, const char *why)
{
    bool is_dead = slot->base.record->dead_code;
    bool is_sure = refusal->remedy == POSTGRES_DEAD_LETTER;
    bool has_accepted = sink->n_passed[0] || (is_dead && sink->n_passed[1]);
    if (is_sure || (has_accepted && sink->n_refused < REFUSED_MAX)) {
        /* Sixteen in a row by a doubtful code: perhaps it is the table, so the next one waits. */
        sink->n_refused += !is_sure && !is_dead;
        postgres_slots_refuse(sink, slot, refusal->code, why);
        return;
    }
    let_others(sink, slot, why);
}

/* The one record that was sent, by a code that means all of them as a rule. It is its own fault
 * when others to the same table have passed again and again and it has not. */
static void doubt_record(struct postgres_sink *sink, struct postgres_slot *slot,
                         const struct postgres_refusal *refusal, const char *why)
{
    bool is_slow = refusal->remedy == POSTGRES_SMALLER;
    uint64_t n_passed =
        is_slow ? sink->n_quick : sink->n_passed[slot->base.record->dead_code != NULL];
    /* While nothing passes it is not counted: the trouble may be everybody's. */
    bool counts = !slot->n_doubts || n_passed > slot->n_passed;
    slot->n_passed = n_passed;
    slot->n_doubts += counts;
    if (slot->n_doubts > (is_slow ? SLOW_MAX : DOUBTS_MAX))
        postgres_slots_refuse(sink, slot, refusal->code, why);
    else
        let_others(sink, slot, why);
}

/* What was tried passed but for the statement that undoes it, or is refused itself. */
static void judge_trial(struct postgres_sink *sink, const struct postgres_flight *flight)
{
    if (flight->refused.step != STEP_TRIAL) {
        /* The next trial takes another record (fill_trial). */
        sink->n_tried++;
        return;
    }
    sink->n_trials = 0;
    sink->n_tried = 0;
    postgres_sink_passed(sink, flight);
}

void postgres_sink_passed(struct postgres_sink *sink, const struct postgres_flight *flight)
{
    uint64_t took = uv_now(sink->end.loop) - flight->began_ms;
    sink->n_refused = 0;
    sink->n_passed[0]++;
    sink->n_quick += took < sink->config.timeout_ms / 8;
}

void postgres_sink_refused(struct postgres_session *session, const struct postgres_flight *flight)
{
    struct postgres_sink *sink = session->sink;
    struct postgres_refusal refusal = postgres_refusal_find(flight->refused.sqlstate);
    char why[HEALTH_WHY_SIZE];
    if (refusal.remedy == POSTGRES_SMALLER && flight->n_records > 1)
        /* Before they are grounded: they are found by their flight. */
        postgres_slots_suspect(sink, flight->id);
    struct postgres_slot *slot = postgres_slots_ground(sink, flight->id);
    size_t n = flight->n_records;                                  /* 0: a question was refused */
    bool is_lock = strcmp(flight->refused.sqlstate, "55P03") == 0; /* which somebody gives back */
    if (flight->refused.step == STEP_OFFSETS && strcmp(flight->refused.sqlstate, "22012") == 0) {
        /* The division by zero of `move`: a part has another epoch, so nothing was written. */
        postgres_parts_fenced(&sink->parts);
        return;
    }
    if (flight->doing == DOING_BURST && flight->refused.step == STEP_MADE_WITH &&
        strcmp(flight->refused.sqlstate, "22012") == 0) {
        session->has_table = false; /* the note is another: nothing was written; compare again */
        return;
    }
    explain(session, &flight->refused, &refusal, why, sizeof why);
    if (flight->is_trial && refusal.remedy != POSTGRES_RECONNECT) {
        judge_trial(sink, flight);
        return;
    }
    if (refusal.remedy != POSTGRES_AGAIN)
        session->has_table = false; /* it may be another one by now: look before trying again */
    switch (refusal.remedy) {
    case POSTGRES_DEAD_LETTER:
    case POSTGRES_SUSPECT:
    case POSTGRES_DOUBT:
        if (n > 1)
            postgres_sink_shrink(sink, n / 2);
        else if (!n)
            postgres_sink_wait(sink, PART_WRITE, why);
        else if (refusal.remedy == POSTGRES_DOUBT)
            doubt_record(sink, slot, &refusal, why);
        else
            refuse_record(sink, slot, &refusal, why);
        return;
    case POSTGRES_SMALLER:
        if (n)
            postgres_sink_shrink(sink, n / SUSPECTS);
        if (n != 1)
            postgres_sink_wait(sink, n ? PART_WRITE : PART_TABLE, why);
        else if ((slot->is_locked = is_lock))
            let_others(sink, slot, why);
        else
            doubt_record(sink, slot, &refusal, why);
        return;
    case POSTGRES_AGAIN:
        endpoint_pause(&sink->end);
        return;
    case POSTGRES_WAIT:
        postgres_sink_wait(sink, PART_WRITE, why);
        return;
    case POSTGRES_RECONNECT:
        postgres_link_renew(session->link, why);
    }
}

void postgres_sink_note_refusal(struct postgres_flight *flight, size_t nth, const PGresult *result)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    struct postgres_refused *refused = &flight->refused;
    /* Those behind it were only skipped (PGRES_PIPELINE_ABORTED). */
    if (refused->is_set)
        return;
    refused->is_set = true;
    refused->step = flight->doing == DOING_BURST       ? flight->steps[nth]
                    : flight->doing == DOING_PARTS     ? STEP_OFFSETS
                    : flight->doing == DOING_MADE_WITH ? STEP_MADE_WITH
                                                       : STEP_SETTINGS;
    snprintf(refused->sqlstate, sizeof refused->sqlstate, "%s", state ? state : "08006");
    snprintf(refused->text, sizeof refused->text, "%s", text ? text : PQresultErrorMessage(result));
}
