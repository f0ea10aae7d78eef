/*
 * redis_detour.c: see redis_detour.h.
 */
#include "connectors/redis/redis_detour.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/redis/redis_link_internal.h"
#include "connectors/redis/redis_reply.h"

struct redis_detour {
    struct redis_link *link, *side; /* side: to the other node */
    struct redis_url url;           /* of that; its texts are borrowed from link->url */
    char host[REDIS_HOST_SIZE];
};

/* One that fails is answered by what follows it. */
static void on_asking(void *ctx, void *arg, const redisReply *reply)
{
    (void)ctx;
    (void)arg;
    (void)reply;
}

/* NULL: on_lost follows. */
static void on_reply(void *ctx, void *arg, const redisReply *reply)
{
    (void)ctx;

    if (reply)
        redis_cluster_answer(arg, reply);
}

/* Commands that could not be sent for want of memory go with the link. */
static void send_this(struct redis_detour *detour, struct redis_kept *kept)
{
    const struct bytes asking[] = {bytes_of("ASKING")};

    kept->is_sent = true;
    if (redis_link_send(detour->side, asking, 1, 0, on_asking, NULL) ||
        redis_link_send(detour->side, kept->words, kept->n, kept->extra_ms, on_reply, kept))
        redis_link_drop(detour->side, "no memory");
}

static void on_ready(void *ctx)
{
    struct redis_detour *detour = ctx;
    struct redis_kept *kept, *next;

    for (kept = TAILQ_FIRST(&detour->link->kept); kept; kept = next) {
        next = TAILQ_NEXT(kept, entry);
        if (!kept->is_detoured || kept->is_sent)
            continue;
        send_this(detour, kept);
        if (detour->link->detour != detour) /* it was dropped, and we with it */
            return;
    }
}

/* Nobody but us would notice: so the link is lost, and all that waits with it. */
static void on_lost(void *ctx, const char *why)
{
    struct redis_detour *detour = ctx;
    struct redis_link *link = detour->link;
    const struct redis_kept *kept;
    char text[400];

    snprintf(text, sizeof(text), "where the cluster is moving slot %d: %.300s", link->slot, why);
    TAILQ_FOREACH(kept, &link->kept, entry)
    if (kept->is_detoured) {
        redis_link_event(link, LINK_LOST, text);
        return;
    }
    /* Nothing waits for it: the link itself goes on. */
    link->detours->stop(link);
}

static void on_good(void *ctx)
{
    (void)ctx;
}

static void on_failed(void *ctx, int err, const char *why)
{
    (void)err;
    on_lost(ctx, why);
}

static const struct redis_link_events events = {on_ready, on_lost, on_good, on_failed};

static int detour_open(struct redis_link *link, const struct redis_node *to)
{
    struct redis_detour *detour = calloc(1, sizeof(*detour));
    struct redis_link_options options = {
        .tls = link->tls, .name = link->name, .timeout_ms = link->timeout_ms};

    if (!detour)
        return -ENOMEM;
    detour->link = link;
    snprintf(detour->host, sizeof(detour->host), "%s", to->host);
    detour->url = (struct redis_url){.host = detour->host,
                                     .port = to->port,
                                     .user = link->url->user,
                                     .password = link->url->password,
                                     .tls = link->url->tls};
    options.url = &detour->url;
    int rc = redis_link_open(&detour->side, link->loop, &options, &events, detour);
    if (rc) {
        free(detour);
        return rc;
    }
    link->n_handles++; /* the link outlives it */
    link->detour = detour;
    return 0;
}

static void on_closed(void *ctx)
{
    struct redis_detour *detour = ctx;
    struct redis_link *link = detour->link;

    free(detour);
    redis_connection_unref(link);
}

static void detour_stop(struct redis_link *link)
{
    struct redis_detour *detour = link->detour;

    if (!detour)
        return;
    link->detour = NULL;
    redis_link_close(detour->side, on_closed, detour);
}

static int detour_ask(struct redis_link *link, struct redis_kept *kept, const struct redis_node *to)
{
    const struct redis_detour *open = link->detour;

    /* A slot moves to one node at a time. */
    if (open && (open->url.port != to->port || strcmp(open->host, to->host) != 0)) {
        redis_link_event(link, LINK_LOST, "the cluster moves the slot to another node now");
        return 0;
    }
    int rc = open ? 0 : detour_open(link, to);
    if (rc)
        return rc;
    /* It stays in its place among the kept: only its answer comes another way. */
    kept->is_detoured = true;
    if (redis_link_ready(link->detour->side))
        send_this(link->detour, kept);
    return 0;
}

const struct redis_detour_ops redis_detour_ops = {detour_ask, detour_stop};
