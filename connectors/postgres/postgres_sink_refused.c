/*
 * postgres_sink_refused.c: whose fault it is that a transaction was refused, and what follows.
 *
 * Owns:    the way from a refused transaction to the one record at fault, or to waiting.
 * Refuses: what a code means: postgres_refusal.c.
 * Threads: the loop thread.
 * Why:     a constraint may refuse one row or all rows there will ever be. It is the row's own
 * fault when others are accepted; while none is, nobody is buried for it.
 */
#include <stdio.h>
#include <string.h>

#include "connectors/postgres/postgres_sink_internal.h"

#define REFUSED_MAX 16 /* dead letters in a row before the table itself is suspected */

/* Words for people: what was done to which table, what the server said, what to do. */
static void explain(const struct postgres_sink *sink, const struct postgres_refused *refused,
                    const struct postgres_refusal *refusal, char *out, size_t size)
{
    const char *table = refused->step == STEP_LETTERS     ? sink->table.letters
                        : refused->step == STEP_OFFSETS   ? sink->table.offsets
                        : refused->step == STEP_DELETED   ? sink->table.deleted
                        : refused->step == STEP_MADE_WITH ? sink->table.made_with
                                                          : sink->table.name;
    snprintf(out, size, "writing to table %.200s: %.300s (SQLSTATE %s; %s)",
             *table ? table : sink->config.table, refused->text, refused->sqlstate,
             refusal->advice);
}

/* The one record that was sent, if its fault it is. */
static void refuse_record(struct postgres_sink *sink, struct postgres_slot *slot,
                          const struct postgres_refusal *refusal, const char *why)
{
    bool is_sure = refusal->remedy == POSTGRES_DEAD_LETTER;
    if (is_sure || (sink->has_accepted && sink->n_refused < REFUSED_MAX)) {
        sink->n_refused += !is_sure;
        postgres_slots_refuse(sink, slot, refusal->code, why);
        return;
    }
    /* Perhaps the table takes nothing at all: let others try. Where the order counts they cannot.
     */
    if (!sink->peer) {
        postgres_slots_last(sink, slot);
    }
    postgres_sink_wait(sink, PART_WRITE, why);
}

void postgres_sink_refused(struct postgres_sink *sink, const struct postgres_flight *flight)
{
    struct postgres_refusal refusal = postgres_refusal_find(flight->refused.sqlstate);
    char why[HEALTH_WHY_SIZE];
    struct postgres_slot *slot = postgres_slots_ground(sink, flight->id);
    size_t n = flight->n_records; /* 0: a question was refused */
    if (flight->refused.step == STEP_OFFSETS && strcmp(flight->refused.sqlstate, "22012") == 0) {
        postgres_parts_fenced(&sink->parts);
        return;
    }
    explain(sink, &flight->refused, &refusal, why, sizeof why);
    if (refusal.remedy != POSTGRES_AGAIN)
        sink->has_table = false; /* it may be another one by now: look before trying again */
    switch (refusal.remedy) {
    case POSTGRES_DEAD_LETTER:
    case POSTGRES_SUSPECT:
        if (n == 1)
            refuse_record(sink, slot, &refusal, why);
        else if (n)
            sink->limit = n / 2;
        else
            postgres_sink_wait(sink, PART_WRITE, why);
        return;
    case POSTGRES_SMALLER:
        sink->limit = n > 1 ? n / 2 : 1;
        postgres_sink_wait(sink, PART_WRITE, why);
        return;
    case POSTGRES_AGAIN:
        endpoint_pause(&sink->end);
        return;
    case POSTGRES_WAIT:
        postgres_sink_wait(sink, PART_WRITE, why);
        return;
    case POSTGRES_RECONNECT:
        postgres_link_renew(sink->link, why);
    }
}

void postgres_sink_note_refusal(struct postgres_flight *flight, size_t nth, const PGresult *result)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    struct postgres_refused *refused = &flight->refused;
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
