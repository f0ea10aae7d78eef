/*
 * redis_connect.c: from an address to a connection that may be greeted.
 *
 * Owns:    resolving names, trying one address after the other, the start of TLS.
 * Refuses: when to try again: redis_link.c.
 * Threads: the loop thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "connectors/redis/redis_link_internal.h"

static void connect_next(struct redis_link *link, const char *why);

/* Addresses and a name still being resolved. */
void redis_connect_forget(struct redis_link *link)
{
    if (link->addresses)
        uv_freeaddrinfo(link->addresses);
    link->addresses = link->next_address = NULL;
    if (link->resolve) {
        /* A lookup that runs cannot be cancelled: its callback frees it. */
        link->resolve->link = NULL;
        uv_cancel((uv_req_t *)&link->resolve->req);
        link->resolve = NULL;
    }
}

static void on_connect_timeout(uv_timer_t *timer)
{
    struct redis_link *link = timer->data;

    if (link->phase == PHASE_RESOLVE)
        redis_link_event(link, LINK_LOST, "the name server does not answer");
    else
        connect_next(link, link->conn && link->conn->tls
                               ? "no answer to the TLS handshake (does this port speak TLS?)"
                               : "no answer to connecting");
}

/* It retries indefinitely, so what to look at is said at once. */
static const char *connect_fault(const struct redis_link *link, int status, char *out, size_t size)
{
    const char *advice = "";

    if (!link->host && (status == UV_ENOENT || status == UV_ECONNREFUSED))
        advice = " (is the server running, with this unixsocket?)";
    else if (!link->host && (status == UV_EACCES || status == UV_EPERM))
        advice = " (the socket does not let this user in; see unixsocketperm)";
    else if (status == UV_ECONNREFUSED)
        advice = " (is the server running, and is this its address?)";
    snprintf(out, size, "%s%s", uv_strerror(status), advice);
    return out;
}

static void on_connected(uv_connect_t *req, int status)
{
    struct connection *conn = req->data;
    struct redis_link *link = conn->link;
    char why[160];

    if (!conn->alive)
        return;
    if (status < 0) {
        connect_next(link, connect_fault(link, status, why, sizeof(why)));
        return;
    }
    int rc = redis_connection_listen(conn);
    if (rc < 0) {
        connect_next(link, uv_strerror(rc));
        return;
    }
    if (link->host) {
        uv_tcp_nodelay(&conn->uv.tcp, 1);
        uv_tcp_keepalive(&conn->uv.tcp, 1, 15);
    }
    conn->active_ms = uv_now(link->loop);
    if (!link->tls)
        redis_link_event(link, LINK_CONNECTED, NULL);
    else if (tls_open(&conn->tls, link->tls, link->host) == 0)
        redis_connection_flush(
            conn); /* the greeting follows the handshake, within the time to connect */
    else
        redis_link_event(link, LINK_LOST, "no memory");
}

/* Try the next address; why: what became of the one before. */
static void connect_next(struct redis_link *link, const char *why)
{
    redis_connection_detach(link);
    while (link->next_address) {
        const struct addrinfo *address = link->next_address;
        link->next_address = address->ai_next;
        struct connection *conn = redis_connection_open(link);
        if (!conn)
            break;
        link->phase = PHASE_CONNECT;
        int rc = uv_tcp_connect(&conn->connect, &conn->uv.tcp, address->ai_addr, on_connected);
        if (rc == 0) {
            uv_timer_start(&link->timer, on_connect_timeout, link->timeout_ms, 0);
            return;
        }
        why = uv_strerror(rc);
        redis_connection_detach(link);
    }
    redis_link_event(link, LINK_LOST, why);
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
        redis_link_event(link, LINK_LOST, why);
        return;
    }
    link->addresses = link->next_address = addresses;
    connect_next(link, "no address");
}

static int connect_resolve(struct redis_link *link)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
    struct resolve *resolve = calloc(1, sizeof(*resolve));
    char port[8];

    if (!resolve)
        return -ENOMEM;
    snprintf(port, sizeof(port), "%d", link->port);
    resolve->link = link;
    resolve->req.data = resolve;
    int rc = uv_getaddrinfo(link->loop, &resolve->req, on_resolved, link->host, port, &hints);
    if (rc < 0) {
        free(resolve);
        return rc;
    }
    /* From here on on_resolved frees it. */
    link->resolve = resolve;
    link->phase = PHASE_RESOLVE;
    uv_timer_start(&link->timer, on_connect_timeout, link->timeout_ms, 0);
    return 0;
}

void redis_connect_start(struct redis_link *link)
{
    struct connection *conn;
    int rc;

    if (link->host) {
        rc = connect_resolve(link);
        if (rc < 0)
            redis_link_event(link, LINK_LOST, uv_strerror(rc));
        return;
    }
    conn = redis_connection_open(link);
    if (!conn) {
        redis_link_event(link, LINK_LOST, "no memory");
        return;
    }
    link->phase = PHASE_CONNECT;
    uv_timer_start(&link->timer, on_connect_timeout, link->timeout_ms, 0);
    /* Its failure comes to on_connected, as that of an address does. */
    uv_pipe_connect(&conn->connect, &conn->uv.pipe, link->url->path, on_connected);
}
