/*
 * test_pool.c: every job runs once, on its own thread state, in order; closing and cancelling.
 */
#define _GNU_SOURCE /* pthread_getname_np */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>
#include <cmocka.h>

#include "worker/pipeline/pool.h"

enum { N_JOBS = 5000, N_THREADS = 4, PATIENCE_MS = 20000 };

/* A thread's own. */
struct pool_thread {
    size_t index;
    size_t n; /* not atomic: a thread's own */
    char name[16];
    bool signals_blocked;
};

struct count_job {
    struct job job;
    size_t n_runs;
};

static atomic_size_t n_wakeups;
static uv_sem_t go, begun;

static void wakeup(void *ctx)
{
    assert_ptr_equal(ctx, &n_wakeups);
    atomic_fetch_add(&n_wakeups, 1);
}

static void run_count(struct job *job, struct pool_thread *thread)
{
    struct count_job *mine = (struct count_job *)job;
    struct pool_thread *count = thread;
    mine->n_runs++;
    count->n++;
}

static void run_gate(struct job *job, struct pool_thread *thread)
{
    run_count(job, thread);
    uv_sem_post(&begun);
    uv_sem_wait(&go);
}

static void run_look(struct job *job, struct pool_thread *thread)
{
    struct pool_thread *count = thread;
    run_count(job, thread);
    pthread_getname_np(pthread_self(), count->name, sizeof count->name);
    sigset_t set;
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    count->signals_blocked = sigismember(&set, SIGTERM) && sigismember(&set, SIGINT);
}

/* Collect n finished jobs into a list in the order they come. */
static void collect(struct pool *pool, size_t n, struct count_job **out)
{
    uint64_t deadline = uv_hrtime() + PATIENCE_MS * 1000000ull;
    size_t got = 0;
    while (got < n) {
        for (struct job *job = pool_finished(pool); job; job = job->next) {
            assert_true(got < n);
            out[got++] = (struct count_job *)job;
        }
        if (uv_hrtime() > deadline)
            fail_msg("%zu of %zu jobs finished in %d ms", got, n, PATIENCE_MS);
        if (got < n)
            uv_sleep(1);
    }
}

/* A job that shares a step of two parts, which meet: so a second thread must have come. */
struct sharing_job {
    struct job job;
    struct pool *pool;
    size_t n_steps, threads_reported;
    uv_sem_t met[2];
    atomic_size_t n_parts, n_helped;
    struct session *leader;
    bool is_late; /* the leader's */
};

static void part_meet(void *arg, size_t part, struct session *mine)
{
    struct sharing_job *sharing = arg;
    (void)mine;
    atomic_fetch_add(&sharing->n_parts, 1);
    uv_sem_post(&sharing->met[part]);
    uv_sem_wait(&sharing->met[1 - part]);
}

static void run_sharing(struct job *job, struct pool_thread *thread)
{
    struct sharing_job *sharing = (struct sharing_job *)job;
    for (size_t i = 0; i < sharing->n_steps; i++) {
        sharing->threads_reported = pool_share(sharing->pool, thread->index, part_meet, sharing, 2);
        if (i % 10 == 9)
            uv_sleep(2); /* who helps goes to sleep, and must be woken for the next */
    }
}

static struct pool *pool_start(struct pool_thread *counts, size_t n)
{
    struct pool_place places[N_THREADS];
    memset(counts, 0, n * sizeof *counts);
    for (size_t i = 0; i < n; i++) {
        counts[i].index = i;
        places[i] = (struct pool_place){&counts[i], (struct session *)&counts[i]};
    }
    atomic_store(&n_wakeups, 0);
    struct pool *pool = NULL;
    assert_int_equal(pool_open(&pool, n, places, wakeup, &n_wakeups), 0);
    return pool;
}

static void test_each_job_runs_once(void **state)
{
    (void)state;
    struct pool_thread counts[N_THREADS];
    struct pool *pool = pool_start(counts, N_THREADS);
    struct count_job *jobs = calloc(N_JOBS, sizeof *jobs);
    struct count_job **done = calloc(N_JOBS, sizeof(struct count_job *));
    assert_true(jobs && done);
    for (size_t i = 0; i < N_JOBS; i++) {
        jobs[i].job.run = run_count;
        pool_submit(pool, &jobs[i].job);
    }
    collect(pool, N_JOBS, done);
    assert_null(pool_finished(pool));
    pool_close(pool);
    size_t sum = 0;
    for (size_t i = 0; i < N_THREADS; i++)
        sum += counts[i].n;
    assert_int_equal(sum, N_JOBS);
    for (size_t i = 0; i < N_JOBS; i++)
        assert_int_equal(jobs[i].n_runs, 1);
    assert_true(atomic_load(&n_wakeups) > 0);
    assert_true(atomic_load(&n_wakeups) <= N_JOBS);
    free(jobs);
    free(done);
}

static void sharing_open(struct sharing_job *sharing, struct pool *pool, size_t n_steps)
{
    *sharing = (struct sharing_job){.job.run = run_sharing, .pool = pool, .n_steps = n_steps};
    uv_sem_init(&sharing->met[0], 0);
    uv_sem_init(&sharing->met[1], 0);
}

static void sharing_close(struct sharing_job *sharing)
{
    uv_sem_destroy(&sharing->met[0]);
    uv_sem_destroy(&sharing->met[1]);
}

static void test_idle_threads_help(void **state)
{
    (void)state;
    struct pool_thread counts[2];
    struct pool *pool = pool_start(counts, 2);
    struct sharing_job sharing;
    struct count_job *done;
    sharing_open(&sharing, pool, 100);
    pool_submit(pool, &sharing.job);
    collect(pool, 1, &done);
    assert_int_equal(sharing.n_parts, 200);
    assert_int_equal(sharing.threads_reported, 2);
    assert_true(pool_help(pool).ended_ns > 0);
    pool_close(pool);
    sharing_close(&sharing);
}

/* The leader's part takes until the job has run; the helper has one, and more than it should do. */
static void part_wait(void *arg, size_t part, struct session *mine)
{
    struct sharing_job *sharing = arg;
    (void)part;
    atomic_fetch_add(&sharing->n_parts, 1);
    if (mine == sharing->leader) {
        if (!sharing->is_late)
            uv_sem_wait(&sharing->met[0]);
        sharing->is_late = true;
        return;
    }
    if (atomic_fetch_add(&sharing->n_helped, 1) == 0) {
        uv_sem_post(&begun);
        uv_sem_wait(&go);
    }
}

static void run_long(struct job *job, struct pool_thread *thread)
{
    struct sharing_job *sharing = (struct sharing_job *)job;
    sharing->leader = (struct session *)thread;
    pool_share(sharing->pool, thread->index, part_wait, sharing, 8);
}

struct release_job {
    struct count_job counted; /* first member */
    struct sharing_job *sharing;
    size_t n_helped; /* before it ran */
};

static void run_release(struct job *job, struct pool_thread *thread)
{
    struct release_job *release = (struct release_job *)job;
    run_count(job, thread);
    release->n_helped = atomic_load(&release->sharing->n_helped);
    uv_sem_post(&release->sharing->met[0]);
}

static void test_helpers_leave_for_a_job(void **state)
{
    (void)state;
    struct pool_thread counts[2];
    struct pool *pool = pool_start(counts, 2);
    struct sharing_job sharing;
    struct release_job release = {.counted.job.run = run_release, .sharing = &sharing};
    struct count_job *done[2];
    uv_sem_init(&go, 0);
    uv_sem_init(&begun, 0);
    sharing_open(&sharing, pool, 1);
    sharing.job.run = run_long;
    pool_submit(pool, &sharing.job);
    uv_sem_wait(&begun); /* the one thread is busy, the other helps it */
    assert_int_equal(pool_help(pool).n_threads, 1);
    pool_submit(pool, &release.counted.job);
    uv_sem_post(&go);
    collect(pool, 2, done);
    assert_int_equal(release.n_helped, 1); /* of the seven that it could have had */
    assert_int_equal(sharing.n_parts, 8);
    pool_close(pool);
    sharing_close(&sharing);
    uv_sem_destroy(&go);
    uv_sem_destroy(&begun);
}

static void test_one_thread_keeps_the_order(void **state)
{
    (void)state;
    struct pool_thread count;
    struct pool *pool = pool_start(&count, 1);
    struct count_job jobs[100], *done[100];
    memset(jobs, 0, sizeof jobs);
    for (size_t i = 0; i < 100; i++) {
        jobs[i].job.run = run_count;
        pool_submit(pool, &jobs[i].job);
    }
    collect(pool, 100, done);
    for (size_t i = 0; i < 100; i++)
        assert_ptr_equal(done[i], &jobs[i]);
    pool_close(pool);
}

static void test_threads_have_names_and_no_signals(void **state)
{
    (void)state;
    struct pool_thread count;
    struct pool *pool = pool_start(&count, 1);
    struct count_job job = {.job.run = run_look}, *done[1];
    pool_submit(pool, &job.job);
    collect(pool, 1, done);
    assert_string_equal(count.name, "embed-0");
    assert_true(count.signals_blocked);
    pool_close(pool);
    sigset_t set;
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    assert_false(sigismember(&set, SIGTERM)); /* ours is as it was */
}

static void test_cancel_takes_what_no_thread_began(void **state)
{
    (void)state;
    uv_sem_init(&go, 0);
    uv_sem_init(&begun, 0);
    struct pool_thread counts[2];
    struct pool *pool = pool_start(counts, 2);
    struct count_job jobs[6], *done[2];
    memset(jobs, 0, sizeof jobs);
    for (size_t i = 0; i < 6; i++) {
        jobs[i].job.run = run_gate;
        pool_submit(pool, &jobs[i].job);
        if (i < 2)
            uv_sem_wait(&begun);
    }
    assert_int_equal(pool_user_jobs(pool_first(pool)), 6);
    pool_user_cancel(pool_first(pool));
    assert_int_equal(pool_user_jobs(pool_first(pool)), 2);
    pool_user_cancel(pool_first(pool));
    uv_sem_post(&go);
    uv_sem_post(&go);
    collect(pool, 2, done);
    assert_int_equal(pool_user_jobs(pool_first(pool)), 0);
    pool_close(pool);
    assert_int_equal(jobs[0].n_runs + jobs[1].n_runs, 2);
    for (size_t i = 2; i < 6; i++)
        assert_int_equal(jobs[i].n_runs, 0);
    uv_sem_destroy(&go);
    uv_sem_destroy(&begun);
}

/* A job that is followed by others once it has run. */
struct first_job {
    struct count_job counted; /* first member */
    struct count_job *others;
    size_t n_others, spare;
    struct pool *pool;
};

static void run_first(struct job *job, struct pool_thread *thread)
{
    struct first_job *mine = (struct first_job *)job;
    run_gate(job, thread);
    mine->spare = pool_spare(mine->pool);
    for (size_t i = 0; i < mine->n_others; i++) {
        mine->others[i].job.run = run_count;
        mine->others[i].job.next = i + 1 < mine->n_others ? &mine->others[i + 1].job : NULL;
    }
    job->then = &mine->others[0].job;
}

/* What follows stands behind what waits already, and behind what it follows among the finished. */
static void test_jobs_follow_jobs(void **state)
{
    (void)state;
    uv_sem_init(&go, 0);
    uv_sem_init(&begun, 0);
    struct pool_thread count;
    struct pool *pool = pool_start(&count, 1);
    struct count_job others[3], waiting = {.job.run = run_count}, *done[6];
    memset(others, 0, sizeof others);
    struct count_job urgent = {.job = {.run = run_count, .urgent = true}};
    struct first_job first = {
        .counted.job.run = run_first, .others = others, .n_others = 3, .pool = pool};
    pool_submit(pool, &first.counted.job);
    uv_sem_wait(&begun);
    pool_submit(pool, &waiting.job);
    pool_submit(pool, &urgent.job);
    assert_int_equal(pool_user_jobs(pool_first(pool)), 3);
    uv_sem_post(&go);
    collect(pool, 6, done);
    struct count_job *const wanted[] = {&first.counted, &urgent,    &waiting,
                                        &others[0],     &others[1], &others[2]};
    for (size_t i = 0; i < 6; i++)
        assert_ptr_equal(done[i], wanted[i]);
    assert_int_equal(first.spare, 0);
    assert_int_equal(pool_user_jobs(pool_first(pool)), 0);
    pool_close(pool);
    uv_sem_destroy(&go);
    uv_sem_destroy(&begun);
}

/* Many threads: each that follows runs once, and never before what it follows is among the
 * finished. */
static void test_followers_of_many(void **state)
{
    (void)state;
    enum { N_FIRST = 200, N_EACH = 5 };
    struct pool_thread counts[N_THREADS];
    struct pool *pool = pool_start(counts, N_THREADS);
    struct first_job *firsts = calloc(N_FIRST, sizeof *firsts);
    struct count_job(*others)[N_EACH] = calloc(N_FIRST, sizeof *others);
    struct count_job **done = calloc(N_FIRST * (1 + N_EACH), sizeof(struct count_job *));
    assert_true(firsts && others && done);
    uv_sem_init(&go, N_FIRST);
    uv_sem_init(&begun, 0);
    for (size_t i = 0; i < N_FIRST; i++) {
        firsts[i] = (struct first_job){
            .counted.job.run = run_first, .others = others[i], .n_others = N_EACH, .pool = pool};
        pool_submit(pool, &firsts[i].counted.job);
    }
    collect(pool, N_FIRST * (1 + N_EACH), done);
    size_t n_seen = 0;
    for (size_t i = 0; i < N_FIRST * (1 + N_EACH); i++) {
        size_t at = (size_t)((char *)done[i] - (char *)others) / sizeof *others;
        if ((char *)done[i] >= (char *)others && at < N_FIRST) {
            assert_int_equal(firsts[at].counted.n_runs, 2); /* seen before */
            assert_int_equal(done[i]->n_runs, 1);
        } else {
            done[i]->n_runs++;
            n_seen++;
        }
    }
    assert_int_equal(n_seen, N_FIRST);
    pool_close(pool);
    uv_sem_destroy(&go);
    uv_sem_destroy(&begun);
    free(firsts);
    free(others);
    free(done);
}

/* What a running job would be followed by is forgotten too. */
static void test_cancel_ends_what_follows(void **state)
{
    (void)state;
    uv_sem_init(&go, 0);
    uv_sem_init(&begun, 0);
    struct pool_thread count;
    struct pool *pool = pool_start(&count, 1);
    struct count_job others[3], *done[1];
    memset(others, 0, sizeof others);
    struct first_job first = {
        .counted.job.run = run_first, .others = others, .n_others = 3, .pool = pool};
    pool_submit(pool, &first.counted.job);
    uv_sem_wait(&begun);
    pool_user_cancel(pool_first(pool));
    uv_sem_post(&go);
    collect(pool, 1, done);
    uv_sleep(5);
    assert_int_equal(pool_user_jobs(pool_first(pool)), 0);
    pool_close(pool);
    assert_int_equal(others[0].n_runs, 0);
    assert_int_equal(first.spare, 1);
    uv_sem_destroy(&go);
    uv_sem_destroy(&begun);
}

static void release_later(void *arg)
{
    (void)arg;
    uv_sleep(30);
    uv_sem_post(&go);
}

static void test_close_waits_for_the_running_and_drops_the_rest(void **state)
{
    (void)state;
    uv_sem_init(&go, 0);
    uv_sem_init(&begun, 0);
    struct pool_thread count;
    struct pool *pool = pool_start(&count, 1);
    struct count_job jobs[3];
    memset(jobs, 0, sizeof jobs);
    for (size_t i = 0; i < 3; i++) {
        jobs[i].job.run = run_gate;
        pool_submit(pool, &jobs[i].job);
    }
    uv_sem_wait(&begun);
    uv_thread_t helper;
    assert_int_equal(uv_thread_create(&helper, release_later, NULL), 0);
    pool_close(pool);
    uv_thread_join(&helper);
    assert_int_equal(jobs[0].n_runs, 1);
    assert_int_equal(jobs[1].n_runs + jobs[2].n_runs, 0);
    assert_int_equal(atomic_load(&n_wakeups), 1);
    uv_sem_destroy(&go);
    uv_sem_destroy(&begun);
    pool_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_job_runs_once),
        cmocka_unit_test(test_idle_threads_help),
        cmocka_unit_test(test_helpers_leave_for_a_job),
        cmocka_unit_test(test_one_thread_keeps_the_order),
        cmocka_unit_test(test_threads_have_names_and_no_signals),
        cmocka_unit_test(test_cancel_takes_what_no_thread_began),
        cmocka_unit_test(test_jobs_follow_jobs),
        cmocka_unit_test(test_followers_of_many),
        cmocka_unit_test(test_cancel_ends_what_follows),
        cmocka_unit_test(test_close_waits_for_the_running_and_drops_the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
