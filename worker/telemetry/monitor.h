/*
 * monitor.h: how a running worker is seen from outside: metrics, probes, systemd.
 *
 * Owns:    the worker's metrics, the HTTP endpoint, systemd's notifications, the timer they share.
 * Refuses: the log and progress lines.
 * Threads: the loop thread.
 */
#ifndef MONITOR_H
#define MONITOR_H

#include <stddef.h>
#include <uv.h>

#include "worker/telemetry/metrics.h"

struct monitor;
struct serve;

/* listen: as for metrics_http_open; NULL or "": no endpoint. Does not keep the loop alive. 0;
 * -EINVAL: no address; else negative errno. */
int monitor_open(struct monitor **out, uv_loop_t *loop, const char *listen,
                 const struct model_info *model, char *err, size_t err_size);
struct metrics *monitor_metrics(struct monitor *monitor);
const char *monitor_address(const struct monitor *monitor); /* "" when there is no endpoint */
/* From now on until close it reads this pipeline, too. name: of several; borrowed. */
void monitor_watch(struct monitor *monitor, const struct pipeline *pipeline, const char *name);
/* ... and this server, which may be gone when the monitor is closed. */
void monitor_serves(struct monitor *monitor, struct serve *serve);
void monitor_stopping(const struct monitor *monitor);
/* Frees itself from the loop. Accepts NULL. */
void monitor_close(struct monitor *monitor);

#endif
