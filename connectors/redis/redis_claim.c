/*
 * redis_claim.c: what is pending in the group and not with anyone who works on it.
 *
 * Owns:    the passes over the pending entries lists, one stream after the other (our own after a
 *          connect, what others left idle on a timer), entries that were deleted while pending, and
 *          our leases.
 * Refuses: reading what is new and acking what is done: redis_source.c.
 * Threads: the loop thread.
 * Why:     a pass lists (XPENDING) and then claims what is not in the table (XCLAIM). The shortcuts
 *          (XREADGROUP from 0, XAUTOCLAIM) count a delivery and reset the idle time of entries we
 *          are working on, and do not tell how often an entry was delivered, which is how a message
 *          that kills workers is found.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "connectors/redis/redis_script.h"
#include "connectors/redis/redis_source.h"

#define RENEW_MAX 512 /* ids in one script call */

static void claim_rewind(struct redis_claim *claim)
{
    claim->stream = 0;
    strcpy(claim->cursor, "-");
}

/* The stream that the pass is in. */
static const struct redis_stream *claim_stream(const struct redis_source *source)
{
    return &source->config.streams.items[source->claim.stream];
}

static void claim_note_deleted(struct redis_claim *claim, struct redis_id id)
{
    if (!claim->n_deleted++)
        claim->first_deleted = id;
    claim->last_deleted = id;
}

static void claim_report_deleted(struct redis_source *source)
{
    struct redis_claim *claim = &source->claim;
    char from[REDIS_ID_SIZE], to[REDIS_ID_SIZE];
    const struct skipped skipped = {
        .reason = SKIPPED_DELETED,
        .part = claim_stream(source)->name,
        .from = from,
        .to = to,
        .n = (int64_t)claim->n_deleted,
        .why = "these entries were deleted or trimmed after they were given to a worker and before "
               "it was done",
    };

    if (!claim->n_deleted)
        return;
    redis_id_print(claim->first_deleted, from);
    redis_id_print(claim->last_deleted, to);
    source_count(&source->base, COUNTER_DELETED, claim->n_deleted);
    source_skipped(&source->base, &skipped);
    claim->n_deleted = 0;
}

void redis_claim_start_own(struct redis_source *source, bool first)
{
    struct redis_claim *claim = &source->claim;

    claim->own_due = true;
    /* With first, nothing new is read until what this consumer had when it died is with it again.
     */
    claim->own_first |= first;
    claim->restart = claim->busy; /* answers are awaited that are about the stream it is in */
    if (!claim->busy)
        claim_rewind(claim);
}

void redis_claim_lost(struct redis_source *source)
{
    struct redis_claim *claim = &source->claim;

    claim_report_deleted(source);
    claim->busy = false;
    claim->n_checks = 0;
    claim->restart = false;
    claim_rewind(claim);
}

/* A page is done: go on behind it, or end the pass. */
static void claim_page_done(struct redis_source *source)
{
    struct redis_claim *claim = &source->claim;

    claim_report_deleted(source);
    claim->busy = false;
    redis_consumer_good(source, source->admin, PART_CLAIM);
    if (claim->restart) {
        claim->restart = false;
        claim_rewind(claim);
    } else if (claim->last_page && claim->stream + 1 < source->config.streams.n) {
        claim->stream++;
        strcpy(claim->cursor, "-");
    } else if (claim->last_page) {
        claim_rewind(claim);
        if (claim->own)
            claim->own_due = claim->own_first = false;
        else
            claim->idle_due = false;
    }
    endpoint_pump(&source->end);
}

/* False when the reply was none that a step can use; then the pass is tried again later. */
static bool claim_reply_ok(struct redis_source *source, const redisReply *reply)
{
    if (reply && redis_reply_is_array(reply) && !source->end.closing && !source->end.failed)
        return true;
    source->claim.busy = false;
    if (reply && !source->end.closing && !source->end.failed) {
        const char *stream = claim_stream(source)->name;
        claim_rewind(&source->claim);
        if (reply->type == REDIS_REPLY_ERROR)
            redis_consumer_fault(source, source->admin, PART_CLAIM, stream, reply->str);
        else
            redis_link_drop(source->admin, "its answer about pending entries cannot be read");
    }
    return false;
}

/* ---- third: what XCLAIM did not give is gone from the stream, or taken by someone else */

static void on_ghost_acked(void *ctx, void *arg, const redisReply *reply)
{
    (void)ctx;
    (void)arg;
    (void)reply; /* one that stays is found by the next pass */
}

static void on_check(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_source *source = ctx;
    /* Still pending and not in the stream: deleted under us, and acked so that it is gone for
     * good. In the stream: another worker claimed it first. */
    const struct redis_pending *pending = arg;
    struct redis_args *args = &source->args;
    char id[REDIS_ID_SIZE];

    if (!reply) /* redis_claim_lost starts the pass again */
        return;
    if (redis_reply_is_array(reply) && reply->elements == 0) {
        claim_note_deleted(&source->claim, pending->id);
        redis_id_print(pending->id, id);
        redis_args_reset(args);
        redis_args_text(args, "XACK");
        redis_args_text(args, claim_stream(source)->name);
        redis_args_text(args, source->config.group);
        redis_args_text(args, id);
        /* Or every pass would find it again. */
        redis_consumer_send(source, source->admin, 0, on_ghost_acked, NULL);
    }
    assert(source->claim.n_checks > 0);
    if (--source->claim.n_checks == 0)
        claim_page_done(source);
}

static void claim_check_missing(struct redis_source *source)
{
    struct redis_claim *claim = &source->claim;
    struct redis_args *args = &source->args;
    char id[REDIS_ID_SIZE];

    assert(claim->n_page <= REDIS_CLAIM_PAGE);
    claim->n_checks = 0;
    for (size_t i = 0; i < claim->n_page; i++) {
        if (claim->page[i].returned)
            continue;
        redis_id_print(claim->page[i].id, id);
        redis_args_reset(args);
        redis_args_text(args, "XRANGE");
        redis_args_text(args, claim_stream(source)->name);
        redis_args_text(args, id);
        redis_args_text(args, id);
        if (redis_consumer_send(source, source->admin, 0, on_check, &claim->page[i]))
            claim->n_checks++;
    }
    if (!claim->n_checks)
        claim_page_done(source);
}

/* ---- second: XCLAIM what is not with us */

static struct redis_pending *claim_find(struct redis_claim *claim, struct redis_id id)
{
    for (size_t i = 0; i < claim->n_page; i++)
        if (redis_id_compare(claim->page[i].id, id) == 0)
            return &claim->page[i];
    return NULL;
}

static void on_claimed(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_source *source = ctx;
    struct redis_claim *claim = &source->claim;
    uint64_t n_reclaimed = 0;
    (void)arg;

    if (!claim_reply_ok(source, reply))
        return;
    for (size_t i = 0; i < reply->elements; i++) {
        const redisReply *name = redis_reply_at(reply->element[i], 0);
        const redisReply *fields = redis_reply_at(reply->element[i], 1);
        struct redis_pending *pending;
        struct redis_id id;
        /* Redis 6 answers nil for an entry that was deleted, without saying which. */
        if (!redis_reply_is_text(name) || !redis_id_parse(&id, name->str, name->len) ||
            !redis_reply_is_array(fields))
            continue;
        pending = claim_find(claim, id);
        if (!pending)
            continue;
        /* XPENDING counted before this XCLAIM, which is one more. */
        uint64_t deliveries = pending->deliveries + 1;
        if (!redis_consumer_take(source, claim_stream(source), id, fields,
                                 deliveries < UINT32_MAX ? (uint32_t)deliveries : UINT32_MAX)) {
            claim->busy = false;
            redis_link_drop(source->admin, "its answer to XCLAIM cannot be read");
            return;
        }
        pending->returned = true;
        n_reclaimed += !claim->own;
    }
    source_count(&source->base, COUNTER_RECLAIMED, n_reclaimed);
    claim_check_missing(source);
}

/* min_idle: an entry that someone else took since the list was made is younger and stays there. */
static void claim_page(struct redis_source *source, uint64_t min_idle)
{
    struct redis_claim *claim = &source->claim;
    struct redis_args *args = &source->args;
    char ids[REDIS_CLAIM_PAGE][REDIS_ID_SIZE];

    redis_args_reset(args);
    redis_args_text(args, "XCLAIM");
    redis_args_text(args, claim_stream(source)->name);
    redis_args_text(args, source->config.group);
    redis_args_text(args, source->consumer);
    redis_args_number(args, min_idle);
    for (size_t i = 0; i < claim->n_page; i++) {
        redis_id_print(claim->page[i].id, ids[i]);
        redis_args_text(args, ids[i]);
    }
    claim->busy = redis_consumer_send(source, source->admin, 0, on_claimed, NULL);
}

/* ---- first: list */

/* One of XPENDING's [id, consumer, idle, deliveries]. */
static bool pending_read(const redisReply *row, struct redis_pending *out, uint64_t *idle)
{
    const redisReply *name = redis_reply_at(row, 0), *since = redis_reply_at(row, 2),
                     *count = redis_reply_at(row, 3);

    if (!redis_reply_is_text(name) || !since || since->type != REDIS_REPLY_INTEGER || !count ||
        count->type != REDIS_REPLY_INTEGER)
        return false;
    *idle = since->integer > 0 ? (uint64_t)since->integer : 0;
    out->deliveries = count->integer > 0 ? (uint64_t)count->integer : 0;
    out->returned = false;
    return redis_id_parse(&out->id, name->str, name->len);
}

static void on_listed(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_source *source = ctx;
    struct redis_claim *claim = &source->claim;
    uint64_t min_idle = UINT64_MAX, idle;
    size_t want = redis_consumer_want(source), seen = 0;
    struct redis_pending row = {0};
    (void)arg;

    if (!claim_reply_ok(source, reply))
        return;
    /* A page holds what is to be claimed; entries of the table are with us and are passed over. */
    claim->n_page = 0;
    for (; seen < reply->elements && claim->n_page < want; seen++) {
        if (!pending_read(reply->element[seen], &row, &idle)) {
            claim->busy = false;
            redis_link_drop(source->admin, "its answer to XPENDING cannot be read");
            return;
        }
        if (redis_table_find(&source->table, claim_stream(source), row.id) ||
            claim->n_page == REDIS_CLAIM_PAGE)
            continue;
        /* Not in the table: with us already, it is being worked on and must not come twice. */
        claim->page[claim->n_page++] = row;
        min_idle = idle < min_idle ? idle : min_idle;
    }
    /* All of the page was looked at, and the list ended with it. */
    claim->last_page = seen == reply->elements && reply->elements < REDIS_CLAIM_PAGE;
    if (seen && !claim->restart) {
        /* "(" is XPENDING's word for "behind this id". */
        claim->cursor[0] = '(';
        redis_id_print(row.id, claim->cursor + 1);
    }
    if (!claim->n_page && !seen && reply->elements) { /* the credit went meanwhile */
        claim->busy = false;
        return;
    }
    if (claim->n_page)
        claim_page(source, claim->own ? min_idle : source->config.claim_idle_ms);
    else
        claim_page_done(source);
}

void redis_claim_step(struct redis_source *source)
{
    struct redis_claim *claim = &source->claim;
    struct redis_args *args = &source->args;

    if (claim->busy || (!claim->own_due && !claim->idle_due) || !redis_consumer_want(source))
        return;
    /* The other kind of pass begins at the beginning. */
    if (claim->own != claim->own_due)
        claim_rewind(claim);
    claim->own = claim->own_due;
    if (!claim->cursor[0])
        claim_rewind(claim);
    redis_args_reset(args);
    redis_args_text(args, "XPENDING");
    redis_args_text(args, claim_stream(source)->name);
    redis_args_text(args, source->config.group);
    if (!claim->own) {
        redis_args_text(args, "IDLE");
        redis_args_number(args, source->config.claim_idle_ms);
    }
    redis_args_text(args, claim->cursor);
    redis_args_text(args, "+");
    redis_args_number(args, REDIS_CLAIM_PAGE);
    if (claim->own)
        redis_args_text(args, source->consumer);
    claim->busy = redis_consumer_send(source, source->admin, 0, on_listed, NULL);
}

/* ---- leases */

static void on_renewed(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_source *source = ctx;
    const struct redis_stream *stream = arg;

    if (reply && reply->type == REDIS_REPLY_ERROR && !source->end.closing && !source->end.failed)
        redis_consumer_fault(source, source->admin, PART_CLAIM, stream->name, reply->str);
}

static void renew_stream(struct redis_source *source, struct redis_stream *stream)
{
    const struct redis_entry *entry;
    struct redis_args *args = &source->args;
    size_t n = 0, at = 0;

    while ((entry = redis_table_next(&source->table, stream, &at))) {
        /* The first of a call: it sends the one before and begins the next. */
        if (n++ % RENEW_MAX == 0) {
            if (n > 1 && !redis_consumer_send(source, source->admin, 0, on_renewed, stream))
                return;
            redis_args_reset(args);
            redis_args_text(args, "EVAL");
            redis_args_text(args, redis_script_renew);
            redis_args_text(args, "1");
            redis_args_text(args, stream->name);
            redis_args_text(args, source->config.group);
            redis_args_text(args, source->consumer);
        }
        redis_args_add(args, entry->id_text);
    }
    if (n)
        redis_consumer_send(source, source->admin, 0, on_renewed, stream);
}

void redis_claim_renew(struct redis_source *source)
{
    const struct redis_streams *streams = &source->config.streams;

    if (!source->config.claim_idle_ms || !source->groups_are_there ||
        !redis_link_ready(source->admin))
        return;
    for (size_t i = 0; i < streams->n; i++)
        renew_stream(source, &streams->items[i]);
}
