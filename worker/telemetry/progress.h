/*
 * progress.h: how far the work is, while it goes on.
 *
 * Owns:    the status line on a terminal, the log line elsewhere, rates and the time left; the
 *          once-a-second log_tick.
 * Refuses: counting: pipeline_stats does.
 * Threads: the loop thread.
 */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "worker/telemetry/metrics.h"
#include "worker/pipeline/pipeline.h"

struct progress;

/* Bytes of the input; total 0: unknown. */
struct progress_input {
    uint64_t done, total;
};

/* Take in what a source counts of its size; false: it is something else. */
bool progress_input_count(struct progress_input *input, enum counter what, uint64_t n);

struct progress_options {
    bool status_line;                   /* on the terminal of the log */
    bool log_lines;                     /* one per interval in which anything happened */
    uint64_t interval_ms;               /* of log lines */
    uint64_t total_texts;               /* 0: unknown */
    const struct progress_input *input; /* borrowed; NULL: not counted */
    const struct metrics *metrics;      /* borrowed: the lag; NULL: the input has none */
    void (*count)(void *ctx);           /* brings the stats up to date; NULL: they always are */
    void *ctx;
};

/* stats are borrowed until close. Does not keep the loop alive. 0, -ENOMEM. */
int progress_open(struct progress **out, uv_loop_t *loop, const struct pipeline_stats *stats,
                  const struct progress_options *options);
/* Frees itself from the loop. Accepts NULL. */
void progress_close(struct progress *progress);
/* Log all counters now. */
void progress_log(const struct progress *progress, const char *msg);

/* The status line: "61/100 texts (61 %)  12.3 texts/s  ...". Rates are per second. */
void progress_line(char *out, size_t size, const struct pipeline_stats *stats, uint64_t total,
                   double texts_rate, double tokens_rate);

/* What goes before that line: "[#####...............] 25 %  ETA 3m20s  ". rate: bytes a second.
 * Empty when the total is unknown. */
void progress_bar(char *out, size_t size, const struct progress_input *input, double rate);

/* Before is put before "lag 1,234, group 5,678"; empty when neither is known. */
void progress_print_lag(char *out, size_t size, const char *before, struct lag lag);

#endif
