/*
 * metrics.h: what a worker counts and measures, and its Prometheus text.
 *
 * Owns:    counters, histograms with fixed buckets, the series of parts of the input (lag) and of
 *          codes (dead letters, faults), and what makes a worker ready.
 * Refuses: serving them (metrics_http.h), sums and rates over time, texts of messages.
 * Threads: the loop thread.
 * Why:     observing allocates nothing and takes nanoseconds, because it happens for every text;
 *          a scrape may allocate, because it happens every few seconds.
 */
#ifndef METRICS_H
#define METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "inference/embed.h"
#include "worker/pipeline/batch.h"
#include "worker/pipeline/pipeline.h"
#include "worker/telemetry/histogram.h"
#include "worker/telemetry/metrics_serve.h"

/* A named number that comes into being when it is first met. */
struct series {
    char name[320]; /* a topic of Kafka and its partition */
    int64_t value;
};

/* Further names are counted only: whoever sends them must not cost memory. */
enum { SERIES_MAX = 1024, METRICS_PIPELINES_MAX = 8 };

struct series_table {
    struct series rows[SERIES_MAX];
    size_t n;
    uint64_t n_dropped; /* times that there was no room */
};

/* The row of that name, made when there is none; NULL when the table is full. */
struct series *series_find(struct series_table *table, const char *name);
void series_drop(struct series_table *table, const char *name);

enum link_seen { LINK_SEEN_UNKNOWN, LINK_SEEN_DOWN, LINK_SEEN_UP };

/* Messages that wait; -1: not known. */
struct lag {
    int64_t own;   /* in the parts of the input that are read here */
    int64_t group; /* in all of them, where the source can tell the two apart */
};

struct metrics {
    struct histogram text_tokens, batch_texts, batch_tokens;
    struct histogram queue_wait, embedding, inference, publish, end_to_end;
    uint64_t busy_ns; /* of all pool threads, in finished slices of their own */
    double busy_ratio;
    struct series_table dead_letters; /* by code */
    struct series_table lag;          /* by part of the input */
    int64_t group_lag;                /* as lag.group */
    uint64_t counts[N_COUNTERS];
    uint64_t skipped[N_SKIP_REASONS]; /* messages nobody was given */
    enum link_seen links[N_SIDES];
    uint64_t faults[N_SIDES]; /* times that it went away */
    const struct model_info *model;
    /* [n_pipelines], 0: not there yet, or none; of several, the names of their models. */
    const struct pipeline *pipelines[METRICS_PIPELINES_MAX];
    const char *names[METRICS_PIPELINES_MAX];
    size_t n_pipelines;
    struct serve *serve; /* NULL: not there yet, or none */
    struct metrics_serve served;
    double process_start; /* metrics_process_start, once */
    double busy_samples[10];
    size_t n_busy_samples;
};

/* Large: make it static or on the heap. model: borrowed; NULL until there is one. */
void metrics_open(struct metrics *metrics, const struct model_info *model);

/* The events of pipeline_options. */
void metrics_on_link(struct metrics *metrics, enum side side, enum link_state state);
void metrics_on_dead_letter(struct metrics *metrics, const char *code);
/* False when there is no room for another part: its lag will not be shown. */
bool metrics_on_lag(struct metrics *metrics, const char *part, int64_t lag);
void metrics_on_count(struct metrics *metrics, enum counter what, uint64_t n);
/* What nobody can count counts 1. */
void metrics_on_skipped(struct metrics *metrics, const struct skipped *skipped);
void metrics_on_embedded(struct metrics *metrics, const struct batch *batch);
void metrics_on_published(struct metrics *metrics, const struct entry *entry);
/* About once a second. */
void metrics_tick(struct metrics *metrics);

struct lag metrics_lag(const struct metrics *metrics);
/* The stage that finds what a dead letter's code stands for: "decode", "embed" and others. */
const char *metrics_stage_of(const char *code);
/* NULL when the worker is ready: pipeline open, both sides joined, not draining; else why not. */
const char *metrics_not_ready(const struct metrics *metrics);

/* metrics_text.c: all of it, in the text format of Prometheus. */
void metrics_print(const struct metrics *metrics, FILE *to);
/* metrics_process.c: process_*, from /proc. start: what metrics_process_start said. */
void metrics_print_process(FILE *to, double start);
/* Unix time at which this process began; 0: not known. To be asked once: the clock is set and
 * slewed, and a start that moves looks like a restart. */
double metrics_process_start(void);

#endif
