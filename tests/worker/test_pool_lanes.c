/*
 * test_pool_lanes.c: several users of one pool: shares by weight and none starves; a query runs in
 * the midst of another's job, with its own user's things, and the other threads help it; who leaves
 * is waited for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>
#include <cmocka.h>

#include "worker/pipeline/pool.h"

enum { PATIENCE_MS = 20000, EACH = 60 };

/* A thread's own, of one user. */
struct pool_thread {
    struct pool *pool;
    size_t index;
    int user;
};

struct lane_job {
    struct job job; /* first member */
    int user;       /* whose thread it was given */
    size_t order;   /* of its end among all */
    bool is_inside; /* it began while the outer job ran */
};

static atomic_size_t n_ended, n_wakeups;
static atomic_bool outer_runs;
static uv_sem_t go, begun;

static void wakeup(void *ctx)
{
    (void)ctx;
    atomic_fetch_add(&n_wakeups, 1);
}

static void note(struct job *job, const struct pool_thread *thread)
{
    struct lane_job *mine = (struct lane_job *)job;
    mine->user = thread->user;
    mine->is_inside = atomic_load(&outer_runs);
    mine->order = atomic_fetch_add(&n_ended, 1);
}

static void run_busy(struct job *job, struct pool_thread *thread)
{
    for (uint64_t began = uv_hrtime(); uv_hrtime() - began < 500000;) {
    }
    note(job, thread);
}

static void run_gate(struct job *job, struct pool_thread *thread)
{
    uv_sem_post(&begun);
    uv_sem_wait(&go);
    note(job, thread);
}

static void wait_for(struct pool_user *user, size_t n)
{
    uint64_t deadline = uv_hrtime() + PATIENCE_MS * 1000000ull;
    while (n > 0) {
        for (struct job *job = pool_user_finished(user); job; job = job->next)
            n--;
        assert_true(uv_hrtime() < deadline);
        uv_sleep(1);
    }
}

static struct pool_place place_of(struct pool_thread *thread)
{
    return (struct pool_place){thread, (struct session *)thread};
}

static int setup(void **state)
{
    (void)state;
    atomic_store(&n_ended, 0);
    atomic_store(&outer_runs, false);
    uv_sem_init(&go, 0);
    uv_sem_init(&begun, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    uv_sem_destroy(&go);
    uv_sem_destroy(&begun);
    return 0;
}

/* The first and the last that ended of a lane. */
static size_t first_of(const struct lane_job *jobs)
{
    size_t first = SIZE_MAX;
    for (size_t i = 0; i < EACH; i++)
        first = jobs[i].order < first ? jobs[i].order : first;
    return first;
}

static size_t last_of(const struct lane_job *jobs)
{
    size_t last = 0;
    for (size_t i = 0; i < EACH; i++)
        last = jobs[i].order > last ? jobs[i].order : last;
    return last;
}

static void test_weights(void **state)
{
    static struct lane_job jobs[POOL_LANES][EACH], gate;
    struct pool_thread thread = {0};
    struct pool_place place = place_of(&thread);
    struct pool *pool;
    (void)state;
    assert_int_equal(pool_open(&pool, 1, &place, wakeup, NULL), 0);
    gate.job = (struct job){.run = run_gate, .lane = POOL_QUERY};
    pool_submit(pool, &gate.job);
    uv_sem_wait(&begun);
    for (size_t i = 0; i < EACH; i++)
        for (int lane = 0; lane < POOL_LANES; lane++) {
            jobs[lane][i].job = (struct job){.run = run_busy, .lane = (enum pool_lane)lane};
            pool_submit(pool, &jobs[lane][i].job);
        }
    assert_int_equal(pool_lane_stats(pool, POOL_LIST).n_waiting, EACH);
    uv_sem_post(&go);
    wait_for(pool_first(pool), 1 + POOL_LANES * EACH);
    /* The heaviest come to their end sooner, and yet the lightest have begun before. How many of
     * each came meanwhile depends on what the machine does beside this test. */
    size_t last_query = last_of(jobs[POOL_QUERY]);
    assert_true(last_query < last_of(jobs[POOL_BULK]));
    for (int lane = 0; lane < POOL_LANES; lane++)
        assert_true(first_of(jobs[lane]) < last_query);
    assert_true(pool_lane_stats(pool, POOL_QUERY).busy_ns >= EACH * 500000ull);
    pool_close(pool);
}

/* Where the message in hand gives way. */
enum gives_way { BETWEEN_PARTS, BETWEEN_STEPS, IN_A_PART };

struct outer_job {
    struct lane_job noted; /* first member */
    struct pool_thread *thread;
    enum gives_way gives_way;
};

static void part_gate(void *arg, size_t part, struct session *mine)
{
    const struct outer_job *outer = arg;
    const struct pool_thread *thread = outer->thread;
    (void)mine;
    if (part == 0) {
        uv_sem_post(&begun);
        uv_sem_wait(&go);
        assert_int_equal(atomic_load(&n_ended), 0);
    }
    if (part == 0 && outer->gives_way == IN_A_PART) {
        assert_int_equal(pool_share(thread->pool, thread->index, NULL, NULL, 0), 1);
        assert_int_equal(atomic_load(&n_ended), 1);
    }
}

static void run_outer(struct job *job, struct pool_thread *thread)
{
    struct outer_job *outer = (struct outer_job *)job;
    outer->thread = thread;
    atomic_store(&outer_runs, true);
    pool_share(thread->pool, thread->index, part_gate, outer,
               outer->gives_way == BETWEEN_STEPS ? 1 : 4);
    atomic_store(&outer_runs, false);
    note(job, thread);
}

static void part_mine(void *arg, size_t part, struct session *mine)
{
    const struct pool_thread *thread = arg;
    (void)part;
    assert_ptr_equal(mine, (const struct session *)(const void *)thread);
}

static void run_query(struct job *job, struct pool_thread *thread)
{
    assert_int_equal(pool_share(thread->pool, thread->index, part_mine, thread, 3), 1);
    note(job, thread);
}

/* One thread, busy with a message: the query is done before it, by its own user's thread. */
static void query_inside(enum gives_way gives_way)
{
    static struct outer_job outer;
    static struct lane_job query, list;
    struct pool_thread mine = {.user = 1}, theirs = {.user = 2};
    struct pool_place place = place_of(&mine), other = place_of(&theirs);
    struct pool_user *user;
    struct pool *pool;
    atomic_store(&n_ended, 0);
    assert_int_equal(pool_open(&pool, 1, &place, wakeup, NULL), 0);
    mine.pool = theirs.pool = pool;
    assert_int_equal(pool_join(&user, pool, &other, wakeup, NULL), 0);
    outer.noted.job = (struct job){.run = run_outer, .lane = POOL_QUEUE};
    outer.gives_way = gives_way;
    query.job = (struct job){.run = run_query, .lane = POOL_QUERY};
    list.job = (struct job){.run = run_query, .lane = POOL_LIST};
    pool_submit(pool, &outer.noted.job);
    uv_sem_wait(&begun);
    pool_user_submit(user, &query.job);
    pool_user_submit(user, &list.job);
    uv_sem_post(&go);
    wait_for(pool_first(pool), 1);
    wait_for(user, 2);
    assert_true(query.is_inside && query.user == 2 && query.order == 0);
    assert_true(outer.noted.user == 1 && outer.noted.order == 1);
    assert_true(!list.is_inside && list.order == 2); /* which waits for its turn */
    pool_leave(user);
    pool_close(pool);
}

static void test_query_between_parts(void **state)
{
    (void)state;
    query_inside(BETWEEN_PARTS);
}

static void test_query_between_steps(void **state)
{
    (void)state;
    query_inside(BETWEEN_STEPS);
}

static void test_query_in_a_part(void **state)
{
    (void)state;
    query_inside(IN_A_PART);
}

/* The leader of a message turns to a query while the other thread is still at a part of it. */
static void part_helped(void *arg, size_t part, struct session *mine)
{
    const struct pool_thread *leader = arg;
    uint64_t deadline = uv_hrtime() + PATIENCE_MS * 1000000ull;
    (void)part;
    uv_sem_post(&begun);
    if (mine == (const struct session *)(const void *)leader)
        uv_sem_wait(&go);
    while (atomic_load(&n_ended) == 0 && uv_hrtime() < deadline)
        if (mine == (const struct session *)(const void *)leader)
            pool_share(leader->pool, leader->index, NULL, NULL, 0);
        else
            uv_sleep(1);
}

static void run_helped(struct job *job, struct pool_thread *thread)
{
    pool_share(thread->pool, thread->index, part_helped, thread, 2);
    note(job, thread);
}

static void test_query_beside_a_helper(void **state)
{
    static struct lane_job message, query;
    struct pool_thread mine[2] = {{.index = 0, .user = 1}, {.index = 1, .user = 1}};
    struct pool_thread theirs[2] = {{.index = 0, .user = 2}, {.index = 1, .user = 2}};
    struct pool_place places[2] = {place_of(&mine[0]), place_of(&mine[1])};
    struct pool_place others[2] = {place_of(&theirs[0]), place_of(&theirs[1])};
    struct pool_user *user;
    struct pool *pool;
    (void)state;
    assert_int_equal(pool_open(&pool, 2, places, wakeup, NULL), 0);
    assert_int_equal(pool_join(&user, pool, others, wakeup, NULL), 0);
    mine[0].pool = mine[1].pool = theirs[0].pool = theirs[1].pool = pool;
    message.job = (struct job){.run = run_helped, .lane = POOL_QUEUE};
    query.job = (struct job){.run = run_busy, .lane = POOL_QUERY};
    pool_submit(pool, &message.job);
    uv_sem_wait(&begun);
    uv_sem_wait(&begun);
    pool_user_submit(user, &query.job);
    uv_sem_post(&go);
    wait_for(user, 1);
    wait_for(pool_first(pool), 1);
    assert_true(query.order == 0 && query.user == 2);
    pool_leave(user);
    pool_close(pool);
}

/* Two threads that are at messages, and a query whose two parts need each other. */
struct meeting {
    struct pool_thread *theirs; /* [2]: what the query's user has */
    atomic_size_t n_met;
    atomic_bool is_over, is_late;
};

static struct meeting meeting;

static void part_until_over(void *arg, size_t part, struct session *mine)
{
    (void)arg;
    (void)part;
    (void)mine;
    if (!atomic_load(&meeting.is_over))
        uv_sleep(1);
}

/* Pauses come one after the other until the query is over. */
static void run_long(struct job *job, struct pool_thread *thread)
{
    uv_sem_post(&begun);
    uv_sem_wait(&go);
    while (!atomic_load(&meeting.is_over) && !atomic_load(&meeting.is_late))
        pool_share(thread->pool, thread->index, part_until_over, NULL, 1);
    note(job, thread);
}

/* Only two threads at once come out of it. */
static void part_meet(void *arg, size_t part, struct session *mine)
{
    size_t *which = arg;
    which[part] = (size_t)((const struct pool_thread *)(const void *)mine - meeting.theirs);
    atomic_fetch_add(&meeting.n_met, 1);
    uint64_t deadline = uv_hrtime() + PATIENCE_MS * 1000000ull;
    while (atomic_load(&meeting.n_met) % 2 && uv_hrtime() < deadline)
        uv_sleep(0);
    if (uv_hrtime() >= deadline)
        atomic_store(&meeting.is_late, true);
}

static void run_meeting(struct job *job, struct pool_thread *thread)
{
    for (size_t i = 0; i < 20 && !atomic_load(&meeting.is_late); i++) {
        size_t which[2] = {2, 2};
        assert_int_equal(pool_share(thread->pool, thread->index, part_meet, which, 2), 2);
        assert_true(which[0] < 2 && which[1] < 2 && which[0] != which[1]);
    }
    note(job, thread);
    atomic_store(&meeting.is_over, true);
}

/* Either thread turns to the query, and the other one helps it before it goes on with its own. */
static void test_query_helped(void **state)
{
    static struct lane_job busy[2], query;
    struct pool_thread mine[2] = {{.index = 0, .user = 1}, {.index = 1, .user = 1}};
    struct pool_thread theirs[2] = {{.index = 0, .user = 2}, {.index = 1, .user = 2}};
    struct pool_place places[2], others[2];
    struct pool_user *user;
    struct pool *pool;
    (void)state;
    meeting.theirs = theirs;
    for (size_t i = 0; i < 2; i++) {
        places[i] = place_of(&mine[i]);
        others[i] = place_of(&theirs[i]);
    }
    assert_int_equal(pool_open(&pool, 2, places, wakeup, NULL), 0);
    assert_int_equal(pool_join(&user, pool, others, wakeup, NULL), 0);
    for (size_t i = 0; i < 2; i++) {
        mine[i].pool = theirs[i].pool = pool;
        busy[i].job = (struct job){.run = run_long, .lane = POOL_QUEUE};
        pool_submit(pool, &busy[i].job);
    }
    uv_sem_wait(&begun);
    uv_sem_wait(&begun);
    query.job = (struct job){.run = run_meeting, .lane = POOL_QUERY};
    pool_user_submit(user, &query.job);
    uv_sem_post(&go);
    uv_sem_post(&go);
    wait_for(user, 1);
    wait_for(pool_first(pool), 2);
    assert_false(atomic_load(&meeting.is_late));
    assert_true(query.order == 0 && query.user == 2);
    assert_true(busy[0].user == 1 && busy[1].user == 1);
    pool_leave(user);
    pool_close(pool);
}

static void leave_later(void *arg)
{
    (void)arg;
    uv_sleep(50);
    uv_sem_post(&go);
}

/* A user that leaves waits for what runs of its own, takes the rest away, and others go on. */
static void test_leave(void **state)
{
    static struct lane_job running, waiting, others;
    struct pool_thread mine = {.user = 1}, theirs = {.user = 2};
    struct pool_place place = place_of(&mine), other = place_of(&theirs);
    struct pool_user *user;
    struct pool *pool;
    uv_thread_t helper;
    (void)state;
    assert_int_equal(pool_open(&pool, 1, &place, wakeup, NULL), 0);
    assert_int_equal(pool_join(&user, pool, &other, wakeup, NULL), 0);
    running.job = (struct job){.run = run_gate};
    waiting.job = (struct job){.run = run_busy};
    others.job = (struct job){.run = run_busy};
    pool_user_submit(user, &running.job);
    uv_sem_wait(&begun);
    pool_user_submit(user, &waiting.job);
    pool_submit(pool, &others.job);
    assert_int_equal(pool_user_jobs(user), 2);
    assert_int_equal(uv_thread_create(&helper, leave_later, NULL), 0);
    pool_leave(user);
    uv_thread_join(&helper);
    wait_for(pool_first(pool), 1);
    assert_true(running.user == 2 && others.user == 1 && waiting.user == 0);
    pool_leave(NULL);
    pool_close(pool);
}

static struct lane_job followers[2];

static void run_followed(struct job *job, struct pool_thread *thread)
{
    note(job, thread);
    followers[0].job.next = &followers[1].job;
    job->then = &followers[0].job;
}

/* What follows a job may be another user's, and is run with that one's things. */
static void test_followed_by_another(void **state)
{
    struct pool_thread mine = {.user = 1}, theirs = {.user = 2};
    const struct pool_place place = place_of(&mine), other = place_of(&theirs);
    struct lane_job first = {.job = {.run = run_followed, .lane = POOL_QUERY}};
    struct pool *pool;
    struct pool_user *user;
    (void)state;
    assert_int_equal(pool_open(&pool, 1, &place, wakeup, NULL), 0);
    assert_int_equal(pool_join(&user, pool, &other, wakeup, NULL), 0);
    followers[0].job = (struct job){.run = run_busy, .lane = POOL_QUERY, .user = user};
    followers[1].job = (struct job){.run = run_busy, .lane = POOL_LIST};
    pool_submit(pool, &first.job);
    wait_for(pool_first(pool), 2);
    wait_for(user, 1);
    assert_true(first.user == 1 && followers[0].user == 2 && followers[1].user == 1);
    assert_int_equal(pool_user_jobs(user) + pool_user_jobs(pool_first(pool)), 0);
    pool_leave(user);
    pool_close(pool);
}

/* Jobs of two users in turn on one thread, each in several steps that idle threads help with. */
enum { SHARERS = 3, SHARED_JOBS = 3000, SHARED_STEPS = 3, SHARED_PARTS = 4 };

struct shared_job {
    struct job job; /* first member */
    struct pool_user *next_user;
};

static atomic_size_t n_parts_done, n_wrong;

static void step_of_user(void *arg, size_t part, struct session *mine)
{
    (void)part;
    for (uint64_t began = uv_hrtime(); uv_hrtime() - began < 2000;) {
    }
    if (((struct pool_thread *)mine)->user != *(int *)arg)
        atomic_fetch_add(&n_wrong, 1);
    atomic_fetch_add(&n_parts_done, 1);
}

static void run_shared(struct job *job, struct pool_thread *thread)
{
    struct shared_job *mine = (struct shared_job *)job;
    for (size_t step = 0; step < SHARED_STEPS; step++)
        pool_share(thread->pool, thread->index, step_of_user, &thread->user, SHARED_PARTS);
    if (!mine->next_user)
        return;
    mine[1].job.user = mine->next_user;
    job->then = &mine[1].job;
}

/* Helpers of one user's job do not stay for the next, of another: theirs is the wrong session. */
static void check_sharers(enum pool_lane lane)
{
    static struct shared_job jobs[SHARED_JOBS];
    struct pool_thread threads[2][SHARERS];
    struct pool_place places[2][SHARERS];
    struct pool_user *users[2];
    struct pool *pool;
    atomic_store(&n_parts_done, 0);
    atomic_store(&n_wrong, 0);
    assert_int_equal(pool_open(&pool, SHARERS, NULL, wakeup, NULL), 0);
    for (int u = 0; u < 2; u++) {
        for (size_t i = 0; i < SHARERS; i++) {
            threads[u][i] = (struct pool_thread){pool, i, u};
            places[u][i] = place_of(&threads[u][i]);
        }
        assert_int_equal(pool_join(&users[u], pool, places[u], wakeup, NULL), 0);
    }
    for (size_t i = 0; i < SHARED_JOBS; i++)
        jobs[i] = (struct shared_job){{.run = run_shared, .lane = lane},
                                      i + 1 < SHARED_JOBS ? users[(i + 1) % 2] : NULL};
    pool_user_submit(users[0], &jobs[0].job);
    uint64_t deadline = uv_hrtime() + PATIENCE_MS * 1000000ull;
    while (atomic_load(&n_parts_done) < SHARED_JOBS * SHARED_STEPS * SHARED_PARTS) {
        assert_true(uv_hrtime() < deadline);
        uv_sleep(1);
    }
    for (int u = 0; u < 2; u++)
        pool_leave(users[u]);
    pool_close(pool);
    assert_int_equal(atomic_load(&n_wrong), 0);
}

static void test_helpers_of_two_users(void **state)
{
    (void)state;
    check_sharers(POOL_QUERY);
    check_sharers(POOL_QUEUE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_weights, setup, teardown),
        cmocka_unit_test_setup_teardown(test_query_between_parts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_query_between_steps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_query_in_a_part, setup, teardown),
        cmocka_unit_test_setup_teardown(test_query_beside_a_helper, setup, teardown),
        cmocka_unit_test_setup_teardown(test_query_helped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_leave, setup, teardown),
        cmocka_unit_test(test_followed_by_another),
        cmocka_unit_test(test_helpers_of_two_users),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
