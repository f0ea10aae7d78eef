/*
 * http_get.c: see http_get.h. Everything ends in finish, whatever comes first: the end of the
 * answer, an error of the last address, or the timer.
 *
 * Threads: the loop thread.
 */
#include "worker/commands/http_get.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/config/address.h"

struct http_get {
    uv_tcp_t tcp;
    uv_timer_t timer;
    uv_getaddrinfo_t resolve;
    uv_connect_t connect;
    uv_write_t write;
    struct addrinfo *found, *at; /* what the name stands for, and what is tried of it */
    char head[600];
    char *answer;
    size_t len, room;
    http_get_cb done;
    void *ctx;
    bool finished, resolving, retrying; /* retrying: tcp is being closed for the next address */
    int n_open;
};

static void release(struct http_get *request)
{
    /* libuv still holds handles or the request in its thread pool: the last of them frees it. */
    if (request->n_open > 0 || request->resolving)
        return;
    uv_freeaddrinfo(request->found);
    free(request->answer);
    free(request);
}

static void on_closed(uv_handle_t *handle)
{
    struct http_get *request = handle->data;
    assert(request->n_open > 0);
    request->n_open--;
    release(request);
}

/* "HTTP/1.1 200 OK"; -EPROTO when it is none. */
static int status_of(const char *answer)
{
    int status;
    return sscanf(answer, "HTTP/1.%*1[01] %3d", &status) == 1 ? status : -EPROTO;
}

static void finish(struct http_get *request, int err)
{
    if (request->finished)
        return;
    request->finished = true;
    const char *answer = request->answer ? request->answer : "";
    const char *body = strstr(answer, "\r\n\r\n");
    /* HTTP/1.0 and no keep-alive: the end of the connection is the end of the answer. */
    int status = err ? err : body ? status_of(answer) : -EPROTO;
    request->done(request->ctx, status, body ? body + 4 : "");
    if (request->resolving)
        uv_cancel((uv_req_t *)&request->resolve);
    /* Else it is closing already, and on_retry goes on to on_closed. */
    if (!request->retrying)
        uv_close((uv_handle_t *)&request->tcp, on_closed);
    uv_close((uv_handle_t *)&request->timer, on_closed);
}

static void on_timeout(uv_timer_t *timer)
{
    finish(timer->data, -ETIMEDOUT);
}

static void on_room(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct http_get *request = handle->data;
    (void)suggested;
    *buf = uv_buf_init(NULL, 0); /* the read then ends with UV_ENOBUFS */
    if (request->len + 1 >= request->room) {
        size_t room = request->room ? request->room * 2 : 64 * 1024;
        char *answer = room <= HTTP_GET_MAX ? realloc(request->answer, room) : NULL;
        if (!answer)
            return;
        request->answer = answer;
        request->room = room;
    }
    *buf =
        uv_buf_init(request->answer + request->len, (unsigned)(request->room - request->len - 1));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct http_get *request = stream->data;
    (void)buf;
    if (n > 0) {
        request->len += (size_t)n;
        request->answer[request->len] = '\0';
    } else if (n < 0) {
        finish(request, n == UV_EOF ? 0 : (int)n);
    }
}

static void on_written(uv_write_t *write, int status)
{
    struct http_get *request = write->data;
    if (status != 0)
        finish(request, status);
}

static void connect_to(struct http_get *request, struct addrinfo *at);

static void on_retry(uv_handle_t *handle)
{
    struct http_get *request = handle->data;
    request->retrying = false;
    if (request->finished) {
        on_closed(handle);
        return;
    }
    /* libuv leaves tcp.data as it is. */
    uv_tcp_init(handle->loop, &request->tcp);
    connect_to(request, request->at->ai_next);
}

/* localhost may be ::1 first, and the worker listen at 127.0.0.1. */
static void on_refused(struct http_get *request, int err)
{
    if (!request->at->ai_next) {
        finish(request, err);
        return;
    }
    request->retrying = true;
    uv_close((uv_handle_t *)&request->tcp, on_retry);
}

static void on_connected(uv_connect_t *connect, int status)
{
    struct http_get *request = connect->data;
    uv_buf_t head = uv_buf_init(request->head, (unsigned)strlen(request->head));
    if (request->finished)
        return;
    if (status != 0) {
        on_refused(request, status);
        return;
    }
    status = uv_write(&request->write, (uv_stream_t *)&request->tcp, &head, 1, on_written);
    if (status == 0)
        status = uv_read_start((uv_stream_t *)&request->tcp, on_room, on_read);
    if (status != 0)
        finish(request, status);
}

static void connect_to(struct http_get *request, struct addrinfo *at)
{
    request->at = at;
    int rc = uv_tcp_connect(&request->connect, &request->tcp, at->ai_addr, on_connected);
    if (rc != 0)
        on_refused(request, rc);
}

static void on_resolved(uv_getaddrinfo_t *resolve, int status, struct addrinfo *found)
{
    struct http_get *request = resolve->data;
    request->resolving = false;
    request->found = found;
    if (request->finished)
        release(request);
    else if (status != 0)
        finish(request, status);
    else
        connect_to(request, found);
}

void http_get_cancel(struct http_get *request)
{
    finish(request, -ECANCELED);
}

int http_get_open(struct http_get **out, uv_loop_t *loop, const char *address, const char *path,
                  uint64_t timeout_ms, http_get_cb done, void *ctx)
{
    char host[256], port[16], err[300];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    if (address_split(address, host, sizeof host, port, sizeof port, err, sizeof err) != 0)
        return -EINVAL;
    if (!host[0])
        strcpy(host, "127.0.0.1");
    struct http_get *request = calloc(1, sizeof *request);
    if (!request)
        return -ENOMEM;
    request->done = done;
    request->ctx = ctx;
    snprintf(request->head, sizeof request->head,
             "GET %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: embedmill\r\n\r\n", path, address);
    request->resolve.data = request->connect.data = request->write.data = request;
    int rc = uv_getaddrinfo(loop, &request->resolve, on_resolved, host, port, &hints);
    if (rc != 0) {
        free(request);
        return rc;
    }
    request->resolving = true;
    uv_tcp_init(loop, &request->tcp);
    uv_timer_init(loop, &request->timer);
    request->tcp.data = request->timer.data = request;
    /* libuv holds two handles of it from here on: only release frees it. */
    request->n_open = 2;
    uv_timer_start(&request->timer, on_timeout, timeout_ms, 0);
    *out = request;
    return 0;
}

void http_get_default_address(char *out, size_t size)
{
    char host[256], port[16], err[300];
    const char *listen = getenv("EMBEDMILL_METRICS_LISTEN");
    snprintf(out, size, "127.0.0.1:9464");
    if (!listen || !listen[0] ||
        address_split(listen, host, sizeof host, port, sizeof port, err, sizeof err) != 0)
        return;
    if (!host[0] || strcmp(host, "0.0.0.0") == 0)
        snprintf(out, size, "127.0.0.1:%s", port);
    else if (strcmp(host, "::") == 0)
        snprintf(out, size, "[::1]:%s", port);
    else
        snprintf(out, size, "%s", listen);
}
