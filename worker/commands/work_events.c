/*
 * work_events.c: see work_events.h.
 */
#include "worker/commands/work_events.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "worker/commands/command.h"
#include "worker/telemetry/log.h"
#include "worker/telemetry/reports.h"

/* Of several inputs or outputs: up once all are, and down as soon as one is. */
static void on_link(void *ctx, enum side side, enum link_state state, const char *why)
{
    const struct work_lane *lane = ctx;
    struct work_events *events = lane->events;
    bool are_up = state == LINK_UP;
    size_t n = side == SIDE_OUTPUT ? events->n_lanes : events->n_inputs;
    events->is_up[side][lane->index] = are_up;
    for (size_t i = 0; i < n; i++)
        are_up &= events->is_up[side][i];
    if (state == LINK_UP && !are_up)
        return;
    if (events->monitor)
        metrics_on_link(monitor_metrics(events->monitor), side, state);
    reports_link(side, state, why);
}

static void on_dead_letter(void *ctx, const struct message *message, const char *code,
                           const char *reason)
{
    const struct work_events *events = ((const struct work_lane *)ctx)->events;
    if (events->has_end)
        return;              /* the sink tells of each, in order */
    assert(events->monitor); /* of work without an end, until its pipelines have ended */
    metrics_on_dead_letter(monitor_metrics(events->monitor), code);
    reports_dead_letter(message, code, reason, false);
}

static void on_undeliverable(void *ctx, const struct message *message, const char *code,
                             const char *reason)
{
    (void)ctx;
    reports_dead_letter(message, code, reason, true);
}

/* Of all inputs; -1 when one of them is not known. */
static int64_t sum_group_lags(struct work_events *events, size_t index, int64_t lag)
{
    int64_t sum = 0;
    events->group_lags[index] = lag;
    for (size_t i = 0; i < events->n_inputs; i++) {
        if (events->group_lags[i] < 0)
            return -1;
        sum += events->group_lags[i];
    }
    return sum;
}

static void on_lag(void *ctx, const char *part, int64_t lag)
{
    const struct work_lane *lane = ctx;
    struct work_events *events = lane->events;
    if (!part)
        lag = sum_group_lags(events, lane->index, lag);
    if (!events->monitor)
        return;
    bool is_shown = metrics_on_lag(monitor_metrics(events->monitor), part, lag);
    if (is_shown || events->lag_dropped)
        return;
    events->lag_dropped = true;
    log_event(LOG_WARN,
              "the input has more parts than their lag is shown of: "
              "embedmill_source_lag misses some; the messages are worked on all the same",
              LOG_INTEGER("most", SERIES_MAX), LOG_TEXT("part", part));
}

void work_events_cache(const struct work_events *events)
{
    char why[5000];
    for (size_t i = 0; i < events->n_caches; i++)
        if (cache_complaint(events->caches[i], why, sizeof why))
            log_event(LOG_WARN, "cache", LOG_TEXT("error", why));
}

static void on_embedded(void *ctx, const struct batch *batch)
{
    const struct work_lane *lane = ctx;
    const struct work_events *events = lane->events;
    work_events_cache(events);
    if (events->monitor)
        metrics_on_embedded(monitor_metrics(events->monitor), batch);
    if (!events->spans)
        return;
    /* One file has the spans of all models. */
    spans_model(events->spans, lane->model);
    spans_add(events->spans, batch);
}

static void on_published(void *ctx, const struct entry *entry)
{
    metrics_on_published(monitor_metrics(((const struct work_lane *)ctx)->events->monitor), entry);
}

static void on_count(void *ctx, enum counter what, uint64_t n)
{
    struct work_events *events = ((const struct work_lane *)ctx)->events;
    if (!progress_input_count(&events->input, what, n) && events->monitor)
        metrics_on_count(monitor_metrics(events->monitor), what, n);
}

static void on_skipped(void *ctx, const struct skipped *skipped)
{
    struct work_events *events = ((const struct work_lane *)ctx)->events;
    reports_skipped(skipped);
    if (events->monitor)
        metrics_on_skipped(monitor_metrics(events->monitor), skipped);
}

static void on_notice(void *ctx, enum side side, enum notice level, const char *code,
                      const char *text)
{
    (void)ctx;
    reports_notice(side, level, code, text);
}

static void on_doubled(void *ctx, const struct prompt *had, const struct prompt *given)
{
    (void)ctx;
    reports_doubled(had, given);
}

static int open_spans(struct work_events *events, uv_loop_t *loop, const struct settings *settings,
                      const struct model_info *model)
{
    const char *path = settings_text(settings, "trace.file");
    const struct spans_about about = {.source = settings_text(settings, "source"),
                                      .model = model->name};
    char err[300];
    if (!path[0] || spans_open(&events->spans, loop, path, &about, err, sizeof err) == 0)
        return COMMAND_OK;
    log_event(LOG_ERROR, "cannot start", LOG_TEXT("option", "trace.file"), LOG_TEXT("error", err));
    return COMMAND_CONFIG;
}

int work_events_open(struct work_events *events, uv_loop_t *loop, const struct settings *settings,
                     const struct model_info *model)
{
    const char *listen = settings_text(settings, "metrics.listen");
    char err[400];
    for (size_t i = 0; i < COMMAND_MODELS_MAX; i++)
        events->group_lags[i] = -1;
    if (events->has_end)
        return COMMAND_OK;
    int rc = monitor_open(&events->monitor, loop, listen, model, err, sizeof err);
    if (rc != 0) {
        log_event(LOG_ERROR, "cannot start", LOG_TEXT("option", "metrics.listen"),
                  LOG_TEXT("error", err));
        return rc == -EINVAL   ? COMMAND_CONFIG
               : rc == -ENOMEM ? COMMAND_INTERNAL
                               : COMMAND_UNAVAILABLE;
    }
    if (monitor_address(events->monitor)[0])
        log_event(LOG_INFO, "serving metrics",
                  LOG_TEXT("listen", monitor_address(events->monitor)));
    return open_spans(events, loop, settings, model);
}

void work_events_set(const struct work_events *events, struct pipeline_options *options)
{
    options->observer = (struct observer_ops){.on_link = on_link,
                                              .on_lag = on_lag,
                                              .on_count = on_count,
                                              .on_skipped = on_skipped,
                                              .on_notice = on_notice};
    options->on_dead_letter = on_dead_letter;
    options->on_undeliverable = on_undeliverable;
    options->on_doubled = on_doubled;
    options->on_missing_prompt = reports_missing_prompt;
    options->on_embedded = on_embedded;
    if (events->monitor)
        options->on_published = on_published;
}
