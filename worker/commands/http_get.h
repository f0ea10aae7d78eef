/*
 * http_get.h: one GET of a worker's endpoint.
 *
 * Owns:    the connection and the answer, until done was called.
 * Refuses: TLS, redirects, chunked answers (HTTP/1.0 is spoken), answers over HTTP_GET_MAX bytes.
 * Threads: the loop thread.
 * Why:     `top` asks many workers at once, of which some do not answer.
 */
#ifndef HTTP_GET_H
#define HTTP_GET_H

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

enum { HTTP_GET_MAX = 4 << 20 };

struct http_get;

/* status: of HTTP, or negative errno; body ends with a NUL and is borrowed. */
typedef void (*http_get_cb)(void *ctx, int status, const char *body);

/* done is called exactly once, from the loop, at the latest after timeout_ms; *out is valid until
 * then. Every address that a name stands for is tried. 0, -ENOMEM, or -EINVAL for an address that
 * is none: then done is not called. */
int http_get_open(struct http_get **out, uv_loop_t *loop, const char *address, const char *path,
                  uint64_t timeout_ms, http_get_cb done, void *ctx);
/* Calls done with -ECANCELED. */
void http_get_cancel(struct http_get *request);

/* The address commands ask when none is named: that of EMBEDMILL_METRICS_LISTEN, as seen from this
 * machine, else 127.0.0.1:9464. */
void http_get_default_address(char *out, size_t size);

#endif
