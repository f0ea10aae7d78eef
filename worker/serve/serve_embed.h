/*
 * serve_embed.h: what pool threads do for requests: read them, embed slices, write answers.
 *
 * Owns:    the threads' sessions and scratch.
 * Threads: open and close on the loop thread, the rest on pool threads.
 */
#ifndef SERVE_EMBED_H
#define SERVE_EMBED_H

#include <stdatomic.h>

#include "worker/serve/serve_queue.h"
#include "worker/serve/serve_read.h"

struct cache;
struct cache_lane;
struct embedder;

/* What a pool thread has for itself. */
struct pool_thread {
    struct serve_threads *all;
    size_t index; /* at the pool */
    struct session *session;
    struct cache_lane *cache; /* NULL: none */
    char *bytes;              /* prompted texts, one after another */
    size_t bytes_room;
    struct text texts[SERVE_SLICE_TEXTS];
    struct embed_result results[SERVE_SLICE_TEXTS];
    float *vectors;                 /* [SERVE_SLICE_TEXTS][dim] ... */
    float *rows[SERVE_SLICE_TEXTS]; /* ... and each of them */
};

/* Those of one model. What reads requests are the first's, behind which those of the others stand,
 * as their rules do. */
struct serve_threads {
    const struct model *model;
    const struct embedder *embedder;
    const struct serve_rules *rules;
    size_t n_models;     /* of the server */
    size_t queue_tokens; /* where there are several, what whoever reads a request ... */
    uint64_t queue_ns;   /* ... asks serve_queue_admit for */
    struct serve_queue *queue;
    struct pool *pool;
    struct pool_user *user;      /* of the pool */
    struct pool_thread *threads; /* [n] */
    size_t n;
    atomic_uint_fast64_t memory_hits, disk_hits, misses; /* of the cache, in texts */
};

/* What is not about n threads of the pool is set before. 0 or negative errno. */
int serve_threads_open(struct serve_threads *threads, size_t n,
                       const struct session_options *session, struct cache *cache,
                       void (*wakeup)(void *ctx), void *ctx);
void serve_threads_close(struct serve_threads *threads);

/* Jobs: of a request, of a taker. */
void serve_run_read(struct job *job, struct pool_thread *thread);
void serve_run_slice(struct job *job, struct pool_thread *thread);

#endif
