/*
 * pool.c: see pool.h. One lock for all lists: a job is a slice of a batch and takes from tens of
 * milliseconds to seconds, so the lock is free practically always.
 */
#define _GNU_SOURCE /* pthread_setname_np */
#include "worker/pipeline/pool.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/pipeline/pool_internal.h"

/*
 * musl gives threads 128 KiB, glibc whatever ulimit says; the pool wants neither surprise.
 * QUERY_HELPERS: threads that leave their jobs for one query. Four threads are most of what a short
 * text can use, and each more takes its time from others.
 */
enum { STACK_SIZE = 2 * 1024 * 1024, QUERY_HELPERS = 3 };

static const double weights[POOL_LANES] = {
    [POOL_QUEUE] = 4, [POOL_BULK] = 1, [POOL_LIST] = 4, [POOL_QUERY] = 32};

/* The thread with the fewest helpers of those that have parts to share, or had a moment ago; NULL:
 * none has. */
static struct member *find_leader(struct pool *pool)
{
    struct member *best = NULL;
    for (size_t i = 0; i < pool->n_threads; i++) {
        struct member *thread = &pool->members[i];
        if (thread->running && (thread->invites || team_has_parts(thread->team)) &&
            (!best || team_helpers(thread->team) < team_helpers(best->team)))
            best = thread;
    }
    return best;
}

/* Under the lock, which is given up meanwhile: with the session that the thread has for the
 * leader's user. Returns how long, in ns. */
static uint64_t help(const struct member *thread, struct member *leader, const atomic_bool *leave)
{
    struct pool *pool = thread->pool;
    struct pool_user *user = leader->running->user;
    struct team *team = leader->team;
    user->n_helping++;
    /* Under the lock: from here on the leader runs no job of another user (job_run). */
    team_join(team);
    uv_mutex_unlock(&pool->lock);
    uint64_t began_ns = uv_hrtime();
    /* The user cannot be closed meanwhile: n_helping keeps it. */
    team_help(team, user->places[thread->index].session, leave);
    uint64_t took_ns = uv_hrtime() - began_ns;
    uv_mutex_lock(&pool->lock);
    assert(user->n_helping > 0);
    user->n_helping--;
    uv_cond_broadcast(&pool->ended);
    return took_ns;
}

/* Under the lock, which is given up meanwhile. One thread that comes to help wakes the next, so the
 * leader has to wake only the first. */
static void thread_help(struct member *thread, struct member *leader)
{
    struct pool *pool = thread->pool;
    size_t invitation = leader->n_invited;
    if (atomic_load(&pool->n_idle))
        uv_cond_signal(&pool->wake);
    pool->n_helping++;
    pool->help_ns += help(thread, leader, &pool->leave);
    assert(pool->n_helping > 0);
    pool->n_helping--;
    /* It ran dry and was not called again, so idle threads look elsewhere; if a job called it away,
     * the invitation stands. */
    if (!atomic_load(&pool->leave) && leader->n_invited == invitation)
        leader->invites = false;
}

/* Under the lock. */
void pool_job_add(struct pool *pool, struct job *job)
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
    /* Those who help go and look: a job goes before the parts of another's. */
    atomic_store(&pool->leave, true);
    if (job->lane == POOL_QUERY)
        atomic_store(&pool->has_query, true);
}

/* Under the lock: the lane whose turn it is; NULL: nothing waits. */
static struct lane *find_lane(struct pool *pool)
{
    struct lane *best = NULL;
    /* From the heaviest lane, which wins a tie. */
    for (size_t i = POOL_LANES; i-- > 0;) {
        struct lane *lane = &pool->lanes[i];
        if (lane->n_waiting && (!best || lane->had < best->had))
            best = lane;
    }
    return best;
}

/* Under the lock. */
static struct job *job_begin(struct member *thread, struct lane *lane)
{
    struct pool *pool = thread->pool;
    struct job *job = job_list_take(&lane->waiting);
    assert(lane->n_waiting > 0);
    lane->n_waiting--;
    lane->n_begun++;
    assert(pool->n_waiting > 0);
    pool->n_waiting--;
    pool->n_begun++;
    job->user->n_begun++;
    if (job->lane != POOL_QUERY)
        /* helpers_of asks how many threads a query could call away. */
        atomic_fetch_add(&pool->n_others, 1);
    thread->running = job;
    thread->team = job->lane == POOL_QUERY ? &thread->inner : &thread->outer;
    /* The clock of the lanes only goes forward; it is where a lane that wakes starts from. */
    if (lane->had > pool->now)
        pool->now = lane->had;
    /* What is left waiting decides whether helpers leave and queries interrupt. */
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
    struct job *job = pool->closing ? NULL : job_begin(thread, find_lane(pool));
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
    /* Not so of a query that ran in the midst of this thread's job. */
    if (thread->job == job) {
        thread->invites = false;
        thread->job = NULL;
    }
    thread->running = thread->job;
    thread->team = &thread->outer;
    if (job->lane != POOL_QUERY)
        atomic_fetch_sub(&pool->n_others, 1);
    else if (!atomic_exchange(&thread->query_over, true))
        /* Once for a query that had parts to share: pool_share has counted it. */
        atomic_fetch_sub(&pool->n_open, 1);
    /* What follows a cancelled user's job would work on memory that is about to go. */
    struct job *then = user->cancelled ? NULL : job->then;
    assert(lane->n_begun > 0);
    lane->n_begun--;
    lane->busy_ns += took_ns;
    lane->had += (double)took_ns / weights[job->lane];
    assert(pool->n_begun > 0);
    pool->n_begun--;
    assert(user->n_begun > 0);
    user->n_begun--;
    bool is_first = !user->finished.first; /* else who came before has rung, or is about to */
    job_list_add(&user->finished, job);
    for (size_t n = 0; then; n++) {
        struct job *next = then->next;
        /* Of this user, unless run has named another: that of the model meant (serve_embed.c). */
        if (!then->user)
            then->user = user;
        pool_job_add(pool, then);
        if (n > 0 || thread->job) /* in the midst of another, to which this thread goes back */
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

/* Under the lock: is it the turn of queries, rather than of the job in hand? */
static bool is_turn_of_query(const struct member *thread)
{
    const struct lane *query = &thread->pool->lanes[POOL_QUERY],
                      *mine = &thread->pool->lanes[thread->job->lane];
    /* The job in hand has not been charged yet: what it ran so far counts, without the queries
     * that ran inside it. */
    double ran_ns = (double)(uv_hrtime() - thread->began_ns - thread->nested_ns);
    return query->had <= mine->had + ran_ns / weights[thread->job->lane];
}

/* A query that waits, if it is its lane's turn and no other thread is free for it; NULL: none. */
static struct job *query_take(struct member *thread)
{
    struct pool *pool = thread->pool;
    struct job *job = NULL;
    uv_mutex_lock(&pool->lock);
    /* Who helps leaves, too, but after its part, which may be a chunk's way through many steps. */
    if (pool->lanes[POOL_QUERY].n_waiting && atomic_load(&pool->n_idle) == 0 &&
        is_turn_of_query(thread))
        job = job_begin(thread, &pool->lanes[POOL_QUERY]);
    uv_mutex_unlock(&pool->lock);
    return job;
}

static void job_run(struct member *thread, struct job *job)
{
    const struct pool_place *place = &job->user->places[thread->index];
    const struct pool_user **last =
        thread->team == &thread->inner ? &thread->inner_user : &thread->outer_user;
    /* Who helped with the job before may still look for parts, with a session of its user, perhaps
     * of another model. Who comes from here on takes the session that belongs to this job. */
    if (*last != job->user)
        team_wait_alone(thread->team);
    *last = job->user;
    thread->session = place->session;
    job->run(job, place->thread);
}

/* The thread whose query has the fewest helpers; NULL: none, or all have enough. */
static struct member *find_query(struct pool *pool)
{
    struct member *best = NULL;
    for (size_t i = 0; i < pool->n_threads; i++) {
        struct member *thread = &pool->members[i];
        if (!atomic_load(&thread->query_over) &&
            team_helpers(thread->team) < (best ? team_helpers(best->team) : QUERY_HELPERS))
            best = thread;
    }
    return best;
}

/* Until it is over: two threads end one query sooner than each would end one of two, and while this
 * one has the caches, it is done with it. */
static void query_help(struct member *thread)
{
    struct pool *pool = thread->pool;
    struct lane *lane = &pool->lanes[POOL_QUERY];
    uv_mutex_lock(&pool->lock);
    struct member *leader = is_turn_of_query(thread) ? find_query(pool) : NULL;
    if (leader) {
        uint64_t took_ns = help(thread, leader, &leader->query_over);
        thread->nested_ns += took_ns;
        lane->busy_ns += took_ns;
        lane->had += (double)took_ns / weights[POOL_QUERY];
    }
    uv_mutex_unlock(&pool->lock);
}

/* Between two parts of a job in hand. */
static void queries_run(struct member *thread)
{
    struct pool *pool = thread->pool;
    struct session *session = thread->session;
    struct job *job;
    /* A query inside a query would only delay both. */
    if (thread->running->lane == POOL_QUERY)
        return;
    while (atomic_load_explicit(&pool->has_query, memory_order_relaxed) &&
           (job = query_take(thread)) != NULL) {
        uint64_t began_ns = uv_hrtime();
        job_run(thread, job);
        uint64_t took_ns = uv_hrtime() - began_ns;
        thread->nested_ns += took_ns;
        /* The query ran with its own user's session; the job in hand goes on with this one. */
        thread->session = session;
        job_finish(thread, job, took_ns);
    }
    if (atomic_load_explicit(&pool->n_open, memory_order_relaxed))
        query_help(thread);
}

static void on_pause(void *ctx)
{
    queries_run(ctx);
}

/* Threads that may take parts of the next step. */
static size_t helpers_of(const struct member *thread)
{
    const struct pool *pool = thread->pool;
    size_t n = team_helpers(thread->team) + atomic_load(&pool->n_idle);
    if (thread->running->lane != POOL_QUERY)
        return n;
    /* All jobs that threads are at, without the one that this query interrupted on this thread. */
    size_t n_others = atomic_load(&pool->n_others) - (thread->job != thread->running);
    n_others = n_others < QUERY_HELPERS ? n_others : QUERY_HELPERS;
    return n > n_others ? n : n_others;
}

size_t pool_share(struct pool *pool, size_t index, session_part *step, void *arg, size_t n_parts)
{
    struct member *thread = &pool->members[index];
    assert(index < pool->n_threads && thread->running); /* called by a job, on its own thread */
    if (n_parts > 1) {
        team_offer(thread->team, step, arg, n_parts);
        /* From its first parts until its end others may look for a query. */
        if (thread->running->lane == POOL_QUERY && atomic_exchange(&thread->query_over, false))
            atomic_fetch_add(&pool->n_open, 1);
        /* A signal costs a system call, so it is sent only when somebody may sleep. */
        if (atomic_load(&pool->n_idle))
            invite(thread);
        team_finish(thread->team, thread->session, on_pause, thread);
    } else if (n_parts == 1) {
        team_offer(thread->team, step, arg, 0); /* nothing to take, and yet something goes on */
        step(arg, 0, thread->session);
    }
    queries_run(thread);
    return 1 + helpers_of(thread);
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
    atomic_init(&thread->query_over, true);
    int err = team_open(&thread->outer);
    if (err)
        return err;
    err = team_open(&thread->inner);
    if (!err) {
        err = uv_thread_create_ex(&thread->id, &options, thread_run, thread);
        if (err)
            team_close(&thread->inner);
    }
    if (err)
        team_close(&thread->outer);
    else
        pool->n_threads++;
    return err;
}

void pool_user_free(struct pool_user *user)
{
    if (user)
        free(user->places);
    free(user);
}

int pool_user_open(struct pool_user **out, struct pool *pool, size_t n,
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
    /* A team's members have cache lines of their own: malloc would not align them. */
    size_t align = _Alignof(struct pool), size = sizeof(struct pool) + n * sizeof(struct member);
    struct pool *pool = aligned_alloc(align, (size + align - 1) / align * align);
    if (!pool)
        return -ENOMEM;
    memset(pool, 0, size);
    for (size_t i = 0; i < POOL_LANES; i++)
        job_list_clear(&pool->lanes[i].waiting);
    int err = pool_user_open(&pool->first, pool, n, places, wakeup, ctx);
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
    pool_user_free(pool->first);
    free(pool);
    return err;
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
    for (size_t i = 0; i < pool->n_threads; i++) {
        team_close(&pool->members[i].outer);
        team_close(&pool->members[i].inner);
    }
    uv_cond_destroy(&pool->wake);
    uv_cond_destroy(&pool->ended);
    uv_mutex_destroy(&pool->lock);
    pool_user_free(pool->first);
    free(pool);
}
