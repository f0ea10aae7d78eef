/*
 * postgres_sink.c: outputs and dead letters into tables of PostgreSQL.
 *
 * Owns:    the records given until they are committed, in order; which go by which connection.
 * Refuses: what a transaction holds: postgres_burst.c. Whose fault a refusal is:
 *          postgres_sink_refused.c.
 * Threads: the loop thread.
 * Why:     a transaction is committed or not as a whole, so when one row is refused all are. Then
 *          half as many are sent, down to the one at fault, and twice as many again after each
 *          success. What was sent when a connection broke may be committed: it is sent again, and
 *          finds itself there.
 *
 * While records wait behind a transaction, others of them go by a second connection, so that the
 * server has work while it syncs a commit to its disk. Versions make the order of the two
 * indifferent; only documents that both would write must not be in both at a time, for each
 * transaction would wait for the other. Where the order counts (exactly once) there is one.
 */
#include "connectors/postgres/postgres_sink_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "connectors/dead_letter_codes.h"

#define LIMIT_FIRST    128   /* records in the first transaction */
#define SHARED_FROM    128   /* so many are worth two transactions at a time */
#define SECOND_FROM    32    /* records that wait behind a transaction open a second connection */
#define SECOND_MS      30000 /* after that failed, before it is tried again */
#define SLOW_MS        1500  /* a transaction of more than that is made smaller, of less than ... */
#define QUICK_MS       500   /* ... that larger: so that a drain or another's lock is never far */
#define HURRY_MS       1000  /* the least that each of those has that were too slow together */
#define ANSWER_MORE_MS 5000  /* than a statement may take: the server says so itself, first */

static struct postgres_sink *self(struct sink *sink)
{
    return (struct postgres_sink *)sink;
}

/* ---- parts of the input, where they are kept */

static void on_claim(void *ctx, const char *group, const char *part)
{
    struct postgres_sink *sink = ctx;
    /* Called inside the source's own event: the statement goes with the next pump. */
    postgres_parts_claim(&sink->parts, group, part);
    endpoint_pump_soon(&sink->end);
}

static void on_leave(void *ctx, const char *part)
{
    struct postgres_sink *sink = ctx;
    postgres_parts_leave(&sink->parts, part);
    endpoint_pump_soon(&sink->end); /* what waits of it is not ours */
}

static void on_rewind(void *ctx, const char *part, int64_t order)
{
    struct postgres_sink *sink = ctx;
    postgres_parts_rewind(&sink->parts, part, order);
}

/* False: there is nothing to ask. */
static bool ask_parts(struct postgres_session *session)
{
    struct postgres_sink *sink = session->sink;
    struct postgres_statement question;
    if (!sink->peer || !postgres_parts_ask(&sink->parts, &session->table, &question))
        return false;
    postgres_session_begin(session, DOING_PARTS);
    postgres_link_send(session->link, &question, 1);
    return true;
}

/* Behind all that came before it in its part: a dead letter takes the place of its output, and what
 * is committed is always a beginning of the part. */
static void insert(struct postgres_sink *sink, struct slot *slot)
{
    const struct message *origin = slot->record->origin;
    struct postgres_part *part = postgres_parts_find(&sink->parts, origin->part);
    struct slot *at = NULL;
    /* Given behind younger ones: a dead letter is made later than the outputs after it. */
    if (part && origin->order < part->given) {
        at = sink->slots.first;
        while (at && !(at->record->origin->order > origin->order &&
                       strcmp(at->record->origin->part, origin->part) == 0))
            at = at->next;
    } else if (part) {
        part->given = origin->order;
    }
    slots_insert(&sink->slots, at, slot);
}

/* Whether a record is to be written: its part is ours, and not as far as that yet. */
static bool is_due(struct postgres_sink *sink, struct postgres_slot *slot,
                   struct postgres_part **part)
{
    const struct message *origin = slot->base.record->origin;
    *part = NULL;
    if (!sink->peer)
        return true;
    *part = postgres_parts_find(&sink->parts, origin->part);
    if (*part && (*part)->state == PART_OURS && origin->order > (*part)->done)
        return true;
    /* Done already, by a transaction whose answer was lost; or another worker's by now. */
    postgres_slots_done(sink, slot,
                        *part && (*part)->state == PART_OURS ? PUBLISHED : PUBLISH_NOT_OURS);
    return false;
}

/* ---- a transaction */

/* Which of several was too slow is found out in less time; that one has all of it, once more. */
static void hurry(struct postgres_burst *burst)
{
    uint64_t ms = burst->timeout_ms / 10 > HURRY_MS ? burst->timeout_ms / 10 : HURRY_MS;
    /* The configured time is that short already. */
    if (ms >= burst->timeout_ms)
        return;
    burst->timeout_ms = ms;
    if (burst->lock_ms > ms / 2)
        burst->lock_ms = ms / 2;
}

/* How many records may go into a transaction of the session now. */
static size_t share(const struct postgres_session *session)
{
    const struct postgres_sink *sink = session->sink;
    assert(sink->slots.n >= sink->n_flying);
    /* What waits: neither done nor under way on the other connection. */
    size_t n = sink->slots.n - sink->n_flying;
    bool has_second = sink->sessions[1].link && sink->sessions[1].is_compared;
    if (postgres_session_is_first(session) && has_second && !sink->n_flying && n >= SHARED_FROM)
        n = (n + 1) / 2; /* the second takes the rest */
    return n < sink->limit ? n : sink->limit;
}

/* Whether the record must wait for what another session has under way. */
static bool meets_others(const struct postgres_session *session, const struct record *record)
{
    for (size_t i = 0; i < POSTGRES_SESSIONS; i++) {
        const struct postgres_session *other = &session->sink->sessions[i];
        if (other != session && other->flight.doing == DOING_BURST &&
            postgres_burst_meets(&other->burst, record))
            return true;
    }
    return false;
}

/* Records from the front, as many as may go together, into a transaction. How many there are. */
static size_t fill(struct postgres_session *session)
{
    struct postgres_sink *sink = session->sink;
    char why[400];
    size_t n = 0, n_most = share(session);
    postgres_burst_begin(&session->burst, &sink->config, &session->table);
    /* No part moves yet; each record that is taken says how far its own does. */
    postgres_parts_begin(&sink->parts);
    struct slot *at = sink->slots.first, *next;
    for (; at && n < n_most && !sink->end.failed; at = next) {
        struct postgres_slot *slot = (struct postgres_slot *)at;
        struct postgres_part *part;
        next = at->next;
        if (slot->flight || !is_due(sink, slot, &part))
            continue;
        if (meets_others(session, at->record))
            break; /* nor may what follows overtake it: it may be of the same document */
        /* Suspected of what an earlier transaction failed for: the next one is its own. */
        if (slot->is_alone && n)
            break;
        /* And nothing goes with it. */
        n_most = slot->is_alone ? 1 : n_most;
        enum postgres_fits fits =
            postgres_burst_add(&session->burst, at->record, slot->given_us, why, sizeof why);
        if (fits == BURST_TAKES) {
            if (!n++ && slot->is_slow)
                hurry(&session->burst);
            /* The answer finds its records by this number, in whatever order they are by then. */
            slot->flight = session->flight.id;
            sink->n_flying++;
            if (part)
                part->moving = at->record->origin->order;
            continue;
        }
        if (fits == BURST_DIFFERS)
            /* Every record would be refused so: another model, or another table. */
            endpoint_fail(&sink->end, -EINVAL, why);
        if (fits == BURST_DIFFERS || fits == BURST_FULL || n)
            break; /* one that is refused comes first the next time */
        if (fits == BURST_TOO_LARGE)
            postgres_slots_done(sink, slot, PUBLISH_TOO_LARGE);
        else
            postgres_slots_refuse(sink, slot, DEAD_LETTER(output_refused), why);
    }
    return n;
}

/* One output that is not the first of all, another each time. 0: there is none. */
static size_t fill_trial(struct postgres_session *session)
{
    struct postgres_sink *sink = session->sink;
    char why[400];
    size_t nth = 0;
    postgres_burst_begin(&session->burst, &sink->config, &session->table);
    /* Not the first: that is the one that is refused. */
    for (struct slot *at = sink->slots.first->next; at; at = at->next) {
        struct postgres_slot *slot = (struct postgres_slot *)at;
        const struct record *record = at->record;
        /* A dead letter goes to another table, and says nothing about this one. */
        if (record->dead_code || !record->n_documents || nth++ < sink->n_tried)
            continue;
        if (postgres_burst_add(&session->burst, record, slot->given_us, why, sizeof why) !=
            BURST_TAKES)
            continue;
        slot->flight = session->flight.id;
        sink->n_flying++;
        return 1;
    }
    sink->n_tried = 0;
    return 0;
}

static void send_burst(struct postgres_session *session)
{
    struct postgres_sink *sink = session->sink;
    struct postgres_burst *burst = &session->burst;
    struct postgres_statement move;
    struct postgres_flight *flight = postgres_session_begin(session, DOING_BURST);
    if (sink->n_trials && sink->slots.n)
        flight->n_records = fill_trial(session);
    flight->is_trial = flight->n_records > 0;
    /* A trial writes one record and rolls back: does any pass, or is the table at fault? */
    sink->n_trials = flight->is_trial ? sink->n_trials - 1 : 0;
    if (!flight->is_trial)
        flight->n_records = fill(session);
    if (!flight->n_records || sink->end.failed) {
        /* Nothing to send: the connection is free again, and no answer comes. */
        flight->doing = DOING_NOTHING;
        return;
    }
    bool is_kept = sink->peer && !flight->is_trial &&
                   postgres_parts_move(&sink->parts, &session->table, &move);
    /* Guarded only where the note was read: a table without one takes whatever comes. */
    burst->made_with = session->noted[0] ? session->noted : NULL;
    if (postgres_burst_end(burst, is_kept ? &move : NULL) || sink->parts.status) {
        endpoint_fail(&sink->end, -ENOMEM, "out of memory");
        return;
    }
    if (flight->is_trial)
        postgres_burst_try(burst);
    /* Copied: the burst is filled anew before the answers to this one are all counted. */
    flight->n_rows = burst->n_rows;
    flight->has_outputs = burst->n_rows > 0;
    flight->has_letters = burst->n_letters > 0;
    memcpy(flight->steps, burst->steps, sizeof flight->steps);
    postgres_link_send(session->link, burst->statements, burst->n);
}

static void count_outdated(struct postgres_sink *sink, const struct postgres_flight *flight)
{
    if (flight->n_rows > flight->n_written)
        sink_count(&sink->base, COUNTER_OUTDATED, flight->n_rows - flight->n_written);
}

/* What was sent before the limit was last cut says nothing about it: the record that is refused
 * would be sent among as many as before, again and again. */
static void adapt_limit(struct postgres_sink *sink, const struct postgres_flight *flight)
{
    uint64_t took = uv_now(sink->end.loop) - flight->began_ms;
    if (took > SLOW_MS)
        postgres_sink_shrink(sink, sink->limit / 2);
    else if (took < QUICK_MS && sink->limit < POSTGRES_ROWS_MAX && !sink->n_slow &&
             flight->n_shrinks == sink->n_shrinks)
        /* Doubling upwards, halving downwards: some transactions find the size that takes a
         * second. */
        sink->limit *= 2;
}

static void on_committed(struct postgres_sink *sink, const struct postgres_flight *flight)
{
    count_outdated(sink, flight);
    /* Before the events: what they lead to is judged by the new `done`. */
    postgres_parts_moved(&sink->parts);
    adapt_limit(sink, flight);
    sink->n_passed[1] += flight->has_letters;
    if (flight->has_outputs)
        postgres_sink_passed(sink, flight);
    sink->end.backoff.attempts = 0;
    health_good(&sink->end.health, PART_WRITE);
    struct slot *at = sink->slots.first, *next;
    for (; at && !sink->end.failed; at = next) {
        struct postgres_slot *slot = (struct postgres_slot *)at;
        next = at->next;
        if (slot->flight == flight->id)
            postgres_slots_done(sink, slot, PUBLISHED);
    }
    /* Something passed: those aside try once more, but for what waits for a lock. */
    postgres_slots_again(sink, false);
}

/* ---- events of the connection */

static void on_ready(void *ctx)
{
    struct postgres_session *session = ctx;
    session->has_table = session->is_compared = false;
    if (postgres_session_is_first(session))
        /* What was sent on the connection before may have been committed: ask before writing. */
        postgres_parts_doubt(&session->sink->parts);
    endpoint_pump(&session->sink->end);
}

/* The first does all that the second does, and says what is wrong. */
static void close_second(struct postgres_session *session)
{
    struct postgres_sink *sink = session->sink;
    assert(!postgres_session_is_first(session) && session->link);
    sink->second_ms = uv_now(sink->end.loop) + SECOND_MS;
    session->has_table = session->is_compared = false;
    postgres_link_close(session->link, endpoint_drop, &sink->end);
    session->link = NULL;
}

static void on_lost(void *ctx, const char *why)
{
    struct postgres_session *session = ctx;
    struct postgres_sink *sink = session->sink;
    char said[HEALTH_WHY_SIZE];
    if (session->flight.doing != DOING_NOTHING)
        /* Nobody knows whether it was committed. Upserts and the kept offsets make it safe to
         * send all of it again. */
        postgres_slots_ground(sink, session->flight.id);
    session->flight.doing = DOING_NOTHING;
    if (postgres_session_is_first(session)) {
        snprintf(said, sizeof said, "PostgreSQL: %.500s; connecting again", why);
        health_wait(&sink->end.health, PART_LINK, said);
    } else {
        close_second(session);
    }
    endpoint_pump(&sink->end);
}

static void on_result(void *ctx, size_t nth, const PGresult *result)
{
    struct postgres_session *session = ctx;
    struct postgres_flight *flight = &session->flight;
    assert(flight->doing != DOING_NOTHING);
    switch (PQresultStatus(result)) {
    case PGRES_TUPLES_OK:
        if (flight->doing == DOING_TABLE)
            postgres_session_read_table(session, result);
        else if (flight->doing == DOING_MADE_WITH && nth == POSTGRES_MADE_WITH_ANSWER)
            postgres_session_read_made_with(session, result);
        else if (flight->doing == DOING_PARTS)
            postgres_parts_answer(&session->sink->parts, result, session->sink->peer);
        return;
    case PGRES_COMMAND_OK:
        /* Rows that were older than the table's are not written, and are
         * counted by the difference. */
        if (flight->steps[nth] == STEP_UPSERT)
            flight->n_written += strtoull(PQcmdTuples((PGresult *)result), NULL, 10);
        return;
    default:
        postgres_sink_note_refusal(flight, nth, result);
    }
}

static void on_end(void *ctx)
{
    struct postgres_session *session = ctx;
    struct postgres_sink *sink = session->sink;
    /* A copy: what follows may begin the next flight of this session. */
    struct postgres_flight flight = session->flight;
    /* The connection is free: the pump below may use it. */
    session->flight.doing = DOING_NOTHING;
    if (flight.refused.is_set)
        postgres_sink_refused(session, &flight);
    else if (flight.doing == DOING_BURST)
        on_committed(sink, &flight);
    else if (session->has_table && session->is_compared)
        health_good(&sink->end.health,
                    postgres_session_is_first(session) ? PART_LINK | PART_TABLE : PART_TABLE);
    endpoint_pump(&sink->end);
}

static void on_link_failed(void *ctx, int err, const char *why)
{
    struct postgres_session *session = ctx;
    if (postgres_session_is_first(session))
        endpoint_fail(&session->sink->end, err, why);
    else
        close_second(session);
    endpoint_pump(&session->sink->end);
}

static void on_notice(void *ctx, const char *sqlstate, const char *text)
{
    struct postgres_session *session = ctx;
    endpoint_notice(&session->sink->end,
                    strncmp(sqlstate, "01", 2) == 0 ? NOTICE_WARN : NOTICE_DETAIL, sqlstate, text);
}

static const struct postgres_link_events link_events = {
    .on_ready = on_ready,
    .on_lost = on_lost,
    .on_result = on_result,
    .on_end = on_end,
    .on_failed = on_link_failed,
    .on_notice = on_notice,
};

/* 0 or a negative errno; err says why. */
static int session_open(struct postgres_session *session, uv_loop_t *loop, char *err,
                        size_t err_size)
{
    const struct postgres_config *config = &session->sink->config;
    /* The server ends a slow statement itself; silence for longer means that it is not there. */
    const struct postgres_link_options options = {config->url, config->password,
                                                  config->timeout_ms + ANSWER_MORE_MS};
    return postgres_link_open(&session->link, loop, &options, &link_events, session, err, err_size);
}

/* When there is enough that waits behind the first. */
static void open_second(struct postgres_sink *sink)
{
    struct postgres_session *second = &sink->sessions[1];
    char why[300];
    bool is_wanted = !sink->peer && sink->slots.n - sink->n_flying >= SECOND_FROM &&
                     sink->sessions[0].flight.doing == DOING_BURST;
    if (second->link || !is_wanted || sink->end.closing || sink->end.failed ||
        uv_now(sink->end.loop) < sink->second_ms)
        return;
    /* Held like the first: close_second or sink_finish drops it. */
    if (session_open(second, sink->end.loop, why, sizeof why) == 0)
        endpoint_hold(&sink->end);
    else
        sink->second_ms = uv_now(sink->end.loop) + SECOND_MS;
}

/* ---- the contract */

static void sink_free(void *owner)
{
    struct postgres_sink *sink = owner;
    slots_give_all(&sink->pool, &sink->slots);
    slots_give_all(&sink->pool, &sink->aside);
    slots_close(&sink->pool);
    postgres_parts_close(&sink->parts);
    for (size_t i = 0; i < POSTGRES_SESSIONS; i++)
        postgres_burst_close(&sink->sessions[i].burst);
    postgres_config_clear(&sink->config);
    free(sink);
}

static void sink_finish(void *owner, bool is_late)
{
    struct postgres_sink *sink = owner;
    (void)is_late;
    if (sink->peer)
        /* The source outlives the sink, and must not call into it any more. */
        sink->peer->keeper = NULL;
    for (size_t i = 0; i < POSTGRES_SESSIONS; i++)
        postgres_link_close(sink->sessions[i].link, endpoint_drop, &sink->end);
    endpoint_close_handle(&sink->end, (uv_handle_t *)&sink->aside_timer);
}

static void session_pump(struct postgres_session *session)
{
    struct postgres_sink *sink = session->sink;
    if (!session->link || !postgres_link_can_send(session->link))
        return;
    if (!session->has_table)
        postgres_session_ask_table(session);
    else if (!session->is_compared)
        postgres_session_ask_made_with(session);
    else if (!postgres_session_is_first(session) && sink->sessions[0].flight.doing != DOING_BURST)
        return; /* it goes on beside the first, and says nothing by itself */
    else if (!ask_parts(session) && sink->slots.n > sink->n_flying)
        send_burst(session);
}

/* Whatever just happened: do what is possible now. */
static void sink_pump(void *owner)
{
    struct postgres_sink *sink = owner;
    if (sink->end.closing && (sink->end.failed || !(sink->slots.n + sink->aside.n))) {
        endpoint_finish(&sink->end);
        return;
    }
    for (size_t i = 0; i < POSTGRES_SESSIONS; i++)
        if (!sink->end.failed && !sink->end.paused)
            session_pump(&sink->sessions[i]);
    open_second(sink);
}

static const struct endpoint_ops endpoint_ops = {
    .pump = sink_pump, .finish = sink_finish, .free = sink_free};

/* 0, or -EINVAL. */
static int keep(struct postgres_sink *sink, struct source *peer, char *err, size_t err_size)
{
    if (!sink->config.exactly_once)
        return 0;
    if (!peer || !peer->ops->begin) {
        snprintf(
            err, err_size,
            "delivery: exactly-once goes from Kafka to PostgreSQL, whose table keeps the offsets; "
            "from other sources take at-least-once, by which a row is written over by itself");
        return -EINVAL;
    }
    sink->peer = peer;
    sink->keeper = (struct keeper){sink, on_claim, on_leave, on_rewind};
    return 0;
}

static int postgres_sink_open(struct sink **out, uv_loop_t *loop, const struct settings *settings,
                              struct source *peer, const struct sink_events *events, void *ctx,
                              char *err, size_t err_size)
{
    struct postgres_sink *sink = calloc(1, sizeof *sink);
    if (!sink) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    sink->base =
        (struct sink){.ops = &postgres_sink_ops, .events = events, .ctx = ctx, .layout = SINK_ROWS};
    sink->pool.size = sizeof(struct postgres_slot);
    sink->limit = LIMIT_FIRST;
    int rc = postgres_config_read(&sink->config, settings, err, err_size);
    if (!rc)
        rc = keep(sink, peer, err, err_size);
    for (size_t i = 0; i < POSTGRES_SESSIONS; i++)
        /* Before the link, whose events find the sink by it. */
        sink->sessions[i].sink = sink;
    if (!rc)
        rc = session_open(&sink->sessions[0], loop, err, err_size);
    if (rc) {
        sink_free(sink);
        return rc;
    }
    endpoint_open_sink(&sink->end, loop, &sink->base, PART_LINK | PART_TABLE, &endpoint_ops, sink);
    endpoint_hold(&sink->end); /* the link */
    endpoint_timer(&sink->end, &sink->aside_timer);
    if (sink->peer)
        sink->peer->keeper = &sink->keeper;
    *out = &sink->base;
    return 0;
}

/* Of two records the later one has the greater, whatever the clock does. */
static int64_t next_us(struct postgres_sink *sink)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
    /* A clock that is set back must not make a later record look older. */
    sink->last_us = us > sink->last_us ? us : sink->last_us + 1;
    return sink->last_us;
}

static void postgres_sink_publish(struct sink *base, struct record **records, size_t n)
{
    struct postgres_sink *sink = self(base);
    for (size_t i = 0; i < n; i++) {
        struct slot *slot = slots_take(&sink->pool, records[i]);
        if (!slot) { /* the records left out stay unacked and come again after the exit */
            endpoint_fail_soon(&sink->end);
            break;
        }
        ((struct postgres_slot *)slot)->given_us = next_us(sink);
        insert(sink, slot);
    }
    endpoint_pump_soon(&sink->end);
}

static void postgres_sink_close(struct sink *base, uint64_t deadline_ms, void (*closed)(void *ctx),
                                void *ctx)
{
    endpoint_close(&self(base)->end, deadline_ms, closed, ctx);
}

static enum sink_layout postgres_layout(const struct settings *settings)
{
    (void)settings;
    return SINK_ROWS;
}

const struct sink_ops postgres_sink_ops = {
    .open = postgres_sink_open,
    .publish = postgres_sink_publish,
    .close = postgres_sink_close,
    .check = postgres_config_check,
    .layout = postgres_layout,
};
