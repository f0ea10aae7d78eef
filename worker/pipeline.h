/*
 * pipeline.h: the way of a message, from a source through the pool to a sink and back as an ack.
 *
 * Owns:    batches, credit, order, dead letters, drain. Policy, but no bytes and no numbers.
 * Refuses: brokers, msgpack, tensors.
 * Threads: the loop thread, but for embed_slice in pipeline.c.
 */
#ifndef PIPELINE_H
#define PIPELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "connectors/connector.h"
#include "inference/embed.h"
#include "worker/codec.h"

struct pipeline_options {
    size_t n_threads;
    size_t n_batches;       /* preallocated: the credit there is */
    size_t batch_texts;     /* full at this many texts ... */
    size_t batch_bytes;     /* ... or this many bytes of text (the token budget, known beforehand) */
    uint64_t linger_ms;     /* dispatch a part-filled batch when its first message waited so long */
    uint32_t max_deliveries; /* dead-letter beyond; 0: never */
    uint64_t drain_ms;      /* deadline of a drain */
    const char *prompt;     /* configured name */
    struct session_options session;
    struct decode_options decode;
    enum output_format output_format;
};

/* Counters since start; read by progress lines, logs and metrics. */
struct pipeline_stats {
    uint64_t messages, texts, tokens, truncated; /* embedded and published */
    uint64_t batches, dead_letters, not_ours, redelivered;
    uint64_t inflight_texts; /* gauge */
};

struct pipeline;

/* why the pipeline ended */
enum pipeline_end {
    PIPELINE_DRAINED,  /* asked to stop, or the source ended; everything taken was finished */
    PIPELINE_DEADLINE, /* the drain deadline passed; unfinished messages stay unacked */
    PIPELINE_FAILED,   /* a source or sink is gone for good */
};

/*
 * Open sessions, pool, sink and source and start. ended fires once, from the loop, after
 * everything is closed. 0, or negative errno with a sentence in err (nothing is left running).
 */
int pipeline_open(struct pipeline **out, uv_loop_t *loop, const struct model *model,
                  const struct source_ops *source, const struct sink_ops *sink,
                  const struct settings *settings, const struct pipeline_options *options,
                  void (*ended)(void *ctx, enum pipeline_end how), void *ctx, char *err,
                  size_t err_size);
/* Take no more, finish what is taken, then end. Idempotent. */
void pipeline_drain(struct pipeline *pipeline);
const struct pipeline_stats *pipeline_stats(const struct pipeline *pipeline);
void pipeline_close(struct pipeline *pipeline); /* after ended; accepts NULL */

#endif
