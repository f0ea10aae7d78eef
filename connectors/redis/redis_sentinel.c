/*
 * redis_sentinel.c: which server is the master now.
 *
 * Owns:    asking one sentinel after the other at each attempt to connect; the one that answered
 *          is asked first the next time.
 * Refuses: to remember a master: whatever was lost, the sentinels are asked again.
 * Threads: the loop thread.
 * Why:     a master that was demoted refuses writes and a dead one refuses connections; both lead
 *          to a new attempt, so nothing need listen to what sentinels publish.
 */
#include <stdio.h>

#include "connectors/redis/redis_link_internal.h"
#include "connectors/redis/redis_reply.h"

static void ask_this(struct redis_link *link)
{
    const struct redis_address *sentinel = &link->url->nodes[link->node];

    link->asking = true;
    link->host = sentinel->host;
    link->port = sentinel->port;
    redis_connect_start(link);
}

void redis_sentinel_start(struct redis_link *link)
{
    link->n_asked = 0;
    ask_this(link);
}

bool redis_sentinel_next(struct redis_link *link)
{
    link->node = (link->node + 1) % link->url->n_nodes;
    /* All have been asked in vain: the attempt is over. */
    if (++link->n_asked >= link->url->n_nodes)
        return false;
    redis_connect_forget(link);
    redis_connection_detach(link);
    ask_this(link);
    return true;
}

static void on_master(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_link *link = arg;
    char why[300];
    (void)ctx;

    if (!reply)
        return;
    if (redis_reply_master(reply, link->master, sizeof(link->master), &link->port)) {
        redis_link_event(link, LINK_MASTER, NULL);
        return;
    }
    if (reply->type == REDIS_REPLY_NIL)
        snprintf(why, sizeof(why), "it knows no master '%.100s' (see `sentinel monitor`)",
                 link->url->master);
    else if (reply->type == REDIS_REPLY_ERROR)
        snprintf(why, sizeof(why), "%.200s (is this a sentinel, with the password of redis.url?)",
                 reply->str);
    else
        snprintf(why, sizeof(why), "it did not name the master as a sentinel does");
    redis_link_event(link, LINK_LOST, why);
}

/* A sentinel without a password refuses ours and answers all the same. */
static void on_auth(void *ctx, void *arg, const redisReply *reply)
{
    (void)ctx;
    (void)arg;
    (void)reply;
}

void redis_sentinel_ask(struct redis_link *link)
{
    const struct bytes ask[] = {bytes_of("SENTINEL"), bytes_of("get-master-addr-by-name"),
                                bytes_of(link->url->master)};

    redis_connection_ask(link, on_auth, ask, 3, on_master);
}
