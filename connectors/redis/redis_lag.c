/*
 * redis_lag.c: how much of each stream still waits for the group.
 *
 * Owns:    asking XINFO GROUPS every few seconds, and telling what it says.
 * Refuses: making a failure of it: without an answer the lag is unknown, the work goes on.
 * Threads: the loop thread.
 * Why:     the group's `lag` (entries never given to anyone) and its pending ones are together what
 *          is not done. Redis before 7 tells no lag, and after an XDEL in the middle of the stream
 *          it is unknown until the group has passed that place.
 */
#include <string.h>

#include "connectors/redis/redis_source.h"

#define LAG_EVERY_MS 5000

static int64_t lag_of(const struct redis_source *source, const redisReply *reply)
{
    for (size_t i = 0; redis_reply_is_array(reply) && i < reply->elements; i++) {
        const redisReply *name = redis_reply_field(reply->element[i], "name");
        const redisReply *lag = redis_reply_field(reply->element[i], "lag");
        const redisReply *pending = redis_reply_field(reply->element[i], "pending");
        if (!redis_reply_is_text(name) || strcmp(name->str, source->config.group) != 0)
            continue;
        if (!lag || lag->type != REDIS_REPLY_INTEGER || !pending ||
            pending->type != REDIS_REPLY_INTEGER || lag->integer < 0)
            return -1;
        return lag->integer + pending->integer;
    }
    return -1;
}

static void on_lag(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_source *source = ctx;
    const struct source_events *events = source->base.events;
    const struct redis_stream *stream = arg;

    source->n_lags_asked--;
    if (source->closing || source->failed)
        return;
    /* A user that may not ask is not asked about again. */
    if (redis_reply_is_error(reply, "NOPERM"))
        source->lag_denied = true;
    if (events->on_lag)
        events->on_lag(source->base.ctx, stream->name, lag_of(source, reply));
}

/* What was told last is no longer true. */
static void tell_unknown(const struct redis_source *source)
{
    const struct redis_streams *streams = &source->config.streams;

    for (size_t i = 0; i < streams->n; i++)
        source->base.events->on_lag(source->base.ctx, streams->items[i].name, -1);
}

static void on_lag_due(uv_timer_t *timer)
{
    struct redis_source *source = timer->data;
    const struct redis_streams *streams = &source->config.streams;
    struct redis_args *args = &source->args;

    if (source->closing || source->failed)
        return;
    if (!redis_link_ready(source->admin)) {
        tell_unknown(source);
        return;
    }
    if (source->n_lags_asked || source->lag_denied || !source->group_ok)
        return;
    for (size_t i = 0; i < streams->n; i++) {
        redis_args_reset(args);
        redis_args_text(args, "XINFO");
        redis_args_text(args, "GROUPS");
        redis_args_text(args, streams->items[i].name);
        source->n_lags_asked +=
            redis_source_send(source, source->admin, 0, on_lag, &streams->items[i]);
    }
}

void redis_lag_start(struct redis_source *source)
{
    if (source->base.events->on_lag)
        uv_timer_start(&source->lag_timer, on_lag_due, 1000, LAG_EVERY_MS);
}
