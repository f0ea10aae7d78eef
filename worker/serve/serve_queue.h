/*
 * serve_queue.h: texts of many requests that wait for a thread, and how they become slices.
 *
 * Owns:    the lists of waiting and of finished requests, the lock around them, how much waits and
 *          how fast it goes.
 * Refuses: what a text becomes (serve_embed.c), threads (worker/pipeline/pool.h).
 * Threads: any, under the lock; what is the loop's says so.
 * Why:     a slice is made at the moment when a thread can take it, of whatever waits then: texts
 *          of different connections are embedded together, and nobody is held back for company.
 */
#ifndef SERVE_QUEUE_H
#define SERVE_QUEUE_H

#include <uv.h>

#include "worker/serve/serve_request.h"

/* Most texts of a slice; its tokens are bounded by BATCH_SLICE_TOKENS, and a text counts a dozen.
 */
enum { SERVE_SLICE_TEXTS = 64 };

struct serve_pick {
    struct serve_request *request;
    size_t text;
};

/* What one thread takes. */
struct serve_slice {
    struct serve_pick picks[SERVE_SLICE_TEXTS];
    size_t n, n_tokens; /* estimated */
};

/* A job of the pool that takes a slice when a thread begins it. */
struct serve_taker {
    struct job job; /* first member */
};

struct serve_queue {
    uv_mutex_t *lock; /* its own, or that of the first queue of its lane */
    uv_mutex_t own_lock;
    struct serve_requests waiting;  /* that have texts to take, in the order they are served */
    struct serve_requests finished; /* for the loop */
    size_t n_tokens;                /* admitted and not taken yet; estimated */
    struct serve_taker *takers;     /* [n_takers] */
    struct job *spare;              /* of those, by ->next */
    size_t n_takers, n_submitted;   /* submitted, and not begun */
    size_t n_threads;
    /* Of the tokens per second: sums that fade. */
    double done_tokens, done_seconds;
    uint64_t busy_since_ns;     /* last slice finished, or the first began; 0: nothing is at work */
    size_t n_working;           /* slices at threads */
    uint64_t n_slices, n_texts; /* taken since start, the texts in them */
};

/* first: the queue of the lane's first model, for that of another one, which shares its lock; NULL:
 * it is the first, and is closed last. */
int serve_queue_open(struct serve_queue *queue, struct serve_queue *first, enum pool_lane lane,
                     size_t n_threads, void (*run)(struct job *job, struct pool_thread *thread));
void serve_queue_close(struct serve_queue *queue);

/*
 * Let a request in, before serve_queue_add. False: more than max_tokens would wait here, or for
 * longer than it may: then *retry_after_s is how long what waits will take. By the loop before it
 * is read, or where its model is known only then, by who has read it.
 */
bool serve_queue_admit(struct serve_queue *queue, struct serve_request *request, size_t max_tokens,
                       uint64_t max_wait_ns, uint32_t *retry_after_s);
/* It is read: its texts wait, or it has ended already. Returns the jobs that shall take them, a
 * list by ->next for the pool. */
struct job *serve_queue_add(struct serve_queue *queue, struct serve_request *request);
/* A taker's job has begun: what it shall embed, n 0: nothing waits any more. *more: jobs for what
 * still waits. */
void serve_queue_take(struct serve_queue *queue, struct serve_slice *out, uint64_t now_ns,
                      struct job **more);
/* All of a slice is embedded. done: those of its requests of which nothing is left, each once, are
 * the caller's until serve_queue_finish; dropped ones are finished already. Returns how many. */
size_t serve_queue_done(struct serve_queue *queue, const struct serve_slice *slice, uint64_t now_ns,
                        struct serve_request *done[SERVE_SLICE_TEXTS]);
/* Its answer is what it will be: for the loop. */
void serve_queue_finish(struct serve_queue *queue, struct serve_request *request);
/* The rest of it need not be embedded. True: nothing of it is at a thread, and it is finished.
 * any: a queue of its lane. */
bool serve_queue_drop(struct serve_queue *any, struct serve_request *request);
/* By the loop: the next finished one, NULL when there is none. */
struct serve_request *serve_queue_finished(struct serve_queue *queue);
/* By the loop: a taker's job has come back. Returns jobs for the pool, as serve_queue_add. */
struct job *serve_queue_return(struct serve_queue *queue, struct job *taker);
/* The first that waits beyond its deadline, dropped; NULL: none. */
struct serve_request *serve_queue_expire(struct serve_queue *queue, uint64_t now_ns);

struct serve_load {
    size_t n_tokens;            /* waiting */
    double tokens_per_second;   /* 0: not known yet */
    uint64_t n_slices, n_texts; /* taken since start */
};
struct serve_load serve_queue_load(struct serve_queue *queue);

#endif
