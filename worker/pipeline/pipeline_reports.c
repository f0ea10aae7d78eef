/*
 * pipeline_reports.c: events of the connectors that are for people and metrics only.
 *
 * Owns:    handing them on to whoever runs the pipeline.
 * Refuses: to change anything by them: what the work depends on is in pipeline.c.
 * Threads: the loop thread.
 */
#include "worker/pipeline/pipeline_internal.h"

#include <stdio.h>

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

void pipeline_note_version(struct pipeline *p, const struct entry *entry)
{
    const struct bytes *position = &entry->message->position;
    enum version_by by = p->options.decode.version_by;
    char text[320];
    bool is_wanted = by == VERSION_POSITION || by == VERSION_TIMESTAMP;
    if (!is_wanted || entry->request.has_version || p->is_version_noted)
        return;
    p->is_version_noted = true;
    snprintf(text, sizeof text,
             "the message at %.*s has no %s, which order_by takes for its version: it is written "
             "whatever is there, and so are others like it. Have senders set it, or order by a "
             "field",
             (int)(position->len < 120 ? position->len : 120), position->ptr,
             by == VERSION_TIMESTAMP ? "timestamp" : "position that orders it");
    pipeline_on_source_notice(p, NOTICE_WARN, "no_version", text);
}
