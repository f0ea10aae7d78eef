/*
 * redis_source.c: a consumer in the group of one or several Redis streams.
 *
 * Owns:    two connections (one waits in XREADGROUP, one does everything else), credit, the entries
 *          that are with us.
 * Refuses: the commands: redis_group.c, redis_read.c, redis_ack.c; what was pending before us and
 *          the leases: redis_claim.c. Publishing: redis_sink.c.
 * Threads: the loop thread.
 * Why:     everything that may be sent next is decided in one place, redis_source_pump, called
 *          after every reply and, through a timer of 0 ms, after every call of the pipeline; so
 *          no event fires inside a call and no command is sent twice or forgotten.
 */
#include "connectors/redis/redis_fault.h"
#include "connectors/redis/redis_source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GIVE_MAX     64  /* messages in one event */
#define MEAN_AT_OPEN 512 /* bytes of an entry, before one was seen */

static struct redis_source *self(struct source *source)
{
    return (struct redis_source *)source;
}

static void source_fail(struct redis_source *source, int err, const char *why)
{
    if (source->failed || source->closing) {
        source->failed = true;
        return;
    }
    source->failed = true;
    source->base.events->on_failed(source->base.ctx, err, why);
}

/* After failing and while closing nobody wants to hear of it. */
static void on_state_changed(void *ctx, enum link_state state, const char *why)
{
    struct redis_source *source = ctx;

    if (!source->failed && !source->closing)
        source->base.events->on_state(source->base.ctx, state, why);
}

/* ---- pausing after a refusal */

static void on_pause_over(uv_timer_t *timer)
{
    struct redis_source *source = timer->data;

    source->paused = false;
    redis_source_pump(source);
}

static void source_pause(struct redis_source *source)
{
    if (source->paused)
        return;
    source->paused = true;
    uv_timer_start(&source->pause_timer, on_pause_over, backoff_next(&source->backoff), 0);
}

void redis_source_fault(struct redis_source *source, struct redis_link *link, unsigned part,
                        const char *stream, const char *text)
{
    struct redis_fault fault = redis_fault_find(text);
    char why[HEALTH_WHY_SIZE];

    snprintf(why, sizeof(why), "stream %.60s, group %.60s: %.200s (%s)", stream,
             source->config.group, text, fault.advice);
    if (fault.remedy == REMEDY_GROUP && source->group_denied) {
        snprintf(why, sizeof(why),
                 "group %.60s of stream %.60s does not exist and this user may not make it; make "
                 "it (XGROUP CREATE) or allow the user to",
                 source->config.group, stream);
        fault.remedy = REMEDY_FATAL;
    }
    if (fault.remedy == REMEDY_FATAL) {
        source_fail(source, -EACCES, why);
        return;
    }
    if (fault.remedy == REMEDY_GROUP) {
        source->group_ok = false;
        redis_survey_on_missed(source);
    }
    if (fault.remedy == REMEDY_RECONNECT) {
        redis_link_drop(link, why); /* which is told as the loss of the connection */
        return;
    }
    health_wait(&source->state, part, why);
    source_pause(source);
}

void redis_source_good(struct redis_source *source, struct redis_link *link, unsigned part)
{
    health_good(&source->state, part);
    if (!(source->state.troubles & PART_REFUSED))
        source->backoff.attempts = 0;
    redis_link_good(link);
}

bool redis_source_send(struct redis_source *source, struct redis_link *link, uint64_t extra_ms,
                       redis_reply_cb cb, void *arg)
{
    const struct redis_args *args = &source->args;
    int rc =
        args->failed ? -ENOMEM : redis_link_send(link, args->items, args->n, extra_ms, cb, arg);

    if (rc == -ENOMEM)
        source_pause(source);
    return rc == 0;
}

/* ---- credit */

size_t redis_source_want(const struct redis_source *source)
{
    size_t want = source->credit > source->held.n ? source->credit - source->held.n : 0;
    size_t held_bytes = source->held.n * source->mean_bytes;
    size_t bytes = source->credit_bytes > held_bytes ? source->credit_bytes - held_bytes : 0;

    if (!want || !bytes)
        return 0;
    size_t fits = bytes / source->mean_bytes + 1;
    return want < fits ? want : fits;
}

bool redis_source_take(struct redis_source *source, const struct redis_stream *stream,
                       struct redis_id id, const redisReply *fields, uint32_t deliveries)
{
    struct redis_entry *entry;

    if (redis_table_find(&source->table, stream, id))
        return true;
    entry = redis_entry_open(&source->base, stream, source->config.body, id, fields, deliveries);
    if (!entry)
        return false;
    if (redis_table_add(&source->table, entry)) {
        redis_entry_close(entry);
        return false;
    }
    source->mean_bytes = (7 * source->mean_bytes + entry->size) / 8 + 1;
    redis_queue_push(&source->held, entry);
    return true;
}

void redis_source_forget(struct redis_source *source, struct redis_entry *entry)
{
    redis_table_remove(&source->table, entry);
    redis_entry_close(entry);
}

static void source_give(struct redis_source *source)
{
    struct message *messages[GIVE_MAX];

    while (source->held.n && source->credit && source->credit_bytes && !source->closing) {
        size_t n = 0;
        while (n < GIVE_MAX && source->held.n && source->credit && source->credit_bytes) {
            struct redis_entry *entry = redis_queue_pop(&source->held);
            size_t size = entry->size ? entry->size : 1;
            source->credit--;
            source->credit_bytes -= size < source->credit_bytes ? size : source->credit_bytes;
            messages[n++] = &entry->message;
        }
        source->base.events->on_messages(source->base.ctx, messages, n);
    }
}

/* ---- what is to be done now */

static void source_finish(struct redis_source *source);

void redis_source_pump(struct redis_source *source)
{
    bool admin_ready = redis_link_ready(source->admin);

    if (admin_ready && source->ack_wait.n && !source->ack_sent.n && !source->paused &&
        !source->failed)
        redis_ack_send(source);
    if (source->closing) {
        bool acked = !source->ack_wait.n && !source->ack_sent.n;
        if (acked && admin_ready && !source->returned && !source->failed)
            redis_return_send(source);
        if (source->failed || (acked && !source->n_returns))
            source_finish(source);
        return;
    }
    if (source->failed)
        return;
    source_give(source);
    if (source->closing)
        return;
    if (!source->credit && source->reading && !source->unblocking)
        redis_read_wake(source); /* or it takes what another worker could have */
    if (source->paused || !admin_ready)
        return;
    if (!source->group_ok) {
        redis_group_make(source);
        return;
    }
    redis_claim_step(source);
    if (source->survey_due && source->n_surveys)
        return;
    source->survey_due = false;
    if (!source->reading && !source->claim.own_first && redis_link_ready(source->reader) &&
        redis_source_want(source))
        redis_read_send(source);
}

static void on_pump(uv_timer_t *timer)
{
    redis_source_pump(timer->data);
}

/* For calls of the pipeline: the work is done from the loop. */
static void pump_soon(struct redis_source *source)
{
    if (!uv_is_active((uv_handle_t *)&source->pump_timer))
        uv_timer_start(&source->pump_timer, on_pump, 0, 0);
}

/* ---- connections */

static void on_again(uv_timer_t *timer)
{
    struct redis_source *source = timer->data;

    redis_claim_start_own(source, false);
    redis_source_pump(source);
}

static void on_reader_ready(void *ctx)
{
    struct redis_source *source = ctx;

    redis_claim_start_own(source, true);
    /* The read of a connection that died silently may still wait over there and take entries when
     * nobody listens any more: look once more when it must be over. */
    uv_timer_start(&source->again_timer, on_again, REDIS_BLOCK_MS + 1000, 0);
    redis_source_pump(source);
}

static void on_admin_ready(void *ctx)
{
    struct redis_source *source = ctx;

    source->group_ok = false;
    redis_source_pump(source);
}

static void on_reader_lost(void *ctx, const char *why)
{
    struct redis_source *source = ctx;

    health_wait(&source->state, PART_READER, why);
}

static void on_admin_lost(void *ctx, const char *why)
{
    struct redis_source *source = ctx;

    redis_claim_lost(source);
    health_wait(&source->state, PART_ADMIN, why);
}

static void on_reader_good(void *ctx)
{
    struct redis_source *source = ctx;

    health_good(&source->state, PART_READER);
}

static void on_admin_good(void *ctx)
{
    struct redis_source *source = ctx;

    health_good(&source->state, PART_ADMIN);
}

static void on_link_failed(void *ctx, int err, const char *why)
{
    struct redis_source *source = ctx;

    source_fail(source, err, why);
    if (source->closing)
        redis_source_pump(source);
}

static const struct redis_link_events reader_events = {on_reader_ready, on_reader_lost,
                                                       on_reader_good, on_link_failed};
static const struct redis_link_events admin_events = {on_admin_ready, on_admin_lost, on_admin_good,
                                                      on_link_failed};

static void on_lease(uv_timer_t *timer)
{
    struct redis_source *source = timer->data;

    if (source->closing || source->failed)
        return;
    redis_claim_renew(source);
    source->claim.idle_due = true;
    redis_source_pump(source);
}

/* ---- the contract */

static void source_free(struct redis_source *source)
{
    redis_table_close(&source->table);
    redis_args_close(&source->args);
    for (size_t i = 0; source->consumer_locks && i < source->config.streams.n; i++)
        if (source->consumer_locks[i] >= 0)
            close(source->consumer_locks[i]);
    free(source->consumer_locks);
    free(source->watches);
    redis_config_clear(&source->config);
    free(source->consumer);
    free(source);
}

static void timer_open(struct redis_source *source, uv_timer_t *timer)
{
    uv_timer_init(source->loop, timer);
    timer->data = source;
    source->n_open++;
}

static int name_open(struct redis_source *source)
{
    source->consumer_locks = malloc(source->config.streams.n * sizeof(int));
    source->watches = calloc(source->config.streams.n, sizeof(*source->watches));
    if (!source->consumer_locks || !source->watches)
        return -ENOMEM;
    return redis_consumer_name(&source->config, &source->consumer, source->consumer_locks);
}

/* Both connections; at open nothing has been sent yet, so failing needs no waiting. */
static int links_open(struct redis_source *source)
{
    struct redis_link_options options = {&source->config.url,
                                         source->config.url.tls ? source->config.tls : NULL,
                                         source->consumer, source->config.timeout_ms};
    int rc = redis_link_open(&source->admin, source->loop, &options, &admin_events, source);

    if (rc)
        return rc;
    rc = redis_link_open(&source->reader, source->loop, &options, &reader_events, source);
    if (rc)
        redis_link_close(source->admin, NULL, NULL);
    return rc;
}

static int redis_source_open(struct source **out, uv_loop_t *loop, const struct settings *settings,
                             const struct source_events *events, void *ctx, char *err,
                             size_t err_size)
{
    struct redis_source *source = calloc(1, sizeof(*source));
    int rc;

    if (!source) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    source->loop = loop;
    source->mean_bytes = MEAN_AT_OPEN;
    source->base = (struct source){&redis_source_ops, events, ctx};
    rc = redis_config_read(&source->config, settings, err, err_size);
    if (rc)
        goto fail;
    rc = name_open(source);
    if (rc == 0)
        rc = links_open(source);
    if (rc) {
        snprintf(err, err_size, "out of memory");
        goto fail;
    }
    health_open(&source->state, PART_READER | PART_ADMIN, on_state_changed, source);
    timer_open(source, &source->pump_timer);
    timer_open(source, &source->pause_timer);
    timer_open(source, &source->lease_timer);
    timer_open(source, &source->again_timer);
    timer_open(source, &source->close_timer);
    timer_open(source, &source->lag_timer);
    redis_survey_start(source);
    if (source->config.claim_idle_ms)
        uv_timer_start(&source->lease_timer, on_lease, source->config.claim_idle_ms / 3 + 1,
                       source->config.claim_idle_ms / 3 + 1);
    *out = &source->base;
    return 0;
fail:
    source_free(source);
    return rc;
}

static void redis_source_request(struct source *base, size_t n, size_t n_bytes)
{
    struct redis_source *source = self(base);

    source->credit = n;
    source->credit_bytes = n ? n_bytes : 0;
    pump_soon(source);
}

static void redis_source_ack(struct source *base, struct message *message)
{
    struct redis_source *source = self(base);
    struct redis_entry *entry = (struct redis_entry *)message;

    redis_queue_push(&source->ack_wait, entry);
    pump_soon(source);
}

static void redis_source_release(struct source *base, struct message *message)
{
    redis_source_forget(self(base), (struct redis_entry *)message);
}

static void source_closed(struct redis_source *source)
{
    void (*closed)(void *) = source->closed;
    void *ctx = source->closed_ctx;

    if (--source->n_open)
        return;
    source_free(source);
    closed(ctx);
}

static void on_timer_closed(uv_handle_t *handle)
{
    source_closed(handle->data);
}

static void on_link_closed(void *ctx)
{
    source_closed(ctx);
}

static void source_finish(struct redis_source *source)
{
    uv_timer_t *timers[] = {&source->pump_timer,  &source->pause_timer, &source->lease_timer,
                            &source->again_timer, &source->close_timer, &source->lag_timer};

    if (!source->reader)
        return;
    redis_ack_tell_rest(source);
    source->n_open += 2;
    redis_link_close(source->reader, on_link_closed, source);
    redis_link_close(source->admin, on_link_closed, source);
    source->reader = source->admin = NULL;
    for (size_t i = 0; i < sizeof(timers) / sizeof(timers[0]); i++)
        uv_close((uv_handle_t *)timers[i], on_timer_closed);
}

static void on_close_deadline(uv_timer_t *timer)
{
    source_finish(timer->data);
}

static void redis_source_close(struct source *base, uint64_t deadline_ms, void (*closed)(void *ctx),
                               void *ctx)
{
    struct redis_source *source = self(base);

    if (!source)
        return;
    source->closing = true;
    source->quiet = source->failed;
    source->closed = closed;
    source->closed_ctx = ctx;
    uv_timer_start(&source->close_timer, on_close_deadline, deadline_ms, 0);
    pump_soon(source);
}

const struct source_ops redis_source_ops = {
    .open = redis_source_open,
    .request = redis_source_request,
    .ack = redis_source_ack,
    .release = redis_source_release,
    .close = redis_source_close,
    .check = redis_config_check,
};
