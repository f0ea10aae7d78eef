/*
 * transfer.h: messages from a source to a sink as they are: no model, no batches.
 *
 * Owns:    the records on their way, credit, the end.
 * Refuses: what is in a message: its user's, by `shape`.
 * Threads: the loop thread.
 * Why:     loading and unloading queues needs the connectors' promises (nothing lost, backpressure,
 *          waiting for a broker) and none of the pipeline's.
 */
#ifndef TRANSFER_H
#define TRANSFER_H

#include <stdint.h>
#include <uv.h>

#include "connectors/connector.h"
#include "worker/codec/arena.h"
#include "worker/pipeline/observer.h"
#include "worker/pipeline/pipeline.h"

/* Make the record of a message: parts, or dead_code and dead_reason; origin and headers are set
 * and parts is its value as it is. Bytes may lie in the arena. 0; or negative errno and a sentence:
 * the output has failed, and the transfer ends. */
typedef int transfer_shape(void *ctx, const struct message *message, struct record *record,
                           struct arena *arena, char *err, size_t err_size);

struct transfer_options {
    size_t max_messages, max_bytes; /* on their way at once */
    uint64_t total;                 /* end after so many; 0: all there are */
    uint64_t idle_ms;               /* end when nothing came for so long; 0: never */
    uint64_t drain_ms;
    transfer_shape *shape; /* NULL: as they are */
    void *shape_ctx;
    bool takes_empty; /* shape judges empty values; else they are dead letters */
    struct observer_ops observer;
};

struct transfer;

/* As pipeline_open; stats have received, inflight_texts, dead_letters, not_ours, and what has come
 * out as messages, texts and embedded_texts alike: progress counts the last. */
int transfer_open(struct transfer **out, uv_loop_t *loop, const struct source_ops *source,
                  const struct sink_ops *sink, const struct settings *settings,
                  const struct transfer_options *options,
                  void (*ended)(void *ctx, enum pipeline_end how), void *ctx, char *err,
                  size_t err_size);
void transfer_drain(struct transfer *transfer);
const char *transfer_failure(const struct transfer *transfer);
enum side transfer_failed_side(const struct transfer *transfer); /* of PIPELINE_FAILED */
const struct pipeline_stats *transfer_stats(const struct transfer *transfer);
void transfer_close(
    struct transfer *transfer); /* after ended, or after a failed open; accepts NULL */

#endif
