/*
 * redis_link.c: see redis_link.h.
 *
 * Owns:    a link (lives as long as its owner) and its connections (one at a time alive; a given-up
 *          one lives on until libuv has closed its handle).
 * Refuses: to free anything libuv still knows: memory goes in close callbacks only.
 * Threads: the loop thread.
 */
#include "connectors/redis_link_parts.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/redis_reply.h"

#define GRACE_MS        200  /* after a stall of our own, what has arrived is read first */
#define SETTLE_MS       1000 /* a connection that lasts so long is a good one */
#define PROVEN_ATTEMPTS 3    /* backoff after one that worked and did not last: below 1 s */
#define RETRY_PHRASE    "trying again, at most 10 s apart"

static void link_start(struct redis_link *link);
static void link_connect_next(struct redis_link *link, const char *why);

/* ---- the end of things */

static void link_unref(struct redis_link *link)
{
    if (--link->n_handles)
        return;
    void (*closed)(void *) = link->closed;
    void *ctx = link->closed_ctx;
    free(link);
    if (closed)
        closed(ctx);
}

static void on_connection_closed(uv_handle_t *handle)
{
    struct connection *conn = handle->data;
    struct redis_link *link = conn->link;

    redis_wire_close(&conn->wire);
    free(conn);
    link_unref(link);
}

/* Take the connection off the link. Its pending callbacks get NULL unless the link is closing. */
static void link_detach(struct redis_link *link)
{
    struct connection *conn = link->conn;

    if (!conn)
        return;
    link->conn = NULL;
    link->client_id = 0;
    conn->alive = false;
    uv_close(&conn->uv.handle, on_connection_closed);
    while (redis_wire_oldest(&conn->wire) && link->phase != PHASE_CLOSING) {
        struct redis_due due = redis_wire_take(&conn->wire);
        due.cb(link->ctx, due.arg, NULL);
    }
}

static void link_forget_addresses(struct redis_link *link)
{
    if (link->addresses)
        uv_freeaddrinfo(link->addresses);
    link->addresses = link->next_address = NULL;
    if (link->resolve) {
        link->resolve->link = NULL;
        uv_cancel((uv_req_t *)&link->resolve->req);
        link->resolve = NULL;
    }
}

static void on_wait_over(uv_timer_t *timer)
{
    link_start(timer->data);
}

/* This attempt or connection is over; the next one comes after a pause. */
void redis_link_lost(struct redis_link *link, const char *why)
{
    char text[480];

    if (link->phase >= PHASE_FAILED)
        return;
    snprintf(text, sizeof(text), "redis %s: %.230s; " RETRY_PHRASE, link->where, why);
    link->flaky = link->phase == PHASE_READY && !link->settled;
    if (link->proven && link->backoff.attempts > PROVEN_ATTEMPTS)
        link->backoff.attempts = PROVEN_ATTEMPTS;
    link->proven = link->settled = false;
    uv_timer_stop(&link->settle_timer);
    link->phase = PHASE_WAIT;
    link_forget_addresses(link);
    link_detach(link);
    if (link->phase != PHASE_WAIT) /* a callback closed us */
        return;
    uv_timer_start(&link->timer, on_wait_over, backoff_next(&link->backoff), 0);
    link->events->on_lost(link->ctx, text);
}

void redis_link_fail(struct redis_link *link, int err, const char *why)
{
    char text[520];

    snprintf(text, sizeof(text), "redis %s: %.300s", link->where, why);
    link->phase = PHASE_FAILED;
    uv_timer_stop(&link->timer);
    uv_timer_stop(&link->settle_timer);
    link_forget_addresses(link);
    link_detach(link);
    if (link->phase == PHASE_FAILED)
        link->events->on_failed(link->ctx, err, text);
}

/* ---- bytes out */

static void on_written(uv_write_t *req, int status);

static void link_flush(struct connection *conn)
{
    if (conn->writing || !conn->wire.out.len)
        return;
    redis_wire_turn(&conn->wire);
    /* uv_buf_init would cut the length to 32 bits. */
    uv_buf_t buf = {.base = conn->wire.away.ptr, .len = conn->wire.away.len};
    conn->writing = true;
    conn->unsent = buf.len;
    /* A failure is not told here, we may be inside a call of the owner: the read side or the
     * silence timer finds the same fault. */
    (void)uv_write(&conn->write, &conn->uv.stream, &buf, 1, on_written);
}

static void on_written(uv_write_t *req, int status)
{
    struct connection *conn = req->data;

    conn->writing = false;
    if (!conn->alive)
        return;
    if (status < 0) {
        redis_link_lost(conn->link, uv_strerror(status));
        return;
    }
    conn->active_ms = uv_now(conn->link->loop);
    link_flush(conn);
}

static void watch_silence(struct redis_link *link);

int redis_link_command(struct redis_link *link, const struct bytes *args, size_t n,
                       struct redis_due due)
{
    struct connection *conn = link->conn;

    due.sent_ms = uv_now(link->loop);
    if (redis_wire_command(&conn->wire, args, n, due))
        return -ENOMEM;
    link_flush(conn);
    if (conn->wire.n_due == 1)
        watch_silence(link);
    return 0;
}

int redis_link_send(struct redis_link *link, const struct bytes *args, size_t n, uint64_t extra_ms,
                    redis_reply_cb cb, void *arg)
{
    if (link->phase != PHASE_READY)
        return -ENOTCONN;
    return redis_link_command(link, args, n, (struct redis_due){cb, arg, 0, extra_ms});
}

/* ---- silence */

static void on_silence_check(uv_timer_t *timer)
{
    struct redis_link *link = timer->data;
    struct connection *conn = link->conn;

    if (!conn || !redis_wire_oldest(&conn->wire))
        return;
    size_t unsent = uv_stream_get_write_queue_size(&conn->uv.stream);
    if (conn->writing && unsent < conn->unsent) {
        conn->unsent = unsent;
        conn->active_ms = uv_now(link->loop);
    }
    watch_silence(link);
}

/* Arm the timer for the moment at which the oldest command is overdue. */
static void watch_silence(struct redis_link *link)
{
    struct connection *conn = link->conn;
    const struct redis_due *oldest = redis_wire_oldest(&conn->wire);
    uint64_t now = uv_now(link->loop), limit = link->timeout_ms + oldest->extra_ms;
    uint64_t since = oldest->sent_ms > conn->active_ms ? oldest->sent_ms : conn->active_ms;

    if (now < since + limit) {
        conn->warned = false;
        uv_timer_start(&link->timer, on_silence_check, since + limit - now, 0);
    } else if (!conn->warned) {
        /* Timers run before sockets: if it was us who slept, the reply may be waiting. */
        conn->warned = true;
        uv_timer_start(&link->timer, on_silence_check, GRACE_MS, 0);
    } else {
        char why[96];
        snprintf(why, sizeof(why), "no answer for %llu ms", (unsigned long long)limit);
        redis_link_lost(link, why);
    }
}

/* ---- bytes in */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct connection *conn = handle->data;

    (void)suggested;
    *buf = uv_buf_init(conn->in, sizeof(conn->in));
}

/* Hand one reply to the oldest command. */
static void link_reply(struct connection *conn, const redisReply *reply)
{
    struct redis_link *link = conn->link;

    if (!redis_wire_oldest(&conn->wire)) {
        bool is_error = reply->type == REDIS_REPLY_ERROR;
        redis_link_lost(link, is_error ? reply->str : "a reply nobody asked for");
        return;
    }
    struct redis_due due = redis_wire_take(&conn->wire);
    due.cb(link->ctx, due.arg, reply);
    if (conn->alive && redis_wire_oldest(&conn->wire))
        watch_silence(link);
    else if (conn->alive)
        uv_timer_stop(&link->timer);
}

static void on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
    struct connection *conn = stream->data;
    void *reply = NULL;

    if (!conn->alive || nread == 0)
        return;
    if (nread < 0) {
        bool is_end = nread == UV_EOF;
        redis_link_lost(conn->link,
                        is_end ? "the server closed the connection" : uv_strerror((int)nread));
        return;
    }
    conn->active_ms = uv_now(conn->link->loop);
    conn->warned = false;
    if (redisReaderFeed(conn->wire.reader, buf->base, (size_t)nread) != REDIS_OK) {
        redis_link_lost(conn->link, "no memory for a reply");
        return;
    }
    while (conn->alive) {
        if (redisReaderGetReply(conn->wire.reader, &reply) != REDIS_OK) {
            redis_link_lost(conn->link, "what it sends is not the Redis protocol");
            return;
        }
        if (!reply)
            return;
        link_reply(conn, reply);
        freeReplyObject(reply);
    }
}

/* ---- ready */

static void on_settle(uv_timer_t *timer)
{
    struct redis_link *link = timer->data;
    bool was_flaky = link->flaky;

    if (!link->proven && redis_wire_oldest(&link->conn->wire))
        return; /* not one answer yet; looked at again */
    uv_timer_stop(timer);
    link->settled = true;
    link->flaky = false;
    link->backoff.attempts = 0;
    if (was_flaky)
        link->events->on_good(link->ctx);
}

void redis_link_serve(struct redis_link *link)
{
    link->phase = PHASE_READY;
    uv_timer_start(&link->settle_timer, on_settle, SETTLE_MS, SETTLE_MS);
    link_forget_addresses(link);
    uv_timer_stop(&link->timer);
    if (!link->flaky)
        link->events->on_good(link->ctx);
    if (link->phase == PHASE_READY)
        link->events->on_ready(link->ctx);
}

/* ---- connecting */

static void on_connect_timeout(uv_timer_t *timer)
{
    struct redis_link *link = timer->data;

    if (link->phase == PHASE_RESOLVE)
        redis_link_lost(link, "the name server does not answer");
    else
        link_connect_next(link, "no answer to connecting");
}

static void on_connected(uv_connect_t *req, int status)
{
    struct connection *conn = req->data;
    struct redis_link *link = conn->link;

    if (!conn->alive)
        return;
    if (status < 0) {
        link_connect_next(link, uv_strerror(status));
        return;
    }
    int rc = uv_read_start(&conn->uv.stream, on_alloc, on_read);
    if (rc < 0) {
        link_connect_next(link, uv_strerror(rc));
        return;
    }
    if (link->url->host) {
        uv_tcp_nodelay(&conn->uv.tcp, 1);
        uv_tcp_keepalive(&conn->uv.tcp, 1, 15);
    }
    conn->active_ms = uv_now(link->loop);
    redis_hello_send(link);
}

/* A fresh connection with its handle initialised; NULL: no memory. */
static struct connection *connection_open(struct redis_link *link)
{
    struct connection *conn = calloc(1, sizeof(*conn));

    if (!conn)
        return NULL;
    if (redis_wire_open(&conn->wire))
        goto fail;
    if (link->url->host ? uv_tcp_init(link->loop, &conn->uv.tcp)
                        : uv_pipe_init(link->loop, &conn->uv.pipe, 0))
        goto fail;
    conn->link = link;
    conn->alive = true;
    conn->uv.handle.data = conn;
    conn->connect.data = conn;
    conn->write.data = conn;
    link->n_handles++;
    link->conn = conn;
    return conn;
fail:
    redis_wire_close(&conn->wire);
    free(conn);
    return NULL;
}

/* Try the next address; why: what became of the one before. */
static void link_connect_next(struct redis_link *link, const char *why)
{
    link_detach(link);
    while (link->next_address) {
        const struct addrinfo *address = link->next_address;
        link->next_address = address->ai_next;
        struct connection *conn = connection_open(link);
        if (!conn)
            break;
        link->phase = PHASE_CONNECT;
        int rc = uv_tcp_connect(&conn->connect, &conn->uv.tcp, address->ai_addr, on_connected);
        if (rc == 0) {
            uv_timer_start(&link->timer, on_connect_timeout, link->timeout_ms, 0);
            return;
        }
        why = uv_strerror(rc);
        link_detach(link);
    }
    redis_link_lost(link, why);
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *addresses)
{
    struct resolve *resolve = req->data;
    struct redis_link *link = resolve->link;
    char why[128];

    free(resolve);
    if (!link) {
        uv_freeaddrinfo(addresses);
        return;
    }
    link->resolve = NULL;
    if (status < 0) {
        snprintf(why, sizeof(why), "the name cannot be resolved: %s", uv_strerror(status));
        redis_link_lost(link, why);
        return;
    }
    link->addresses = link->next_address = addresses;
    link_connect_next(link, "no address");
}

static int link_resolve(struct redis_link *link)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
    struct resolve *resolve = calloc(1, sizeof(*resolve));
    char port[8];

    if (!resolve)
        return -ENOMEM;
    snprintf(port, sizeof(port), "%d", link->url->port);
    resolve->link = link;
    resolve->req.data = resolve;
    int rc = uv_getaddrinfo(link->loop, &resolve->req, on_resolved, link->url->host, port, &hints);
    if (rc < 0) {
        free(resolve);
        return rc;
    }
    link->resolve = resolve;
    link->phase = PHASE_RESOLVE;
    uv_timer_start(&link->timer, on_connect_timeout, link->timeout_ms, 0);
    return 0;
}

static void link_start(struct redis_link *link)
{
    struct connection *conn;
    int rc;

    if (link->url->host) {
        rc = link_resolve(link);
        if (rc < 0)
            redis_link_lost(link, uv_strerror(rc));
        return;
    }
    conn = connection_open(link);
    if (!conn) {
        redis_link_lost(link, "no memory");
        return;
    }
    link->phase = PHASE_CONNECT;
    uv_timer_start(&link->timer, on_connect_timeout, link->timeout_ms, 0);
    uv_pipe_connect(&conn->connect, &conn->uv.pipe, link->url->path, on_connected);
}

/* ---- the owner's side */

int redis_link_open(struct redis_link **out, uv_loop_t *loop,
                    const struct redis_link_options *options,
                    const struct redis_link_events *events, void *ctx)
{
    struct redis_link *link = calloc(1, sizeof(*link));

    if (!link)
        return -ENOMEM;
    link->loop = loop;
    link->url = options->url;
    link->events = events;
    link->ctx = ctx;
    link->timeout_ms = options->timeout_ms;
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

size_t redis_link_backlog(const struct redis_link *link)
{
    const struct connection *conn = link->conn;

    if (!conn)
        return 0;
    return conn->wire.out.len + (conn->writing ? conn->wire.away.len : 0);
}

void redis_link_good(struct redis_link *link)
{
    link->proven = true;
}

void redis_link_drop(struct redis_link *link, const char *why)
{
    if (link->phase > PHASE_WAIT && link->phase < PHASE_FAILED)
        redis_link_lost(link, why);
}

static void on_timer_closed(uv_handle_t *handle)
{
    link_unref(handle->data);
}

void redis_link_close(struct redis_link *link, void (*closed)(void *ctx), void *ctx)
{
    assert(link->phase != PHASE_CLOSING);
    link->phase = PHASE_CLOSING;
    link->closed = closed;
    link->closed_ctx = ctx;
    link_forget_addresses(link);
    link_detach(link);
    uv_close((uv_handle_t *)&link->timer, on_timer_closed);
    uv_close((uv_handle_t *)&link->settle_timer, on_timer_closed);
}
