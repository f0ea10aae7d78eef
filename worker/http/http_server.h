/*
 * http_server.h: an HTTP/1.1 server in our loop: requests in, answers out, now or later.
 *
 * Owns:    the listening socket, the HTTP daemon and its place in the loop, bodies and their limit,
 *          the life of a request, noticing that a client is gone.
 * Refuses: what a path means; TLS (a proxy's).
 * Threads: the loop thread: the daemon has no thread of its own and is driven by the loop.
 * Why:     metrics and embeddings are served by the same code, so that what strangers can cost is
 *          bounded once.
 */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "connectors/buffer.h"
#include "worker/http/clients.h"

struct http_server;
struct http_request;

enum http_status {
    HTTP_OK = 200,
    HTTP_BAD_REQUEST = 400,
    HTTP_UNAUTHORIZED = 401,
    HTTP_NOT_FOUND = 404,
    HTTP_BAD_METHOD = 405,
    HTTP_TOO_LARGE = 413,
    HTTP_UNSUPPORTED_TYPE = 415,
    HTTP_UNPROCESSABLE = 422,
    HTTP_FAILED = 424, /* of text-embeddings-inference: the model did not do it */
    HTTP_TOO_MANY = 429,
    HTTP_HEADER_TOO_LARGE = 431,
    HTTP_INTERNAL = 500,
    HTTP_UNAVAILABLE = 503,
};

struct http_server_options {
    const char *where; /* as for http_listen */
    struct client_limits clients;
    size_t connection_bytes; /* of memory for a connection: its header and what it reads at once */
    size_t body_bytes;       /* more is answered by 413; 0: bodies are read and dropped */
    size_t bodies_bytes;     /* of all requests at once: more is answered by 503; 0: any */
    /* A header is there: whether the body behind it is kept. False: it is read and dropped, and
     * on_request has none. NULL: each is. */
    bool (*wants_body)(void *ctx, struct http_request *request);
    /* A whole request is there: http_answer now, or later. */
    void (*on_request)(void *ctx, struct http_request *request);
    /* An answer of the server's own, because a request was not taken: its status. NULL: they are
     * one line of text. */
    void (*on_refused)(void *ctx, struct http_request *request, unsigned status, const char *why);
    /* The client has closed its side before it was answered. It may wait for the answer all the
     * same (a half-closed connection), but most likely does not. NULL: nobody wants to know. */
    void (*on_gone)(void *ctx, struct http_request *request);
    /* The last of a request: its answer was taken, or the connection is lost. NULL: as above. */
    void (*on_done)(void *ctx, struct http_request *request);
    void *ctx;
};

/* Does not keep the loop alive. 0; -EINVAL for an address that is none; negative errno of the
 * socket; err says what to do. */
int http_server_open(struct http_server **out, uv_loop_t *loop,
                     const struct http_server_options *options, char *err, size_t err_size);
/* "127.0.0.1:9464", with the port that was taken. */
const char *http_server_address(const struct http_server *server);
size_t http_server_connections(const struct http_server *server);
/* From now on every answer is the last of its connection. */
void http_server_drain(struct http_server *server);
/* Requests that are not answered yet are answered by 503 and end, with their events. Frees itself
 * from the loop. Accepts NULL. */
void http_server_close(struct http_server *server);

/* Of a request, until on_done. */
const char *http_request_method(const struct http_request *request);
const char *http_request_path(const struct http_request *request);
/* NULL: there is no such header. */
const char *http_request_header(const struct http_request *request, const char *name);
/* The body; who needs it for longer takes it (and leaves an empty one). */
struct buffer *http_request_body(struct http_request *request);
void http_request_set_user(struct http_request *request, void *user);
void *http_request_user(const struct http_request *request);

struct http_field {
    const char *name, *value; /* name NULL behind the last */
};

enum { HTTP_FIELDS_MAX = 8 };

struct http_answer {
    unsigned status;
    const char *type;                              /* of the body */
    struct http_field fields[HTTP_FIELDS_MAX + 1]; /* copied */
    struct buffer body;                            /* taken */
};

/* Once for each request, at any time from on_request to on_done. */
void http_answer(struct http_request *request, struct http_answer *answer);
/* A short text, copied. */
void http_answer_text(struct http_request *request, unsigned status, const char *type,
                      const char *text);

#endif
