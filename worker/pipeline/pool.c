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
#include <uv.h>

/* musl gives threads 128 KiB, glibc whatever ulimit says; the pool wants neither surprise. */
enum { STACK_SIZE = 2 * 1024 * 1024 };

struct job_list {
    struct job *first;
    struct job **end;
};

typedef bool pool_helper(struct pool_thread *thread, struct pool_thread *busy,
                         const atomic_bool *leave);

struct member {
    struct pool *pool;
    struct pool_thread *mine;
    size_t index;
    uv_thread_t id;

    pool_helper *help; /* NULL: none is wanted */
    size_t n_invited;  /* so that one invitation is not taken for the next */
    size_t n_helpers;  /* other threads inside help with this one */
};

struct pool {
    uv_mutex_t lock; /* guards the lists, closing, n_idle, who helps whom and help_ns */
    uv_cond_t wake;
    struct job_list waiting, finished;
    atomic_bool leave; /* for helpers: a job waits, or the pool closes */
    bool closing, cancelled;
    size_t n_idle;    /* threads waiting for wake */
    size_t n_untaken; /* jobs submitted that nobody has taken back */
    size_t n_begun;   /* jobs that threads are at */
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

/* The busy thread with the fewest helpers of those that want some; NULL: none does. */
static struct member *find_busy(struct pool *pool)
{
    struct member *best = NULL;
    for (size_t i = 0; i < pool->n_threads; i++) {
        struct member *thread = &pool->members[i];
        if (thread->help && (!best || thread->n_helpers < best->n_helpers))
            best = thread;
    }
    return best;
}

/* Under the lock, which is given up meanwhile. One thread that comes to help wakes the next, so the
 * busy one has to wake only the first. */
static void thread_help(struct member *thread, struct member *busy)
{
    struct pool *pool = thread->pool;
    size_t invitation = busy->n_invited;
    pool_helper *help = busy->help;
    busy->n_helpers++;
    if (pool->n_idle)
        uv_cond_signal(&pool->wake);
    uv_mutex_unlock(&pool->lock);
    uint64_t began_ns = uv_hrtime();
    bool left = help(thread->mine, busy->mine, &pool->leave);
    uint64_t ended_ns = uv_hrtime();
    uv_mutex_lock(&pool->lock);
    pool->help_ns += ended_ns - began_ns;
    busy->n_helpers--;
    if (!left && busy->n_invited == invitation)
        busy->help = NULL;
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
    struct member *busy;
    uv_mutex_lock(&pool->lock);
    while (!pool->waiting.first && !pool->closing) {
        if ((busy = find_busy(pool)) != NULL) {
            thread_help(thread, busy);
        } else {
            pool->n_idle++;
            uv_cond_wait(&pool->wake, &pool->lock);
            pool->n_idle--;
        }
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
    thread->help = NULL;
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

void pool_invite(struct pool *pool, struct pool_thread *busy, pool_helper *help)
{
    uv_mutex_lock(&pool->lock);
    for (size_t i = 0; i < pool->n_threads; i++)
        if (pool->members[i].mine == busy) {
            pool->members[i].help = help;
            pool->members[i].n_invited++;
        }
    if (pool->n_idle)
        uv_cond_signal(&pool->wake);
    uv_mutex_unlock(&pool->lock);
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

int pool_open(struct pool **out, size_t n, struct pool_thread *const *threads,
              void (*bell)(void *ctx), void *ctx)
{
    struct pool *pool = calloc(1, sizeof *pool + n * sizeof pool->members[0]);
    if (!pool)
        return -ENOMEM;
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
    const uv_thread_options_t options = {.flags = UV_THREAD_HAS_STACK_SIZE,
                                         .stack_size = STACK_SIZE};
    uv_mutex_lock(&pool->lock); /* the first threads look at the number of all */
    while (!err && pool->n_threads < n) {
        struct member *thread = &pool->members[pool->n_threads];
        thread->pool = pool;
        thread->mine = threads[pool->n_threads];
        thread->index = pool->n_threads;
        err = uv_thread_create_ex(&thread->id, &options, thread_run, thread);
        if (!err)
            pool->n_threads++;
    }
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
        help.n_threads += pool->members[i].n_helpers;
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
    uv_cond_destroy(&pool->wake);
    uv_mutex_destroy(&pool->lock);
    free(pool);
}
