/*
 * pipeline.h: the way of a message, from a source through the pool to a sink and back as an ack.
 *
 * Owns:    batches, credit, order, dead letters, drain. Policy, but no bytes and no numbers.
 * Refuses: brokers, msgpack, tensors.
 * Threads: the loop thread; what pool threads do to a batch is in stages.c.
 */
#ifndef PIPELINE_H
#define PIPELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "connectors/connector.h"
#include "connectors/made_with.h"
#include "inference/embed.h"
#include "worker/codec/codec.h"
#include "worker/pipeline/embedder.h"
#include "worker/pipeline/observer.h"
#include "worker/pipeline/pool.h"

struct batch;
struct cache;
struct entry;
struct fanout;

/* The policy for long texts that cuts them: session.too_long says what becomes of the rest. */
struct chunk_options {
    bool wanted;
    size_t max_tokens; /* longer texts are cut into pieces of at most so many; 0: the model's own */
    size_t overlap;    /* most tokens of a piece that the next one repeats; half of it at most */
    bool by_markdown;  /* at headings first, which become the titles of the pieces */
};
enum { CHUNK_TOKENS_MIN = 32 };

/* Bytes that the fields of one message may be in all of its rows. */
enum { PIPELINE_REPEATED_MAX = 64 << 20 };

/* Counts and times are at least 1 where nothing else is said. */
struct pipeline_options {
    size_t n_threads;
    struct pool *pool;   /* of n_threads, borrowed until ended; NULL: one of its own */
    enum pool_lane lane; /* of the pool */
    /* Where several models share a source, which is opened already: which of them this is. NULL:
     * the source is opened with the pipeline. */
    struct fanout *fanout;
    size_t fanout_index;
    bool is_first;          /* of those that have a message */
    const char *model_name; /* of several models: dead letters say which could not; else NULL */
    size_t n_batches;       /* preallocated: the credit there is */
    size_t batch_texts;     /* full at this many texts ... */
    size_t batch_bytes; /* ... or this many bytes of text (the token budget, known beforehand) */
    uint64_t linger_ms; /* dispatch a part-filled batch when its first message waited so long */
    uint32_t max_deliveries; /* dead-letter beyond; 0: never */
    bool drop_undeliverable; /* give up a message whose dead letter is refused; else end */
    uint64_t drain_ms;       /* deadline of a drain, closing included; may be 0 */
    const char *prompt;      /* configured name */
    struct session_options session;
    struct chunk_options chunk;
    struct decode_options decode;
    enum output_format output_format;
    enum output_dtype dtype;
    const char *collection;          /* OUTPUT_QDRANT only */
    bool allow_mixed;                /* write to vectors that are made with something else, too */
    const struct embedder *embedder; /* NULL: the sessions of embed.h */
    struct cache *cache;             /* borrowed until pipeline_close; NULL: none */
    /* For the log and metrics, as it happens; ctx is the one of ended. Each may be NULL. */
    struct observer_ops observer;
    void (*on_dead_letter)(void *ctx, const struct message *message, const char *code,
                           const char *reason);
    void (*on_undeliverable)(void *ctx, const struct message *message, const char *code,
                             const char *reason); /* given up */
    /* A text began with the words of a prompt already and got those of one: for each batch. */
    void (*on_doubled)(void *ctx, const struct prompt *had, const struct prompt *given);
    /* A message asked for a prompt that the model has no words for: for each batch. */
    void (*on_missing_prompt)(void *ctx, const char *name);
    /* All of a batch is embedded; a record of one is confirmed. Only read them
     * (worker/pipeline/batch.h). */
    void (*on_embedded)(void *ctx, const struct batch *batch);
    void (*on_published)(void *ctx, const struct entry *entry);
};

/* 0, or -EINVAL and what to do in err: dim or chunk_tokens are more than the model has. */
int pipeline_fits(const struct pipeline_options *options, const struct model_info *info, char *err,
                  size_t err_size);

/* What decides a vector beside its text, for outputs that keep it (made_with.h). */
void pipeline_made_with(const struct pipeline_options *options, const struct model_info *info,
                        char out[MADE_WITH_SIZE]);

/* What made a batch go. */
enum trigger {
    TRIGGER_FULL,
    TRIGGER_LINGER, /* its first message waited long enough */
    TRIGGER_IDLE,   /* a thread had nothing to do */
    TRIGGER_DRAIN,
    N_TRIGGERS,
};

/* Counters since start; read by progress lines, logs and metrics. */
struct pipeline_stats {
    uint64_t received;                           /* messages given by the source */
    uint64_t messages, texts, tokens, truncated; /* published; tokens after any cut */
    uint64_t embedded_texts, embedded_tokens;    /* have their vectors, published or not yet */
    uint64_t computed_texts, computed_tokens;    /* of those, no duplicates and none cached */
    uint64_t dead_letters, not_ours;             /* messages that ended otherwise */
    uint64_t undeliverable;                      /* given up: not even a dead letter */
    uint64_t redelivered;                        /* received, and not for the first time */
    uint64_t chunks;                             /* published pieces of texts that were cut */
    uint64_t deleted;                            /* messages that took a text away */
    uint64_t unchanged;              /* ... that left it as it was: nothing is written */
    uint64_t duplicates;             /* texts equal to one in the batch that was embedded */
    uint64_t memory_hits, disk_hits; /* of the cache; duplicates are not looked for */
    uint64_t cache_misses;           /* 0 without a cache */
    uint64_t batches[N_TRIGGERS];    /* dispatched */
    uint64_t inflight_texts;         /* gauge: decoded and not yet confirmed */
    uint64_t waiting_messages;       /* gauge: received and not yet decoded */
};

/* What is there now; for metrics, when they are asked for. */
struct pipeline_gauges {
    size_t inflight_bytes;                /* of text, in all batches */
    size_t credit_messages, credit_bytes; /* granted to the source and not used yet */
    size_t n_threads, busy_threads;       /* busy: have a slice, or help one that has */
    size_t helping_threads;               /* of those, which help; of all users of the pool */
    uint64_t help_ns;                     /* thread time of help that has ended */
    bool draining;                        /* or ending */
};

struct pipeline;

/* why the pipeline ended */
enum pipeline_end {
    PIPELINE_DRAINED,   /* asked to stop, or the source ended; everything taken was finished */
    PIPELINE_DEADLINE,  /* the drain deadline passed; unfinished messages stay unacked. Slices that
                           are being embedded are waited for, which can take seconds more, and the
                           source has a moment to hand back what was not finished */
    PIPELINE_UNFLUSHED, /* drained, but the source could not flush its last acks: what they stand
                           for is done and comes again; see pipeline_failure */
    PIPELINE_FAILED,    /* a source or sink is gone for good, or memory; see pipeline_failure */
};

/*
 * Open sessions, pool, sink and source and start. ended fires once, from the loop, after
 * everything is closed. 0, or negative errno with a sentence in err: then what was already open is
 * being closed and frees itself while the loop runs until it has nothing left to do.
 */
int pipeline_open(struct pipeline **out, uv_loop_t *loop, const struct model *model,
                  const struct source_ops *source, const struct sink_ops *sink,
                  const struct settings *settings, const struct pipeline_options *options,
                  void (*ended)(void *ctx, enum pipeline_end how), void *ctx, char *err,
                  size_t err_size);
/* Take no more, finish what is taken, then end, all within drain_ms. Idempotent. A finite source
 * that has ended drains by itself and without a deadline. */
void pipeline_drain(struct pipeline *pipeline);
/* What failed and what to do; "" when nothing did. */
const char *pipeline_failure(const struct pipeline *pipeline);
const struct pipeline_stats *pipeline_stats(const struct pipeline *pipeline);
/* Add those of another pipeline. */
void pipeline_stats_add(struct pipeline_stats *to, const struct pipeline_stats *from);
struct pipeline_gauges pipeline_gauges(const struct pipeline *pipeline);
void pipeline_close(struct pipeline *pipeline); /* after ended; accepts NULL */

#endif
