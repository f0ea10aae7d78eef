/*
 * observer.c: see observer.h.
 */
#include "worker/pipeline/observer.h"

const char *const observer_sides[N_SIDES] = {"input", "output"};

static void report_state(const struct observer *observer, enum side side, enum link_state state,
                         const char *why)
{
    if (observer->ops.on_link)
        observer->ops.on_link(observer->ctx, side, state, why);
}

void observer_on_source_state(void *ctx, enum link_state state, const char *why)
{
    report_state(ctx, SIDE_INPUT, state, why);
}

void observer_on_sink_state(void *ctx, enum link_state state, const char *why)
{
    report_state(ctx, SIDE_OUTPUT, state, why);
}

void observer_on_lag(void *ctx, const char *part, int64_t lag)
{
    const struct observer *observer = ctx;
    if (observer->ops.on_lag)
        observer->ops.on_lag(observer->ctx, part, lag);
}

void observer_on_count(void *ctx, enum counter what, uint64_t n)
{
    const struct observer *observer = ctx;
    if (observer->ops.on_count)
        observer->ops.on_count(observer->ctx, what, n);
}

void observer_on_skipped(void *ctx, const struct skipped *skipped)
{
    const struct observer *observer = ctx;
    if (observer->ops.on_skipped)
        observer->ops.on_skipped(observer->ctx, skipped);
}

static void report_notice(const struct observer *observer, enum side side, enum notice level,
                          const char *code, const char *text)
{
    if (observer->ops.on_notice)
        observer->ops.on_notice(observer->ctx, side, level, code, text);
}

void observer_on_source_notice(void *ctx, enum notice level, const char *code, const char *text)
{
    report_notice(ctx, SIDE_INPUT, level, code, text);
}

void observer_on_sink_notice(void *ctx, enum notice level, const char *code, const char *text)
{
    report_notice(ctx, SIDE_OUTPUT, level, code, text);
}
