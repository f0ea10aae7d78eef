/*
 * pool.h: a fixed set of inference threads and their lock.
 *
 * Owns:    the threads, the lanes in which jobs wait for them, a list of finished jobs back to each
 *          user; which job is next; which idle thread helps which busy one.
 * Refuses: to know what a job does; to touch handles or sockets.
 * Threads: open, join, submit, finished, jobs, help, cancel, leave and close on the loop thread;
 *          run, spare and share on a pool thread.
 * Why:     libuv's own pool is shared with file and DNS work and has no state per thread.
 *
 * A lane with more weight goes first, and yet none starves: each has had so much thread time for
 * its weight, and the job that is next is of the lane that has had least. A query does not even
 * wait for the end of the job in hand: a thread that is at another lane's job turns to it between
 * two steps, and back again; and so do a few others to parts of it, until it is over.
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

/* By weight, the heaviest last. */
enum pool_lane {
    POOL_QUEUE, /* messages of a broker */
    POOL_BULK,  /* what may take its time */
    POOL_LIST,  /* many texts, for which a client waits */
    POOL_QUERY, /* a few texts, for which a client waits */
    POOL_LANES,
};

struct pool_user;

struct job {
    void (*run)(struct job *job, struct pool_thread *thread);
    enum pool_lane lane;
    bool urgent;      /* goes before all that wait in its lane */
    struct job *then; /* a list by ->next, which run may set: they are submitted as this job
                         finishes, so that it stands before them in the list of finished jobs;
                         of the same user, or one that does not leave before that one */
    struct job *next; /* the pool's */
    struct pool_user *user;
};

struct pool;

/*
 * Start n threads; places[i].thread is handed to every run on thread i. places and wakeup may be
 * NULL where only others submit jobs, who join. wakeup(ctx) is called from a pool thread when there
 * are finished jobs again, once until pool_finished has taken them. 0, -ENOMEM, or negative errno
 * of thread creation (nothing is left running).
 */
int pool_open(struct pool **out, size_t n, const struct pool_place *places,
              void (*wakeup)(void *ctx), void *ctx);
/*
 * Another user of the same threads, with places, jobs and a wakeup of its own; whoever opened the
 * pool is its first. A user whose jobs are of POOL_QUERY must have sessions that no other has: they
 * run in the midst of others' jobs. 0 or -ENOMEM.
 */
int pool_join(struct pool_user **out, struct pool *pool, const struct pool_place *places,
              void (*wakeup)(void *ctx), void *ctx);
struct pool_user *pool_first(struct pool *pool);
void pool_user_submit(struct pool_user *user, struct job *job);
/* Take all finished jobs, in the order they finished: a list by ->next, NULL when none. */
struct job *pool_user_finished(struct pool_user *user);
/* Jobs that were submitted, and given back neither as finished nor by pool_user_cancel. */
size_t pool_user_jobs(struct pool_user *user);
/* Forget all jobs no thread has begun, and all that running ones would be followed by. */
void pool_user_cancel(struct pool_user *user);
/* Waits for its running jobs; those that wait never run. Before pool_close. Accepts NULL. */
void pool_leave(struct pool_user *user);

/* Of the first user. */
void pool_submit(struct pool *pool, struct job *job);
struct job *pool_finished(struct pool *pool);
/* By run, on its thread: how many threads have no job, this one counted as if it had none. */
size_t pool_spare(struct pool *pool);
/*
 * By run, on thread number `index`: run all parts of a step, with the help of threads that have no
 * job. They stay as long as step follows step, and leave for a job. A query is helped by threads at
 * jobs of other lanes, too, when they call this. With n_parts 0 the thread only looks for queries:
 * between two steps of a part. Returns how many threads could share the next step, this one counted
 * (session_parallel of inference/embed.h).
 */
size_t pool_share(struct pool *pool, size_t index, session_part *step, void *arg, size_t n_parts);
/* Jobs that wait in a lane, and thread time that it has had. */
struct pool_lane_stats {
    size_t n_waiting;
    uint64_t busy_ns;
};
struct pool_lane_stats pool_lane_stats(struct pool *pool, enum pool_lane lane);
/* What threads without a job of their own do for others. */
struct pool_help {
    size_t n_threads;  /* that help now */
    uint64_t ended_ns; /* time of all helps that have ended */
};
struct pool_help pool_help(struct pool *pool);
/* Waits for running jobs; jobs still waiting never run. Accepts NULL. */
void pool_close(struct pool *pool);

#endif
