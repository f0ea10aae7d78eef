/*
 * work_events.h: what pipelines report, on its way to the log, the metrics and the spans.
 *
 * Owns:    whether all inputs and outputs of several models are connected; the sum of their lags.
 * Refuses: when a command ends.
 * Threads: the loop thread.
 */
#ifndef WORK_EVENTS_H
#define WORK_EVENTS_H

#include "worker/commands/command_line.h"
#include "worker/pipeline/cache.h"
#include "worker/pipeline/pipeline.h"
#include "worker/telemetry/monitor.h"
#include "worker/telemetry/progress.h"
#include "worker/telemetry/spans.h"

/* All borrowed; monitor and spans may come and go. */
struct work_events {
    bool has_end;                /* the work: its sink reports dead letters, in order */
    struct monitor *monitor;     /* NULL for work that has an end */
    struct spans *spans;         /* NULL: none */
    struct cache **caches;       /* [n_caches] each may be NULL */
    struct progress_input input; /* of a source that knows its size */
    size_t n_caches, n_lanes;
    size_t n_inputs;  /* one for each lane, or one of all */
    bool lag_dropped; /* and reported */
    bool is_up[N_SIDES][COMMAND_MODELS_MAX];
    int64_t group_lags[COMMAND_MODELS_MAX]; /* of the input of each lane */
};

/* First member of what a pipeline gets as ctx. */
struct work_lane {
    struct work_events *events;
    size_t index;
    const char *model; /* as its file calls itself */
};

/* Monitor and spans, as the settings say. COMMAND_OK, or the exit code, and all is in the log. */
int work_events_open(struct work_events *events, uv_loop_t *loop, const struct settings *settings,
                     const struct model_info *model);
void work_events_set(const struct work_events *events, struct pipeline_options *options);
void work_events_cache(const struct work_events *events); /* complaints of caches, to the log */

#endif
