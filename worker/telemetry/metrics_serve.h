/*
 * metrics_serve.h: what a server of embeddings counts and measures.
 *
 * Owns:    requests by route and status, their times by lane, and the lanes that they share the
 *          threads with.
 * Threads: the loop thread.
 */
#ifndef METRICS_SERVE_H
#define METRICS_SERVE_H

#include <stdint.h>
#include <stdio.h>

#include "worker/telemetry/histogram.h"

struct serve;
struct serve_seen;

/* Routes times the statuses that there are, and room for more. */
enum { METRICS_ROUTES_MAX = 128 };

/* Queries and lists. */
enum { METRICS_LANES = 2 };

struct metrics_serve {
    struct metrics_route {
        const char *path;
        unsigned status;
        uint64_t n;
    } routes[METRICS_ROUTES_MAX];
    size_t n_routes;
    struct histogram wait[METRICS_LANES], took[METRICS_LANES];
    uint64_t n_gone, n_cached;
};

void metrics_serve_open(struct metrics_serve *metrics);
/* A request has ended. */
void metrics_serve_seen(struct metrics_serve *metrics, const struct serve_seen *seen);
void metrics_serve_print(const struct metrics_serve *metrics, struct serve *serve, FILE *to);

#endif
