/*
 * pool.h: a fixed set of inference threads and their lock.
 *
 * Owns:    the threads, a FIFO of jobs to them, a list of finished jobs back; which idle thread
 *          helps which busy one.
 * Refuses: to know what a job does; to touch handles or sockets.
 * Threads: open, submit, finished, jobs, help, cancel and close on the loop thread; run, spare and
 *          share on a pool thread.
 * Why:     libuv's own pool is shared with file and DNS work and has no state per thread.
 */
#ifndef POOL_H
#define POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "inference/embed.h"

struct pool_thread; /* what a thread has for itself; the pool only hands it on */
struct pool_place {
    struct pool_thread *thread;
    struct session *session; /* for shares of other threads' work; NULL: there are none */
};

struct job {
    void (*run)(struct job *job, struct pool_thread *thread);
    bool urgent;      /* goes before all that wait */
    struct job *then; /* a list by ->next, which run may set: they are submitted as this job
                         finishes, so that it stands before them in the list of finished jobs */
    struct job *next; /* the pool's */
};

struct pool;

/*
 * Start n threads; places[i].thread is handed to every run on thread i. bell(ctx) is called from a
 * pool thread when there are finished jobs again, once until pool_finished has taken them. 0,
 * -ENOMEM, or negative errno of thread creation (nothing is left running).
 */
int pool_open(struct pool **out, size_t n, const struct pool_place *places, void (*bell)(void *ctx),
              void *ctx);
void pool_submit(struct pool *pool, struct job *job);
/* By run, on its thread: how many threads have no job, this one counted as if it had none. */
size_t pool_spare(struct pool *pool);
/*
 * By run, on thread number `index`: run all parts of a step, with the help of threads that have no
 * job. They stay as long as step follows step, and leave for a job. Returns how many threads could
 * share the next step, this one counted (session_parallel of inference/embed.h).
 */
size_t pool_share(struct pool *pool, size_t index, session_part *step, void *arg, size_t n_parts);
/* What threads without a job of their own do for others. */
struct pool_help {
    size_t n_threads;  /* that help now */
    uint64_t ended_ns; /* time of all helps that have ended */
};
struct pool_help pool_help(struct pool *pool);
/* Take all finished jobs, in the order they finished: a list by ->next, NULL when none. */
struct job *pool_finished(struct pool *pool);
/* Jobs that were submitted and that neither pool_finished nor pool_cancel has given back. */
size_t pool_jobs(struct pool *pool);
/* Forget all jobs no thread has begun, and all that running ones would be followed by. */
void pool_cancel(struct pool *pool);
/* Waits for running jobs; jobs still waiting never run. Accepts NULL. */
void pool_close(struct pool *pool);

#endif
