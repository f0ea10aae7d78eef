/*
 * metrics_http.h: /metrics, /livez and /readyz on an address of their own.
 *
 * Owns:    the listening socket, the HTTP daemon, its place in the loop.
 * Refuses: anything but GET and HEAD of those three; TLS and passwords (listen on a private
 *          address).
 * Threads: the loop thread: the daemon has no thread of its own and is driven by the loop.
 * Why:     a probe that is answered by the loop proves that the loop runs.
 */
#ifndef METRICS_HTTP_H
#define METRICS_HTTP_H

#include <stddef.h>
#include <uv.h>

#include "worker/telemetry/metrics.h"

struct metrics_http;

/*
 * where: "127.0.0.1:9464", "[::1]:9464", ":9464" for all addresses; port 0 takes a free one.
 * metrics is borrowed until close. Does not keep the loop alive. 0; -EINVAL for an address that is
 * none; negative errno of the socket; err says what to do.
 */
int metrics_http_open(struct metrics_http **out, uv_loop_t *loop, const char *where,
                      const struct metrics *metrics, char *err, size_t err_size);
/* Whether that could listen now; nothing stays open. */
int metrics_http_try(const char *where, char *err, size_t err_size);
/* "127.0.0.1:9464", with the port that was taken. */
const char *metrics_http_address(const struct metrics_http *http);
/* Frees itself from the loop. Accepts NULL. */
void metrics_http_close(struct metrics_http *http);

#endif
