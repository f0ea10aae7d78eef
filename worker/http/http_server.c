/*
 * http_server.c: see http_server.h.
 *
 * libmicrohttpd keeps its sockets in an epoll set; that set is one descriptor in the loop, and a
 * timer runs it when something is due. What strangers can cost is bounded, and they keep no probe
 * waiting: clients.c decides who must go so that a newcomer is served. Only accepting is paced:
 * whoever connects again and again takes a tenth of a core at most, and the accept queue, which is
 * emptied in less than half a second, is all that a probe may have before it.
 *
 * A request that is not answered at once suspends its connection, which the daemon then does not
 * look at: whether its client is still there is seen by a poll handle of our own.
 */
#include "worker/http/http_server.h"

#include <assert.h>
#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "worker/http/http_listen.h"

enum {
    TURNS_MAX = 32,
    PACE_MS = 50,      /* in so many milliseconds ... */
    PACE_MAX = 128,    /* ... about so many connections are accepted */
    DISCARD_TIMES = 4, /* a body up to so many times too large is read to its end, for a client
                          that is cut off while it sends never sees why */
    METHOD_MAX = 16,
};

enum request_state {
    REQUEST_RECEIVING,
    REQUEST_HANDED, /* on_request is being called */
    REQUEST_SUSPENDED,
    REQUEST_ANSWERED, /* the response is there, and given to the daemon or about to be */
};

struct http_request {
    LIST_ENTRY(http_request) link; /* of all */
    struct http_server *server;
    struct MHD_Connection *connection;
    struct client *client;
    enum request_state state;
    struct buffer body;
    size_t counted;   /* of the body, in server->bodies */
    unsigned refusal; /* what it will be answered instead of being handed on; 0: nothing */
    const char *refused_why;
    struct MHD_Response *response;
    unsigned status;
    uv_poll_t watch;                      /* for the client's end, while suspended */
    bool is_watched, is_closing, is_done; /* closing: the handle; done: by the daemon */
    bool drops_body;                      /* nobody wants it */
    void *user;
    char method[METHOD_MAX];
    char path[];
};

struct http_server {
    struct http_server_options options;
    struct MHD_Daemon *daemon;
    uv_poll_t poll;
    uv_timer_t timer;
    size_t n_handles;  /* open, those of requests included */
    uint64_t paced_ms; /* n_accepted were accepted since */
    unsigned n_accepted;
    struct clients clients;
    LIST_HEAD(, http_request) requests;
    size_t bodies; /* bytes of all of them */
    bool is_draining;
    char address[320];
};

static uint64_t now_of(const struct http_server *server)
{
    return uv_now(server->timer.loop);
}

static struct client *client_of(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
}

/* 1. The life of a request. */

static struct http_request *request_open(struct http_server *server,
                                         struct MHD_Connection *connection, const char *method,
                                         const char *path)
{
    size_t len = strlen(path);
    struct http_request *request = calloc(1, sizeof *request + len + 1);
    if (!request)
        return NULL;
    request->server = server;
    request->connection = connection;
    request->client = client_of(connection);
    snprintf(request->method, sizeof request->method, "%s", method);
    memcpy(request->path, path, len + 1);
    LIST_INSERT_HEAD(&server->requests, request, link);
    return request;
}

/* Bytes of the body, as they are now, among those of all. */
static void body_count(struct http_request *request)
{
    /* By room and not by length, which is what a slow client keeps from others. */
    assert(request->server->bodies >= request->counted);
    request->server->bodies += request->body.room - request->counted;
    request->counted = request->body.room;
}

static void body_drop(struct http_request *request)
{
    buffer_close(&request->body);
    request->body = (struct buffer){0};
    body_count(request);
}

static void server_free(struct http_server *server)
{
    clients_close(&server->clients);
    free(server);
}

static void request_free(struct http_request *request)
{
    if (!request->is_done || request->is_closing)
        return;
    body_drop(request);
    free(request);
}

static void on_watch_closed(uv_handle_t *handle)
{
    struct http_request *request = handle->data;
    struct http_server *server = request->server;
    request->is_closing = false;
    request_free(request);
    assert(server->n_handles > 0);
    if (--server->n_handles == 0)
        server_free(server);
}

static void watch_stop(struct http_request *request)
{
    if (!request->is_watched)
        return;
    request->is_watched = false;
    assert(!request->is_closing);
    request->is_closing = true;
    uv_poll_stop(&request->watch); /* the descriptor is the daemon's again from here on */
    uv_close((uv_handle_t *)&request->watch, on_watch_closed);
}

static void on_watch(uv_poll_t *watch, int status, int events)
{
    struct http_request *request = watch->data;
    (void)status;
    (void)events;
    uv_poll_stop(watch); /* it would be told again and again */
    if (request->server->options.on_gone)
        request->server->options.on_gone(request->server->options.ctx, request);
}

static void watch_start(struct http_request *request)
{
    struct http_server *server = request->server;
    int fd =
        MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    if (!server->options.on_gone || uv_poll_init(server->timer.loop, &request->watch, fd) != 0)
        return; /* then nobody hears of it */
    server->n_handles++;
    request->is_watched = true;
    request->watch.data = request;
    uv_unref((uv_handle_t *)&request->watch);
    uv_poll_start(&request->watch, UV_DISCONNECT, on_watch);
}

static void on_completed(void *ctx, struct MHD_Connection *connection, void **at,
                         enum MHD_RequestTerminationCode code)
{
    struct http_server *server = ctx;
    struct http_request *request = *at;
    (void)code;
    clients_change(&server->clients, client_of(connection), CLIENT_IDLE, now_of(server));
    *at = NULL;
    if (!request)
        return;
    if (server->options.on_done)
        server->options.on_done(server->options.ctx, request);
    watch_stop(request);
    if (request->response)
        /* Ours; the daemon has a reference of its own for as long as it sends. */
        MHD_destroy_response(request->response);
    /* The daemon is done with it; a handle that closes still keeps its memory. */
    LIST_REMOVE(request, link);
    request->is_done = true;
    request_free(request);
}

/* 2. Answers. */

static void run(struct http_server *server);
static void on_timer(uv_timer_t *timer);

static enum MHD_Result response_queue(struct http_request *request)
{
    struct http_server *server = request->server;
    enum MHD_Result result =
        MHD_queue_response(request->connection, request->status, request->response);
    clients_change(&server->clients, request->client, CLIENT_ANSWERING, now_of(server));
    return result;
}

static void on_body_free(void *body)
{
    free(body);
}

void http_answer(struct http_request *request, struct http_answer *answer)
{
    struct http_server *server = request->server;
    assert(request->state != REQUEST_ANSWERED);
    struct buffer *body = &answer->body;
    request->status = answer->status;
    request->response =
        body->ptr
            ? MHD_create_response_from_buffer_with_free_callback(body->len, body->ptr, on_body_free)
            : MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT);
    /* Without a response on_daemon says MHD_NO, and the daemon cuts the connection. */
    if (!request->response)
        buffer_close(body);
    *body = (struct buffer){0};
    if (request->response) {
        MHD_add_response_header(request->response, MHD_HTTP_HEADER_CONTENT_TYPE, answer->type);
        MHD_add_response_header(request->response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
        if (server->is_draining)
            MHD_add_response_header(request->response, MHD_HTTP_HEADER_CONNECTION, "close");
        for (const struct http_field *field = answer->fields; field->name; field++)
            MHD_add_response_header(request->response, field->name, field->value);
    }
    bool was_suspended = request->state == REQUEST_SUSPENDED;
    request->state = REQUEST_ANSWERED;
    /* Inside a call of the daemon: on_daemon queues the response on its way back. */
    if (!was_suspended)
        return;
    watch_stop(request);
    MHD_resume_connection(request->connection);
    uv_timer_start(&server->timer, on_timer, 0, 0); /* the daemon goes on in its next run */
}

void http_answer_text(struct http_request *request, unsigned status, const char *type,
                      const char *text)
{
    struct http_answer answer = {.status = status, .type = type};
    buffer_put_text(&answer.body, text);
    http_answer(request, &answer);
}

static void refuse(struct http_request *request)
{
    struct http_server_options *options = &request->server->options;
    char line[200];
    if (options->on_refused) {
        options->on_refused(options->ctx, request, request->refusal, request->refused_why);
        return;
    }
    snprintf(line, sizeof line, "%s\n", request->refused_why);
    http_answer_text(request, request->refusal, "text/plain; charset=utf-8", line);
}

/* 3. Requests, as the daemon brings them. */

/* From here on the body is read and dropped. */
static void body_refuse(struct http_request *request, unsigned status, const char *why)
{
    body_drop(request);
    request->refusal = status;
    request->refused_why = why;
}

/* The header is there. False: it is answered already. */
static bool head_check(struct http_request *request)
{
    const struct http_server_options *options = &request->server->options;
    const char *length =
        MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, "Content-Length");
    unsigned long long n = length ? strtoull(length, NULL, 10) : 0;
    if (MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE)
            ->header_size > options->connection_bytes / 2) {
        /* What a header takes is missing for the body, which would come in tiny pieces. */
        body_refuse(request, HTTP_HEADER_TOO_LARGE, "the header is larger than this server takes");
        return false;
    }
    request->drops_body = options->wants_body && !options->wants_body(options->ctx, request);
    if (!options->body_bytes || n <= options->body_bytes)
        return true;
    body_refuse(request, HTTP_TOO_LARGE, "the body is larger than this server takes");
    return n / DISCARD_TIMES <= options->body_bytes;
}

static void body_take(struct http_request *request, const char *piece, size_t len)
{
    const struct http_server_options *options = &request->server->options;
    if (request->refusal || !options->body_bytes || request->drops_body)
        return;
    assert(request->body.len <= options->body_bytes);
    if (len > options->body_bytes - request->body.len) {
        body_refuse(request, HTTP_TOO_LARGE, "the body is larger than this server takes");
        return;
    }
    bool has_room = buffer_reserve(&request->body, len) == 0;
    body_count(request);
    if (!has_room || (options->bodies_bytes && request->server->bodies > options->bodies_bytes)) {
        body_refuse(request, HTTP_UNAVAILABLE,
                    "too many bytes of requests are in memory; try again later");
        return;
    }
    buffer_put(&request->body, piece, len);
}

static enum MHD_Result on_daemon(void *ctx, struct MHD_Connection *connection, const char *url,
                                 const char *method, const char *version, const char *upload,
                                 size_t *upload_size, void **at)
{
    struct http_server *server = ctx;
    struct http_request *request = *at;
    (void)version;
    if (!request) { /* the first call: a body, if any, is still to come */
        *at = request = request_open(server, connection, method, url);
        if (!request)
            return MHD_NO;
        clients_change(&server->clients, request->client, CLIENT_SENDING, now_of(server));
        if (head_check(request))
            return MHD_YES;
        refuse(request);
        return request->response ? response_queue(request) : MHD_NO;
    }
    if (*upload_size) {
        /* All of it counts as taken, dropped or not: else the daemon would bring it again. */
        body_take(request, upload, *upload_size);
        *upload_size = 0;
        return MHD_YES;
    }
    if (request->state == REQUEST_RECEIVING) {
        request->state = REQUEST_HANDED;
        clients_change(&server->clients, request->client, CLIENT_WAITING, now_of(server));
        if (request->refusal)
            refuse(request);
        else
            server->options.on_request(server->options.ctx, request);
    }
    if (request->state == REQUEST_ANSWERED)
        return request->response ? response_queue(request) : MHD_NO;
    if (request->state == REQUEST_HANDED) {
        request->state = REQUEST_SUSPENDED;
        MHD_suspend_connection(connection);
        watch_start(request);
    }
    return MHD_YES;
}

/* 4. The daemon in the loop. */

static void on_connection(void *ctx, struct MHD_Connection *connection, void **client,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http_server *server = ctx;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        clients_remove(*client);
        return;
    }
    server->n_accepted++;
    *client = clients_add(
        &server->clients,
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd,
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr,
        now_of(server));
}

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

size_t http_server_connections(const struct http_server *server)
{
    return MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)
        ->num_connections;
}

/* Too many have connected in this moment: the brokers' turn. */
static bool is_paced(struct http_server *server, uint64_t now)
{
    if (now - server->paced_ms >= PACE_MS) {
        server->paced_ms = now;
        server->n_accepted = 0;
    }
    return server->n_accepted >= PACE_MAX;
}

/* When the next run is due, if nothing happens. */
static uint64_t wait_of(struct http_server *server, uint64_t now)
{
    MHD_UNSIGNED_LONG_LONG daemon_ms;
    uint64_t wait_ms = clients_wait(&server->clients, now);
    if (MHD_get_timeout(server->daemon, &daemon_ms) == MHD_YES && daemon_ms < wait_ms)
        wait_ms = daemon_ms;
    return wait_ms;
}

/* At its limit the daemon stops to listen, and begins again in the first run after connections have
 * gone; no event would call that one. A connection that was shut down goes in the next run. */
static void run(struct http_server *server)
{
    uint64_t now = now_of(server);
    size_t before;
    unsigned turns = 0;
    clients_expire(&server->clients, now);
    do {
        before = http_server_connections(server);
        MHD_run(server->daemon);
    } while (!is_paced(server, now) && http_server_connections(server) != before &&
             ++turns < TURNS_MAX);
    if (is_paced(server, now)) {
        /* No accept and no request goes on for PACE_MS: nobody looks at the set of both. */
        uv_poll_stop(&server->poll);
        uv_timer_start(&server->timer, on_timer, PACE_MS, 0);
        return;
    }
    /* To begin anew takes the system a walk over all connections: one set of events is inside
     * another here, and it looks for circles. */
    if (!uv_is_active((uv_handle_t *)&server->poll))
        uv_poll_start(&server->poll, UV_READABLE, on_poll);
    uint64_t wait_ms = turns == TURNS_MAX ? 0 : wait_of(server, now);
    if (wait_ms == UINT64_MAX)
        uv_timer_stop(&server->timer);
    else
        uv_timer_start(&server->timer, on_timer, wait_ms, 0);
}

/* 5. Open and close. */

static int daemon_start(struct http_server *server, uv_loop_t *loop, int fd)
{
    server->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_daemon, server,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)server->options.clients.room, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        server->options.connection_bytes, MHD_OPTION_NOTIFY_CONNECTION, on_connection, server,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, server, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        server->daemon ? MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (info && uv_poll_init(loop, &server->poll, info->epoll_fd) == 0)
        return 0;
    if (server->daemon)
        MHD_stop_daemon(server->daemon); /* which closes fd */
    else
        close(fd);
    return -ENOMEM;
}

int http_server_open(struct http_server **out, uv_loop_t *loop,
                     const struct http_server_options *options, char *err, size_t err_size)
{
    struct http_server *server = calloc(1, sizeof *server);
    snprintf(err, err_size, "out of memory");
    if (!server)
        return -ENOMEM;
    server->options = *options;
    LIST_INIT(&server->requests);
    int rc = clients_open(&server->clients, &options->clients), fd = -1;
    if (rc == 0)
        rc = fd =
            http_listen(options->where, server->address, sizeof server->address, err, err_size);
    if (fd >= 0) {
        rc = daemon_start(server, loop, fd);
        if (rc != 0)
            snprintf(err, err_size, "cannot serve at %.100s: out of memory or descriptors",
                     options->where);
    }
    if (rc < 0) {
        server_free(server);
        return rc;
    }
    uv_timer_init(loop, &server->timer);
    server->n_handles = 2;
    server->poll.data = server->timer.data = server;
    uv_unref((uv_handle_t *)&server->poll);
    uv_unref((uv_handle_t *)&server->timer);
    uv_poll_start(&server->poll, UV_READABLE, on_poll);
    *out = server;
    return 0;
}

const char *http_server_address(const struct http_server *server)
{
    return server->address;
}

void http_server_drain(struct http_server *server)
{
    server->is_draining = true;
}

static void on_closed(uv_handle_t *handle)
{
    struct http_server *server = handle->data;
    assert(server->n_handles > 0);
    if (--server->n_handles == 0)
        server_free(server);
}

/* The daemon must have no suspended connection when it stops, and their requests must end. */
static void answer_all(struct http_server *server)
{
    struct http_request *request;
    LIST_FOREACH(request, &server->requests, link)
    {
        if (request->state != REQUEST_SUSPENDED)
            continue;
        request->refusal = HTTP_UNAVAILABLE;
        request->refused_why = "this server is stopping";
        refuse(request);
    }
}

void http_server_close(struct http_server *server)
{
    if (!server)
        return;
    server->is_draining = true;
    answer_all(server);
    for (int i = 0; i < 4; i++) /* resume, answer, and what a socket takes at once */
        MHD_run(server->daemon);
    /* Before the daemon closes the descriptor that it watches. */
    uv_poll_stop(&server->poll);
    MHD_stop_daemon(server->daemon);
    http_listen_remove(server->address);
    uv_close((uv_handle_t *)&server->poll, on_closed);
    uv_close((uv_handle_t *)&server->timer, on_closed);
}

/* 6. Of a request. */

const char *http_request_method(const struct http_request *request)
{
    return request->method;
}

const char *http_request_path(const struct http_request *request)
{
    return request->path;
}

const char *http_request_header(const struct http_request *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

struct buffer *http_request_body(struct http_request *request)
{
    return &request->body;
}

void http_request_set_user(struct http_request *request, void *user)
{
    request->user = user;
}

void *http_request_user(const struct http_request *request)
{
    return request->user;
}
