/*
 * redis_source.c: a consumer in the group of one or several Redis streams.
 *
 * Owns:    two connections (one waits in XREADGROUP, one does everything else), credit, the entries
 *          that are with us.
 * Refuses: the commands: redis_group.c, redis_read.c, redis_ack.c; what was pending before us and
 *          the leases: redis_claim.c. Publishing: redis_sink.c.
 * Threads: the loop thread.
 * Why:     everything that may be sent next is decided in one place, source_pump, called
 *          after every reply and, through a timer of 0 ms, after every call of the pipeline; so
 *          no event fires inside a call and no command is sent twice or forgotten.
 */
#include "connectors/redis/redis_source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "connectors/redis/redis_detour.h"

#define MEAN_AT_OPEN 512 /* bytes of an entry, before one was seen */

static struct redis_source *self(struct source *source)
{
    return (struct redis_source *)source;
}

/* ---- what is to be done now */

/* A read that is under way may still bring messages, which nobody would give back. One that cannot
 * be woken is not waited for: what it brings is claimed later. */
static bool is_reading(struct redis_source *source)
{
    if (source->read == READ_SENT && !source->end.failed)
        redis_read_wake(source);
    return source->read == READ_WAKING;
}

static void pump_closing(struct redis_source *source)
{
    bool is_done = !source->ack_wait.n && !source->ack_sent.n && !is_reading(source);

    /* Acks first: what is given back must not be what was just acked. */
    if (is_done && redis_link_ready(source->admin) && !source->returned && !source->end.failed)
        redis_return_send(source);
    if (source->end.failed || (is_done && !source->n_returns))
        endpoint_finish(&source->end);
}

/* The commands that take in messages. */
static void pump_in(struct redis_source *source)
{
    if (!source->groups_are_there) {
        redis_group_make(source);
        return;
    }
    /* What is pending comes before what is new: it is older, and others may wait for its order. */
    redis_claim_step(source);
    /* The survey counts what was lost, and a read meanwhile would change what it counts. */
    if (source->survey_due && source->n_surveys)
        return;
    source->survey_due = false;
    if (source->read == READ_IDLE && !source->claim.own_first && redis_link_ready(source->reader) &&
        redis_consumer_want(source))
        redis_read_send(source);
}

static void source_pump(void *owner)
{
    struct redis_source *source = owner;
    bool can_send = redis_link_ready(source->admin) && !source->end.paused && !source->end.failed;

    /* One call of acks at a time: those that come meanwhile go together in the next. */
    if (can_send && source->ack_wait.n && !source->ack_sent.n)
        redis_ack_send(source);
    if (source->end.closing) {
        pump_closing(source);
        return;
    }
    if (source->end.failed)
        return;
    intake_give(&source->intake, &source->base, &source->end);
    /* What was just given may have made the pipeline close us. */
    if (source->end.closing)
        return;
    if (!source->intake.credit.n && source->read == READ_SENT)
        redis_read_wake(source);         /* or it takes what another worker could have */
    if (can_send && !source->end.paused) /* an ack that could not be sent pauses */
        pump_in(source);
}

/* ---- connections */

static void on_again(uv_timer_t *timer)
{
    struct redis_source *source = timer->data;

    redis_claim_start_own(source, false);
    endpoint_pump(&source->end);
}

static void on_reader_ready(void *ctx)
{
    struct redis_source *source = ctx;

    /* What a read before took and we never got is pending under our name. */
    redis_claim_start_own(source, true);
    /* The read of a connection that died silently may still wait over there and take entries when
     * nobody listens any more: look once more when it must be over. */
    uv_timer_start(&source->again_timer, on_again, REDIS_BLOCK_MS + 1000, 0);
    endpoint_pump(&source->end);
}

static void on_admin_ready(void *ctx)
{
    struct redis_source *source = ctx;

    /* Another server may be there now, or the same one without its data. */
    source->groups_are_there = false;
    endpoint_pump(&source->end);
}

static void on_reader_lost(void *ctx, const char *why)
{
    struct redis_source *source = ctx;

    health_wait(&source->end.health, PART_READER, why);
}

static void on_admin_lost(void *ctx, const char *why)
{
    struct redis_source *source = ctx;

    /* The answers that the pass was waiting for will not come. */
    redis_claim_lost(source);
    health_wait(&source->end.health, PART_ADMIN, why);
}

static void on_reader_good(void *ctx)
{
    struct redis_source *source = ctx;

    health_good(&source->end.health, PART_READER);
}

static void on_admin_good(void *ctx)
{
    struct redis_source *source = ctx;

    health_good(&source->end.health, PART_ADMIN);
}

static void on_link_failed(void *ctx, int err, const char *why)
{
    struct redis_source *source = ctx;

    endpoint_fail(&source->end, err, why);
}

static const struct redis_link_events reader_events = {on_reader_ready, on_reader_lost,
                                                       on_reader_good, on_link_failed};
static const struct redis_link_events admin_events = {on_admin_ready, on_admin_lost, on_admin_good,
                                                      on_link_failed};

static void on_lease(uv_timer_t *timer)
{
    struct redis_source *source = timer->data;

    if (source->end.closing || source->end.failed)
        return;
    redis_claim_renew(source);
    source->claim.idle_due = true;
    endpoint_pump(&source->end);
}

/* ---- the contract */

static void source_free(void *owner)
{
    struct redis_source *source = owner;

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

static int name_open(struct redis_source *source)
{
    source->consumer_locks = malloc(source->config.streams.n * sizeof(int));
    source->watches = calloc(source->config.streams.n, sizeof(*source->watches));
    if (!source->consumer_locks || !source->watches)
        return -ENOMEM;
    return redis_consumer_name(&source->config, &source->consumer, source->consumer_locks);
}

/* Both connections; at open nothing has been sent yet, so failing needs no waiting. */
static int links_open(struct redis_source *source, uv_loop_t *loop)
{
    struct redis_link_options options = {
        &source->config.url, source->config.url.tls ? source->config.tls : NULL,
        source->consumer,    source->config.timeout_ms,
        source->config.slot, &redis_detour_ops};
    int rc = redis_link_open(&source->admin, loop, &options, &admin_events, source);

    if (rc)
        return rc;
    rc = redis_link_open(&source->reader, loop, &options, &reader_events, source);
    if (rc)
        redis_link_close(source->admin, NULL, NULL);
    return rc;
}

static void source_finish(void *owner, bool is_late)
{
    struct redis_source *source = owner;
    (void)is_late;

    /* First: it counts what the lists still hold. */
    redis_ack_report_rest(source);
    redis_link_close(source->reader, endpoint_drop, &source->end);
    redis_link_close(source->admin, endpoint_drop, &source->end);
    source->reader = source->admin = NULL;
    endpoint_close_handle(&source->end, (uv_handle_t *)&source->lease_timer);
    endpoint_close_handle(&source->end, (uv_handle_t *)&source->again_timer);
    endpoint_close_handle(&source->end, (uv_handle_t *)&source->lag_timer);
}

static const struct endpoint_ops endpoint_ops = {source_pump, NULL, source_finish, source_free};

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
    source->mean_bytes = MEAN_AT_OPEN;
    source->base = (struct source){.ops = &redis_source_ops, .events = events, .ctx = ctx};
    rc = redis_config_read(&source->config, settings, err, err_size);
    if (rc)
        goto fail;
    rc = name_open(source);
    if (rc == 0)
        rc = links_open(source, loop);
    if (rc) {
        snprintf(err, err_size, "out of memory");
        goto fail;
    }
    endpoint_open_source(&source->end, loop, &source->base, PART_READER | PART_ADMIN, &endpoint_ops,
                         source);
    endpoint_hold(&source->end); /* the links */
    endpoint_hold(&source->end);
    endpoint_timer(&source->end, &source->lease_timer);
    endpoint_timer(&source->end, &source->again_timer);
    endpoint_timer(&source->end, &source->lag_timer);
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

    source->intake.credit = (struct credit_left){n, n_bytes};
    endpoint_pump_soon(&source->end);
}

static void redis_source_ack(struct source *base, struct message *message)
{
    struct redis_source *source = self(base);
    struct taken *taken = (struct taken *)message;

    taken_remove(&source->intake.given, taken);
    taken_push(&source->ack_wait, taken);
    endpoint_pump_soon(&source->end);
}

static void redis_source_release(struct source *base, struct message *message)
{
    struct redis_source *source = self(base);

    taken_remove(&source->intake.given, (struct taken *)message);
    /* Acked by the sink's script it is gone there; else it stays pending and is claimed later. */
    redis_consumer_forget(source, (struct redis_entry *)message);
}

static void redis_source_close(struct source *base, uint64_t deadline_ms, void (*closed)(void *ctx),
                               void *ctx)
{
    if (base)
        endpoint_close(&self(base)->end, deadline_ms, closed, ctx);
}

const struct source_ops redis_source_ops = {
    .open = redis_source_open,
    .request = redis_source_request,
    .ack = redis_source_ack,
    .release = redis_source_release,
    .close = redis_source_close,
    .check = redis_config_check,
};
