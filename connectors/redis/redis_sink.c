/*
 * redis_sink.c: outputs and dead letters into Redis.
 *
 * Owns:    one connection, the records given until they are published, in order; resending.
 * Refuses: how a record becomes a command: redis_record.c. Whose fault a refusal is:
 *          redis_verdict.c.
 * Threads: the loop thread.
 * Why:     a record is always one command with one reply, if need be the script; so after a lost
 *          connection "sent, not answered" is a prefix of the queue and is simply sent again. With
 *          the source on the same server the script makes that harmless: what was written the first
 *          time was acked with it, and the second time answers "not yours".
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/endpoint.h"
#include "connectors/redis/redis_detour.h"
#include "connectors/redis/redis_link.h"
#include "connectors/redis/redis_made_with.h"
#include "connectors/redis/redis_script.h"
#include "connectors/redis/redis_verdict.h"

#define BACKLOG_MAX  (4u << 20)   /* bytes of commands waiting for the kernel */
#define SENT_MAX     1024         /* commands waiting for a reply */
#define VALUE_MAX    (512u << 20) /* Redis' own default for proto-max-bulk-len */
#define PEER_POLL_MS 20

#define SINK_LINK  1u /* parts of health */
#define SINK_WRITE 2u

struct redis_sink {
    struct sink base;
    struct endpoint end;
    struct redis_config config;
    struct redis_source *peer; /* the source, if it is one of ours; NULL: none */
    struct redis_link *link;
    struct redis_args args;
    struct redis_scratch scratch;
    struct redis_judge judge;
    struct slot_pool pool;
    struct slot_queue again, waiting; /* sent before and to be sent again; never sent */
    struct slot_queue sent;           /* without a reply yet */
    struct slot_queue aside;          /* refused, and it is not clear yet whose fault it is */
    char sha[41];                     /* of the script; empty: not known yet on this connection */
    bool loading;                     /* SCRIPT LOAD is under way */
    struct redis_made_with made_with; /* the vectors there */
    bool is_losing; /* the connection has ended, and some that were sent are answered with NULL */
    size_t value_max;
};

static void sink_pump(void *owner);

static struct redis_sink *self(struct sink *sink)
{
    return (struct redis_sink *)sink;
}

/* ---- slots */

static void slot_done(struct redis_sink *sink, struct redis_slot *slot, enum published how)
{
    struct record *record = slot->base.record;
    struct message *origin = record->origin;

    slots_give(&sink->pool, &slot->base);
    sink->base.events->on_published(sink->base.ctx, record, how);
    if (how == PUBLISHED_AND_ACKED) /* by the script: nothing is owed to the group any more */
        sink->peer->base.ops->release(&sink->peer->base, origin);
}

/* Takes the slot, which is in no queue: the one place that decides what becomes of a record. */
static void slot_settle(struct redis_sink *sink, struct redis_slot *slot,
                        const struct redis_verdict *verdict)
{
    struct record *record = slot->base.record;

    switch (verdict->next) {
    case NEXT_DONE:
        if (verdict->how == PUBLISH_REFUSED) {
            record->refused_code = verdict->code;
            record->refused_reason = verdict->why;
        }
        slot_done(sink, slot, verdict->how);
        return;
    /* Refused, and maybe others pass: kept out of the way until one has, or a pause is over. */
    case NEXT_ASIDE:
        slots_push(&sink->aside, &slot->base);
        health_wait(&sink->end.health, SINK_WRITE, verdict->why);
        if (sink->aside.n >= REDIS_ASIDE_MAX)
            endpoint_pause(&sink->end);
        endpoint_doubt(&sink->end);
        return;
    case NEXT_AGAIN:
        slots_push(&sink->again, &slot->base);
        return;
    case NEXT_PAUSE:
        slots_push(&sink->again, &slot->base);
        health_wait(&sink->end.health, SINK_WRITE, verdict->why);
        endpoint_pause(&sink->end);
        return;
    case NEXT_RECONNECT:
        slots_push(&sink->again, &slot->base);
        redis_link_drop(sink->link, verdict->why); /* which is told as the loss of the connection */
        return;
    case NEXT_STOP:
        slots_push(&sink->again, &slot->base);
        endpoint_fail(&sink->end, -EACCES, verdict->why);
    }
}

static void sink_resume(void *owner)
{
    struct redis_sink *sink = owner;

    slots_move(&sink->again, &sink->aside);
}

/* ---- sending */

static void on_written(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_sink *sink = ctx;
    struct redis_slot *slot = arg;
    struct redis_refused refused;
    struct redis_verdict verdict;

    slots_remove(&sink->sent, &slot->base);
    if (!reply) {
        /* Only the oldest can be what ended the connection: it was the one being executed. */
        bool is_next = !sink->is_losing && !redis_link_is_moving(sink->link);
        redis_verdict_lost(slot, is_next, &verdict);
        sink->is_losing = true; /* those behind it had no chance */
        slot_settle(sink, slot, &verdict);
        return;
    }
    if (reply->type == REDIS_REPLY_INTEGER && reply->integer == REDIS_PUBLISH_FOREIGN) {
        redis_made_with_forget(&sink->made_with); /* nothing was written: ask, then send it again */
        slots_push(&sink->again, &slot->base);
        sink_pump(sink);
        return;
    }
    if (redis_refusal_read(&refused, reply, slot->is_script)) {
        redis_verdict_refused(&sink->judge, slot, &refused, sink->aside.n, &verdict);
    } else {
        redis_verdict_accepted(&sink->judge, slot, reply, &verdict);
        health_good(&sink->end.health, SINK_WRITE);
        sink->end.backoff.attempts = 0;
        redis_link_good(sink->link);
        /* The script answers 1, and one more for each text that it left alone because of a later
         * version. */
        if (slot->is_script && reply->type == REDIS_REPLY_INTEGER && reply->integer > 1)
            sink_count(&sink->base, COUNTER_OUTDATED, (uint64_t)reply->integer - 1);
        if (verdict.how != PUBLISH_NOT_OURS) /* now it will be seen whose fault it is */
            slots_move(&sink->again, &sink->aside);
    }
    slot_settle(sink, slot, &verdict);
    sink_pump(sink);
}

/* Is the source on our server and database? The URLs may spell it differently (localhost,
 * 127.0.0.1, a unix socket), or the same for two servers behind one name; so servers are asked who
 * they are, and URLs compared only where one does not tell. Known once both links have been up. */
static bool sink_shares(const struct redis_sink *sink)
{
    const struct redis_url *mine = &sink->config.output_url, *theirs = &sink->peer->config.url;
    const char *my_run = redis_link_run_id(sink->link);
    const char *their_run = redis_link_run_id(sink->peer->admin);

    /* In a failover one link may be ahead of the other; the script finds what it may do. */
    bool can_fail_over = mine->master || mine->is_cluster;
    if (!*my_run || !*their_run || (can_fail_over && redis_url_same(mine, theirs)))
        return redis_url_same(mine, theirs);
    /* A server makes its run id anew at each start: equal ids mean one process. */
    return mine->db == theirs->db && strcmp(my_run, their_run) == 0 &&
           sink->config.output_slot == sink->peer->config.slot;
}

/* Output and ack are on two servers, and cannot be one script. */
static bool sink_may_be_apart(struct redis_sink *sink)
{
    if (!sink->config.exactly_once)
        return true;
    if (!redis_url_same(&sink->config.output_url, &sink->peer->config.url)) {
        endpoint_fail(&sink->end, -EINVAL, "redis.output_url: " REDIS_APART_PHRASE);
        return false;
    }
    /* A failover behind one address, which only one of the connections has seen yet. */
    health_wait(&sink->end.health, SINK_WRITE,
                "input and output are connected to two servers of one address; exactly-once waits "
                "until they are one");
    endpoint_pump_in(&sink->end, PEER_POLL_MS);
    return false;
}

/* The source as the one to be acked with the record, or NULL. False: not known now, or never. */
static bool sink_find_peer(struct redis_sink *sink, const struct record *record,
                           struct redis_source **peer)
{
    char why[HEALTH_WHY_SIZE];
    const char *stream;

    *peer = NULL;
    if (!sink->peer || record->origin->source != &sink->peer->base)
        return true;
    /* Nothing is lost by waiting for it: its acks could not be made either. */
    if (!redis_link_ready(sink->peer->admin) && !sink->peer->end.failed) {
        endpoint_pump_in(&sink->end, PEER_POLL_MS);
        return false;
    }
    if (!sink_shares(sink))
        return sink_may_be_apart(sink);
    *peer = sink->peer;
    const char *loop = redis_config_loop(&sink->config, &stream);
    if (!loop) {
        if (record->origin->is_shared) /* others write of it, too: it is acked when all have */
            *peer = NULL;
        return true;
    }
    int len = snprintf(why, sizeof(why), "%s: ", loop);
    snprintf(why + len, sizeof(why) - (size_t)len, REDIS_LOOP_PHRASE, stream);
    endpoint_fail(&sink->end, -EINVAL, why);
    return false;
}

/* False: not now; the slot is not sent. */
static bool slot_send(struct redis_sink *sink, struct redis_slot *slot)
{
    const struct record *record = slot->base.record;
    struct redis_record_form form = {.config = &sink->config,
                                     .guard = &sink->made_with,
                                     .script_sha = slot->whole || !sink->sha[0] ? NULL : sink->sha};
    int rc;

    if (!sink_find_peer(sink, record, &form.peer))
        return false;
    slot->acks = form.peer != NULL;
    rc = redis_record_build(&form, record, &sink->scratch, &sink->args);
    if (rc == 0) {
        slot->is_script = strncmp(sink->args.items[0].ptr, "EVAL", 4) == 0;
        rc = redis_link_send(sink->link, sink->args.items, sink->args.n, 0, on_written, slot);
    }
    /* Memory may come back; a link that is not ready says so itself. */
    if (rc == -ENOMEM)
        endpoint_pause(&sink->end);
    return rc == 0;
}

/* Is there nothing to be sent about it: it was given up, or cannot be written? Then it is done. */
static bool slot_is_idle(struct redis_sink *sink, struct slot_queue *queue, struct redis_slot *slot)
{
    const struct record *record = slot->base.record;
    struct redis_verdict verdict;
    /* Two databases never are one; two servers may be one, whatever their URLs say. */
    bool is_input = sink->peer && sink->config.url.db == sink->config.output_url.db;
    const char *stream = NULL;

    verdict.next = NEXT_DONE;
    verdict.how = PUBLISHED;
    if (record->n_parts && redis_record_largest(record) > sink->value_max)
        verdict.how = PUBLISH_TOO_LARGE;
    else if (record->n_parts && (stream = redis_record_overwrites(&sink->config, record, is_input)))
        redis_verdict_reserved(RESERVED_STREAM, stream, &verdict);
    else if (record->n_parts && redis_record_hides_note(&sink->config, record))
        redis_verdict_reserved(RESERVED_NOTE, NULL, &verdict);
    else if (record->n_parts && redis_record_hides_head(&sink->config, record))
        redis_verdict_reserved(RESERVED_HEAD, NULL, &verdict);
    else if (record->n_parts)
        return false;
    slots_remove(queue, &slot->base);
    slot_settle(sink, slot, &verdict);
    return true;
}

static bool can_send(const struct redis_sink *sink)
{
    return !sink->end.failed && !sink->end.paused && !sink->loading && sink->made_with.is_known &&
           redis_link_ready(sink->link) && sink->sent.n < SENT_MAX &&
           redis_link_backlog(sink->link) < BACKLOG_MAX;
}

static void send_all(struct redis_sink *sink)
{
    while (can_send(sink)) {
        /* What was sent before goes first: its order among the others is the older one. */
        struct slot_queue *queue = sink->again.n ? &sink->again : &sink->waiting;
        struct redis_slot *slot = (struct redis_slot *)queue->first;
        if (!slot && sink->aside.n && !sink->sent.n)
            endpoint_pause(&sink->end); /* there are no others to show whose fault it is */
        if (!slot)
            return;
        if (slot_is_idle(sink, queue, slot))
            continue;
        if (!slot_send(sink, slot))
            return;
        /* After it was handed over: one that could not be sent keeps its place. */
        slots_remove(queue, &slot->base);
        slots_push(&sink->sent, &slot->base);
    }
}

/* ---- what the vectors there are made with */

static bool sink_send_words(struct redis_sink *sink, redis_reply_cb cb, const char *const *words)
{
    redis_args_reset(&sink->args);
    for (; *words; words++)
        redis_args_text(&sink->args, *words);
    return !sink->args.failed &&
           redis_link_send(sink->link, sink->args.items, sink->args.n, 0, cb, NULL) == 0;
}

static void ask_made_with(struct redis_sink *sink)
{
    bool keeps_texts = sink->config.output != REDIS_OUTPUT_STREAM;

    redis_made_with_ask(&sink->made_with, keeps_texts ? sink->base.made_with : NULL);
}

static void sink_pump(void *owner)
{
    struct redis_sink *sink = owner;
    bool is_idle = !sink->again.n && !sink->waiting.n && !sink->sent.n && !sink->aside.n;

    if (sink->end.closing && (sink->end.failed || is_idle)) {
        endpoint_finish(&sink->end);
        return;
    }
    if (!sink->end.failed && !sink->end.paused && redis_link_ready(sink->link))
        ask_made_with(sink);
    /* Or the first of them has a write, and an answer, of its own. */
    redis_link_cork(sink->link, true);
    send_all(sink);
    redis_link_cork(sink->link, false);
}

/* ---- the connection */

static void on_script(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_sink *sink = ctx;
    (void)arg;

    sink->loading = false;
    sink->sha[0] = '\0';
    if (!reply)
        return;
    /* Refused: every record carries the script itself, and tells if that is refused too. */
    if (redis_reply_is_text(reply) && reply->len == 40)
        memcpy(sink->sha, reply->str, 41);
    sink_pump(sink);
}

static size_t limit_of(const redisReply *reply)
{
    const redisReply *value = redis_reply_at(reply, 1);
    unsigned long long limit = redis_reply_is_text(value) ? strtoull(value->str, NULL, 10) : 0;

    return limit >= 1024 ? (size_t)limit : VALUE_MAX;
}

static void on_value_max(void *ctx, void *arg, const redisReply *reply)
{
    (void)arg;
    ((struct redis_sink *)ctx)->value_max = limit_of(reply);
}

/* What the server keeps of a command before it has all of it; beyond it hangs up without a word. */
static void on_query_max(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_sink *sink = ctx;
    size_t limit = limit_of(reply);
    (void)arg;

    if (limit < sink->value_max)
        sink->value_max = limit;
}

static void on_ready(void *ctx)
{
    struct redis_sink *sink = ctx;
    static const char *const value[] = {"CONFIG", "GET", "proto-max-bulk-len", NULL};
    static const char *const query[] = {"CONFIG", "GET", "client-query-buffer-limit", NULL};
    const char *const load[] = {"SCRIPT", "LOAD", redis_script_publish, NULL};

    sink->sha[0] = '\0';
    sink->is_losing = false;
    /* The server may be another, or have lost its data. */
    redis_made_with_forget(&sink->made_with);
    sink->loading = sink_send_words(sink, on_script, load);
    sink_send_words(sink, on_value_max, value);
    sink_send_words(sink, on_query_max, query);
    ask_made_with(sink);
}

static void on_lost(void *ctx, const char *why)
{
    struct redis_sink *sink = ctx;

    sink->loading = false;
    health_wait(&sink->end.health, SINK_LINK, why);
}

static void on_good(void *ctx)
{
    struct redis_sink *sink = ctx;

    health_good(&sink->end.health, SINK_LINK);
}

static void on_link_failed(void *ctx, int err, const char *why)
{
    struct redis_sink *sink = ctx;

    endpoint_fail(&sink->end, err, why);
    sink_pump(sink);
}

static const struct redis_link_events link_events = {on_ready, on_lost, on_good, on_link_failed};

/* ---- the contract */

static void sink_free(void *owner)
{
    struct redis_sink *sink = owner;

    slots_give_all(&sink->pool, &sink->again);
    slots_give_all(&sink->pool, &sink->waiting);
    slots_give_all(&sink->pool, &sink->sent);
    slots_give_all(&sink->pool, &sink->aside);
    slots_close(&sink->pool);
    redis_args_close(&sink->args);
    redis_scratch_close(&sink->scratch);
    redis_made_with_close(&sink->made_with);
    redis_config_clear(&sink->config);
    free(sink->judge.accepted);
    free(sink);
}

static void sink_finish(void *owner, bool is_late)
{
    struct redis_sink *sink = owner;
    (void)is_late;

    redis_link_close(sink->link, endpoint_drop, &sink->end);
    sink->link = NULL;
}

static const struct endpoint_ops endpoint_ops = {sink_pump, sink_resume, sink_finish, sink_free};

static int redis_sink_open(struct sink **out, uv_loop_t *loop, const struct settings *settings,
                           struct source *peer, const struct sink_events *events, void *ctx,
                           char *err, size_t err_size)
{
    struct redis_sink *sink = calloc(1, sizeof(*sink));
    int rc;

    if (!sink) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    sink->pool.size = sizeof(struct redis_slot);
    sink->value_max = VALUE_MAX;
    sink->base = (struct sink){.ops = &redis_sink_ops, .events = events, .ctx = ctx};
    rc = redis_config_read(&sink->config, settings, err, err_size);
    if (rc)
        goto fail;
    sink->judge =
        (struct redis_judge){&sink->config,
                             &sink->args,
                             &sink->scratch,
                             calloc(2 * sink->config.streams.n, sizeof(*sink->judge.accepted)),
                             0,
                             0};
    if (!sink->judge.accepted) {
        snprintf(err, err_size, "out of memory");
        rc = -ENOMEM;
        goto fail;
    }
    if (peer && peer->ops == &redis_source_ops)
        sink->peer = (struct redis_source *)peer;
    if (!sink->peer && sink->config.exactly_once) {
        snprintf(err, err_size,
                 "delivery is exactly-once, which goes from Redis to Redis only with both on one "
                 "server and database, or take delivery at-least-once");
        rc = -EINVAL;
        goto fail;
    }
    sink->base.layout = redis_layout(settings);
    struct redis_link_options options = {&sink->config.output_url,
                                         sink->config.output_url.tls ? sink->config.tls : NULL,
                                         sink->peer ? sink->peer->consumer : "embedmill",
                                         sink->config.timeout_ms,
                                         sink->config.output_slot,
                                         &redis_detour_ops};
    rc = redis_link_open(&sink->link, loop, &options, &link_events, sink);
    if (rc) {
        snprintf(err, err_size, "out of memory");
        goto fail;
    }
    endpoint_open_sink(&sink->end, loop, &sink->base, SINK_LINK, &endpoint_ops, sink);
    endpoint_hold(&sink->end); /* the link */
    redis_made_with_open(&sink->made_with, sink->link, &sink->end, SINK_WRITE,
                         sink->config.output_prefix);
    *out = &sink->base;
    return 0;
fail:
    sink_free(sink);
    return rc;
}

static void redis_sink_publish(struct sink *base, struct record **records, size_t n)
{
    struct redis_sink *sink = self(base);

    if (slots_add(&sink->pool, &sink->waiting, records, n))
        endpoint_fail_soon(&sink->end);
    endpoint_pump_soon(&sink->end);
}

static void redis_sink_close(struct sink *base, uint64_t deadline_ms, void (*closed)(void *ctx),
                             void *ctx)
{
    if (base)
        endpoint_close(&self(base)->end, deadline_ms, closed, ctx);
}

const struct sink_ops redis_sink_ops = {
    .open = redis_sink_open,
    .publish = redis_sink_publish,
    .close = redis_sink_close,
    .check = redis_config_check,
    .layout = redis_layout,
};
