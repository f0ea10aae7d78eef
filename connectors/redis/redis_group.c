/*
 * redis_group.c: the consumer group of each stream of a source.
 *
 * Owns:    making groups, and with them streams that are not there yet.
 * Refuses: to look first: making one that is there does nothing.
 * Threads: the loop thread.
 * Why:     all of them are made after every connect and whenever one is missed, because a read of
 *          several streams fails for the lack of one without saying which.
 */
#include <string.h>

#include "connectors/redis/redis_source.h"

static void on_group(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_source *source = ctx;
    const struct redis_stream *stream = arg;

    source->n_groups_asked--;
    if (!reply)
        return;
    if (redis_reply_is_error(reply, "NOPERM")) {
        source->group_denied = true; /* it may exist; the read will tell */
    } else if (reply->type == REDIS_REPLY_ERROR && !redis_reply_is_error(reply, "BUSYGROUP")) {
        source->groups_refused = true;
        redis_consumer_fault(source, source->admin, PART_GROUP, stream->name, reply->str);
        return;
    }
    redis_survey_on_group(source, stream, reply->type == REDIS_REPLY_STATUS);
    /* The last answer decides for all of them. */
    if (source->n_groups_asked || source->groups_refused)
        return;
    source->groups_are_there = true;
    source->survey_due = true;
    redis_survey_all(source);
    redis_consumer_good(source, source->admin, PART_GROUP);
    redis_claim_renew(source);
    endpoint_pump(&source->end);
}

void redis_group_make(struct redis_source *source)
{
    const struct redis_streams *streams = &source->config.streams;
    struct redis_args *args = &source->args;

    if (source->n_groups_asked)
        return;
    source->groups_refused = false;
    for (size_t i = 0; i < streams->n && !source->groups_refused; i++) {
        redis_args_reset(args);
        redis_args_text(args, "XGROUP");
        redis_args_text(args, "CREATE");
        redis_args_text(args, streams->items[i].name);
        redis_args_text(args, source->config.group);
        redis_args_text(args, "0"); /* from the start: what was there before us counts */
        redis_args_text(args, "MKSTREAM");
        source->groups_refused =
            !redis_consumer_send(source, source->admin, 0, on_group, &streams->items[i]);
        source->n_groups_asked += !source->groups_refused;
    }
}
