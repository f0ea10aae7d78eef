/*
 * metrics_http.c: see metrics_http.h.
 *
 * libmicrohttpd keeps its sockets in an epoll set; that set is one descriptor in the loop, and a
 * timer runs it when something is due. What strangers can cost is bounded, and they keep no probe
 * waiting: clients.c decides who must go so that a newcomer is served. Only accepting is paced:
 * whoever connects again and again takes a tenth of a core at most, and the accept queue, which is
 * emptied in less than half a second, is all that a probe may have before it.
 */
#include "worker/telemetry/metrics_http.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "worker/config/address.h"
#include "worker/telemetry/clients.h"

enum {
    CONNECTION_BYTES = 16 * 1024,
    BACKLOG = 1024,
    TURNS_MAX = 32,
    PACE_MS = 50,  /* in so many milliseconds ... */
    PACE_MAX = 128 /* ... about so many connections are accepted */
};

struct metrics_http {
    struct MHD_Daemon *daemon;
    uv_poll_t poll;
    uv_timer_t timer;
    size_t n_open;
    uint64_t paced_ms; /* n_accepted were accepted since */
    unsigned n_accepted;
    struct clients clients;
    const struct metrics *metrics;
    char address[320];
};

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *type,
                              void *text, size_t len, enum MHD_ResponseMemoryMode mode)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(len, text, mode);
    if (!response) {
        if (mode == MHD_RESPMEM_MUST_FREE)
            free(text);
        return MHD_NO;
    }
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result answer_line(struct MHD_Connection *connection, unsigned status,
                                   const char *line)
{
    return answer(connection, status, "text/plain; charset=utf-8", (void *)line, strlen(line),
                  MHD_RESPMEM_MUST_COPY);
}

static enum MHD_Result answer_metrics(struct MHD_Connection *connection,
                                      const struct metrics *metrics)
{
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);
    if (!to)
        return MHD_NO;
    metrics_print(metrics, to);
    if (fclose(to) != 0) {
        free(text);
        return MHD_NO;
    }
    return answer(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", text, len,
                  MHD_RESPMEM_MUST_FREE);
}

static uint64_t now_of(const struct metrics_http *http)
{
    return uv_now(http->timer.loop);
}

static struct client *client_of(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

static void on_connection(void *ctx, struct MHD_Connection *connection, void **client,
                          enum MHD_ConnectionNotificationCode code)
{
    struct metrics_http *http = ctx;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        clients_remove(*client);
        return;
    }
    http->n_accepted++;
    *client = clients_add(
        &http->clients,
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd,
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr,
        now_of(http));
}

static void on_completed(void *ctx, struct MHD_Connection *connection, void **request,
                         enum MHD_RequestTerminationCode code)
{
    struct metrics_http *http = ctx;
    (void)request;
    (void)code;
    clients_on_answered(&http->clients, client_of(connection), now_of(http));
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **request)
{
    static int seen;
    struct metrics_http *http = ctx;
    (void)version;
    (void)upload;
    if (!*request) { /* the first of two calls: a body, if any, is still to come */
        *request = &seen;
        clients_on_request(&http->clients, client_of(connection), now_of(http));
        return MHD_YES;
    }
    if (*upload_size) {
        *upload_size = 0;
        return MHD_YES;
    }
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
        return answer_line(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    if (strcmp(url, "/metrics") == 0)
        return answer_metrics(connection, http->metrics);
    if (strcmp(url, "/livez") == 0)
        return answer_line(connection, MHD_HTTP_OK, "ok\n");
    if (strcmp(url, "/readyz") == 0) {
        char line[120];
        const char *why = metrics_not_ready(http->metrics);
        snprintf(line, sizeof line, "%s\n", why ? why : "ok");
        return answer_line(connection, why ? MHD_HTTP_SERVICE_UNAVAILABLE : MHD_HTTP_OK, line);
    }
    return answer_line(connection, MHD_HTTP_NOT_FOUND, "there are /metrics, /livez and /readyz\n");
}

static void run(struct metrics_http *http);

static void on_timer(uv_timer_t *timer)
{
    run(timer->data);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    run(poll->data);
}

static unsigned count_connections(const struct metrics_http *http)
{
    return MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)->num_connections;
}

/* Too many have connected in this moment: the brokers' turn. */
static bool is_paced(struct metrics_http *http, uint64_t now)
{
    if (now - http->paced_ms >= PACE_MS) {
        http->paced_ms = now;
        http->n_accepted = 0;
    }
    return http->n_accepted >= PACE_MAX;
}

/* When the next run is due, if nothing happens. */
static uint64_t wait_of(struct metrics_http *http, uint64_t now)
{
    MHD_UNSIGNED_LONG_LONG daemon_ms;
    uint64_t wait_ms = clients_wait(&http->clients, now);
    if (MHD_get_timeout(http->daemon, &daemon_ms) == MHD_YES && daemon_ms < wait_ms)
        wait_ms = daemon_ms;
    return wait_ms;
}

/* At its limit the daemon stops to listen, and begins again in the first run after connections have
 * gone; no event would call that one. A connection that was shut down goes in the next run. */
static void run(struct metrics_http *http)
{
    uint64_t now = now_of(http);
    unsigned before, turns = 0;
    clients_expire(&http->clients, now);
    do {
        before = count_connections(http);
        MHD_run(http->daemon);
    } while (!is_paced(http, now) && count_connections(http) != before && ++turns < TURNS_MAX);
    if (is_paced(http, now)) {
        uv_poll_stop(&http->poll);
        uv_timer_start(&http->timer, on_timer, PACE_MS, 0);
        return;
    }
    uv_poll_start(&http->poll, UV_READABLE, on_poll);
    uint64_t wait_ms = turns == TURNS_MAX ? 0 : wait_of(http, now);
    if (wait_ms == UINT64_MAX)
        uv_timer_stop(&http->timer);
    else
        uv_timer_start(&http->timer, on_timer, wait_ms, 0);
}

/* The address that was bound, for the log and for tests that ask for any port. */
static void read_address(struct metrics_http *http, int fd)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    char host[256], port[32];
    if (getsockname(fd, (struct sockaddr *)&address, &size) != 0 ||
        getnameinfo((struct sockaddr *)&address, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return;
    bool is_v6 = strchr(host, ':') != NULL;
    snprintf(http->address, sizeof http->address, "%s%s%s:%s", is_v6 ? "[" : "", host,
             is_v6 ? "]" : "", port);
}

/* A listening socket, or negative errno. */
static int listen_on(const struct addrinfo *at)
{
    int one = 1, both = 0, defer_s = 1;
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    /* Whoever is accepted has sent something: a probe's request is there to be read before anybody
     * else is accepted, and those that send nothing stay with the kernel. */
    setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &defer_s, sizeof defer_s);
    if (at->ai_family == AF_INET6) /* "::" is IPv4, too, whatever net.ipv6.bindv6only says */
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &both, sizeof both);
    if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int rc = -errno;
    close(fd);
    return rc;
}

/* The first of these that can be had. A port that is taken is told of: nobody looks for the
 * metrics at another address of the name. */
static int listen_on_any(const struct addrinfo *found, int family)
{
    int rc = -EADDRNOTAVAIL;
    for (; found && rc < 0 && rc != -EADDRINUSE; found = found->ai_next)
        if (family == AF_UNSPEC || found->ai_family == family)
            rc = listen_on(found);
    return rc;
}

/* A listening socket, or negative errno. */
static int listen_at(const char *where, char *err, size_t err_size)
{
    char host[256], port[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found = NULL;
    int rc = address_split(where, host, sizeof host, port, sizeof port, err, err_size);
    if (rc != 0)
        return rc;
    rc = getaddrinfo(host[0] ? host : NULL, port, &hints, &found);
    if (rc != 0) {
        snprintf(err, err_size, "'%.100s': %s; give an address of this machine", where,
                 gai_strerror(rc));
        return -EADDRNOTAVAIL;
    }
    /* All addresses: one socket of IPv6 serves both, where there is IPv6. */
    rc = host[0] ? -EADDRNOTAVAIL : listen_on_any(found, AF_INET6);
    if (rc < 0 && rc != -EADDRINUSE)
        rc = listen_on_any(found, AF_UNSPEC);
    if (rc < 0)
        snprintf(err, err_size, "cannot listen at %.100s: %s%s", where, strerror(-rc),
                 rc == -EADDRINUSE ? "; another worker of this machine may have the port: give "
                                     "each its own"
                                   : "");
    freeaddrinfo(found);
    return rc;
}

int metrics_http_try(const char *where, char *err, size_t err_size)
{
    int fd = listen_at(where, err, err_size);
    if (fd < 0)
        return fd;
    close(fd);
    return 0;
}

int metrics_http_open(struct metrics_http **out, uv_loop_t *loop, const char *where,
                      const struct metrics *metrics, char *err, size_t err_size)
{
    struct metrics_http *http = calloc(1, sizeof *http);
    if (!http)
        return snprintf(err, err_size, "out of memory"), -ENOMEM;
    http->metrics = metrics;
    int rc = -ENOMEM, fd = listen_at(where, err, err_size);
    if (fd < 0) {
        rc = fd;
        goto fail;
    }
    read_address(http, fd);
    http->daemon = MHD_start_daemon(
        MHD_USE_EPOLL, 0, NULL, NULL, on_request, http, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)CLIENTS_ROOM, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_BYTES, MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, http, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        http->daemon ? MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info || uv_poll_init(loop, &http->poll, info->epoll_fd) != 0) {
        snprintf(err, err_size, "cannot serve metrics at %.100s: out of memory or descriptors",
                 where);
        goto fail_daemon;
    }
    uv_timer_init(loop, &http->timer);
    http->n_open = 2;
    http->poll.data = http->timer.data = http;
    uv_unref((uv_handle_t *)&http->poll);
    uv_unref((uv_handle_t *)&http->timer);
    uv_poll_start(&http->poll, UV_READABLE, on_poll);
    *out = http;
    return 0;
fail_daemon:
    if (http->daemon)
        MHD_stop_daemon(http->daemon); /* which closes fd */
    else
        close(fd);
fail:
    free(http);
    return rc;
}

const char *metrics_http_address(const struct metrics_http *http)
{
    return http->address;
}

static void on_closed(uv_handle_t *handle)
{
    struct metrics_http *http = handle->data;
    if (--http->n_open == 0)
        free(http);
}

void metrics_http_close(struct metrics_http *http)
{
    if (!http)
        return;
    uv_poll_stop(&http->poll);
    MHD_stop_daemon(http->daemon);
    uv_close((uv_handle_t *)&http->poll, on_closed);
    uv_close((uv_handle_t *)&http->timer, on_closed);
}
