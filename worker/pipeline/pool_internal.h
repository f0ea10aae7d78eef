/*
 * pool_internal.h: what pool.c and pool_user.c share; nobody else includes it.
 */
#ifndef POOL_INTERNAL_H
#define POOL_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "worker/pipeline/job_list.h"
#include "worker/pipeline/pool.h"
#include "worker/pipeline/team.h"

struct member {
    struct pool *pool;
    size_t index;
    uv_thread_t id;
    struct team outer, inner; /* of the job in hand, and of a query in its midst */
    /* Whose job a team had last; only compared. */
    const struct pool_user *outer_user, *inner_user;
    struct job *job; /* in hand; the outer one while a query is run in its midst */
    /* Of the job that runs now, which may be that query. */
    struct job *running;
    struct team *team;
    struct session *session;      /* its user's */
    uint64_t began_ns, nested_ns; /* of the job in hand; what of that was for queries */
    atomic_bool query_over;       /* false: it runs a query, and others may take parts of that */
    bool invites; /* it has woken a thread, which may come when the step is over: for the next */
    size_t n_invited; /* so that one invitation is not taken for the next */
};

struct pool_user {
    struct pool *pool;
    struct pool_place *places; /* [n_threads] */
    struct job_list finished;
    size_t n_untaken; /* jobs submitted that nobody has taken back */
    size_t n_begun;   /* jobs that threads are at */
    size_t n_helping; /* threads that are at parts of them */
    bool cancelled;
    void (*wakeup)(void *ctx);
    void *ctx;
};

struct lane {
    struct job_list waiting;
    size_t n_waiting, n_begun;
    uint64_t busy_ns;
    double had; /* thread time for its weight, in ns; where it was idle, as much as the others */
};

struct pool {
    uv_mutex_t lock;       /* guards all that is not atomic, and who invites whom */
    uv_cond_t wake, ended; /* ended: a job or a help has */
    struct lane lanes[POOL_LANES];
    double now;             /* what the lane has had whose job was begun last */
    atomic_bool leave;      /* for helpers: a job waits, or the pool closes */
    atomic_bool has_query;  /* one waits */
    atomic_size_t n_open;   /* queries whose parts others may take */
    atomic_size_t n_others; /* jobs that threads are at and that are not queries */
    bool closing;
    atomic_size_t n_idle; /* threads waiting for wake; changed under the lock */
    size_t n_helping;
    size_t n_begun; /* jobs that threads are at */
    size_t n_waiting;
    uint64_t help_ns; /* of all threads, in helps that have ended */
    struct pool_user *first;
    size_t n_threads; /* started */
    struct member members[];
};

/* Under the lock: a job of its user begins to wait. */
void pool_job_add(struct pool *pool, struct job *job);

int pool_user_open(struct pool_user **out, struct pool *pool, size_t n,
                   const struct pool_place *places, void (*wakeup)(void *ctx), void *ctx);
void pool_user_free(struct pool_user *user); /* accepts NULL */

#endif
