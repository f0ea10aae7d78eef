/*
 * pool_user.c: the users of a pool: what they submit, take back and withdraw, and what is reported
 * of lanes and help. All of it under the pool's lock; who runs what is in pool.c.
 */
#include <assert.h>

#include "worker/pipeline/pool_internal.h"

int pool_join(struct pool_user **out, struct pool *pool, const struct pool_place *places,
              void (*wakeup)(void *ctx), void *ctx)
{
    return pool_user_open(out, pool, pool->n_threads, places, wakeup, ctx);
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
    pool_job_add(pool, job);
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
    for (const struct job *job = jobs; job; job = job->next) {
        assert(user->n_untaken > 0);
        user->n_untaken--;
    }
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
        help.n_threads +=
            team_helpers(&pool->members[i].outer) + team_helpers(&pool->members[i].inner);
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
    /* job_finish reads it: what would follow the running ones is dropped there. */
    user->cancelled = true;
    for (size_t i = 0; i < POOL_LANES; i++) {
        size_t n = job_list_drop(&pool->lanes[i].waiting, user);
        assert(pool->lanes[i].n_waiting >= n && pool->n_waiting >= n && user->n_untaken >= n);
        pool->lanes[i].n_waiting -= n;
        pool->n_waiting -= n;
        user->n_untaken -= n;
    }
    /* What was dropped calls no helpers away any more. */
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
    while (user->n_begun > 0 || user->n_helping > 0) {
        /* Set anew each time: whoever begins or cancels a job meanwhile clears it. */
        atomic_store(&pool->leave, true);
        uv_cond_wait(&pool->ended, &pool->lock);
    }
    atomic_store(&pool->leave, pool->closing || pool->n_waiting > 0);
    uv_mutex_unlock(&pool->lock);
    /* The first is the pool's: pool_close frees it. */
    if (user != pool->first)
        pool_user_free(user);
}
