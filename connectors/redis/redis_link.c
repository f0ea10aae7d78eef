/*
 * redis_link.c: see redis_link.h.
 *
 * Owns:    a link, which lives as long as its owner, and what follows what: on_event.
 * Refuses: the steps themselves: redis_connect.c, redis_sentinel.c, redis_hello.c; bytes:
 *          redis_connection.c. Each ends in an event.
 * Threads: the loop thread.
 */
#include "connectors/redis/redis_link_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/redis/redis_reply.h"

#define SETTLE_MS       1000 /* a connection that lasts so long is a good one */
#define PROVEN_ATTEMPTS 3    /* backoff after one that worked and did not last: below 1 s */

static void on_wait_over(uv_timer_t *timer)
{
    struct redis_link *link = timer->data;

    if (link->url->master) {
        redis_sentinel_start(link);
        return;
    }
    if (link->url->is_cluster) {
        redis_cluster_start(link);
        return;
    }
    link->host = link->url->host;
    link->port = link->url->port;
    redis_connect_start(link);
}

/* The name of the link, and the one server, sentinel or node behind it that this is about. */
static void link_where(const struct redis_link *link, char *out, size_t size)
{
    char address[120];

    snprintf(out, size, "%s", link->where);
    if ((!link->url->master && !link->url->is_cluster) || !link->host)
        return;
    redis_address_print(link->host, link->port, address, sizeof(address));
    if (link->url->is_cluster)
        snprintf(out, size, "%s: node %s", link->where, address);
    else
        snprintf(out, size, "%s: %s %s", link->where, link->asking ? "sentinel" : "master",
                 address);
}

/* Another sentinel or node can be asked in this attempt. */
static bool ask_next(struct redis_link *link)
{
    if (!link->asking)
        return false;
    return link->url->is_cluster ? redis_cluster_next(link) : redis_sentinel_next(link);
}

/* Where the slot has moved is tried at once; should that lead round in circles, after pauses. */
static uint64_t pause_of(struct redis_link *link)
{
    if (!link->is_moving || link->backoff.attempts)
        return backoff_next(&link->backoff);
    /* One free try: should it be moved on again at once, the pauses begin. */
    link->backoff.attempts = 1;
    return 0;
}

/* This attempt or connection is over; the next one comes after a pause. */
static void link_lost(struct redis_link *link, const char *why)
{
    char text[HEALTH_WHY_SIZE], where[360];

    /* The end of a connection is reported by more than one part of it. */
    if (link->phase >= PHASE_FAILED)
        return;
    link_where(link, where, sizeof(where));
    /* Another sentinel or node is being asked: the attempt goes on, and nobody hears of it. */
    if (ask_next(link))
        return;
    snprintf(text, sizeof(text), "redis %s: %.300s" REDIS_LINK_RETRIES, where, why);
    /* A server that takes connections and drops them is not reported as good before one has
     * lasted. */
    link->flaky = link->phase == PHASE_READY && !link->settled;
    if (link->proven && link->backoff.attempts > PROVEN_ATTEMPTS)
        link->backoff.attempts = PROVEN_ATTEMPTS;
    link->proven = link->settled = false;
    uv_timer_stop(&link->settle_timer);
    link->phase = PHASE_WAIT;
    redis_connect_forget(link);
    redis_connection_detach(link);
    redis_cluster_lose(link);
    if (link->phase != PHASE_WAIT) /* a callback closed us */
        return;
    uv_timer_start(&link->timer, on_wait_over, pause_of(link), 0);
    /* Last: the owner may close the link in it. */
    link->events->on_lost(link->ctx, text);
}

static void link_refused(struct redis_link *link, const char *why)
{
    char text[HEALTH_WHY_SIZE], where[360];

    link_where(link, where, sizeof(where));
    snprintf(text, sizeof(text), "redis %s: %.300s", where, why);
    link->phase = PHASE_FAILED;
    uv_timer_stop(&link->timer);
    uv_timer_stop(&link->settle_timer);
    redis_connect_forget(link);
    redis_connection_detach(link);
    redis_cluster_lose(link);
    /* A callback above may have closed us. */
    if (link->phase == PHASE_FAILED)
        link->events->on_failed(link->ctx, -EACCES, text);
}

int redis_link_send(struct redis_link *link, const struct bytes *args, size_t n, uint64_t extra_ms,
                    redis_reply_cb cb, void *arg)
{
    if (link->phase != PHASE_READY)
        return -ENOTCONN;
    if (link->url->is_cluster)
        return redis_cluster_send(link, args, n, extra_ms, cb, arg);
    return redis_connection_command(link, args, n, (struct redis_due){cb, arg, 0, extra_ms});
}

/* ---- ready */

static void on_settle(uv_timer_t *timer)
{
    struct redis_link *link = timer->data;
    bool was_flaky = link->flaky;

    /* A server that takes commands and answers none has not settled. */
    if (!link->proven && redis_wire_oldest(&link->conn->wire))
        return; /* not one answer yet; looked at again */
    uv_timer_stop(timer);
    link->settled = true;
    link->flaky = false;
    link->backoff.attempts = 0;
    if (was_flaky)
        link->events->on_good(link->ctx);
}

static void link_serve(struct redis_link *link)
{
    link->phase = PHASE_READY;
    uv_timer_start(&link->settle_timer, on_settle, SETTLE_MS, SETTLE_MS);
    redis_connect_forget(link);
    uv_timer_stop(&link->timer);
    if (!link->flaky)
        link->events->on_good(link->ctx);
    /* Unless on_good has closed it. */
    if (link->phase == PHASE_READY)
        link->events->on_ready(link->ctx);
}

/* ---- what follows what */

static void on_event(struct redis_link *link, enum link_event event, const char *why)
{
    switch (event) {
    case LINK_CONNECTED:
        if (!link->asking)
            redis_hello_send(link);
        else if (link->url->is_cluster)
            redis_cluster_ask(link);
        else
            redis_sentinel_ask(link);
        return;
    case LINK_MASTER:
        link->host = link->master;
        link->asking = false;
        redis_connect_forget(link);
        /* From the sentinel or node that was asked: the server is another connection. */
        redis_connection_detach(link);
        redis_connect_start(link);
        return;
    case LINK_GREETED:
        link_serve(link);
        return;
    case LINK_LOST:
        link_lost(link, why);
        return;
    case LINK_REFUSED:
        link_refused(link, why);
    }
}

/* ---- the owner's side */

int redis_link_open(struct redis_link **out, uv_loop_t *loop,
                    const struct redis_link_options *options,
                    const struct redis_link_events *events, void *ctx)
{
    struct redis_link *link = calloc(1, sizeof(*link));

    assert(!options->url->is_cluster || (options->slot >= 0 && options->detour));
    if (!link)
        return -ENOMEM;
    link->loop = loop;
    link->url = options->url;
    link->tls = options->tls;
    link->events = events;
    link->ctx = ctx;
    link->on_event = on_event;
    link->timeout_ms = options->timeout_ms;
    link->slot = options->url->is_cluster ? options->slot : -1;
    link->detours = options->detour;
    TAILQ_INIT(&link->kept);
    redis_url_print(link->url, link->where, sizeof(link->where));
    /* A client name may hold printable characters without spaces only. */
    for (size_t i = 0; options->name[i] && i < sizeof(link->name) - 1; i++)
        link->name[i] = options->name[i] > ' ' && options->name[i] <= '~' ? options->name[i] : '_';
    uv_timer_init(loop, &link->timer);
    link->timer.data = link;
    uv_timer_init(loop, &link->settle_timer);
    link->settle_timer.data = link;
    link->n_handles = 2;
    uv_timer_start(&link->timer, on_wait_over, 0, 0);
    *out = link;
    return 0;
}

bool redis_link_ready(const struct redis_link *link)
{
    return link && link->phase == PHASE_READY;
}

uint64_t redis_link_client_id(const struct redis_link *link)
{
    return link->client_id;
}

const char *redis_link_run_id(const struct redis_link *link)
{
    return link->run_id;
}

bool redis_link_is_moving(const struct redis_link *link)
{
    return link->is_moving;
}

void redis_link_print_server(const struct redis_link *link, char *out, size_t size)
{
    if (link->host)
        redis_address_print(link->host, link->port, out, size);
    else
        snprintf(out, size, "%s", link->where);
}

size_t redis_link_backlog(const struct redis_link *link)
{
    const struct connection *conn = link->conn;

    if (!conn)
        return 0;
    /* Kept commands may have to be sent again, so their bytes count until they are answered. */
    if (link->url->is_cluster)
        return link->n_kept_bytes;
    return conn->wire.out.len + (conn->writing ? conn->wire.away.len : 0);
}

void redis_link_cork(struct redis_link *link, bool is_corked)
{
    link->is_corked = is_corked;
    if (!is_corked && redis_link_ready(link))
        redis_connection_flush(link->conn);
}

void redis_link_good(struct redis_link *link)
{
    link->proven = true;
}

void redis_link_drop(struct redis_link *link, const char *why)
{
    if (link->phase > PHASE_WAIT && link->phase < PHASE_FAILED)
        link_lost(link, why);
}

static void on_timer_closed(uv_handle_t *handle)
{
    redis_connection_unref(handle->data);
}

void redis_link_close(struct redis_link *link, void (*closed)(void *ctx), void *ctx)
{
    assert(link->phase != PHASE_CLOSING);
    link->phase = PHASE_CLOSING;
    link->closed = closed;
    link->closed_ctx = ctx;
    redis_connect_forget(link);
    redis_connection_detach(link);
    /* In this phase they are dropped without an answer. */
    redis_cluster_lose(link);
    uv_close((uv_handle_t *)&link->timer, on_timer_closed);
    uv_close((uv_handle_t *)&link->settle_timer, on_timer_closed);
}
