/*
 * postgres_sink.c: outputs and dead letters into tables of PostgreSQL.
 *
 * Owns:    the records given until they are committed, in order; two transactions at a time.
 * Refuses: what a transaction holds: postgres_burst.c. Whose fault a refusal is:
 *          postgres_sink_refused.c.
 * Threads: the loop thread.
 * Why:     a transaction is committed or not as a whole, so when one row is refused all are. Then
 *          half as many are sent, down to the one at fault, and twice as many again after each
 *          success. What was sent when a connection broke may be committed: it is sent again, and
 *          finds itself there.
 */
#include "connectors/postgres/postgres_sink_internal.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"
#include "connectors/made_with.h"

#define LIMIT_FIRST    128  /* records in the first transaction */
#define SHARED_FROM    128  /* so many are worth two transactions, of which one is on its way */
#define SLOW_MS        1500 /* a transaction of more than that is made smaller, of less than ... */
#define QUICK_MS       500  /* ... that larger: so that a drain or another's lock is never far */
#define HURRY_MS       1000 /* the least that each of those has that were too slow together */
#define ANSWER_MORE_MS 5000 /* than a statement may take: the server says so itself, first */

static struct postgres_sink *self(struct sink *sink)
{
    return (struct postgres_sink *)sink;
}

/* ---- flights */

static struct postgres_flight *take_off(struct postgres_sink *sink, enum doing doing)
{
    struct postgres_flight *flight = &sink->flights[sink->n_flights++];
    sink->last_flight += sink->last_flight == UINT_MAX ? 2 : 1;
    *flight = (struct postgres_flight){.doing = doing, .id = sink->last_flight};
    if (sink->n_flights == 1)
        sink->began_ms = uv_now(sink->end.loop);
    return flight;
}

/* ---- the table */

static void ask_table(struct postgres_sink *sink)
{
    const char *values[] = {sink->config.table, sink->config.dead_letters, sink->config.deleted,
                            sink->peer ? sink->config.offsets : NULL, sink->config.made_with};
    static const Oid types[] = {POSTGRES_OID_TEXT, POSTGRES_OID_TEXT, POSTGRES_OID_TEXT,
                                POSTGRES_OID_TEXT, POSTGRES_OID_TEXT};
    int lengths[5];
    for (size_t i = 0; i < 5; i++)
        lengths[i] = values[i] ? (int)strlen(values[i]) : 0;
    const struct postgres_statement question = {postgres_table_question, 5, types, values, lengths};
    take_off(sink, DOING_TABLE);
    postgres_link_send(sink->link, &question, 1);
}

static void read_table(struct postgres_sink *sink, const PGresult *answer)
{
    char why[600];
    switch (postgres_table_read(&sink->table, &sink->config, answer, why, sizeof why)) {
    case POSTGRES_FITS:
        sink->has_table = true;
        sink->is_compared = !sink->base.made_with || !sink->table.made_with[0];
        if (sink->base.made_with && sink->is_compared) {
            snprintf(why, sizeof why,
                     "there is no table %.100s, so vectors of two models could "
                     "get into %.200s without a word: `embedmill schema` prints how to create it",
                     sink->config.made_with, sink->table.name);
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

static void ask_made_with(struct postgres_sink *sink)
{
    static const Oid types[] = {POSTGRES_OID_TEXT, POSTGRES_OID_TEXT};
    const char *values[] = {sink->base.made_with, sink->table.name};
    const int lengths[] = {(int)strlen(values[0]), (int)strlen(values[1])};
    const struct postgres_statement statements[] = {
        {sink->table.keep_made_with, 2, types, values, lengths},
        {sink->table.get_made_with, 0, types, values, lengths}};
    take_off(sink, DOING_MADE_WITH);
    postgres_link_send(sink->link, statements, 2);
}

static void read_made_with(struct postgres_sink *sink, const PGresult *answer)
{
    char why[HEALTH_WHY_SIZE], place[240], forget[240];
    if (PQntuples(answer) != 1)
        return; /* deleted between the two statements: ask again */
    sink->is_compared = true;
    struct bytes there = {PQgetvalue(answer, 0, 0), (size_t)PQgetlength(answer, 0, 0)};
    snprintf(place, sizeof place, "table %.200s", sink->table.name);
    snprintf(forget, sizeof forget, "TRUNCATE %.200s", sink->table.made_with);
    if (!made_with_fits(there, sink->base.made_with, "postgres.table", place, forget, why,
                        sizeof why))
        endpoint_fail(&sink->end, -EINVAL, why);
}

/* ---- parts of the input, where they are kept */

static void on_claim(void *ctx, const char *group, const char *part)
{
    struct postgres_sink *sink = ctx;
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
static bool ask_parts(struct postgres_sink *sink)
{
    struct postgres_statement question;
    if (!sink->peer || !postgres_parts_ask(&sink->parts, &sink->table, &question))
        return false;
    take_off(sink, DOING_PARTS);
    postgres_link_send(sink->link, &question, 1);
    return true;
}

/* Behind all that came before it in its part: a dead letter takes the place of its output, and what
 * is committed is always a beginning of the part. */
static void insert(struct postgres_sink *sink, struct slot *slot)
{
    const struct message *origin = slot->record->origin;
    struct postgres_part *part = postgres_parts_find(&sink->parts, origin->part);
    struct slot *at = NULL;
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
    postgres_slots_done(sink, slot,
                        *part && (*part)->state == PART_OURS ? PUBLISHED : PUBLISH_NOT_OURS);
    return false;
}

/* ---- a transaction */

/* Which of several was too slow is found out in less time; that one has all of it, once more. */
static void hurry(struct postgres_burst *burst)
{
    uint64_t ms = burst->timeout_ms / 10 > HURRY_MS ? burst->timeout_ms / 10 : HURRY_MS;
    if (ms >= burst->timeout_ms)
        return;
    burst->timeout_ms = ms;
    if (burst->lock_ms > ms / 2)
        burst->lock_ms = ms / 2;
}

/* Records from the front, as many as may go together, into a transaction. How many there are. */
static size_t fill(struct postgres_sink *sink, unsigned flight)
{
    char why[400];
    size_t n = 0;
    size_t n_most = sink->slots.n - sink->n_flying;
    if (n_most >= SHARED_FROM && !sink->n_flying) /* the rest follows at once, in the next one */
        n_most = (n_most + 1) / 2;
    n_most = n_most < sink->limit ? n_most : sink->limit;
    postgres_burst_begin(&sink->burst, &sink->config, &sink->table);
    postgres_parts_begin(&sink->parts);
    struct slot *at = sink->slots.first, *next;
    for (; at && n < n_most && !sink->end.failed; at = next) {
        struct postgres_slot *slot = (struct postgres_slot *)at;
        struct postgres_part *part;
        next = at->next;
        if (slot->flight || !is_due(sink, slot, &part))
            continue;
        if (slot->is_alone && n)
            break;
        n_most = slot->is_alone ? 1 : n_most;
        enum postgres_fits fits = postgres_burst_add(&sink->burst, at->record, why, sizeof why);
        if (fits == BURST_TAKES) {
            if (!n++ && slot->is_slow)
                hurry(&sink->burst);
            slot->flight = flight;
            sink->n_flying++;
            if (part)
                part->moving = at->record->origin->order;
            continue;
        }
        if (fits == BURST_DIFFERS)
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
static size_t fill_trial(struct postgres_sink *sink, unsigned flight)
{
    char why[400];
    size_t nth = 0;
    postgres_burst_begin(&sink->burst, &sink->config, &sink->table);
    for (struct slot *at = sink->slots.first->next; at; at = at->next) {
        struct postgres_slot *slot = (struct postgres_slot *)at;
        const struct record *record = at->record;
        if (record->dead_code || !record->n_documents || nth++ < sink->n_tried)
            continue;
        if (postgres_burst_add(&sink->burst, record, why, sizeof why) != BURST_TAKES)
            continue;
        slot->flight = flight;
        sink->n_flying++;
        return 1;
    }
    sink->n_tried = 0;
    return 0;
}

static void send_burst(struct postgres_sink *sink)
{
    struct postgres_statement move;
    struct postgres_flight *flight = take_off(sink, DOING_BURST);
    if (sink->n_trials && sink->slots.n)
        flight->n_records = fill_trial(sink, flight->id);
    flight->is_trial = flight->n_records > 0;
    sink->n_trials = flight->is_trial ? sink->n_trials - 1 : 0;
    if (!flight->is_trial)
        flight->n_records = fill(sink, flight->id);
    if (!flight->n_records || sink->end.failed) {
        sink->n_flights--;
        return;
    }
    bool is_kept =
        sink->peer && !flight->is_trial && postgres_parts_move(&sink->parts, &sink->table, &move);
    if (postgres_burst_end(&sink->burst, is_kept ? &move : NULL) || sink->parts.status) {
        endpoint_fail(&sink->end, -ENOMEM, "out of memory");
        return;
    }
    if (flight->is_trial)
        postgres_burst_try(&sink->burst);
    flight->n_rows = sink->burst.n_rows;
    flight->has_outputs = sink->burst.n_rows > 0;
    flight->has_letters = sink->burst.n_letters > 0;
    memcpy(flight->steps, sink->burst.steps, sizeof flight->steps);
    postgres_link_send(sink->link, sink->burst.statements, sink->burst.n);
}

static void count_outdated(struct postgres_sink *sink, const struct postgres_flight *flight)
{
    if (flight->n_rows > flight->n_written && sink->base.events->on_count)
        sink->base.events->on_count(sink->base.ctx, "outdated", flight->n_rows - flight->n_written);
}

static void on_committed(struct postgres_sink *sink, const struct postgres_flight *flight)
{
    uint64_t took = uv_now(sink->end.loop) - sink->began_ms;
    count_outdated(sink, flight);
    postgres_parts_moved(&sink->parts);
    if (took > SLOW_MS)
        sink->limit = sink->limit > 1 ? sink->limit / 2 : 1;
    else if (took < QUICK_MS && sink->limit < POSTGRES_ROWS_MAX && !sink->n_slow)
        sink->limit *= 2;
    sink->n_passed[1] += flight->has_letters;
    if (flight->has_outputs)
        postgres_sink_passed(sink);
    sink->end.backoff.attempts = 0;
    health_good(&sink->end.health, PART_WRITE);
    struct slot *at = sink->slots.first, *next;
    for (; at && !sink->end.failed; at = next) {
        struct postgres_slot *slot = (struct postgres_slot *)at;
        next = at->next;
        if (slot->flight == flight->id)
            postgres_slots_done(sink, slot, PUBLISHED);
    }
    postgres_slots_again(sink, false);
}

/* ---- events of the connection */

static void on_ready(void *ctx)
{
    struct postgres_sink *sink = ctx;
    sink->has_table = false;
    postgres_parts_doubt(&sink->parts);
    endpoint_pump(&sink->end);
}

static void on_lost(void *ctx, const char *why)
{
    struct postgres_sink *sink = ctx;
    char said[HEALTH_WHY_SIZE];
    for (; sink->n_flights; sink->n_flights--)
        postgres_slots_ground(sink, sink->flights[sink->n_flights - 1].id);
    snprintf(said, sizeof said, "PostgreSQL: %.500s; connecting again", why);
    health_wait(&sink->end.health, PART_LINK, said);
    endpoint_pump(&sink->end);
}

static void on_result(void *ctx, size_t nth, const PGresult *result)
{
    struct postgres_sink *sink = ctx;
    struct postgres_flight *flight = &sink->flights[0];
    switch (PQresultStatus(result)) {
    case PGRES_TUPLES_OK:
        if (flight->doing == DOING_TABLE)
            read_table(sink, result);
        else if (flight->doing == DOING_MADE_WITH)
            read_made_with(sink, result);
        else if (flight->doing == DOING_PARTS)
            postgres_parts_answer(&sink->parts, result, sink->peer);
        return;
    case PGRES_COMMAND_OK:
        if (flight->steps[nth] == STEP_UPSERT)
            flight->n_written += strtoull(PQcmdTuples((PGresult *)result), NULL, 10);
        return;
    default:
        postgres_sink_note_refusal(flight, nth, result);
    }
}

static void on_end(void *ctx)
{
    struct postgres_sink *sink = ctx;
    struct postgres_flight flight = sink->flights[0];
    sink->flights[0] = sink->flights[1];
    sink->n_flights--;
    if (flight.refused.is_set)
        postgres_sink_refused(sink, &flight);
    else if (flight.doing == DOING_BURST)
        on_committed(sink, &flight);
    else if (sink->has_table && sink->is_compared)
        health_good(&sink->end.health, PART_LINK | PART_TABLE);
    sink->began_ms = uv_now(sink->end.loop);
    endpoint_pump(&sink->end);
}

static void on_link_failed(void *ctx, int err, const char *why)
{
    struct postgres_sink *sink = ctx;
    endpoint_fail(&sink->end, err, why);
    endpoint_pump(&sink->end);
}

static void on_notice(void *ctx, const char *sqlstate, const char *text)
{
    struct postgres_sink *sink = ctx;
    endpoint_notice(&sink->end, strncmp(sqlstate, "01", 2) == 0 ? NOTICE_WARN : NOTICE_DETAIL,
                    sqlstate, text);
}

static const struct postgres_link_events link_events = {
    .on_ready = on_ready,
    .on_lost = on_lost,
    .on_result = on_result,
    .on_end = on_end,
    .on_failed = on_link_failed,
    .on_notice = on_notice,
};

/* ---- the contract */

static void sink_free(void *owner)
{
    struct postgres_sink *sink = owner;
    slots_give_all(&sink->pool, &sink->slots);
    slots_give_all(&sink->pool, &sink->aside);
    slots_close(&sink->pool);
    postgres_parts_close(&sink->parts);
    postgres_burst_close(&sink->burst);
    postgres_config_clear(&sink->config);
    free(sink);
}

static void sink_finish(void *owner, bool is_late)
{
    struct postgres_sink *sink = owner;
    (void)is_late;
    if (sink->peer)
        sink->peer->keeper = NULL;
    postgres_link_close(sink->link, endpoint_drop, &sink->end);
    endpoint_close_handle(&sink->end, (uv_handle_t *)&sink->aside_timer);
}

/* Whatever just happened: do what is possible now. */
static void sink_pump(void *owner)
{
    struct postgres_sink *sink = owner;
    if (sink->end.closing && (sink->end.failed || !(sink->slots.n + sink->aside.n))) {
        endpoint_finish(&sink->end);
        return;
    }
    if (sink->end.failed || sink->end.paused || !postgres_link_can_send(sink->link))
        return;
    if (sink->n_flights) { /* the next one goes after it while all is well */
        bool may_follow = sink->flights[0].doing == DOING_BURST && sink->has_table && !sink->peer;
        if (may_follow && sink->slots.n > sink->n_flying)
            send_burst(sink);
    } else if (!sink->has_table) {
        ask_table(sink);
    } else if (!sink->is_compared) {
        ask_made_with(sink);
    } else if (!ask_parts(sink) && sink->slots.n) {
        send_burst(sink);
    }
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
    const struct postgres_link_options options = {sink->config.url, sink->config.password,
                                                  sink->config.timeout_ms + ANSWER_MORE_MS};
    if (!rc)
        rc = postgres_link_open(&sink->link, loop, &options, &link_events, sink, err, err_size);
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

static void postgres_sink_publish(struct sink *base, struct record **records, size_t n)
{
    struct postgres_sink *sink = self(base);
    for (size_t i = 0; i < n; i++) {
        struct slot *slot = slots_take(&sink->pool, records[i]);
        if (!slot) { /* the records left out stay unacked and come again after the exit */
            endpoint_fail_soon(&sink->end);
            break;
        }
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
