/*
 * redis_sink.c: outputs and dead letters into Redis.
 *
 * Owns:    one connection, the records given until they are published, in order; resending.
 * Refuses: how a record becomes a command: redis_record.c. Whose fault a refusal is:
 *          redis_sink_refused.c.
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

#include "connectors/redis/redis_script.h"
#include "connectors/redis/redis_sink_internal.h"

#define BACKLOG_MAX  (4u << 20)   /* bytes of commands waiting for the kernel */
#define SENT_MAX     1024         /* commands waiting for a reply */
#define VALUE_MAX    (512u << 20) /* Redis' own default for proto-max-bulk-len */
#define PEER_POLL_MS 20

static void sink_pump(struct redis_sink *sink);
static void on_pump(uv_timer_t *timer);

static struct redis_sink *self(struct sink *sink)
{
    return (struct redis_sink *)sink;
}

/* ---- slots */

void redis_sink_done(struct redis_slot *slot, enum published how)
{
    struct redis_sink *sink = slot->sink;
    struct record *record = slot->record;
    struct message *origin = record->origin;

    slot->next = sink->spare;
    sink->spare = slot;
    sink->base.events->on_published(sink->base.ctx, record, how);
    if (how == PUBLISHED_AND_ACKED) /* by the script: nothing is owed to the group any more */
        sink->peer->base.ops->release(&sink->peer->base, origin);
}

/* ---- refusals */

static void on_state_changed(void *ctx, enum link_state state, const char *why)
{
    struct redis_sink *sink = ctx;

    if (!sink->failed && !sink->closing)
        sink->base.events->on_state(sink->base.ctx, state, why);
}

void redis_sink_fail(struct redis_sink *sink, int err, const char *why)
{
    bool is_news = !sink->failed && !sink->closing;

    sink->failed = true;
    if (is_news)
        sink->base.events->on_failed(sink->base.ctx, err, why);
}

static void on_pause_over(uv_timer_t *timer)
{
    struct redis_sink *sink = timer->data;

    sink->paused = false;
    redis_slots_move(&sink->again, &sink->suspects);
    sink_pump(sink);
}

void redis_sink_pause(struct redis_sink *sink)
{
    if (sink->paused)
        return;
    sink->paused = true;
    uv_timer_start(&sink->pause_timer, on_pause_over, backoff_next(&sink->backoff), 0);
}

/* ---- sending */

static void on_written(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_sink *sink = ctx;
    struct redis_slot *slot = redis_slots_pop(&sink->sent);
    struct redis_refused refused;
    (void)arg;

    if (!reply) {
        redis_sink_lost(slot, !sink->is_losing);
        sink->is_losing = true; /* those behind it had no chance */
        return;
    }
    if (redis_refusal_read(&refused, reply, slot->is_script))
        redis_sink_refused(slot, &refused);
    else
        redis_sink_accepted(slot, reply);
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
    if (!*my_run || !*their_run || (mine->master && redis_url_same(mine, theirs)))
        return redis_url_same(mine, theirs);
    return mine->db == theirs->db && strcmp(my_run, their_run) == 0;
}

/* Output and ack are on two servers, and cannot be one script. */
static bool sink_may_be_apart(struct redis_sink *sink)
{
    if (!sink->config.exactly_once)
        return true;
    if (!redis_url_same(&sink->config.output_url, &sink->peer->config.url)) {
        redis_sink_fail(sink, -EINVAL, "redis.output_url: " REDIS_APART_PHRASE);
        return false;
    }
    /* A failover behind one address, which only one of the connections has seen yet. */
    health_wait(&sink->state, PART_WRITE,
                "input and output are connected to two servers of one address; exactly-once waits "
                "until they are one");
    uv_timer_start(&sink->pump_timer, on_pump, PEER_POLL_MS, 0);
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
    if (!redis_link_ready(sink->peer->admin) && !sink->peer->failed) {
        uv_timer_start(&sink->pump_timer, on_pump, PEER_POLL_MS, 0);
        return false;
    }
    if (!sink_shares(sink))
        return sink_may_be_apart(sink);
    *peer = sink->peer;
    const char *loop = redis_config_loop(&sink->config, &stream);
    if (!loop)
        return true;
    int len = snprintf(why, sizeof(why), "%s: ", loop);
    snprintf(why + len, sizeof(why) - (size_t)len, REDIS_LOOP_PHRASE, stream);
    redis_sink_fail(sink, -EINVAL, why);
    return false;
}

/* False: not now; the slot is not sent. */
static bool slot_send(struct redis_slot *slot)
{
    struct redis_sink *sink = slot->sink;
    const struct record *record = slot->record;
    struct redis_record_form form = {.config = &sink->config,
                                     .script_sha = slot->whole || !sink->sha[0] ? NULL : sink->sha};
    int rc;

    if (!sink_find_peer(sink, record, &form.peer))
        return false;
    slot->acks = form.peer != NULL;
    rc = redis_record_build(&form, record, &sink->scratch, &sink->args);
    if (rc == 0) {
        slot->is_script = strncmp(sink->args.items[0].ptr, "EVAL", 4) == 0;
        rc = redis_link_send(sink->link, sink->args.items, sink->args.n, 0, on_written, NULL);
    }
    if (rc == -ENOMEM)
        redis_sink_pause(sink);
    return rc == 0;
}

static void sink_finish(struct redis_sink *sink);

static void sink_pump(struct redis_sink *sink)
{
    if (sink->no_memory)
        redis_sink_fail(sink, -ENOMEM, "out of memory");
    bool is_idle = !sink->again.n && !sink->waiting.n && !sink->sent.n;
    if (sink->closing && (sink->failed || (is_idle && !sink->suspects.n))) {
        sink_finish(sink);
        return;
    }
    while (!sink->failed && !sink->paused && !sink->loading && redis_link_ready(sink->link) &&
           sink->sent.n < SENT_MAX && redis_link_backlog(sink->link) < BACKLOG_MAX) {
        struct redis_slot_queue *queue = sink->again.n ? &sink->again : &sink->waiting;
        struct redis_slot *slot = queue->first;
        if (!slot && sink->suspects.n && !sink->sent.n)
            redis_sink_pause(sink); /* there are no others to show whose fault it is */
        if (!slot)
            return;
        if (!slot->record->n_parts) { /* given up; the source's own ack will do */
            redis_slots_pop(queue);
            redis_sink_done(slot, PUBLISHED);
            continue;
        }
        if (redis_record_largest(slot->record) > sink->value_max) {
            redis_slots_pop(queue);
            redis_sink_done(slot, PUBLISH_TOO_LARGE);
            continue;
        }
        /* Two databases never are one; two servers may be one, whatever their URLs say. */
        const char *stream = redis_record_overwrites(&sink->config, slot->record,
                                                     sink->peer && sink->config.url.db ==
                                                                       sink->config.output_url.db);
        if (stream) {
            redis_slots_pop(queue);
            redis_sink_reserved(slot, stream);
            continue;
        }
        if (!slot_send(slot))
            return;
        redis_slots_pop(queue);
        redis_slots_push(&sink->sent, slot);
    }
}

static void on_pump(uv_timer_t *timer)
{
    sink_pump(timer->data);
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

static bool sink_send_words(struct redis_sink *sink, redis_reply_cb cb, const char *const *words)
{
    redis_args_reset(&sink->args);
    for (; *words; words++)
        redis_args_text(&sink->args, *words);
    return !sink->args.failed &&
           redis_link_send(sink->link, sink->args.items, sink->args.n, 0, cb, NULL) == 0;
}

static void on_ready(void *ctx)
{
    struct redis_sink *sink = ctx;
    static const char *const value[] = {"CONFIG", "GET", "proto-max-bulk-len", NULL};
    static const char *const query[] = {"CONFIG", "GET", "client-query-buffer-limit", NULL};
    const char *const load[] = {"SCRIPT", "LOAD", redis_script_publish, NULL};

    sink->sha[0] = '\0';
    sink->is_losing = false;
    sink->loading = sink_send_words(sink, on_script, load);
    sink_send_words(sink, on_value_max, value);
    sink_send_words(sink, on_query_max, query);
}

static void on_lost(void *ctx, const char *why)
{
    struct redis_sink *sink = ctx;

    sink->loading = false;
    health_wait(&sink->state, PART_LINK, why);
}

static void on_good(void *ctx)
{
    struct redis_sink *sink = ctx;

    health_good(&sink->state, PART_LINK);
}

static void on_link_failed(void *ctx, int err, const char *why)
{
    struct redis_sink *sink = ctx;

    redis_sink_fail(sink, err, why);
    sink_pump(sink);
}

static const struct redis_link_events link_events = {on_ready, on_lost, on_good, on_link_failed};

/* ---- the contract */

static void sink_free(struct redis_sink *sink)
{
    redis_slots_free(&sink->again);
    redis_slots_free(&sink->waiting);
    redis_slots_free(&sink->sent);
    redis_slots_free(&sink->suspects);
    while (sink->spare) {
        struct redis_slot *slot = sink->spare;
        sink->spare = slot->next;
        free(slot);
    }
    redis_args_close(&sink->args);
    redis_scratch_close(&sink->scratch);
    redis_config_clear(&sink->config);
    free(sink->accepted);
    free(sink);
}

static void timer_open(struct redis_sink *sink, uv_timer_t *timer)
{
    uv_timer_init(sink->loop, timer);
    timer->data = sink;
    sink->n_open++;
}

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
    sink->loop = loop;
    sink->value_max = VALUE_MAX;
    sink->base = (struct sink){.ops = &redis_sink_ops, .events = events, .ctx = ctx};
    rc = redis_config_read(&sink->config, settings, err, err_size);
    if (rc)
        goto fail;
    sink->accepted = calloc(2 * sink->config.streams.n, sizeof(*sink->accepted));
    if (!sink->accepted) {
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
    struct redis_link_options options = {
        &sink->config.output_url, sink->config.output_url.tls ? sink->config.tls : NULL,
        sink->peer ? sink->peer->consumer : "embedmill", sink->config.timeout_ms};
    rc = redis_link_open(&sink->link, loop, &options, &link_events, sink);
    if (rc) {
        snprintf(err, err_size, "out of memory");
        goto fail;
    }
    health_open(&sink->state, PART_LINK, on_state_changed, sink);
    timer_open(sink, &sink->pump_timer);
    timer_open(sink, &sink->pause_timer);
    timer_open(sink, &sink->close_timer);
    *out = &sink->base;
    return 0;
fail:
    sink_free(sink);
    return rc;
}

static void redis_sink_publish(struct sink *base, struct record **records, size_t n)
{
    struct redis_sink *sink = self(base);

    for (size_t i = 0; i < n; i++) {
        struct redis_slot *slot = sink->spare;
        if (slot)
            sink->spare = slot->next;
        else
            slot = malloc(sizeof(*slot));
        if (!slot) { /* the records left out stay unacked and come again after the exit */
            sink->no_memory = true;
            break;
        }
        *slot = (struct redis_slot){.sink = sink, .record = records[i]};
        redis_slots_push(&sink->waiting, slot);
    }
    if (!uv_is_active((uv_handle_t *)&sink->pump_timer))
        uv_timer_start(&sink->pump_timer, on_pump, 0, 0);
}

static void sink_closed(struct redis_sink *sink)
{
    void (*closed)(void *) = sink->closed;
    void *ctx = sink->closed_ctx;

    if (--sink->n_open)
        return;
    sink_free(sink);
    closed(ctx);
}

static void on_timer_closed(uv_handle_t *handle)
{
    sink_closed(handle->data);
}

static void on_link_closed(void *ctx)
{
    sink_closed(ctx);
}

static void sink_finish(struct redis_sink *sink)
{
    if (!sink->link)
        return;
    sink->n_open++;
    redis_link_close(sink->link, on_link_closed, sink);
    sink->link = NULL;
    uv_close((uv_handle_t *)&sink->pump_timer, on_timer_closed);
    uv_close((uv_handle_t *)&sink->pause_timer, on_timer_closed);
    uv_close((uv_handle_t *)&sink->close_timer, on_timer_closed);
}

static void on_close_deadline(uv_timer_t *timer)
{
    sink_finish(timer->data);
}

static void redis_sink_close(struct sink *base, uint64_t deadline_ms, void (*closed)(void *ctx),
                             void *ctx)
{
    struct redis_sink *sink = self(base);

    if (!sink)
        return;
    sink->closing = true;
    sink->closed = closed;
    sink->closed_ctx = ctx;
    uv_timer_start(&sink->close_timer, on_close_deadline, deadline_ms, 0);
    uv_timer_start(&sink->pump_timer, on_pump, 0, 0);
}

const struct sink_ops redis_sink_ops = {
    .open = redis_sink_open,
    .publish = redis_sink_publish,
    .close = redis_sink_close,
    .check = redis_config_check,
    .layout = redis_layout,
};
