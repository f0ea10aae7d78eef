/*
 * postgres_session.c: what a session of a PostgreSQL sink asks before it writes.
 *
 * Owns:    the question about the tables, and the one about what their vectors are made with.
 * Refuses: what a table must be like: postgres_table.c. When it is asked: postgres_sink.c.
 * Threads: the loop thread.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "connectors/made_with.h"
#include "connectors/postgres/postgres_sink_internal.h"

bool postgres_session_is_first(const struct postgres_session *session)
{
    return session == &session->sink->sessions[0];
}

struct postgres_flight *postgres_session_begin(struct postgres_session *session, enum doing doing)
{
    struct postgres_sink *sink = session->sink;
    assert(session->flight.doing == DOING_NOTHING);
    /* 0 is no flight: it is passed over when the number wraps. */
    sink->last_flight += sink->last_flight == UINT_MAX ? 2 : 1;
    session->flight = (struct postgres_flight){.doing = doing,
                                               .id = sink->last_flight,
                                               .began_ms = uv_now(sink->end.loop),
                                               .n_shrinks = sink->n_shrinks};
    return &session->flight;
}

/* ---- the table */

void postgres_session_ask_table(struct postgres_session *session)
{
    const struct postgres_sink *sink = session->sink;
    const char *values[] = {sink->config.table, sink->config.dead_letters, sink->config.deleted,
                            sink->peer ? sink->config.offsets : NULL, sink->config.made_with};
    static const Oid types[] = {POSTGRES_OID_TEXT, POSTGRES_OID_TEXT, POSTGRES_OID_TEXT,
                                POSTGRES_OID_TEXT, POSTGRES_OID_TEXT};
    int lengths[5];
    for (size_t i = 0; i < 5; i++)
        lengths[i] = values[i] ? (int)strlen(values[i]) : 0;
    const struct postgres_statement question = {postgres_table_question, 5, types, values, lengths};
    postgres_session_begin(session, DOING_TABLE);
    postgres_link_send(session->link, &question, 1);
}

void postgres_session_read_table(struct postgres_session *session, const PGresult *answer)
{
    struct postgres_sink *sink = session->sink;
    char why[600];
    switch (postgres_table_read(&session->table, &sink->config, answer, why, sizeof why)) {
    case POSTGRES_FITS:
        session->has_table = true;
        session->noted[0] = '\0';
        /* Nothing to compare: the pipeline says nothing, or the table for it is not there. */
        session->is_compared = !sink->base.made_with || !session->table.made_with[0];
        if (sink->base.made_with && session->is_compared && postgres_session_is_first(session)) {
            snprintf(why, sizeof why,
                     "there is no table %.100s, so vectors of two models could "
                     "get into %.200s without a word: `embedmill schema` prints how to create it",
                     sink->config.made_with, session->table.name);
            endpoint_notice(&sink->end, NOTICE_WARN, "made_with", why);
        }
        return;
    case POSTGRES_LACKS:
        postgres_sink_wait(sink, PART_TABLE, why);
        return;
    case POSTGRES_DIFFERS:
        endpoint_fail(&sink->end, -EINVAL, why);
    }
}

/* ---- what its vectors are made with */

/* Behind the lock that a migration has for itself, and in statements that begin when it is given:
 * one that began before would put the note of the old table back. The lock goes with the
 * transaction, at the end of what is sent together. */
void postgres_session_ask_made_with(struct postgres_session *session)
{
    static const Oid types[] = {POSTGRES_OID_TEXT, POSTGRES_OID_TEXT};
    char lock_ms[24];
    snprintf(lock_ms, sizeof lock_ms, "%llu", (unsigned long long)session->sink->config.lock_ms);
    const char *values[] = {lock_ms, session->table.made_with, session->sink->base.made_with,
                            session->table.name};
    int lengths[4];
    for (size_t i = 0; i < 4; i++)
        lengths[i] = (int)strlen(values[i]);
    const struct postgres_statement statements[] = {
        {"SELECT set_config('lock_timeout', $1, true)", 1, types, values, lengths},
        {postgres_table_share, 1, types, values + 1, lengths + 1},
        {session->table.keep_made_with, 2, types, values + 2, lengths + 2},
        {session->table.get_made_with, 0, types, values, lengths}};
    static_assert(sizeof statements / sizeof *statements == POSTGRES_MADE_WITH_ANSWER + 1,
                  "the note is what the last one answers");
    postgres_session_begin(session, DOING_MADE_WITH);
    postgres_link_send(session->link, statements, POSTGRES_MADE_WITH_ANSWER + 1);
}

void postgres_session_read_made_with(struct postgres_session *session, const PGresult *answer)
{
    struct postgres_sink *sink = session->sink;
    char why[HEALTH_WHY_SIZE], place[240], forget[240];
    if (PQntuples(answer) != 1)
        return; /* deleted between the two statements: ask again */
    /* Also where they differ: the sink has failed then, and asks nothing more. */
    session->is_compared = true;
    struct bytes there = {PQgetvalue(answer, 0, 0), (size_t)PQgetlength(answer, 0, 0)};
    snprintf(place, sizeof place, "table %.200s", session->table.name);
    snprintf(forget, sizeof forget, "TRUNCATE %.200s", session->table.made_with);
    if (!made_with_fits(there, sink->base.made_with, "postgres.table", place, forget, why,
                        sizeof why))
        endpoint_fail(&sink->end, -EINVAL, why);
    else if (there.len < sizeof session->noted) /* one that is longer is not ours */
        memcpy(session->noted, there.ptr, there.len + 1);
}
