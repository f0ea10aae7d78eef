/*
 * redis_return.c: what is still with us when we stop goes back to the group.
 *
 * Owns:    the last commands of a source that closes in good order.
 * Refuses: to wait for a server that is away; what is not returned is claimed later.
 * Threads: the loop thread.
 * Why:     a message that a stopping worker did not finish has done nothing wrong: its delivery
 *          must not count towards max_deliveries, and nobody need wait until it has been idle for
 *          long enough.
 */
#include "connectors/redis/redis_script.h"
#include "connectors/redis/redis_source.h"

#define RETURN_MAX 512 /* ids in one script call */

static void on_returned(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_source *source = ctx;
    (void)arg;
    (void)reply; /* refused: as if we had died */

    source->n_returns--;
    endpoint_pump(&source->end);
}

static bool return_send(struct redis_source *source)
{
    if (!redis_consumer_send(source, source->admin, 0, on_returned, NULL))
        return false;
    source->n_returns++;
    return true;
}

static void return_stream(struct redis_source *source, const struct redis_stream *stream)
{
    const struct redis_entry *entry;
    struct redis_args *args = &source->args;
    size_t n = 0, at = 0;

    while ((entry = redis_table_next(&source->table, stream, &at))) {
        if (n++ % RETURN_MAX == 0) {
            if (n > 1 && !return_send(source))
                return;
            redis_args_reset(args);
            redis_args_text(args, "EVAL");
            redis_args_text(args, redis_script_return);
            redis_args_text(args, "1");
            redis_args_text(args, stream->name);
            redis_args_text(args, source->config.group);
            redis_args_text(args, source->consumer);
            redis_args_number(args, source->config.claim_idle_ms);
        }
        redis_args_add(args, entry->id_text);
    }
    if (n)
        return_send(source);
}

void redis_return_send(struct redis_source *source)
{
    const struct redis_streams *streams = &source->config.streams;

    /* Once, whatever comes of it. */
    source->returned = true;
    for (size_t i = 0; i < streams->n; i++)
        return_stream(source, &streams->items[i]);
}
