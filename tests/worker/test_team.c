/*
 * test_team.c: every part of every step is run once and before the next step begins, whoever comes,
 * sleeps, leaves or is late; and sessions that share their passes give the same bytes.
 *
 * Helpers here come and go at random (the seed is printed on failure). What a step writes is not
 * atomic, so that a sanitizer sees a part that runs early.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include <cmocka.h>

#include "inference/embed.h"
#include "tests/support/tiny_model.h"
#include "worker/pipeline/pool.h"
#include "worker/pipeline/team.h"
#include "tests/support/embed_rows.h"

enum { SEED = 4711, HELPERS = 3, STEPS = 3000, PARTS = 64 };

struct board {
    size_t step, n_parts;
    size_t seen[PARTS];   /* the step that part last ran in */
    size_t wrong;         /* parts that ran twice, or saw another step's traces */
    atomic_size_t n_done; /* parts of all steps, by helpers */
};

/* A step reads what all parts of the last one wrote, as the steps of a forward pass do. */
static void step_check(void *arg, size_t part, struct session *mine)
{
    struct board *board = arg;
    if (board->seen[part] == board->step)
        board->wrong++;
    board->seen[part] = board->step;
    if (mine)
        atomic_fetch_add(&board->n_done, 1);
}

struct helper {
    struct team *team;
    atomic_bool *stop, *leave;
    pthread_t id;
};

static void *helper_run(void *arg)
{
    struct helper *me = arg;
    while (!atomic_load(me->stop)) {
        team_join(me->team);
        team_help(me->team, (struct session *)me, me->leave);
    }
    return NULL;
}

static void pause_us(long us)
{
    struct timespec t = {0, us * 1000};
    nanosleep(&t, NULL);
}

/* steps with helpers that are told to leave now and then; returns the parts they did */
static size_t team_check(size_t n_helpers, size_t n_steps, unsigned pause_every)
{
    struct team team;
    struct board board = {0};
    struct helper helpers[HELPERS];
    atomic_bool stop = false, leave = false;
    unsigned random = SEED;
    assert_int_equal(team_open(&team), 0);
    for (size_t i = 0; i < n_helpers; i++) {
        helpers[i] = (struct helper){.team = &team, .stop = &stop, .leave = &leave};
        assert_int_equal(pthread_create(&helpers[i].id, NULL, helper_run, &helpers[i]), 0);
    }
    for (size_t s = 1; s <= n_steps; s++) {
        random = random * 1103515245 + 12345;
        board.step = s;
        board.n_parts = random / 65536 % (PARTS + 1);
        team_offer(&team, step_check, &board, board.n_parts);
        team_finish(&team, NULL, NULL, NULL);
        for (size_t part = 0; part < board.n_parts; part++)
            if (board.seen[part] != s || board.wrong)
                fail_msg("seed %d: part %zu of step %zu last ran in step %zu; %zu ran twice", SEED,
                         part, s, board.seen[part], board.wrong);
        if (s % 7 == 0)
            atomic_store(&leave, !atomic_load(&leave));
        if (pause_every && s % pause_every == 0)
            pause_us(200); /* long enough for helpers to fall asleep */
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < n_helpers; i++)
        pthread_join(helpers[i].id, NULL);
    team_close(&team);
    return board.n_done;
}

static void test_alone(void **state)
{
    (void)state;
    assert_int_equal(team_check(0, STEPS, 0), 0);
}

static void test_assisted(void **state)
{
    (void)state;
    team_check(1, STEPS, 0);
    team_check(HELPERS, STEPS, 0);
    team_check(HELPERS, STEPS / 3, 3);
}

/* A leader that holds its own part until others have done the rest cannot do it all. */
static void step_wait(void *arg, size_t part, struct session *mine)
{
    struct board *board = arg;
    (void)part;
    if (mine)
        atomic_fetch_add(&board->n_done, 1);
    for (int ms = 0; !mine && ms < 20000 && atomic_load(&board->n_done) < board->n_parts - 1; ms++)
        pause_us(1000);
}

static void test_helpers_do_work(void **state)
{
    (void)state;
    struct team team;
    struct board board = {.n_parts = 9};
    atomic_bool stop = false, leave = false;
    struct helper helper = {.team = &team, .stop = &stop, .leave = &leave};
    assert_int_equal(team_open(&team), 0);
    assert_int_equal(pthread_create(&helper.id, NULL, helper_run, &helper), 0);
    for (int ms = 0; ms < 20000 && team_helpers(&team) < 1; ms++)
        pause_us(1000);
    team_offer(&team, step_wait, &board, board.n_parts);
    team_finish(&team, NULL, NULL, NULL);
    assert_true(board.n_done >= board.n_parts - 1);
    atomic_store(&stop, true);
    pthread_join(helper.id, NULL);
    assert_int_equal(team_helpers(&team), 0);
    team_close(&team);
}

#ifdef __SANITIZE_THREAD__ /* two minutes for 12; 4 have each number of texts once */
enum { N_TURNS = 4 };
#else
enum { N_TURNS = 12 };
#endif
enum { N_THREADS = 3, N_TEXTS = 40, LONGEST = 200, N_LAYERS = 7 };

/* A thread of a pool with its session, and jobs that embed by it. */
struct pool_thread {
    struct pool *pool;
    size_t index;
    struct session *session;
};

struct embed_job {
    struct job job;
    const struct text *texts;
    size_t n;
    float rows[N_TEXTS * TINY_MODEL_DIM];
    struct embed_result results[N_TEXTS];
};

static atomic_size_t most_threads; /* that a session was told of */

static size_t share(void *ctx, session_part *step, void *arg, size_t n_parts)
{
    const struct pool_thread *thread = ctx;
    size_t n = pool_share(thread->pool, thread->index, step, arg, n_parts);
    if (n > atomic_load(&most_threads))
        atomic_store(&most_threads, n);
    return n;
}

static void run_embed(struct job *job, struct pool_thread *thread)
{
    struct embed_job *mine = (struct embed_job *)job;
    embed_rows(thread->session, mine->texts, mine->n, TINY_MODEL_DIM, mine->rows, mine->results);
}

static void ring(void *ctx)
{
    uv_sem_post(ctx);
}

/* n texts at most, in calls of one, some or all at once: rows are shared, or chunks, or none. */
static void make_texts(struct text texts[N_TEXTS])
{
    static char bytes[N_TEXTS][LONGEST + 1];
    for (size_t i = 0; i < N_TEXTS; i++) {
        size_t len = i * 37 % LONGEST;
        for (size_t c = 0; c < len; c++)
            bytes[i][c] = (char)('a' + (i * 31 + c * c) % 26);
        texts[i] = (struct text){bytes[i], len};
    }
}

/* n_jobs at a time on n_threads: as many as threads, or fewer, which idle ones then help. */
static void check_pool(const struct model *model, const struct text *texts, const float *alone,
                       size_t n_threads, size_t n_jobs)
{
    static struct embed_job jobs[N_THREADS];
    struct pool_thread threads[N_THREADS];
    struct pool_place places[N_THREADS];
    struct pool *pool;
    uv_sem_t wakeup;
    uv_sem_init(&wakeup, 0);
    for (size_t i = 0; i < n_threads; i++) {
        const struct session_options options = {.parallel = share, .parallel_ctx = &threads[i]};
        threads[i].index = i;
        assert_int_equal(session_open(&threads[i].session, model, &options), 0);
        places[i] = (struct pool_place){&threads[i], threads[i].session};
    }
    assert_int_equal(pool_open(&pool, n_threads, places, ring, &wakeup), 0);
    for (size_t i = 0; i < n_threads; i++)
        threads[i].pool = pool;
    for (size_t turn = 0; turn < N_TURNS; turn++) {
        size_t first = turn % 3 * 7, n = turn % 4 == 3 ? 1 : N_TEXTS - first;
        for (size_t j = 0; j < n_jobs; j++) {
            jobs[j].job = (struct job){.run = run_embed};
            jobs[j].texts = texts + first;
            jobs[j].n = n;
            pool_submit(pool, &jobs[j].job);
        }
        for (size_t n_done = 0; n_done < n_jobs;) {
            uv_sem_wait(&wakeup);
            for (struct job *job = pool_finished(pool); job; job = job->next)
                n_done++;
        }
        for (size_t j = 0; j < n_jobs; j++)
            assert_memory_equal(jobs[j].rows, alone + first * TINY_MODEL_DIM,
                                n * TINY_MODEL_DIM * sizeof(float));
    }
    pool_close(pool);
    for (size_t i = 0; i < n_threads; i++)
        session_close(threads[i].session);
    uv_sem_destroy(&wakeup);
}

/* The same texts by one thread alone and by threads that share. */
static void test_sessions(void **state)
{
    const struct model *model = *state;
    const struct session_options options = {0};
    struct session *session;
    struct text texts[N_TEXTS];
    static float alone[N_TEXTS * TINY_MODEL_DIM];
    struct embed_result results[N_TEXTS];
    make_texts(texts);
    assert_int_equal(session_open(&session, model, &options), 0);
    embed_rows(session, texts, N_TEXTS, TINY_MODEL_DIM, alone, results);
    session_close(session);
    for (size_t n_threads = 1; n_threads <= N_THREADS; n_threads++)
        for (size_t n_jobs = 1; n_jobs <= n_threads; n_jobs++)
            check_pool(model, texts, alone, n_threads, n_jobs);
    assert_int_equal(atomic_load(&most_threads), N_THREADS);
}

/* A thread that leaves its texts between two steps, and embeds another with another session. */
struct midst {
    struct session *mine, *other;
    const struct text *text;
    const float *alone; /* [TINY_MODEL_DIM] of it */
    size_t n_left;
};

static size_t leave(void *ctx, session_part *step, void *arg, size_t n_parts)
{
    struct midst *midst = ctx;
    for (size_t part = 0; part < n_parts; part++)
        step(arg, part, midst->mine);
    if (n_parts == 0) {
        float row[TINY_MODEL_DIM];
        struct embed_result result;
        assert_null(step);
        embed_rows(midst->other, midst->text, 1, TINY_MODEL_DIM, row, &result);
        assert_memory_equal(row, midst->alone, sizeof row);
        midst->n_left++;
    }
    return 1;
}

static void test_left_in_the_midst(void **state)
{
    const struct model *model = *state;
    struct text texts[N_TEXTS];
    static float alone[N_TEXTS * TINY_MODEL_DIM], rows[N_TEXTS * TINY_MODEL_DIM];
    struct embed_result results[N_TEXTS];
    struct midst midst = {.text = texts + 5, .alone = alone + 5 * TINY_MODEL_DIM};
    const struct session_options other = {0}, mine = {.parallel = leave, .parallel_ctx = &midst};
    make_texts(texts);
    assert_int_equal(session_open(&midst.other, model, &other), 0);
    assert_int_equal(session_open(&midst.mine, model, &mine), 0);
    embed_rows(midst.other, texts, N_TEXTS, TINY_MODEL_DIM, alone, results);
    embed_rows(midst.mine, texts, N_TEXTS, TINY_MODEL_DIM, rows, results);
    assert_memory_equal(rows, alone, sizeof rows);
    /* Between the products of each layer, at least. */
    assert_true(midst.n_left > 7 * N_LAYERS);
    session_close(midst.mine);
    session_close(midst.other);
}

static int model_make(void **state)
{
    struct tiny_model_options options = TINY_MODEL_DEFAULTS;
    options.n_layers = N_LAYERS;
    options.n_ctx = 512;
    return tiny_model_open((struct model **)state, &options);
}

static int model_end(void **state)
{
    model_close(*state);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_assisted),
        cmocka_unit_test(test_helpers_do_work),
        cmocka_unit_test_setup_teardown(test_sessions, model_make, model_end),
        cmocka_unit_test_setup_teardown(test_left_in_the_midst, model_make, model_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
