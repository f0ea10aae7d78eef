/*
 * pipeline_internal.h: what pipeline.c (the way of a message) and pipeline_life.c (opening and
 * closing) share. Nobody else includes it.
 */
#ifndef PIPELINE_INTERNAL_H
#define PIPELINE_INTERNAL_H

#include "connectors/made_with.h"
#include "connectors/wakeup.h"
#include "worker/pipeline/backlog.h"
#include "worker/pipeline/batch.h"
#include "worker/pipeline/cache.h"
#include "worker/pipeline/credit.h"
#include "worker/pipeline/observer.h"
#include "worker/pipeline/pipeline.h"
#include "worker/pipeline/pool.h"
#include "worker/pipeline/stages.h"

/* Of drain_ms, kept for closing: a quarter, but no more than CLOSE_MS. Acks are flushed in it. A
 * source that had to wait for running slices gets CLOSE_LEAST_MS all the same, to hand back what
 * was not finished. */
enum { CLOSE_MS = 1000, CLOSE_LEAST_MS = 250 };

/* Batches of one message each, beside the others. Together they hold no more texts and bytes than
 * one batch does (texts: or so many), but for the last of them. */
enum { EXTRAS_MAX = 64 };

enum phase { RUNNING, DRAINING, ENDING };

struct pipeline {
    struct observer observer; /* first member */
    struct pipeline_options options;
    const struct model_info *info;
    const struct embedder *embedder;
    struct stages stages;

    uv_loop_t *loop;
    struct source *source; /* NULL when closed */
    struct sink *sink;
    struct pool *pool;
    struct pool_user *user;      /* of the pool */
    struct pool_thread *threads; /* [n_threads] */
    struct wakeup wakeup;
    uv_timer_t linger, deadline;
    size_t n_handles; /* of those three, open */

    /* Where a message can be: in the backlog, the batch in hand, a batch at the pool, or a batch
     * at the sink (in no list; each of its records knows it). */
    struct backlog backlog;
    struct batch *batches; /* [n_batches], then [EXTRAS_MAX] */
    struct batch_list spare;
    struct batch_list extras;        /* not in use */
    size_t extra_texts, extra_bytes; /* in those that are */
    bool wants_extra;                /* the sink does */
    struct batch *in_hand;
    struct batch_list at_pool; /* in dispatch order */
    struct batch *decoding;    /* the last of them, until its messages are decoded */
    size_t decoding_tokens;    /* expected */
    size_t inflight_bytes;     /* of decoded text */
    struct credit credit;

    enum phase phase;
    enum pipeline_end how;
    bool source_failed, source_closing;
    uint64_t end_by_ms;    /* on the loop's clock; 0 until known */
    bool is_version_noted; /* that a message has none */
    char failure[800];
    char made_with[MADE_WITH_SIZE]; /* the sink's */
    struct pipeline_stats stats;
    void (*on_source_closed)(void *ctx); /* the rest goes, then ended: pipeline_life.c */
    void (*ended)(void *ctx, enum pipeline_end how); /* NULL: never fully opened */
    void *ctx;
};

/* pipeline.c */
extern const struct source_events pipeline_source_events;
extern const struct sink_events pipeline_sink_events;
void pipeline_advance(struct pipeline *pipeline); /* do all that has become possible */
void pipeline_on_jobs(void *ctx);                 /* the wakeup's event: some have ended */
void pipeline_send_wakeup(void *ctx);             /* by the pool, on its threads */
/* Closes the source once the sink is closed and no job runs; until then does nothing. */
void pipeline_close_source(struct pipeline *pipeline);

#endif
