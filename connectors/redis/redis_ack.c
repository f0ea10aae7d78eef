/*
 * redis_ack.c: acks to the group.
 *
 * Owns:    entries the pipeline is done with until the server has confirmed it: many ids of one
 *          stream in one XACK, one XACK at a time, sent again after a lost connection.
 * Refuses: acks that the sink's script has made already; those entries are released by the sink.
 * Threads: the loop thread.
 * Why:     an entry stays in the table until then, so that a reconnect in between does not offer it
 *          to the pipeline a second time.
 */
#include <stdio.h>

#include "connectors/redis/redis_source.h"

#define ACK_MAX 512 /* ids in one XACK */

static const struct redis_entry *first_of(const struct taken_list *list)
{
    return (const struct redis_entry *)list->first;
}

/* The connection or the command failed: what was sent is to be sent again, first. */
static void acks_again(struct redis_source *source)
{
    struct taken_list rest = source->ack_wait;
    struct taken *taken;

    source->ack_wait = source->ack_sent;
    source->ack_sent = (struct taken_list){0};
    while ((taken = taken_pop(&rest)))
        taken_push(&source->ack_wait, taken);
}

static void on_acked(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_source *source = ctx;
    struct taken *taken;
    (void)arg;

    if (!reply || reply->type == REDIS_REPLY_ERROR) {
        const char *stream = first_of(&source->ack_sent)->stream->name;
        acks_again(source);
        if (reply)
            redis_consumer_fault(source, source->admin, PART_ACK, stream, reply->str);
        return;
    }
    while ((taken = taken_pop(&source->ack_sent)))
        redis_consumer_forget(source, (struct redis_entry *)taken);
    redis_consumer_good(source, source->admin, PART_ACK);
    endpoint_pump(&source->end);
}

void redis_ack_send(struct redis_source *source)
{
    const struct redis_stream *stream = first_of(&source->ack_wait)->stream;
    struct redis_args *args = &source->args;

    redis_args_reset(args);
    redis_args_text(args, "XACK");
    redis_args_text(args, stream->name);
    redis_args_text(args, source->config.group);
    /* Each is looked at once: those of other streams go to the end of the list. */
    for (size_t n = source->ack_wait.n; n && source->ack_sent.n < ACK_MAX; n--) {
        struct taken *taken = taken_pop(&source->ack_wait);
        const struct redis_entry *entry = (const struct redis_entry *)taken;
        taken_push(entry->stream == stream ? &source->ack_sent : &source->ack_wait, taken);
        if (entry->stream != stream)
            continue;
        redis_args_add(args, entry->id_text);
    }
    if (!redis_consumer_send(source, source->admin, 0, on_acked, NULL))
        acks_again(source);
}

void redis_ack_report_rest(struct redis_source *source)
{
    size_t n = source->ack_wait.n + source->ack_sent.n;
    char why[300];

    if (!n)
        return;
    snprintf(why, sizeof(why),
             "stream %.100s: the server has not confirmed the ack of %zu messages to group %.60s",
             source->config.streams.list, n, source->config.group);
    endpoint_unflushed(&source->end, why);
}
