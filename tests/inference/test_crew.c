/*
 * test_crew.c: every part of every step is run once and before the next step begins, whoever comes,
 * sleeps, leaves or is late; and sessions that are helped give the same bytes.
 *
 * Assistants here come and go at random (the seed is printed on failure). What a step writes is not
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

#include <cmocka.h>

#include "inference/crew.h"
#include "inference/embed.h"
#include "tests/support/tiny_model.h"

enum { SEED = 4711, ASSISTANTS = 3, STEPS = 3000, PARTS = 64 };

struct board {
    size_t step, n_parts;
    size_t seen[PARTS];   /* the step that part last ran in */
    size_t wrong;         /* parts that ran twice, or saw another step's traces */
    atomic_size_t n_done; /* parts of all steps, by assistants */
};

/* A step reads what all parts of the last one wrote, as the steps of a forward pass do. */
static void step_check(void *arg, size_t part, void *mine)
{
    struct board *board = arg;
    if (board->seen[part] == board->step)
        board->wrong++;
    board->seen[part] = board->step;
    if (mine)
        atomic_fetch_add(&board->n_done, 1);
}

struct assistant {
    struct crew *crew;
    atomic_bool *stop, *leave;
    pthread_t id;
};

static void *assistant_run(void *arg)
{
    struct assistant *me = arg;
    while (!atomic_load(me->stop))
        crew_assist(me->crew, me, me->leave);
    return NULL;
}

static void pause_us(long us)
{
    struct timespec t = {0, us * 1000};
    nanosleep(&t, NULL);
}

/* steps with assistants that are told to leave now and then; returns the parts they did */
static size_t crew_check(size_t n_assistants, size_t n_steps, unsigned pause_every)
{
    struct crew crew;
    struct board board = {0};
    struct assistant assistants[ASSISTANTS];
    atomic_bool stop = false, leave = false;
    unsigned random = SEED;
    assert_int_equal(crew_init(&crew), 0);
    for (size_t i = 0; i < n_assistants; i++) {
        assistants[i] = (struct assistant){.crew = &crew, .stop = &stop, .leave = &leave};
        assert_int_equal(pthread_create(&assistants[i].id, NULL, assistant_run, &assistants[i]), 0);
    }
    for (size_t s = 1; s <= n_steps; s++) {
        random = random * 1103515245 + 12345;
        if (s % 50 == 1)
            crew_open(&crew);
        board.step = s;
        board.n_parts = random / 65536 % (PARTS + 1);
        crew_run(&crew, step_check, &board, board.n_parts, NULL);
        for (size_t part = 0; part < board.n_parts; part++)
            if (board.seen[part] != s || board.wrong)
                fail_msg("seed %d: part %zu of step %zu last ran in step %zu; %zu ran twice", SEED,
                         part, s, board.seen[part], board.wrong);
        if (s % 7 == 0)
            atomic_store(&leave, !atomic_load(&leave));
        if (pause_every && s % pause_every == 0)
            pause_us(200); /* long enough for assistants to fall asleep */
        if (s % 50 == 0)
            crew_shut(&crew);
    }
    crew_shut(&crew);
    atomic_store(&stop, true);
    for (size_t i = 0; i < n_assistants; i++)
        pthread_join(assistants[i].id, NULL);
    crew_end(&crew);
    return board.n_done;
}

static void test_alone(void **state)
{
    (void)state;
    assert_int_equal(crew_check(0, STEPS, 0), 0);
}

static void test_assisted(void **state)
{
    (void)state;
    crew_check(1, STEPS, 0);
    crew_check(ASSISTANTS, STEPS, 0);
    crew_check(ASSISTANTS, STEPS / 3, 3);
}

/* A leader that holds its own part until others have done the rest cannot do it all. */
static void step_wait(void *arg, size_t part, void *mine)
{
    struct board *board = arg;
    (void)part;
    if (mine)
        atomic_fetch_add(&board->n_done, 1);
    for (int ms = 0; !mine && ms < 20000 && atomic_load(&board->n_done) < board->n_parts - 1; ms++)
        pause_us(1000);
}

static void test_assistants_do_work(void **state)
{
    (void)state;
    struct crew crew;
    struct board board = {.n_parts = 9};
    atomic_bool stop = false, leave = false;
    struct assistant assistant = {.crew = &crew, .stop = &stop, .leave = &leave};
    assert_int_equal(crew_init(&crew), 0);
    crew_open(&crew);
    assert_int_equal(pthread_create(&assistant.id, NULL, assistant_run, &assistant), 0);
    for (int ms = 0; ms < 20000 && crew_size(&crew) < 2; ms++)
        pause_us(1000);
    pause_us(2000); /* it is asleep by now, and must be woken */
    crew_run(&crew, step_wait, &board, board.n_parts, NULL);
    assert_true(board.n_done >= board.n_parts - 1);
    atomic_store(&stop, true);
    crew_shut(&crew);
    pthread_join(assistant.id, NULL);
    assert_int_equal(crew_size(&crew), 1);
    crew_end(&crew);
}

struct helper {
    struct session *session, *busy;
    atomic_bool stop, leave;
    pthread_t id;
};

static void *helper_run(void *arg)
{
    struct helper *me = arg;
    while (!atomic_load(&me->stop))
        session_assist(me->session, me->busy, &me->leave);
    return NULL;
}

enum { N_TEXTS = 40, LONGEST = 200 };

/* The same texts with and without helpers, who come and go. */
static void test_sessions(void **state)
{
    const struct model *model = *state;
    struct session_options options = {0};
    struct session *session;
    struct helper helpers[ASSISTANTS] = {0};
    static char bytes[N_TEXTS][LONGEST + 1];
    static float alone[N_TEXTS * TINY_MODEL_DIM], helped[N_TEXTS * TINY_MODEL_DIM];
    struct embed_result results[N_TEXTS];
    struct text texts[N_TEXTS];
    for (size_t i = 0; i < N_TEXTS; i++) {
        size_t len = i * 37 % LONGEST;
        for (size_t c = 0; c < len; c++)
            bytes[i][c] = (char)('a' + (i * 31 + c * c) % 26);
        texts[i] = (struct text){bytes[i], len};
    }
    assert_int_equal(session_open(&session, model, &options), 0);
    session_embed(session, texts, N_TEXTS, alone, results);
    for (size_t h = 0; h < ASSISTANTS; h++) {
        assert_int_equal(session_open(&helpers[h].session, model, &options), 0);
        helpers[h].busy = session;
        assert_int_equal(pthread_create(&helpers[h].id, NULL, helper_run, &helpers[h]), 0);
    }
    for (size_t turn = 0; turn < 12; turn++) {
        size_t first = turn % 3 * 7, n = turn % 4 == 3 ? 1 : N_TEXTS - first; /* rows or chunks */
        atomic_store(&helpers[turn % ASSISTANTS].leave, turn % 2 == 0);
        session_embed(session, texts + first, n, helped, results);
        assert_memory_equal(helped, alone + first * TINY_MODEL_DIM,
                            n * TINY_MODEL_DIM * sizeof *helped);
    }
    for (size_t h = 0; h < ASSISTANTS; h++) {
        atomic_store(&helpers[h].stop, true);
        pthread_join(helpers[h].id, NULL);
        session_close(helpers[h].session);
    }
    session_close(session);
}

static int model_make(void **state)
{
    struct tiny_model_options options = TINY_MODEL_DEFAULTS;
    options.n_layers = 7;
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
        cmocka_unit_test(test_assistants_do_work),
        cmocka_unit_test_setup_teardown(test_sessions, model_make, model_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
