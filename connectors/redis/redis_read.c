/*
 * redis_read.c: what is new in the streams of a source.
 *
 * Owns:    XREADGROUP: which streams it reads, how much of each and how long it waits; waking it.
 * Refuses: what is pending already: redis_claim.c.
 * Threads: the loop thread.
 * Why:     Redis gives up to COUNT entries of every stream it is asked for. So the credit is shared
 *          out among them: a busy stream gets its share and no more, a quiet one is served with the
 *          next read, and what comes is never more than was wanted. When there is less credit than
 *          streams, they take turns.
 */
#include <string.h>

#include "connectors/redis/redis_source.h"

#define READ_MAX 512 /* entries in one read */
#define TURN_MS  50  /* nothing anywhere: a read of some streams waits this long for them */

/* Of one read. A server that never finds the client (a proxy is in between) is not asked without
 * end. */
#define WAKES_MAX 5

/* [stream, [[id, [name, value, ...]], ...]] */
static bool take_stream(struct redis_source *source, const redisReply *reply)
{
    const redisReply *key = redis_reply_at(reply, 0), *entries = redis_reply_at(reply, 1);
    const struct redis_stream *stream;

    if (!redis_reply_is_text(key) || !redis_reply_is_array(entries))
        return false;
    stream = redis_streams_find(&source->config.streams, (struct bytes){key->str, key->len});
    if (!stream)
        return false;
    for (size_t i = 0; i < entries->elements; i++) {
        const redisReply *name = redis_reply_at(entries->element[i], 0);
        struct redis_id id;
        if (!redis_reply_is_text(name) || !redis_id_parse(&id, name->str, name->len) ||
            !redis_consumer_take(source, stream, id, redis_reply_at(entries->element[i], 1), 1))
            return false;
    }
    return true;
}

static bool take_all(struct redis_source *source, const redisReply *reply)
{
    if (!redis_reply_is_array(reply) || !reply->elements)
        return false;
    for (size_t i = 0; i < reply->elements; i++)
        if (!take_stream(source, reply->element[i]))
            return false;
    return true;
}

static void on_read(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_source *source = ctx;
    struct redis_turns *turns = &source->turns;
    (void)arg;

    source->read = READ_IDLE;
    if (source->end.closing) { /* what came now is not worked on any more: it is given back */
        if (reply && reply->type != REDIS_REPLY_ERROR && reply->type != REDIS_REPLY_NIL)
            take_all(source, reply);
        endpoint_pump(&source->end);
        return;
    }
    if (!reply || source->end.failed)
        return;
    if (reply->type == REDIS_REPLY_ERROR) {
        redis_consumer_fault(source, source->reader, PART_READ, source->config.streams.list,
                             reply->str);
        return;
    }
    if (reply->type != REDIS_REPLY_NIL && !take_all(source, reply)) {
        redis_link_drop(source->reader, "its answer to XREADGROUP cannot be read");
        return;
    }
    turns->n_empty = reply->type == REDIS_REPLY_NIL ? turns->n_empty + turns->n : 0;
    /* The next read begins behind the streams of this one. */
    turns->first = (turns->first + turns->n) % source->config.streams.n;
    redis_consumer_good(source, source->reader, PART_READ);
    endpoint_pump(&source->end);
}

void redis_read_send(struct redis_source *source)
{
    const struct redis_streams *streams = &source->config.streams;
    struct redis_turns *turns = &source->turns;
    struct redis_args *args = &source->args;
    size_t want = redis_consumer_want(source);
    uint64_t block_ms = REDIS_BLOCK_MS;

    if (want > READ_MAX)
        want = READ_MAX;
    turns->n = want < streams->n ? want : streams->n;
    /* The streams of the next turn may have something: no waiting before all were asked. */
    if (turns->n < streams->n)
        block_ms = turns->n_empty < streams->n ? 0 : TURN_MS;
    /* By the same connection, just before: nothing is read in between. */
    redis_survey_before_read(source, turns->first, turns->n);
    redis_args_reset(args);
    redis_args_text(args, "XREADGROUP");
    redis_args_text(args, "GROUP");
    redis_args_text(args, source->config.group);
    redis_args_text(args, source->consumer);
    redis_args_text(args, "COUNT");
    /* COUNT is for each stream; at least 1, for there are no more turns than entries wanted. */
    redis_args_number(args, want / turns->n);
    if (block_ms) {
        redis_args_text(args, "BLOCK");
        redis_args_number(args, block_ms);
    }
    redis_args_text(args, "STREAMS");
    for (size_t i = 0; i < turns->n; i++)
        redis_args_text(args, streams->items[(turns->first + i) % streams->n].name);
    for (size_t i = 0; i < turns->n; i++)
        redis_args_text(args, ">");
    if (redis_consumer_send(source, source->reader, block_ms, on_read, NULL))
        source->read = READ_SENT;
    source->n_wakes = 0;
}

/* 0: the server had this before the read, which then waits all the same; or the read is over. */
static void on_woken(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_source *source = ctx;
    (void)arg;

    if (source->read != READ_WAKING ||
        (reply && reply->type == REDIS_REPLY_INTEGER && reply->integer))
        return;
    source->read = READ_SENT;
    if (reply && reply->type == REDIS_REPLY_ERROR)
        /* This user may not, or the server cannot: it is not asked again for this read. */
        source->n_wakes = WAKES_MAX;
    endpoint_pump(&source->end);
}

void redis_read_wake(struct redis_source *source)
{
    uint64_t id = redis_link_client_id(source->reader);

    /* Its number means another client on another node of a cluster. */
    if (!id || source->n_wakes >= WAKES_MAX || !redis_link_ready(source->admin) ||
        (source->config.url.is_cluster &&
         strcmp(redis_link_run_id(source->reader), redis_link_run_id(source->admin)) != 0))
        return;
    redis_args_reset(&source->args);
    redis_args_text(&source->args, "CLIENT");
    redis_args_text(&source->args, "UNBLOCK");
    redis_args_number(&source->args, id);
    source->n_wakes++;
    if (redis_consumer_send(source, source->admin, 0, on_woken, NULL))
        source->read = READ_WAKING;
}
