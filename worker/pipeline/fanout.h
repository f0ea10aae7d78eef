/*
 * fanout.h: one source for the pipelines of several models.
 *
 * Owns:    the source, and whom a message goes to: to all pipelines, or to that of the model which
 *          it names. How many have not finished one that several have.
 * Refuses: what becomes of a message and where its outputs go: pipelines and sinks do that.
 * Threads: the loop thread; but messages that name a model are decoded by a job of the pool.
 * Why:     each model has sessions, batches and an output of its own, as if it were alone; so the
 *          way of a message is written once, in pipeline.c. The source is asked for no more than
 *          the pipeline takes that takes the least: none is ever given more than it asked for.
 */
#ifndef FANOUT_H
#define FANOUT_H

#include <stddef.h>
#include <uv.h>

#include "connectors/connector.h"
#include "worker/codec/codec.h"
#include "worker/pipeline/pool.h"

struct fanout;

struct fanout_options {
    struct pool *pool; /* borrowed until the last pipeline has ended */
    enum pool_lane lane;
    const char *const *names; /* [n] of the models, in the order of the pipelines */
    size_t n;
    /* model_field: what names a model; without it, and where a deletion names none, a message goes
     * to all; another one that names none goes to the first. */
    struct decode_options decode;
    /* A pipeline has begun to end, for whatever reason: the others are to drain. */
    void (*on_ending)(void *ctx);
    void *ctx;
};

/* Open the source. 0, or as pipeline_open. */
int fanout_open(struct fanout **out, uv_loop_t *loop, const struct source_ops *source,
                const struct settings *settings, const struct fanout_options *options, char *err,
                size_t err_size);
/* The source of pipeline i, for as long as that has not closed it. */
struct source *fanout_join(struct fanout *fanout, size_t i, const struct source_events *events,
                           void *ctx);
/* What gives the messages, for a sink that acks them itself. */
struct source *fanout_source(struct fanout *fanout);
/* All that will join have: messages may come; the source closes when all have closed theirs. */
void fanout_begin(struct fanout *fanout);
void fanout_free(struct fanout *fanout); /* when the loop has nothing left to do; accepts NULL */

#endif
