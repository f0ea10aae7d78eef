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

/* The connection or the command failed: what was sent is to be sent again, first. */
static void acks_again(struct redis_source *source)
{
    struct redis_queue rest = source->ack_wait;
    struct redis_entry *entry;

    source->ack_wait = source->ack_sent;
    source->ack_sent = (struct redis_queue){0};
    while ((entry = redis_queue_pop(&rest)))
        redis_queue_push(&source->ack_wait, entry);
}

static void on_acked(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_source *source = ctx;
    struct redis_entry *entry;
    (void)arg;

    if (!reply || reply->type == REDIS_REPLY_ERROR) {
        const char *stream = source->ack_sent.first->stream->name;
        acks_again(source);
        if (reply)
            redis_consumer_fault(source, source->admin, PART_ACK, stream, reply->str);
        return;
    }
    while ((entry = redis_queue_pop(&source->ack_sent)))
        redis_consumer_forget(source, entry);
    redis_consumer_good(source, source->admin, PART_ACK);
    endpoint_pump(&source->end);
}

void redis_ack_send(struct redis_source *source)
{
    const struct redis_stream *stream = source->ack_wait.first->stream;
    struct redis_args *args = &source->args;

    redis_args_reset(args);
    redis_args_text(args, "XACK");
    redis_args_text(args, stream->name);
    redis_args_text(args, source->config.group);
    for (size_t n = source->ack_wait.n; n && source->ack_sent.n < ACK_MAX; n--) {
        struct redis_entry *entry = redis_queue_pop(&source->ack_wait);
        if (entry->stream != stream) {
            redis_queue_push(&source->ack_wait, entry);
            continue;
        }
        redis_queue_push(&source->ack_sent, entry);
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
