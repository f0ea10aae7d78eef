/*
 * redis_link.c: see redis_link.h.
 *
 * Owns:    a link (lives as long as its owner) and its connections (one at a time alive; a given-up
 *          one lives on until libuv has closed its handle).
 * Refuses: to free anything libuv still knows: memory goes in close callbacks only.
 * Threads: the loop thread.
 */
#include "connectors/redis/redis_link_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/redis/redis_reply.h"

#define GRACE_MS        200  /* after a stall of our own, what has arrived is read first */
#define SETTLE_MS       1000 /* a connection that lasts so long is a good one */
#define PROVEN_ATTEMPTS 3    /* backoff after one that worked and did not last: below 1 s */

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
    tls_close(conn->tls);
    free(conn);
    link_unref(link);
}

/* Take the connection off the link. Its pending callbacks get NULL unless the link is closing. */
void redis_link_detach(struct redis_link *link)
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

static void on_wait_over(uv_timer_t *timer)
{
    struct redis_link *link = timer->data;

    if (link->url->master) {
        redis_sentinel_start(link);
        return;
    }
    link->host = link->url->host;
    link->port = link->url->port;
    redis_connect_start(link);
}

/* The name of the link, and the one server or sentinel behind it that this is about. */
static void link_where(const struct redis_link *link, char *out, size_t size)
{
    char address[120];

    snprintf(out, size, "%s", link->where);
    if (!link->url->master || !link->host)
        return;
    redis_address_print(link->host, link->port, address, sizeof(address));
    snprintf(out, size, "%s: %s %s", link->where, link->asking ? "sentinel" : "master", address);
}

/* This attempt or connection is over; the next one comes after a pause. */
void redis_link_lost(struct redis_link *link, const char *why)
{
    char text[HEALTH_WHY_SIZE], where[360];

    if (link->phase >= PHASE_FAILED)
        return;
    link_where(link, where, sizeof(where));
    if (link->asking && redis_sentinel_next(link))
        return;
    snprintf(text, sizeof(text), "redis %s: %.300s" REDIS_LINK_RETRIES, where, why);
    link->flaky = link->phase == PHASE_READY && !link->settled;
    if (link->proven && link->backoff.attempts > PROVEN_ATTEMPTS)
        link->backoff.attempts = PROVEN_ATTEMPTS;
    link->proven = link->settled = false;
    uv_timer_stop(&link->settle_timer);
    link->phase = PHASE_WAIT;
    redis_connect_forget(link);
    redis_link_detach(link);
    if (link->phase != PHASE_WAIT) /* a callback closed us */
        return;
    uv_timer_start(&link->timer, on_wait_over, backoff_next(&link->backoff), 0);
    link->events->on_lost(link->ctx, text);
}

void redis_link_fail(struct redis_link *link, int err, const char *why)
{
    char text[HEALTH_WHY_SIZE], where[360];

    link_where(link, where, sizeof(where));
    snprintf(text, sizeof(text), "redis %s: %.300s", where, why);
    link->phase = PHASE_FAILED;
    uv_timer_stop(&link->timer);
    uv_timer_stop(&link->settle_timer);
    redis_connect_forget(link);
    redis_link_detach(link);
    if (link->phase == PHASE_FAILED)
        link->events->on_failed(link->ctx, err, text);
}

/* ---- bytes out */

/* Since TLS 1.3 a server looks at our certificate after we think the handshake done, and what it
 * says about it may be lost with the connection. One that is to be spoken to by TLS says nothing to
 * what it cannot read. */
static void link_ended(struct connection *conn, const char *how)
{
    const struct redis_link *link = conn->link;
    const char *advice = "";
    char why[160];

    if (link->phase == PHASE_HELLO && conn->tls)
        advice = " (does it ask for a certificate, redis.tls_cert?)";
    else if (link->phase == PHASE_HELLO && link->host && !conn->heard)
        advice = " (does this port speak TLS, rediss://?)";
    snprintf(why, sizeof(why), "%s%s", how, advice);
    redis_link_lost(conn->link, why);
}

static void on_written(uv_write_t *req, int status);

void redis_link_flush(struct connection *conn)
{
    uv_buf_t buf;

    if (conn->writing)
        return;
    bool has_commands = conn->wire.out.len > 0;
    if (has_commands)
        redis_wire_turn(&conn->wire);
    /* uv_buf_init would cut the length to 32 bits. */
    buf.base = conn->wire.away.ptr;
    buf.len = has_commands ? conn->wire.away.len : 0;
    if (conn->tls) {
        /* Without memory nothing is sent; as below, the silence timer finds it. */
        if (has_commands)
            (void)tls_write(conn->tls, buf.base, buf.len);
        buf.len = tls_output(conn->tls, &buf.base);
    }
    if (buf.len == 0)
        return;
    conn->writing = true;
    conn->unsent = buf.len;
    /* A failure is not told here, we may be inside a call of the owner: the read side or the
     * silence timer finds the same fault. */
    (void)uv_write(&conn->write, &conn->uv.stream, &buf, 1, on_written);
}

static void watch_silence(struct redis_link *link);

static void on_written(uv_write_t *req, int status)
{
    struct connection *conn = req->data;

    if (!conn->alive)
        return;
    if (status < 0) { /* the server may have said why before it hung up: that is read first */
        conn->write_err = status;
        watch_silence(conn->link);
        return;
    }
    conn->writing = false;
    conn->active_ms = uv_now(conn->link->loop);
    redis_link_flush(conn);
}

int redis_link_command(struct redis_link *link, const struct bytes *args, size_t n,
                       struct redis_due due)
{
    struct connection *conn = link->conn;

    due.sent_ms = uv_now(link->loop);
    if (redis_wire_command(&conn->wire, args, n, due))
        return -ENOMEM;
    redis_link_flush(conn);
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

    if (conn && conn->write_err) {
        link_ended(conn, uv_strerror(conn->write_err));
        return;
    }
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
    if (conn->write_err) {
        uv_timer_start(&link->timer, on_silence_check, GRACE_MS, 0);
        return;
    }
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
    if (conn->alive && (redis_wire_oldest(&conn->wire) || conn->write_err))
        watch_silence(link);
    else if (conn->alive)
        uv_timer_stop(&link->timer);
}

/* Plain bytes of the protocol. */
static void link_feed(struct connection *conn, const char *bytes, size_t len)
{
    void *reply = NULL;
    char why[200];

    if (redisReaderFeed(conn->wire.reader, bytes, len) != REDIS_OK) {
        redis_link_lost(conn->link, "no memory for a reply");
        return;
    }
    while (conn->alive) {
        if (redisReaderGetReply(conn->wire.reader, &reply) != REDIS_OK) {
            snprintf(why, sizeof(why), "what it sends is not the Redis protocol: %s",
                     conn->wire.reader->errstr);
            redis_link_lost(conn->link, why);
            return;
        }
        if (!reply)
            return;
        redis_reply_hush(reply);
        link_reply(conn, reply);
        freeReplyObject(reply);
    }
}

static void link_feed_tls(struct connection *conn, const char *bytes, size_t len)
{
    struct redis_link *link = conn->link;
    char why[300], plain[16384]; /* a TLS record */
    long n;

    if (tls_receive(conn->tls, bytes, len, why, sizeof(why)) != 0) {
        redis_link_lost(link, why);
        return;
    }
    if (link->phase == PHASE_CONNECT && tls_ready(conn->tls))
        redis_hello_send(link);
    while (conn->alive && (n = tls_read(conn->tls, plain, sizeof(plain), why, sizeof(why))) != 0) {
        if (n < 0)
            redis_link_lost(link, why);
        else
            link_feed(conn, plain, (size_t)n);
    }
    if (conn->alive)
        redis_link_flush(conn);
}

static void on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
    struct connection *conn = stream->data;

    if (!conn->alive || nread == 0)
        return;
    if (nread < 0) {
        link_ended(conn,
                   nread == UV_EOF ? "the server closed the connection" : uv_strerror((int)nread));
        return;
    }
    conn->active_ms = uv_now(conn->link->loop);
    conn->warned = false;
    conn->heard = true;
    if (conn->tls)
        link_feed_tls(conn, buf->base, (size_t)nread);
    else
        link_feed(conn, buf->base, (size_t)nread);
}

int redis_link_listen(struct connection *conn)
{
    return uv_read_start(&conn->uv.stream, on_alloc, on_read);
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
    redis_connect_forget(link);
    uv_timer_stop(&link->timer);
    if (!link->flaky)
        link->events->on_good(link->ctx);
    if (link->phase == PHASE_READY)
        link->events->on_ready(link->ctx);
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
    link->tls = options->tls;
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

const char *redis_link_run_id(const struct redis_link *link)
{
    return link->run_id;
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
    redis_connect_forget(link);
    redis_link_detach(link);
    uv_close((uv_handle_t *)&link->timer, on_timer_closed);
    uv_close((uv_handle_t *)&link->settle_timer, on_timer_closed);
}
