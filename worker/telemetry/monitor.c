/*
 * monitor.c: see monitor.h.
 *
 * systemd is told READY when /readyz would say so for the first time. A broker that is away may
 * delay that for hours, which is not a failed start, so until then each tick asks for more time.
 */
#include "worker/telemetry/monitor.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "worker/http/http_server.h"
#include "worker/serve/serve.h"
#include "worker/telemetry/metrics_http.h"
#include "worker/telemetry/notify.h"
#include "worker/telemetry/progress.h"

enum { TICK_MS = 1000, STATUS_TICKS = 10 };

struct monitor {
    uv_timer_t timer;
    struct notify notify;
    struct http_server *http;
    struct metrics metrics;
    uint64_t n_ticks;
    bool was_ready; /* and systemd was told */
};

static void send_status(const struct monitor *monitor, const char *why_not)
{
    char line[400], waiting[100];
    const struct metrics *metrics = &monitor->metrics;
    if (!metrics->n_pipelines) {
        struct serve_stats served = serve_stats(metrics->serve);
        snprintf(line, sizeof line,
                 "STATUS=%s; %" PRIu64 " texts in %" PRIu64 " requests, %zu tokens waiting",
                 why_not ? why_not : "serving", served.texts, served.requests,
                 served.queries.waiting_tokens + served.lists.waiting_tokens);
        notify_send(&monitor->notify, line);
        return;
    }
    struct pipeline_stats stats = {0};
    for (size_t i = 0; i < metrics->n_pipelines; i++)
        pipeline_stats_add(&stats, pipeline_stats(metrics->pipelines[i]));
    progress_print_lag(waiting, sizeof waiting, ", ", metrics_lag(metrics));
    snprintf(line, sizeof line,
             "STATUS=%s; %" PRIu64 " texts, %" PRIu64 " dead letters, %" PRIu64 " in flight%s",
             why_not ? why_not : "working", stats.texts, stats.dead_letters, stats.inflight_texts,
             waiting);
    notify_send(&monitor->notify, line);
}

static void on_tick(uv_timer_t *timer)
{
    struct monitor *monitor = timer->data;
    struct metrics *metrics = &monitor->metrics;
    metrics_tick(metrics);
    notify_tick(&monitor->notify, uv_now(timer->loop));
    if (!metrics->n_pipelines && !metrics->serve)
        return;
    const char *why_not = metrics_not_ready(metrics);
    /* Once: a worker whose broker goes away later stays started for systemd. */
    bool became_ready = !why_not && !monitor->was_ready;
    if (became_ready)
        notify_send(&monitor->notify, "READY=1");
    else if (!monitor->was_ready)
        /* Half a minute from now, each second: a loop that hangs before it is ready is noticed. */
        notify_send(&monitor->notify, "EXTEND_TIMEOUT_USEC=30000000");
    monitor->was_ready |= became_ready;
    if (monitor->n_ticks++ % STATUS_TICKS == 0 || became_ready)
        send_status(monitor, why_not);
}

int monitor_open(struct monitor **out, uv_loop_t *loop, const char *listen,
                 const struct model_info *model, char *err, size_t err_size)
{
    struct monitor *monitor = calloc(1, sizeof *monitor);
    if (!monitor)
        return snprintf(err, err_size, "out of memory"), -ENOMEM;
    metrics_open(&monitor->metrics, model);
    if (listen && listen[0]) {
        int rc = metrics_http_open(&monitor->http, loop, listen, &monitor->metrics, err, err_size);
        if (rc != 0) {
            free(monitor);
            return rc;
        }
    }
    notify_open(&monitor->notify);
    uv_timer_init(loop, &monitor->timer);
    monitor->timer.data = monitor;
    uv_timer_start(&monitor->timer, on_tick, TICK_MS, TICK_MS);
    uv_unref((uv_handle_t *)&monitor->timer);
    *out = monitor;
    return 0;
}

struct metrics *monitor_metrics(struct monitor *monitor)
{
    return &monitor->metrics;
}

const char *monitor_address(const struct monitor *monitor)
{
    return monitor->http ? http_server_address(monitor->http) : "";
}

void monitor_watch(struct monitor *monitor, const struct pipeline *pipeline, const char *name)
{
    struct metrics *metrics = &monitor->metrics;
    assert(metrics->n_pipelines < METRICS_PIPELINES_MAX);
    metrics->names[metrics->n_pipelines] = name;
    metrics->pipelines[metrics->n_pipelines++] = pipeline;
}

void monitor_serves(struct monitor *monitor, struct serve *serve)
{
    monitor->metrics.serve = serve;
}

void monitor_stopping(const struct monitor *monitor)
{
    notify_send(&monitor->notify, "STOPPING=1\nSTATUS=finishing what was taken");
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void monitor_close(struct monitor *monitor)
{
    if (!monitor)
        return;
    /* A server that it showed may be gone by now, and closing answers scrapes that have come in. */
    monitor->metrics.serve = NULL;
    http_server_close(monitor->http);
    notify_close(&monitor->notify);
    uv_close((uv_handle_t *)&monitor->timer, on_closed);
}
