/*
 * pool.c: see pool.h. One lock for both lists: a job is a slice of a batch and takes from tens of
 * milliseconds to seconds, so the lock is free practically always.
 */
#define _GNU_SOURCE /* pthread_setname_np */
#include "worker/pipeline/pool.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "worker/pipeline/job_list.h"
#include "worker/pipeline/team.h"

/* musl gives threads 128 KiB, glibc whatever ulimit says; the pool wants neither surprise. */
enum { STACK_SIZE = 2 * 1024 * 1024 };

struct member {
    struct pool *pool;
    size_t index;
    uv_thread_t id;
    struct team team;
    struct job *job;              /* in hand; the outer one while a query is run in its midst */
    struct session *session;      /* of the job that runs now: its user's */
    uint64_t began_ns, nested_ns; /* of the job in hand; what of that was for queries */
    bool is_nested;
    bool invites; /* it has woken a thread, which may come when the step is over: for the next */
    size_t n_invited; /* so that one invitation is not taken for the next */
};

struct pool_user {
    struct pool *pool;
    struct pool_place *places; /* [n_threads] */
    struct job_list finished;
    size_t n_untaken; /* jobs submitted that nobody has taken back */
    size_t n_begun;   /* jobs that threads are at */
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
    double now;            /* what the lane has had whose job was begun last */
    atomic_bool leave;     /* for helpers: a job waits, or the pool closes */
    atomic_bool has_query; /* one waits */
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

static const double weights[POOL_LANES] = {
    [POOL_QUEUE] = 4, [POOL_BULK] = 1, [POOL_LIST] = 4, [POOL_QUERY] = 32};

/* The thread with the fewest helpers of those that have parts to share, or had a moment ago; NULL:
 * none has. */
static struct member *find_leader(struct pool *pool)
{
    struct member *best = NULL;
    for (size_t i = 0; i < pool->n_threads; i++) {
        struct member *thread = &pool->members[i];
        if ((thread->invites || team_has_parts(&thread->team)) &&
            (!best || team_helpers(&thread->team) < team_helpers(&best->team)))
            best = thread;
    }
    return best;
}

/* Under the lock, which is given up meanwhile. One thread that comes to help wakes the next, so the
 * leader has to wake only the first. It helps with the session that it has for the leader's user.
 */
static void thread_help(struct member *thread, struct member *leader)
{
    struct pool *pool = thread->pool;
    size_t invitation = leader->n_invited;
    struct session *session = leader->job->user->places[thread->index].session;
    if (atomic_load(&pool->n_idle))
        uv_cond_signal(&pool->wake);
    pool->n_helping++;
    uv_mutex_unlock(&pool->lock);
    uint64_t began_ns = uv_hrtime();
    team_help(&leader->team, session, &pool->leave);
    uint64_t ended_ns = uv_hrtime();
    uv_mutex_lock(&pool->lock);
    pool->n_helping--;
    pool->help_ns += ended_ns - began_ns;
    if (!atomic_load(&pool->leave) && leader->n_invited == invitation)
        leader->invites = false;
    uv_cond_broadcast(&pool->ended);
}

/* Under the lock. */
static void job_add(struct pool *pool, struct job *job)
{
    struct lane *lane = &pool->lanes[job->lane];
    if (lane->n_waiting == 0 && lane->n_begun == 0 && lane->had < pool->now)
        lane->had = pool->now; /* what it did not want while it was idle is not owed to it */
    job->next = NULL;
    if (job->urgent && lane->waiting.first) {
        job->next = lane->waiting.first;
        lane->waiting.first = job;
    } else {
        job_list_add(&lane->waiting, job);
    }
    job->user->n_untaken++;
    lane->n_waiting++;
    pool->n_waiting++;
    atomic_store(&pool->leave, true);
    if (job->lane == POOL_QUERY)
        atomic_store(&pool->has_query, true);
}

/* Under the lock: the lane whose turn it is; NULL: nothing waits. */
static struct lane *find_lane(struct pool *pool)
{
    struct lane *best = NULL;
    for (size_t i = POOL_LANES; i-- > 0;) {
        struct lane *lane = &pool->lanes[i];
        if (lane->n_waiting && (!best || lane->had < best->had))
            best = lane;
    }
    return best;
}

/* Under the lock. */
static struct job *job_begin(struct pool *pool, struct lane *lane)
{
    struct job *job = job_list_take(&lane->waiting);
    lane->n_waiting--;
    lane->n_begun++;
    pool->n_waiting--;
    pool->n_begun++;
    job->user->n_begun++;
    if (lane->had > pool->now)
        pool->now = lane->had;
    atomic_store(&pool->leave, pool->n_waiting > 0);
    atomic_store(&pool->has_query, pool->lanes[POOL_QUERY].n_waiting > 0);
    return job;
}

/* Waits for one; NULL when the pool closes. */
static struct job *job_take(struct member *thread)
{
    struct pool *pool = thread->pool;
    struct member *leader = NULL;
    uv_mutex_lock(&pool->lock);
    while (pool->n_waiting == 0 && !pool->closing) {
        /* Idle first, then a look: pool_share offers first and looks for idle threads then. */
        atomic_fetch_add(&pool->n_idle, 1);
        leader = find_leader(pool);
        if (!leader)
            uv_cond_wait(&pool->wake, &pool->lock);
        atomic_fetch_sub(&pool->n_idle, 1);
        if (leader)
            thread_help(thread, leader);
    }
    struct job *job = pool->closing ? NULL : job_begin(pool, find_lane(pool));
    if (job) {
        thread->job = job;
        thread->began_ns = uv_hrtime();
        thread->nested_ns = 0;
    }
    uv_mutex_unlock(&pool->lock);
    return job;
}

/* The first that follows is for this thread, which is about to ask for one. */
static void job_finish(struct member *thread, struct job *job, uint64_t took_ns)
{
    struct pool *pool = thread->pool;
    struct pool_user *user = job->user;
    struct lane *lane = &pool->lanes[job->lane];
    uv_mutex_lock(&pool->lock);
    if (thread->job == job) {
        thread->invites = false;
        thread->job = NULL;
    }
    struct job *then = user->cancelled ? NULL : job->then;
    lane->n_begun--;
    lane->busy_ns += took_ns;
    lane->had += (double)took_ns / weights[job->lane];
    pool->n_begun--;
    user->n_begun--;
    bool is_first = !user->finished.first; /* else who came before has rung, or is about to */
    job_list_add(&user->finished, job);
    for (size_t n = 0; then; n++) {
        struct job *next = then->next;
        then->user = user;
        job_add(pool, then);
        if (n > 0)
            uv_cond_signal(&pool->wake);
        then = next;
    }
    if (is_first) /* under the lock, so that the user is still there */
        user->wakeup(user->ctx);
    uv_cond_broadcast(&pool->ended);
    uv_mutex_unlock(&pool->lock);
}

static void invite(struct member *thread)
{
    struct pool *pool = thread->pool;
    uv_mutex_lock(&pool->lock);
    thread->invites = true;
    thread->n_invited++;
    uv_cond_signal(&pool->wake);
    uv_mutex_unlock(&pool->lock);
}

/* A query that waits, if it is its lane's turn and no other thread is free for it; NULL: none. */
static struct job *query_take(struct member *thread)
{
    struct pool *pool = thread->pool;
    const struct lane *query = &pool->lanes[POOL_QUERY], *mine = &pool->lanes[thread->job->lane];
    struct job *job = NULL;
    uv_mutex_lock(&pool->lock);
    double ran_ns = (double)(uv_hrtime() - thread->began_ns - thread->nested_ns);
    if (query->n_waiting && pool->n_helping == 0 && atomic_load(&pool->n_idle) == 0 &&
        query->had <= mine->had + ran_ns / weights[thread->job->lane])
        job = job_begin(pool, &pool->lanes[POOL_QUERY]);
    uv_mutex_unlock(&pool->lock);
    return job;
}

static void job_run(struct member *thread, struct job *job)
{
    const struct pool_place *place = &job->user->places[thread->index];
    thread->session = place->session;
    job->run(job, place->thread);
}

/* Between two parts of a job in hand. */
static void queries_run(struct member *thread)
{
    struct job *job;
    if (!atomic_load_explicit(&thread->pool->has_query, memory_order_relaxed) ||
        thread->is_nested || thread->job->lane == POOL_QUERY)
        return;
    struct session *session = thread->session;
    while ((job = query_take(thread)) != NULL) {
        uint64_t began_ns = uv_hrtime();
        thread->is_nested = true;
        job_run(thread, job);
        thread->is_nested = false;
        uint64_t took_ns = uv_hrtime() - began_ns;
        thread->nested_ns += took_ns;
        job_finish(thread, job, took_ns);
    }
    thread->session = session;
}

static void on_pause(void *ctx)
{
    queries_run(ctx);
}

size_t pool_share(struct pool *pool, size_t index, session_part *step, void *arg, size_t n_parts)
{
    struct member *thread = &pool->members[index];
    if (thread->is_nested) { /* its team is at the outer job */
        for (size_t i = 0; i < n_parts; i++)
            step(arg, i, thread->session);
        return 1;
    }
    if (n_parts > 1) {
        team_offer(&thread->team, step, arg, n_parts);
        if (atomic_load(&pool->n_idle))
            invite(thread);
        team_finish(&thread->team, thread->session, on_pause, thread);
    } else if (n_parts == 1) {
        team_offer(&thread->team, step, arg, 0); /* nothing to take, and yet something goes on */
        step(arg, 0, thread->session);
    }
    queries_run(thread);
    return 1 + team_helpers(&thread->team) + atomic_load(&pool->n_idle);
}

static void thread_run(void *arg)
{
    struct member *thread = arg;
    char name[16];
    snprintf(name, sizeof name, "embed-%u", (unsigned)thread->index);
    pthread_setname_np(pthread_self(), name);

    for (struct job *job; (job = job_take(thread)) != NULL;) {
        job_run(thread, job);
        job_finish(thread, job, uv_hrtime() - thread->began_ns - thread->nested_ns);
    }
}

/* One more thread. */
static int member_start(struct pool *pool)
{
    static const uv_thread_options_t options = {.flags = UV_THREAD_HAS_STACK_SIZE,
                                                .stack_size = STACK_SIZE};
    struct member *thread = &pool->members[pool->n_threads];
    thread->pool = pool;
    thread->index = pool->n_threads;
    int err = team_open(&thread->team);
    if (err)
        return err;
    err = uv_thread_create_ex(&thread->id, &options, thread_run, thread);
    if (err)
        team_close(&thread->team);
    else
        pool->n_threads++;
    return err;
}

static void user_free(struct pool_user *user)
{
    if (user)
        free(user->places);
    free(user);
}

static int user_open(struct pool_user **out, struct pool *pool, size_t n,
                     const struct pool_place *places, void (*wakeup)(void *ctx), void *ctx)
{
    struct pool_user *user = calloc(1, sizeof *user);
    struct pool_place *copy = calloc(n, sizeof *copy);
    if (!user || !copy) {
        free(user);
        free(copy);
        return -ENOMEM;
    }
    if (places)
        memcpy(copy, places, n * sizeof *copy);
    *user = (struct pool_user){.pool = pool, .places = copy, .wakeup = wakeup, .ctx = ctx};
    job_list_clear(&user->finished);
    *out = user;
    return 0;
}

static int locks_open(struct pool *pool)
{
    int err = uv_mutex_init(&pool->lock);
    if (err)
        return err;
    err = uv_cond_init(&pool->wake);
    if (!err) {
        err = uv_cond_init(&pool->ended);
        if (err)
            uv_cond_destroy(&pool->wake);
    }
    if (err)
        uv_mutex_destroy(&pool->lock);
    return err;
}

int pool_open(struct pool **out, size_t n, const struct pool_place *places,
              void (*wakeup)(void *ctx), void *ctx)
{
    size_t align = _Alignof(struct pool), size = sizeof(struct pool) + n * sizeof(struct member);
    struct pool *pool = aligned_alloc(align, (size + align - 1) / align * align);
    if (!pool)
        return -ENOMEM;
    memset(pool, 0, size);
    for (size_t i = 0; i < POOL_LANES; i++)
        job_list_clear(&pool->lanes[i].waiting);
    int err = user_open(&pool->first, pool, n, places, wakeup, ctx);
    if (err)
        goto fail;
    err = locks_open(pool);
    if (err)
        goto fail;

    /* Signals are the loop's: a thread inherits the mask of its maker. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    uv_mutex_lock(&pool->lock); /* the first threads look at the number of all */
    for (size_t i = 0; i < n && !err; i++)
        err = member_start(pool);
    uv_mutex_unlock(&pool->lock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err) {
        pool_close(pool);
        return err;
    }
    *out = pool;
    return 0;

fail:
    user_free(pool->first);
    free(pool);
    return err;
}

int pool_join(struct pool_user **out, struct pool *pool, const struct pool_place *places,
              void (*wakeup)(void *ctx), void *ctx)
{
    return user_open(out, pool, pool->n_threads, places, wakeup, ctx);
}

struct pool_user *pool_first(struct pool *pool)
{
    return pool->first;
}

void pool_user_submit(struct pool_user *user, struct job *job)
{
    struct pool *pool = user->pool;
    uv_mutex_lock(&pool->lock);
    assert(!user->cancelled);
    job->user = user;
    job_add(pool, job);
    uv_cond_signal(&pool->wake);
    uv_mutex_unlock(&pool->lock);
}

void pool_submit(struct pool *pool, struct job *job)
{
    pool_user_submit(pool->first, job);
}

size_t pool_spare(struct pool *pool)
{
    uv_mutex_lock(&pool->lock);
    assert(pool->n_begun > 0); /* the caller's */
    size_t n_others = pool->n_waiting + pool->n_begun - 1;
    uv_mutex_unlock(&pool->lock);
    return n_others < pool->n_threads ? pool->n_threads - n_others : 0;
}

size_t pool_user_jobs(struct pool_user *user)
{
    uv_mutex_lock(&user->pool->lock);
    size_t n = user->n_untaken;
    uv_mutex_unlock(&user->pool->lock);
    return n;
}

struct job *pool_user_finished(struct pool_user *user)
{
    uv_mutex_lock(&user->pool->lock);
    struct job *jobs = job_list_take_all(&user->finished);
    for (const struct job *job = jobs; job; job = job->next)
        user->n_untaken--;
    uv_mutex_unlock(&user->pool->lock);
    return jobs;
}

struct job *pool_finished(struct pool *pool)
{
    return pool_user_finished(pool->first);
}

struct pool_help pool_help(struct pool *pool)
{
    uv_mutex_lock(&pool->lock);
    struct pool_help help = {.ended_ns = pool->help_ns};
    for (size_t i = 0; i < pool->n_threads; i++)
        help.n_threads += team_helpers(&pool->members[i].team);
    uv_mutex_unlock(&pool->lock);
    return help;
}

struct pool_lane_stats pool_lane_stats(struct pool *pool, enum pool_lane lane)
{
    uv_mutex_lock(&pool->lock);
    struct pool_lane_stats stats = {pool->lanes[lane].n_waiting, pool->lanes[lane].busy_ns};
    uv_mutex_unlock(&pool->lock);
    return stats;
}

void pool_user_cancel(struct pool_user *user)
{
    struct pool *pool = user->pool;
    uv_mutex_lock(&pool->lock);
    user->cancelled = true;
    for (size_t i = 0; i < POOL_LANES; i++) {
        size_t n = job_list_drop(&pool->lanes[i].waiting, user);
        pool->lanes[i].n_waiting -= n;
        pool->n_waiting -= n;
        user->n_untaken -= n;
    }
    atomic_store(&pool->leave, pool->closing || pool->n_waiting > 0);
    atomic_store(&pool->has_query, pool->lanes[POOL_QUERY].n_waiting > 0);
    uv_mutex_unlock(&pool->lock);
}

/* No thread is at its jobs, or at those of anybody else with its sessions. */
void pool_leave(struct pool_user *user)
{
    if (!user)
        return;
    struct pool *pool = user->pool;
    pool_user_cancel(user);
    uv_mutex_lock(&pool->lock);
    while (user->n_begun > 0 || pool->n_helping > 0) {
        atomic_store(&pool->leave, true);
        uv_cond_wait(&pool->ended, &pool->lock);
    }
    atomic_store(&pool->leave, pool->closing || pool->n_waiting > 0);
    uv_mutex_unlock(&pool->lock);
    if (user != pool->first)
        user_free(user);
}

void pool_close(struct pool *pool)
{
    if (!pool)
        return;
    uv_mutex_lock(&pool->lock);
    pool->closing = true;
    atomic_store(&pool->leave, true);
    uv_cond_broadcast(&pool->wake);
    uv_mutex_unlock(&pool->lock);
    for (size_t i = 0; i < pool->n_threads; i++)
        uv_thread_join(&pool->members[i].id);
    for (size_t i = 0; i < pool->n_threads; i++)
        team_close(&pool->members[i].team);
    uv_cond_destroy(&pool->wake);
    uv_cond_destroy(&pool->ended);
    uv_mutex_destroy(&pool->lock);
    user_free(pool->first);
    free(pool);
}
