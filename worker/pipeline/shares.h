/*
 * shares.h: work that is cut into a share for each thread of a pool, and waited for.
 *
 * Owns:    a pool and the wait for its jobs.
 * Refuses: a loop: whoever has one uses the pool itself.
 * Threads: all on one thread, which waits.
 */
#ifndef SHARES_H
#define SHARES_H

#include <stddef.h>
#include <uv.h>

#include "worker/pipeline/pool.h"

/* Zeroed: closed. */
struct shares {
    struct pool *pool; /* to submit to */
    size_t n_threads;
    uv_sem_t wakeup;
    bool has_wakeup;
};

/* First member of what a thread has of the work. */
struct share {
    struct job job; /* first member */
    size_t first, n;
};

/* places as for pool_open; NULL: threads have nothing of their own. 0, -ENOMEM or as pool_open. */
int shares_open(struct shares *shares, size_t n_threads, const struct pool_place *places);
/* Until n_jobs that were submitted have finished. */
void shares_wait(struct shares *shares, size_t n_jobs);
/* Cut n things into shares, run them all and wait for them. all: [n_threads] structs of `size`
 * bytes that begin with a struct share. */
void shares_run(struct shares *shares, void *all, size_t size, size_t n,
                void (*run)(struct job *job, struct pool_thread *thread));
void shares_close(struct shares *shares);

#endif
