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

#include "worker/pipeline/team.h"

/* musl gives threads 128 KiB, glibc whatever ulimit says; the pool wants neither surprise. */
enum { STACK_SIZE = 2 * 1024 * 1024 };

struct job_list {
    struct job *first;
    struct job **end;
};

struct member {
    struct pool *pool;
    struct pool_thread *mine;
    struct session *session;
    size_t index;
    uv_thread_t id;
    struct team team;
    bool invites; /* it has woken a thread, which may come when the step is over: for the next */
    size_t n_invited; /* so that one invitation is not taken for the next */
};

struct pool {
    uv_mutex_t lock; /* guards all that is not atomic, and who invites whom */
    uv_cond_t wake;
    struct job_list waiting, finished;
    atomic_bool leave; /* for helpers: a job waits, or the pool closes */
    bool closing, cancelled;
    atomic_size_t n_idle; /* threads waiting for wake; changed under the lock */
    size_t n_untaken;     /* jobs submitted that nobody has taken back */
    size_t n_begun;       /* jobs that threads are at */
    size_t n_waiting;
    uint64_t help_ns; /* of all threads, in helps that have ended */
    void (*bell)(void *ctx);
    void *ctx;
    size_t n_threads; /* started */
    struct member members[];
};

static void list_clear(struct job_list *list)
{
    list->first = NULL;
    list->end = &list->first;
}

static void list_add(struct job_list *list, struct job *job)
{
    job->next = NULL;
    *list->end = job;
    list->end = &job->next;
}

static struct job *list_take(struct job_list *list)
{
    struct job *first = list->first;
    if (!first)
        return NULL;
    list->first = first->next;
    if (!list->first)
        list->end = &list->first;
    return first;
}

static struct job *list_take_all(struct job_list *list)
{
    struct job *first = list->first;
    list_clear(list);
    return first;
}

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
 * leader has to wake only the first. */
static void thread_help(struct member *thread, struct member *leader)
{
    struct pool *pool = thread->pool;
    size_t invitation = leader->n_invited;
    if (atomic_load(&pool->n_idle))
        uv_cond_signal(&pool->wake);
    uv_mutex_unlock(&pool->lock);
    uint64_t began_ns = uv_hrtime();
    team_help(&leader->team, thread->session, &pool->leave);
    uint64_t ended_ns = uv_hrtime();
    uv_mutex_lock(&pool->lock);
    pool->help_ns += ended_ns - began_ns;
    if (!atomic_load(&pool->leave) && leader->n_invited == invitation)
        leader->invites = false;
}

/* Under the lock. */
static void job_add(struct pool *pool, struct job *job)
{
    job->next = NULL;
    if (job->urgent && pool->waiting.first) {
        job->next = pool->waiting.first;
        pool->waiting.first = job;
    } else {
        list_add(&pool->waiting, job);
    }
    pool->n_untaken++;
    pool->n_waiting++;
    atomic_store(&pool->leave, true);
}

/* Waits for one; NULL when the pool closes. */
static struct job *job_take(struct member *thread)
{
    struct pool *pool = thread->pool;
    struct member *leader = NULL;
    uv_mutex_lock(&pool->lock);
    while (!pool->waiting.first && !pool->closing) {
        /* Idle first, then a look: pool_share offers first and looks for idle threads then. */
        atomic_fetch_add(&pool->n_idle, 1);
        leader = find_leader(pool);
        if (!leader)
            uv_cond_wait(&pool->wake, &pool->lock);
        atomic_fetch_sub(&pool->n_idle, 1);
        if (leader)
            thread_help(thread, leader);
    }
    struct job *job = pool->closing ? NULL : list_take(&pool->waiting);
    if (job) {
        pool->n_waiting--;
        pool->n_begun++;
        atomic_store(&pool->leave, pool->waiting.first != NULL);
    }
    uv_mutex_unlock(&pool->lock);
    return job;
}

/* The first that follows is for this thread, which is about to ask for one. */
static void job_finish(struct member *thread, struct job *job)
{
    struct pool *pool = thread->pool;
    uv_mutex_lock(&pool->lock);
    thread->invites = false;
    struct job *then = pool->cancelled ? NULL : job->then;
    pool->n_begun--;
    bool is_first = !pool->finished.first; /* else who came before has rung, or is about to */
    list_add(&pool->finished, job);
    for (size_t n = 0; then; n++) {
        struct job *next = then->next;
        job_add(pool, then);
        if (n > 0)
            uv_cond_signal(&pool->wake);
        then = next;
    }
    uv_mutex_unlock(&pool->lock);
    if (is_first)
        pool->bell(pool->ctx);
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

size_t pool_share(struct pool *pool, size_t index, session_part *step, void *arg, size_t n_parts)
{
    struct member *thread = &pool->members[index];
    if (n_parts > 1) {
        team_offer(&thread->team, step, arg, n_parts);
        if (atomic_load(&pool->n_idle))
            invite(thread);
        team_finish(&thread->team, thread->session);
    } else if (n_parts == 1) {
        team_offer(&thread->team, step, arg, 0); /* nothing to take, and yet something goes on */
        step(arg, 0, thread->session);
    }
    return 1 + team_helpers(&thread->team) + atomic_load(&pool->n_idle);
}

static void thread_run(void *arg)
{
    struct member *thread = arg;
    char name[16];
    snprintf(name, sizeof name, "embed-%u", (unsigned)thread->index);
    pthread_setname_np(pthread_self(), name);

    for (struct job *job; (job = job_take(thread)) != NULL;) {
        job->run(job, thread->mine);
        job_finish(thread, job);
    }
}

/* One more thread. */
static int member_start(struct pool *pool, const struct pool_place *place)
{
    static const uv_thread_options_t options = {.flags = UV_THREAD_HAS_STACK_SIZE,
                                                .stack_size = STACK_SIZE};
    struct member *thread = &pool->members[pool->n_threads];
    thread->pool = pool;
    thread->mine = place->thread;
    thread->session = place->session;
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

int pool_open(struct pool **out, size_t n, const struct pool_place *places, void (*bell)(void *ctx),
              void *ctx)
{
    size_t align = _Alignof(struct pool), size = sizeof(struct pool) + n * sizeof(struct member);
    struct pool *pool = aligned_alloc(align, (size + align - 1) / align * align);
    if (!pool)
        return -ENOMEM;
    memset(pool, 0, size);
    list_clear(&pool->waiting);
    list_clear(&pool->finished);
    pool->bell = bell;
    pool->ctx = ctx;
    int err = uv_mutex_init(&pool->lock);
    if (err)
        goto fail;
    err = uv_cond_init(&pool->wake);
    if (err) {
        uv_mutex_destroy(&pool->lock);
        goto fail;
    }

    /* Signals are the loop's: a thread inherits the mask of its maker. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    uv_mutex_lock(&pool->lock); /* the first threads look at the number of all */
    for (size_t i = 0; i < n && !err; i++)
        err = member_start(pool, &places[i]);
    uv_mutex_unlock(&pool->lock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err) {
        pool_close(pool);
        return err;
    }
    *out = pool;
    return 0;

fail:
    free(pool);
    return err;
}

void pool_submit(struct pool *pool, struct job *job)
{
    uv_mutex_lock(&pool->lock);
    assert(!pool->cancelled);
    job_add(pool, job);
    uv_cond_signal(&pool->wake);
    uv_mutex_unlock(&pool->lock);
}

size_t pool_spare(struct pool *pool)
{
    uv_mutex_lock(&pool->lock);
    assert(pool->n_begun > 0); /* the caller's */
    size_t n_others = pool->n_waiting + pool->n_begun - 1;
    uv_mutex_unlock(&pool->lock);
    return n_others < pool->n_threads ? pool->n_threads - n_others : 0;
}

size_t pool_jobs(struct pool *pool)
{
    uv_mutex_lock(&pool->lock);
    size_t n = pool->n_untaken;
    uv_mutex_unlock(&pool->lock);
    return n;
}

struct job *pool_finished(struct pool *pool)
{
    uv_mutex_lock(&pool->lock);
    struct job *jobs = list_take_all(&pool->finished);
    for (const struct job *job = jobs; job; job = job->next)
        pool->n_untaken--;
    uv_mutex_unlock(&pool->lock);
    return jobs;
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

void pool_cancel(struct pool *pool)
{
    uv_mutex_lock(&pool->lock);
    list_clear(&pool->waiting);
    pool->cancelled = true;
    pool->n_untaken -= pool->n_waiting;
    pool->n_waiting = 0;
    atomic_store(&pool->leave, false);
    uv_mutex_unlock(&pool->lock);
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
    uv_mutex_destroy(&pool->lock);
    free(pool);
}
