/*
 * pool.c: see pool.h. One lock for both lists: a job is a slice of a batch and takes from tens of
 * milliseconds to seconds, so the lock is free practically always.
 */
#define _GNU_SOURCE /* pthread_setname_np */
#include "worker/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

/* musl gives threads 128 KiB, glibc whatever ulimit says; the pool wants neither surprise. */
enum { STACK_SIZE = 2 * 1024 * 1024 };

struct job_list {
    struct job *first;
    struct job **end;
};

struct pool_thread {
    struct pool *pool;
    void *mine;
    size_t index;
    uv_thread_t id;
};

struct pool {
    uv_mutex_t lock; /* guards the lists and closing */
    uv_cond_t wake;
    struct job_list waiting, finished;
    bool closing;
    void (*bell)(void *ctx);
    void *ctx;
    size_t n_threads; /* started */
    struct pool_thread threads[];
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

/* NULL when the pool closes. */
static struct job *job_wait(struct pool *pool)
{
    uv_mutex_lock(&pool->lock);
    while (!pool->waiting.first && !pool->closing)
        uv_cond_wait(&pool->wake, &pool->lock);
    struct job *job = pool->closing ? NULL : list_take(&pool->waiting);
    uv_mutex_unlock(&pool->lock);
    return job;
}

static void thread_run(void *arg)
{
    struct pool_thread *thread = arg;
    struct pool *pool = thread->pool;

    char name[16];
    snprintf(name, sizeof name, "embed-%u", (unsigned)thread->index);
    pthread_setname_np(pthread_self(), name);

    for (struct job *job; (job = job_wait(pool)) != NULL;) {
        job->run(job, thread->mine);
        uv_mutex_lock(&pool->lock);
        list_add(&pool->finished, job);
        uv_mutex_unlock(&pool->lock);
        pool->bell(pool->ctx);
    }
}

int pool_open(struct pool **out, size_t n, void *const *threads, void (*bell)(void *ctx), void *ctx)
{
    struct pool *pool = calloc(1, sizeof *pool + n * sizeof pool->threads[0]);
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
    while (!err && pool->n_threads < n) {
        struct pool_thread *thread = &pool->threads[pool->n_threads];
        thread->pool = pool;
        thread->mine = threads[pool->n_threads];
        thread->index = pool->n_threads;
        err = uv_thread_create_ex(&thread->id, &options, thread_run, thread);
        if (!err)
            pool->n_threads++;
    }
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
    list_add(&pool->waiting, job);
    uv_cond_signal(&pool->wake);
    uv_mutex_unlock(&pool->lock);
}

struct job *pool_finished(struct pool *pool)
{
    uv_mutex_lock(&pool->lock);
    struct job *jobs = list_take_all(&pool->finished);
    uv_mutex_unlock(&pool->lock);
    return jobs;
}

struct job *pool_cancel(struct pool *pool)
{
    uv_mutex_lock(&pool->lock);
    struct job *jobs = list_take_all(&pool->waiting);
    uv_mutex_unlock(&pool->lock);
    return jobs;
}

void pool_close(struct pool *pool)
{
    if (!pool)
        return;
    uv_mutex_lock(&pool->lock);
    pool->closing = true;
    uv_cond_broadcast(&pool->wake);
    uv_mutex_unlock(&pool->lock);
    for (size_t i = 0; i < pool->n_threads; i++)
        uv_thread_join(&pool->threads[i].id);
    uv_cond_destroy(&pool->wake);
    uv_mutex_destroy(&pool->lock);
    free(pool);
}
