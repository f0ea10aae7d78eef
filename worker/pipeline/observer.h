/*
 * observer.h: what connectors report for people and metrics, on its way to whoever runs them.
 *
 * Owns:    handing it on, with the side it comes from.
 * Refuses: to change anything by it: what the work depends on is in pipeline.c and transfer.c.
 * Threads: the loop thread.
 */
#ifndef OBSERVER_H
#define OBSERVER_H

#include "connectors/connector.h"

enum side { SIDE_INPUT, SIDE_OUTPUT, N_SIDES };

extern const char *const observer_sides[N_SIDES]; /* "input", "output" */

/* The events of connector.h; each may be NULL. */
struct observer_ops {
    void (*on_link)(void *ctx, enum side side, enum link_state state, const char *why);
    void (*on_lag)(void *ctx, const char *part, int64_t lag);
    void (*on_count)(void *ctx, enum counter what, uint64_t n);
    void (*on_skipped)(void *ctx, const struct skipped *skipped);
    void (*on_notice)(void *ctx, enum side side, enum notice level, const char *code,
                      const char *text);
};

/* First member of what gives itself as ctx to a source and a sink. */
struct observer {
    struct observer_ops ops;
    void *ctx;
};

/* For source_events and sink_events, whose ctx begins with a struct observer. */
void observer_on_source_state(void *ctx, enum link_state state, const char *why);
void observer_on_sink_state(void *ctx, enum link_state state, const char *why);
void observer_on_lag(void *ctx, const char *part, int64_t lag);
void observer_on_count(void *ctx, enum counter what, uint64_t n);
void observer_on_skipped(void *ctx, const struct skipped *skipped);
void observer_on_source_notice(void *ctx, enum notice level, const char *code, const char *text);
void observer_on_sink_notice(void *ctx, enum notice level, const char *code, const char *text);

#endif
