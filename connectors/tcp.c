/*
 * tcp.c: see tcp.h.
 *
 * Owns:    a handle for each address that is tried; memory goes when libuv has closed the last.
 * Threads: the loop thread.
 */
#include "connectors/tcp.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_SIZE 65536

/* One address. A given-up one lives on until its handle is closed. */
struct attempt {
    uv_tcp_t handle;
    uv_connect_t connect;
    uv_write_t write;
    struct tcp *tcp;
    bool alive; /* the connection's current one */
};

struct resolve {
    uv_getaddrinfo_t req;
    struct tcp *tcp; /* NULL: given up */
};

struct tcp {
    uv_loop_t *loop;
    const struct tcp_events *events;
    void *ctx;
    char host[256];
    int port;
    uint64_t timeout_ms;
    const struct tls_context *tls_context;
    struct tls *tls;
    uv_timer_t timer; /* of connecting */
    struct resolve *resolve;
    struct addrinfo *addresses, *next_address;
    struct attempt *attempt;
    struct buffer out, away; /* filling; being written, its bytes may not move */
    bool is_open, is_ended, is_paused, is_closing, is_writing, has_heard;
    char why[300]; /* of the last address */
    size_t n_handles;
    void (*closed)(void *ctx);
    void *closed_ctx;
    char in[READ_SIZE];
};

static void connect_next(struct tcp *tcp);

/* ---- the end of things */

static void tcp_unref(struct tcp *tcp)
{
    assert(tcp->n_handles > 0);
    /* The timer, and each attempt whose handle libuv has not closed: their callbacks read tcp. */
    if (--tcp->n_handles)
        return;
    void (*closed)(void *) = tcp->closed;
    void *ctx = tcp->closed_ctx;
    tls_close(tcp->tls);
    buffer_close(&tcp->out);
    buffer_close(&tcp->away);
    free(tcp);
    if (closed)
        closed(ctx);
}

static void on_attempt_closed(uv_handle_t *handle)
{
    struct attempt *attempt = handle->data;
    struct tcp *tcp = attempt->tcp;
    free(attempt);
    tcp_unref(tcp);
}

static void on_timer_closed(uv_handle_t *handle)
{
    tcp_unref(handle->data);
}

static void detach(struct tcp *tcp)
{
    if (!tcp->attempt)
        return;
    /* Callbacks that are on their way find that it is not the current one any more. */
    tcp->attempt->alive = false;
    uv_close((uv_handle_t *)&tcp->attempt->handle, on_attempt_closed);
    tcp->attempt = NULL;
}

static void forget_addresses(struct tcp *tcp)
{
    if (tcp->addresses)
        uv_freeaddrinfo(tcp->addresses);
    tcp->addresses = tcp->next_address = NULL;
    if (!tcp->resolve)
        return;
    /* A lookup that a thread has begun cannot be cancelled: its callback frees it. */
    tcp->resolve->tcp = NULL;
    uv_cancel((uv_req_t *)&tcp->resolve->req);
    tcp->resolve = NULL;
}

static void tcp_end(struct tcp *tcp, const char *why)
{
    if (tcp->is_ended || tcp->is_closing)
        return;
    /* A copy: `why` may be tcp->why, or a buffer that on_ended's owner fills again. */
    char text[sizeof tcp->why];
    snprintf(text, sizeof text, "%s", why);
    /* Only once, and nothing after it: the owner may open another connection in the event. */
    tcp->is_ended = true;
    tcp->is_open = false;
    uv_timer_stop(&tcp->timer);
    forget_addresses(tcp);
    detach(tcp);
    tcp->events->on_ended(tcp->ctx, text);
}

/* Since TLS 1.3 a server looks at our certificate after we think the handshake done, and what it
 * says about it may be lost with the connection. */
static void tcp_end_by(struct tcp *tcp, int status)
{
    char why[200];
    snprintf(why, sizeof why, "%s%s",
             status == UV_EOF ? "the server closed the connection" : uv_strerror(status),
             tcp->tls_context && !tcp->is_open ? " (does this port speak TLS?)" : "");
    tcp_end(tcp, why);
}

/* ---- bytes out */

static void on_written(uv_write_t *req, int status)
{
    struct attempt *attempt = req->data;
    struct tcp *tcp = attempt->tcp;
    /* Cancelled by detach: is_writing is already that of the next attempt. */
    if (!attempt->alive)
        return;
    if (status < 0) /* what the server said before it hung up is read first, and then its end */
        return;
    tcp->is_writing = false;
    tcp_flush(tcp);
}

void tcp_flush(struct tcp *tcp)
{
    if (tcp->is_writing || !tcp->attempt)
        return;
    /* What was written before is done (is_writing), so its buffer can be filled again: the two swap
     * roles. */
    struct buffer filled = tcp->out;
    tcp->out = tcp->away;
    tcp->out.len = 0;
    tcp->away = filled;
    uv_buf_t buf = {.base = filled.ptr, .len = filled.len};
    if (tcp->tls) {
        if (filled.len && tls_write(tcp->tls, filled.ptr, filled.len) != 0)
            return; /* without memory nothing is sent, and the owner's patience ends */
        /* The filter has taken the bytes; what is sent is what it makes of them. */
        tcp->away.len = 0;
        buf.len = tls_output(tcp->tls, &buf.base);
    }
    if (!buf.len)
        return;
    tcp->is_writing = true;
    /* A failure is not reported here, we may be inside a call of the owner: reading finds it. */
    (void)uv_write(&tcp->attempt->write, (uv_stream_t *)&tcp->attempt->handle, &buf, 1, on_written);
}

struct buffer *tcp_output(struct tcp *tcp)
{
    return &tcp->out;
}

size_t tcp_backlog(const struct tcp *tcp)
{
    size_t sending = tcp->attempt && tcp->is_writing ? tcp->attempt->handle.write_queue_size : 0;
    return tcp->out.len + sending;
}

/* ---- bytes in */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct attempt *attempt = handle->data;
    (void)suggested;
    *buf = uv_buf_init(attempt->tcp->in, READ_SIZE);
}

static void tcp_opened(struct tcp *tcp)
{
    /* From here on silence is the owner's to notice: heartbeats, pings, its own timers. */
    uv_timer_stop(&tcp->timer);
    /* Another address is not tried after this one has worked: the owner connects anew. */
    forget_addresses(tcp);
    tcp->is_open = true;
    tcp->events->on_open(tcp->ctx);
}

static void receive_tls(struct tcp *tcp, size_t len)
{
    char why[300], plain[16384]; /* a TLS record */
    long n;
    const struct attempt *attempt = tcp->attempt;
    if (tls_receive(tcp->tls, tcp->in, len, why, sizeof why) != 0) {
        tcp_flush(tcp); /* the alert */
        tcp_end(tcp, why);
        return;
    }
    /* The next flight of the handshake. */
    tcp_flush(tcp);
    if (!tcp->is_open && tls_ready(tcp->tls))
        tcp_opened(tcp);
    /* on_open and on_bytes may close us: `attempt` is given up then, tcp lives until the loop goes
     * on. */
    while (tcp->attempt == attempt && attempt &&
           (n = tls_read(tcp->tls, plain, sizeof plain, why, sizeof why)) != 0) {
        if (n < 0)
            tcp_end(tcp, why);
        else
            tcp->events->on_bytes(tcp->ctx, plain, (size_t)n);
    }
    /* What reading answered by itself: a change of keys, a close. */
    if (tcp->attempt)
        tcp_flush(tcp);
}

static void on_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
    struct attempt *attempt = stream->data;
    struct tcp *tcp = attempt->tcp;
    (void)buf;
    /* nread 0 is EAGAIN, and no end (libuv). */
    if (!attempt->alive || nread == 0)
        return;
    if (nread < 0) {
        tcp_end_by(tcp, (int)nread);
        return;
    }
    tcp->has_heard = true;
    if (tcp->tls)
        receive_tls(tcp, (size_t)nread);
    else
        tcp->events->on_bytes(tcp->ctx, tcp->in, (size_t)nread);
}

void tcp_pause(struct tcp *tcp, bool is_paused)
{
    if (!tcp->attempt || !tcp->is_open || tcp->is_paused == is_paused)
        return;
    tcp->is_paused = is_paused;
    if (is_paused)
        uv_read_stop((uv_stream_t *)&tcp->attempt->handle);
    else
        uv_read_start((uv_stream_t *)&tcp->attempt->handle, on_alloc, on_read);
}

bool tcp_has_heard(const struct tcp *tcp)
{
    return tcp->has_heard;
}

/* ---- connecting */

static void on_timeout(uv_timer_t *timer)
{
    struct tcp *tcp = timer->data;
    /* One timer for three waits; which one it is shows in what is there. */
    if (tcp->resolve) {
        tcp_end(tcp, "the name server does not answer");
        return;
    }
    snprintf(tcp->why, sizeof tcp->why, "%s",
             tcp->tls ? "no answer to the TLS handshake (does this port speak TLS?)"
                      : "no answer to connecting");
    connect_next(tcp);
}

static void on_connected(uv_connect_t *req, int status)
{
    struct attempt *attempt = req->data;
    struct tcp *tcp = attempt->tcp;
    if (!attempt->alive)
        return;
    if (status == 0)
        status = uv_read_start((uv_stream_t *)&attempt->handle, on_alloc, on_read);
    if (status < 0) {
        snprintf(tcp->why, sizeof tcp->why, "%s%s", uv_strerror(status),
                 status == UV_ECONNREFUSED ? " (is the server running, and is this its address?)"
                                           : "");
        connect_next(tcp);
        return;
    }
    uv_tcp_nodelay(&attempt->handle, 1);
    /* A peer that vanished without a word is found by the kernel, first asked after 15 s. */
    uv_tcp_keepalive(&attempt->handle, 1, 15);
    if (!tcp->tls_context)
        tcp_opened(tcp);
    else if (tls_open(&tcp->tls, tcp->tls_context, tcp->host) == 0)
        tcp_flush(tcp);
    else
        tcp_end(tcp, "no memory");
}

static int attempt_open(struct tcp *tcp, const struct sockaddr *address)
{
    struct attempt *attempt = calloc(1, sizeof *attempt);
    if (!attempt)
        return UV_ENOMEM;
    int rc = uv_tcp_init(tcp->loop, &attempt->handle);
    if (rc) {
        free(attempt);
        return rc;
    }
    attempt->tcp = tcp;
    attempt->alive = true;
    attempt->handle.data = attempt->connect.data = attempt->write.data = attempt;
    tcp->attempt = attempt;
    /* Before connecting: if that fails, detach closes the handle and counts it down. */
    tcp->n_handles++;
    return uv_tcp_connect(&attempt->connect, &attempt->handle, address, on_connected);
}

static void connect_next(struct tcp *tcp)
{
    detach(tcp);
    /* Bytes that the last attempt was writing go with it; libuv touches none after uv_close. */
    tls_close(tcp->tls);
    tcp->tls = NULL;
    tcp->is_writing = false;
    while (tcp->next_address) {
        const struct addrinfo *address = tcp->next_address;
        tcp->next_address = address->ai_next;
        int rc = attempt_open(tcp, address->ai_addr);
        if (rc == 0) {
            uv_timer_start(&tcp->timer, on_timeout, tcp->timeout_ms, 0);
            return;
        }
        snprintf(tcp->why, sizeof tcp->why, "%s", uv_strerror(rc));
        detach(tcp);
    }
    tcp_end(tcp, tcp->why);
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *addresses)
{
    struct resolve *resolve = req->data;
    struct tcp *tcp = resolve->tcp;
    char why[160];
    free(resolve);
    /* Given up meanwhile: only the answer is ours to free. */
    if (!tcp) {
        uv_freeaddrinfo(addresses);
        return;
    }
    tcp->resolve = NULL;
    if (status < 0) {
        snprintf(why, sizeof why, "the name cannot be resolved: %s", uv_strerror(status));
        tcp_end(tcp, why);
        return;
    }
    tcp->addresses = tcp->next_address = addresses;
    connect_next(tcp);
}

static void on_start(uv_timer_t *timer)
{
    struct tcp *tcp = timer->data;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
    char port[8];
    struct resolve *resolve = calloc(1, sizeof *resolve);
    if (!resolve) {
        tcp_end(tcp, "no memory");
        return;
    }
    snprintf(port, sizeof port, "%d", tcp->port);
    resolve->tcp = tcp;
    resolve->req.data = resolve;
    int rc = uv_getaddrinfo(tcp->loop, &resolve->req, on_resolved, tcp->host, port, &hints);
    if (rc < 0) {
        free(resolve);
        tcp_end(tcp, uv_strerror(rc));
        return;
    }
    /* From here on on_resolved frees it, whether or not anybody still wants the answer. */
    tcp->resolve = resolve;
    uv_timer_start(&tcp->timer, on_timeout, tcp->timeout_ms, 0);
}

int tcp_open(struct tcp **out, uv_loop_t *loop, const struct tcp_options *options,
             const struct tcp_events *events, void *ctx)
{
    struct tcp *tcp = calloc(1, sizeof *tcp);
    if (!tcp)
        return -ENOMEM;
    tcp->loop = loop;
    tcp->events = events;
    tcp->ctx = ctx;
    snprintf(tcp->host, sizeof tcp->host, "%s", options->host);
    tcp->port = options->port;
    tcp->tls_context = options->tls;
    tcp->timeout_ms = options->timeout_ms;
    snprintf(tcp->why, sizeof tcp->why, "no address");
    uv_timer_init(loop, &tcp->timer);
    tcp->timer.data = tcp;
    tcp->n_handles = 1;
    uv_timer_start(&tcp->timer, on_start, 0, 0); /* so that no event comes from here */
    *out = tcp;
    return 0;
}

void tcp_close(struct tcp *tcp, void (*closed)(void *ctx), void *ctx)
{
    if (!tcp)
        return;
    assert(!tcp->is_closing);
    tcp->is_closing = true;
    tcp->closed = closed;
    tcp->closed_ctx = ctx;
    forget_addresses(tcp);
    detach(tcp);
    /* The last handle: it keeps tcp until here, so no attempt can free it before. */
    uv_close((uv_handle_t *)&tcp->timer, on_timer_closed);
}
