/*
 * redis_connection.c: one connection of a link: bytes out, bytes in, silence.
 *
 * Owns:    the connection, which lives on until libuv has closed its handle.
 * Refuses: what follows when it has ended or can be used: that is told as an event to redis_link.c.
 *          To free anything libuv still knows: memory goes in close callbacks only.
 * Threads: the loop thread.
 */
#include "connectors/redis/redis_link_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "connectors/redis/redis_reply.h"

#define GRACE_MS 200 /* after a stall of our own, what has arrived is read first */

/* ---- its beginning and its end */

struct connection *redis_connection_open(struct redis_link *link)
{
    struct connection *conn = calloc(1, sizeof(*conn));

    if (!conn)
        return NULL;
    if (redis_wire_open(&conn->wire))
        goto fail;
    if (link->host ? uv_tcp_init(link->loop, &conn->uv.tcp)
                   : uv_pipe_init(link->loop, &conn->uv.pipe, 0))
        goto fail;
    conn->link = link;
    conn->alive = true;
    conn->uv.handle.data = conn;
    conn->connect.data = conn;
    conn->write.data = conn;
    /* The link lives until this handle is closed. */
    link->n_handles++;
    link->conn = conn;
    return conn;
fail:
    redis_wire_close(&conn->wire);
    free(conn);
    return NULL;
}

void redis_connection_unref(struct redis_link *link)
{
    assert(link->n_handles > 0);
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
    redis_connection_unref(link);
}

/* Its pending callbacks get NULL unless the link is closing. */
void redis_connection_detach(struct redis_link *link)
{
    struct connection *conn = link->conn;

    if (!conn)
        return;
    /* Before the callbacks, which must not find it. */
    link->conn = NULL;
    link->client_id = 0;
    conn->alive = false;
    uv_close(&conn->uv.handle, on_connection_closed);
    while (redis_wire_oldest(&conn->wire) && link->phase != PHASE_CLOSING) {
        struct redis_due due = redis_wire_take(&conn->wire);
        due.cb(link->ctx, due.arg, NULL);
    }
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
    redis_link_event(conn->link, LINK_LOST, why);
}

static void on_written(uv_write_t *req, int status);

void redis_connection_flush(struct connection *conn)
{
    uv_buf_t buf;

    /* One write at a time: `away` must not move before libuv is done with it. */
    if (conn->writing || conn->link->is_corked)
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
        /* `writing` stays true: nothing more is sent on this connection. */
        conn->write_err = status;
        watch_silence(conn->link);
        return;
    }
    conn->writing = false;
    conn->active_ms = uv_now(conn->link->loop);
    redis_connection_flush(conn);
}

int redis_connection_command(struct redis_link *link, const struct bytes *args, size_t n,
                             struct redis_due due)
{
    struct connection *conn = link->conn;

    due.sent_ms = uv_now(link->loop);
    if (redis_wire_command(&conn->wire, args, n, due))
        return -ENOMEM;
    redis_connection_flush(conn);
    /* Else the timer runs for an older command already. */
    if (conn->wire.n_due == 1)
        watch_silence(link);
    return 0;
}

void redis_connection_ask(struct redis_link *link, redis_reply_cb on_auth, const struct bytes *ask,
                          size_t n, redis_reply_cb on_answer)
{
    const struct redis_url *url = link->url;
    struct bytes auth[3] = {bytes_of("AUTH")};
    size_t n_auth = 1;
    int rc = 0;

    link->phase = PHASE_HELLO;
    if (url->user)
        auth[n_auth++] = bytes_of(url->user);
    if (url->password) {
        auth[n_auth++] = bytes_of(url->password);
        rc = redis_connection_command(link, auth, n_auth, (struct redis_due){on_auth, link, 0, 0});
    }
    if (rc == 0)
        rc = redis_connection_command(link, ask, n, (struct redis_due){on_answer, link, 0, 0});
    if (rc)
        redis_link_event(link, LINK_LOST, "no memory");
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
    /* Bytes move, though slowly: a large command is no silence. */
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
    /* Silence counts from the last sign of life, and never from before the command was sent. */
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
        redis_link_event(link, LINK_LOST, why);
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

    /* What a server says unasked, as it hangs up, is the reason. */
    if (!redis_wire_oldest(&conn->wire)) {
        bool is_error = reply->type == REDIS_REPLY_ERROR;
        redis_link_event(link, LINK_LOST, is_error ? reply->str : "an unrequested reply");
        return;
    }
    struct redis_due due = redis_wire_take(&conn->wire);
    due.cb(link->ctx, due.arg, reply);
}

/* Plain bytes of the protocol. */
static void link_feed(struct connection *conn, const char *bytes, size_t len)
{
    struct redis_link *link = conn->link;
    void *reply = NULL;
    size_t n = 0;
    char why[200];

    if (redisReaderFeed(conn->wire.reader, bytes, len) != REDIS_OK) {
        redis_link_event(link, LINK_LOST, "no memory for a reply");
        return;
    }
    for (; conn->alive; n++) {
        if (redisReaderGetReply(conn->wire.reader, &reply) != REDIS_OK) {
            snprintf(why, sizeof(why), "what it sends is not the Redis protocol: %s",
                     conn->wire.reader->errstr);
            redis_link_event(link, LINK_LOST, why);
            return;
        }
        if (!reply)
            break;
        /* Before anybody sees it: the sentence may go to the log. */
        redis_reply_hush(reply);
        link_reply(conn, reply);
        redis_wire_release(&conn->wire);
    }
    if (n == 0 || !conn->alive)
        return;
    if (redis_wire_oldest(&conn->wire) || conn->write_err)
        watch_silence(link);
    else
        uv_timer_stop(&link->timer);
}

static void link_feed_tls(struct connection *conn, const char *bytes, size_t len)
{
    struct redis_link *link = conn->link;
    char why[300], plain[16384]; /* a TLS record */
    long n;

    if (tls_receive(conn->tls, bytes, len, why, sizeof(why)) != 0) {
        redis_link_event(link, LINK_LOST, why);
        return;
    }
    if (link->phase == PHASE_CONNECT && tls_ready(conn->tls))
        redis_link_event(link, LINK_CONNECTED, NULL);
    while (conn->alive && (n = tls_read(conn->tls, plain, sizeof(plain), why, sizeof(why))) != 0) {
        if (n < 0)
            redis_link_event(link, LINK_LOST, why);
        else
            link_feed(conn, plain, (size_t)n);
    }
    if (conn->alive)
        redis_connection_flush(conn);
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

int redis_connection_listen(struct connection *conn)
{
    return uv_read_start(&conn->uv.stream, on_alloc, on_read);
}
