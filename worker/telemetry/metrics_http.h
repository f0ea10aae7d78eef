/*
 * metrics_http.h: /metrics, /livez and /readyz on an address of their own.
 *
 * Owns:    those paths.
 * Refuses: anything but GET and HEAD of those three; TLS and passwords (listen on a private
 *          address); sockets (worker/http).
 * Threads: the loop thread.
 * Why:     a probe that is answered by the loop proves that the loop runs.
 */
#ifndef METRICS_HTTP_H
#define METRICS_HTTP_H

#include <stddef.h>
#include <uv.h>

#include "worker/telemetry/metrics.h"

struct http_server;

/* As http_server_open, which has the rest. metrics is borrowed until close. */
int metrics_http_open(struct http_server **out, uv_loop_t *loop, const char *where,
                      const struct metrics *metrics, char *err, size_t err_size);
/* Whether that could listen now; nothing stays open. */
int metrics_http_try(const char *where, char *err, size_t err_size);

#endif
