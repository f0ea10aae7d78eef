/*
 * pipeline_reports.c: events of the connectors that are for people and metrics only.
 *
 * Owns:    handing them on to whoever runs the pipeline.
 * Refuses: to change anything by them: what the work depends on is in pipeline.c.
 * Threads: the loop thread.
 */
#include "worker/pipeline/pipeline_internal.h"

void pipeline_on_source_state(void *ctx, enum link_state state, const char *why)
{
    struct pipeline *p = ctx;
    if (p->options.on_link)
        p->options.on_link(p->ctx, "input", state, why);
}

void pipeline_on_sink_state(void *ctx, enum link_state state, const char *why)
{
    struct pipeline *p = ctx;
    if (p->options.on_link)
        p->options.on_link(p->ctx, "output", state, why);
}

void pipeline_on_lag(void *ctx, const char *part, int64_t lag)
{
    struct pipeline *p = ctx;
    if (p->options.on_lag)
        p->options.on_lag(p->ctx, part, lag);
}

void pipeline_on_count(void *ctx, const char *what, uint64_t n)
{
    struct pipeline *p = ctx;
    if (p->options.on_count)
        p->options.on_count(p->ctx, what, n);
}

void pipeline_on_skipped(void *ctx, const struct skipped *skipped)
{
    struct pipeline *p = ctx;
    if (p->options.on_skipped)
        p->options.on_skipped(p->ctx, skipped);
}

void pipeline_on_source_notice(void *ctx, enum notice level, const char *code, const char *text)
{
    struct pipeline *p = ctx;
    if (p->options.on_notice)
        p->options.on_notice(p->ctx, "input", level, code, text);
}

void pipeline_on_sink_notice(void *ctx, enum notice level, const char *code, const char *text)
{
    struct pipeline *p = ctx;
    if (p->options.on_notice)
        p->options.on_notice(p->ctx, "output", level, code, text);
}
