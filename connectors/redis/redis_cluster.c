/*
 * redis_cluster.c: which node of a cluster serves the slot of a link.
 *
 * Owns:    asking one node after the other at each attempt to connect: those of the URL, then those
 *          that an earlier answer named; keeping commands until they are answered; MOVED and ASK.
 * Refuses: to keep a map of all slots: a link has one slot (redis_tags.h). The node that an ASK
 *          names: redis_detour.c.
 * Threads: the loop thread.
 * Why:     whatever ends a connection (the node died, was demoted, the slot was moved) leads to the
 *          same question, who has it now, and to the same answer to the owner of the link: the
 *          connection was lost, whether a command ran is unknown. So a source and a sink that
 *          survive a lost connection survive a failover, and know nothing of clusters. Each attempt
 *          begins with another node, because one that is cut off from the others still answers,
 *          with what was true before.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/redis/redis_fault.h"
#include "connectors/redis/redis_link_internal.h"
#include "connectors/redis/redis_reply.h"

/* ---- who serves the slot */

static void ask_this(struct redis_link *link)
{
    const struct redis_url *url = link->url;

    link->asking = true;
    if (link->node < url->n_nodes) {
        link->host = url->nodes[link->node].host;
        link->port = url->nodes[link->node].port;
    } else {
        link->host = link->nodes[link->node - url->n_nodes].host;
        link->port = link->nodes[link->node - url->n_nodes].port;
    }
    redis_connect_start(link);
}

static size_t n_known(const struct redis_link *link)
{
    return link->url->n_nodes + link->n_nodes;
}

void redis_cluster_start(struct redis_link *link)
{
    if (link->is_moving) { /* should it not be there either, the next attempt asks */
        link->is_moving = false;
        link->asking = false;
        snprintf(link->master, sizeof(link->master), "%s", link->moved_to.host);
        link->host = link->master;
        link->port = link->moved_to.port;
        redis_connect_start(link);
        return;
    }
    link->n_asked = 0;
    /* Nodes that were known before may be gone from the list. */
    link->node %= n_known(link);
    ask_this(link);
}

bool redis_cluster_next(struct redis_link *link)
{
    link->node = (link->node + 1) % n_known(link);
    if (++link->n_asked >= n_known(link))
        return false;
    redis_connect_forget(link);
    redis_connection_detach(link);
    ask_this(link);
    return true;
}

static void on_slots(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_link *link = arg;
    struct redis_node owner;
    char why[400], asked[REDIS_HOST_SIZE];
    (void)ctx;

    if (!reply)
        return;
    snprintf(asked, sizeof(asked), "%s", link->host); /* which may lie in link->nodes */
    if (reply->type == REDIS_REPLY_ERROR) {
        snprintf(why, sizeof(why), "%.200s (%s)", reply->str,
                 strstr(reply->str, "cluster support disabled")
                     ? "this server is not in a cluster; its URL is redis://"
                     : redis_fault_find(reply->str).advice);
        redis_link_event(link, LINK_LOST, why);
        return;
    }
    if (!redis_slot_owner(reply, link->slot, &owner)) {
        snprintf(why, sizeof(why), "no node serves slot %d (see CLUSTER INFO there)", link->slot);
        redis_link_event(link, LINK_LOST, why);
        return;
    }
    snprintf(link->master, sizeof(link->master), "%s", owner.host[0] ? owner.host : asked);
    link->port = owner.port;
    link->n_nodes = redis_slot_nodes(reply, link->nodes, NODES_MAX);
    for (size_t i = 0; i < link->n_nodes; i++)
        if (!link->nodes[i].host[0])
            snprintf(link->nodes[i].host, REDIS_HOST_SIZE, "%s", asked);
    /* The next attempt begins with another node: this one may be cut off from the others. */
    link->node++;
    redis_link_event(link, LINK_MASTER, NULL);
}

static void on_auth(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_link *link = arg;
    char why[400];
    (void)ctx;

    if (!reply || reply->type != REDIS_REPLY_ERROR)
        return;
    struct redis_fault fault = redis_fault_find(reply->str);
    snprintf(why, sizeof(why), "%.200s (%s)", reply->str, fault.advice);
    redis_link_event(link, fault.remedy == REMEDY_FATAL ? LINK_REFUSED : LINK_LOST, why);
}

void redis_cluster_ask(struct redis_link *link)
{
    const struct bytes ask[] = {bytes_of("CLUSTER"), bytes_of("SLOTS")};

    redis_connection_ask(link, on_auth, ask, 2, on_slots);
}

/* ---- commands */

static struct redis_kept *keep(struct redis_link *link, const struct bytes *args, size_t n)
{
    size_t size = sizeof(struct redis_kept) + n * sizeof(*args);
    struct redis_kept *kept;
    char *at;

    for (size_t i = 0; i < n; i++)
        size += args[i].len;
    kept = malloc(size);
    if (!kept)
        return NULL;
    *kept = (struct redis_kept){.link = link, .size = size, .n = n};
    /* The bytes lie behind the words, all in one piece of memory. */
    at = (char *)(kept->words + n);
    for (size_t i = 0; i < n; i++) {
        if (args[i].len)
            memcpy(at, args[i].ptr, args[i].len);
        kept->words[i] = (struct bytes){at, args[i].len};
        at += args[i].len;
    }
    return kept;
}

static void forget(struct redis_kept *kept)
{
    TAILQ_REMOVE(&kept->link->kept, kept, entry);
    kept->link->n_kept_bytes -= kept->size;
    free(kept);
}

static void finish(struct redis_kept *kept, const redisReply *reply)
{
    struct redis_link *link = kept->link;
    redis_reply_cb cb = kept->cb;
    void *arg = kept->arg;

    /* Before the callback, which may send the same again. */
    forget(kept);
    cb(link->ctx, arg, reply);
}

/* Everything that is out is lost with this connection; what moved is the first of it. */
static void moved(struct redis_link *link, const struct redis_node *to)
{
    char why[400], address[REDIS_HOST_SIZE + 16];

    redis_address_print(to->host, to->port, address, sizeof(address));
    snprintf(why, sizeof(why), "slot %d has moved to %s", link->slot, address);
    link->is_moving = true;
    link->moved_to = *to;
    redis_link_event(link, LINK_LOST, why);
}

void redis_cluster_answer(struct redis_kept *kept, const redisReply *reply)
{
    struct redis_link *link = kept->link;
    struct redis_redirect redirect;

    /* An error about another slot is no redirect of ours: the owner sees it. */
    if (reply->type != REDIS_REPLY_ERROR || !redis_slot_redirect(&redirect, reply->str) ||
        redirect.slot != link->slot) {
        finish(kept, reply);
        return;
    }
    if (!redirect.to.host[0])
        snprintf(redirect.to.host, sizeof(redirect.to.host), "%s", link->host);
    if (!redirect.is_ask)
        moved(link, &redirect.to);
    else if (kept->is_detoured || link->detours->ask(link, kept, &redirect.to) != 0)
        finish(kept, reply);
}

/* NULL: redis_cluster_lose answers all of them, in their order. */
static void on_reply(void *ctx, void *arg, const redisReply *reply)
{
    (void)ctx;

    if (reply)
        redis_cluster_answer(arg, reply);
}

int redis_cluster_send(struct redis_link *link, const struct bytes *args, size_t n,
                       uint64_t extra_ms, redis_reply_cb cb, void *arg)
{
    struct redis_kept *kept = keep(link, args, n);

    if (!kept)
        return -ENOMEM;
    kept->cb = cb;
    kept->arg = arg;
    kept->extra_ms = extra_ms;
    if (redis_connection_command(link, kept->words, n,
                                 (struct redis_due){on_reply, kept, 0, extra_ms})) {
        free(kept);
        return -ENOMEM;
    }
    TAILQ_INSERT_TAIL(&link->kept, kept, entry);
    link->n_kept_bytes += kept->size;
    return 0;
}

void redis_cluster_lose(struct redis_link *link)
{
    struct redis_kept *kept;

    /* First: no answer may come by it for what is finished here. */
    if (link->detour)
        link->detours->stop(link);
    while ((kept = TAILQ_FIRST(&link->kept))) {
        if (link->phase == PHASE_CLOSING)
            forget(kept);
        else
            finish(kept, NULL);
    }
}
