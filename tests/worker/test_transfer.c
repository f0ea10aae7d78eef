/*
 * test_pump.c: random brokers and faults under the transfer. Over several runs, each beginning with
 * what the last one released, every message comes out as it went in, or as a dead letter.
 *
 * The fake broker sees to it that messages are taken once, after they were confirmed, in order and
 * within the credit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/fake_connector.h"
#include "worker/commands/transfer.h"

enum { MESSAGES = 120, ROUNDS = 20, MAX_RUNS = 6, DEADLINE_MS = 20000, MAX_INFLIGHT = 20 };

static uint64_t seed;
static uv_loop_t loop;
static bool ended;
static enum pipeline_end how;

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail_msg("seed %llu, message %zu: %s", (unsigned long long)seed, i, #condition);       \
    } while (0)

static void on_ended(void *ctx, enum pipeline_end end)
{
    (void)ctx;
    assert_false(ended);
    ended = true;
    how = end;
}

static void on_watchdog(uv_timer_t *timer)
{
    (void)timer;
    fail_msg("seed %llu: the deadline passed", (unsigned long long)seed);
}

static void on_drain(uv_timer_t *timer)
{
    if (!ended)
        transfer_drain(timer->data);
}

/* Values of digits are doubled; those with an x cannot be shaped. */
static int shape(void *ctx, const struct message *message, struct record *record,
                 struct arena *arena, char *err, size_t err_size)
{
    (void)ctx;
    (void)err;
    (void)err_size;
    struct part *part = arena_alloc(arena, sizeof *part);
    char *twice = arena_alloc(arena, 2 * message->value.len);
    assert_non_null(part);
    assert_non_null(twice);
    if (memchr(message->value.ptr, 'x', message->value.len)) {
        record->dead_code = "bad_x";
        record->dead_reason = "an x";
        return 0;
    }
    memcpy(twice, message->value.ptr, message->value.len);
    memcpy(twice + message->value.len, message->value.ptr, message->value.len);
    *part = (struct part){.id = message->key, .value = {twice, 2 * message->value.len}};
    record->parts = part;
    return 0;
}

/* One run to its end. drain_ms: told to stop after so long; 0: not. */
static struct pipeline_stats run(struct transfer_options options, unsigned drain_ms,
                                 char failure[400])
{
    struct transfer *transfer = NULL;
    uv_timer_t watchdog, drain;
    char err[300];
    ended = false;
    assert_int_equal(uv_loop_init(&loop), 0);
    uv_timer_init(&loop, &watchdog);
    uv_timer_init(&loop, &drain);
    uv_timer_start(&watchdog, on_watchdog, DEADLINE_MS, 0);
    uv_unref((uv_handle_t *)&watchdog);
    int rc = transfer_open(&transfer, &loop, &fake_source_ops, &fake_sink_ops, NULL, &options,
                           on_ended, NULL, err, sizeof err);
    if (rc == 0 && drain_ms) {
        drain.data = transfer;
        uv_timer_start(&drain, on_drain, drain_ms, 0);
        uv_unref((uv_handle_t *)&drain);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(ended, rc == 0);
    struct pipeline_stats stats = *transfer_stats(transfer);
    snprintf(failure, 400, "%s", rc == 0 ? transfer_failure(transfer) : err);
    transfer_close(transfer);
    uv_close((uv_handle_t *)&watchdog, NULL);
    uv_close((uv_handle_t *)&drain, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    return stats;
}

static const struct transfer_options defaults = {
    .max_messages = MAX_INFLIGHT, .max_bytes = 1 << 20, .drain_ms = 10000, .shape = shape};

static void fill(struct fake *fake, char values[MESSAGES][16])
{
    for (size_t i = 0; i < MESSAGES; i++) {
        uint64_t kind = fake_random(fake, 30);
        snprintf(values[i], 16, kind == 1 ? "%zux" : "%zu", i);
        fake->messages[i].value = kind == 0 ? "" : values[i];
        fake->messages[i].fate = kind == 2   ? FATE_TOO_LARGE
                                 : kind == 3 ? FATE_ACKED
                                             : FATE_PUBLISHED;
    }
}

static void check(const struct fake *fake, char values[MESSAGES][16])
{
    for (size_t i = 0; i < MESSAGES; i++) {
        const struct fake_message *message = &fake->messages[i];
        bool is_dead =
            !message->value[0] || strchr(message->value, 'x') || message->fate == FATE_TOO_LARGE;
        REQUIRE(message->state == FAKE_ACKED);
        REQUIRE(message->n_outputs + message->n_dead >= 1);
        REQUIRE(message->n_outputs + message->n_dead <= 1 + message->n_unackable);
        REQUIRE((message->n_dead > 0) == is_dead);
        if (is_dead)
            continue;
        size_t len = strlen(values[i]);
        REQUIRE(message->value_out_len == 2 * len);
        REQUIRE(memcmp(message->value_out, values[i], len) == 0);
        REQUIRE(memcmp(message->value_out + len, values[i], len) == 0);
    }
}

static void one_round(void)
{
    static char values[MESSAGES][16];
    struct fake fake = {.script.seed = seed};
    char failure[400];
    fake_open(&fake, MESSAGES);
    fake.script.finite = true;
    fake.script.max_unfinished = MAX_INFLIGHT;
    fake.script.burst_max = 1 + fake_random(&fake, 90);
    fake.script.confirm_max = 2 + fake_random(&fake, 30);
    fake.script.tick_ms = 1;
    fake.script.shuffle = fake_random(&fake, 2);
    fill(&fake, values);
    for (int turn = 0;; turn++) {
        bool last = turn == MAX_RUNS;
        fake.script.source_fails_after = !last && fake_random(&fake, 4) == 0 ? 40 : 0;
        fake.script.sink_fails_after = !last && fake_random(&fake, 4) == 0 ? 30 : 0;
        unsigned drain_ms = !last && fake_random(&fake, 3) == 0 ? 5 : 0;
        fake_use(&fake);
        run(defaults, drain_ms, failure);
        if (how == PIPELINE_DRAINED && fake_count(&fake, FAKE_ACKED) == MESSAGES)
            break;
        assert_false(last);
        assert_true(how != PIPELINE_FAILED || failure[0]);
        fake_again(&fake);
    }
    check(&fake, values);
    fake_close(&fake);
}

static void random_rounds(void **state)
{
    (void)state;
    for (seed = 1; seed <= ROUNDS; seed++)
        one_round();
}

/* A queue has no end of its own. */
static void ends(void **state)
{
    (void)state;
    static char values[MESSAGES][16];
    char failure[400];
    struct fake fake = {.script.seed = 99};
    struct transfer_options options = defaults;
    fake_open(&fake, MESSAGES);
    fake.script.burst_max = fake.script.confirm_max = 7;
    fake.script.tick_ms = 1;
    fill(&fake, values);
    fake_use(&fake);
    options.total = 33;
    struct pipeline_stats stats = run(options, 0, failure);
    assert_int_equal(how, PIPELINE_DRAINED);
    assert_int_equal(stats.received, 33);
    assert_int_equal(stats.messages + stats.dead_letters, 33);
    assert_true(stats.messages > 0 && stats.embedded_texts == stats.messages);

    fake_again(&fake);
    fake_use(&fake);
    options.total = 0;
    options.idle_ms = 300;
    stats = run(options, 0, failure);
    assert_int_equal(how, PIPELINE_DRAINED);
    assert_int_equal(stats.received, MESSAGES - 33);
    check(&fake, values);
    fake_close(&fake);
}

static void opens_that_fail(void **state)
{
    (void)state;
    char failure[400];
    struct fake fake = {.script.seed = 5};
    fake_open(&fake, 1);
    fake.messages[0].value = "1";
    fake.script.burst_max = fake.script.confirm_max = fake.script.tick_ms = 1;
    fake_use(&fake);
    fake.script.source_open_err = UV_EACCES;
    run(defaults, 0, failure);
    assert_true(failure[0]);
    fake.script.source_open_err = 0;
    fake.script.sink_open_err = UV_EACCES;
    run(defaults, 0, failure);
    assert_true(failure[0]);
    fake_close(&fake);
}

static int shape_failing(void *ctx, const struct message *message, struct record *record,
                         struct arena *arena, char *err, size_t err_size)
{
    (void)ctx;
    (void)message;
    (void)record;
    (void)arena;
    snprintf(err, err_size, "its manifest cannot be written");
    return UV_ENOSPC;
}

/* What the user of the transfer cannot write is a failure of the output, with its sentence. */
static void shape_that_fails(void **state)
{
    (void)state;
    char failure[400];
    struct fake fake = {.script.seed = 6};
    struct transfer_options options = defaults;
    options.shape = shape_failing;
    fake_open(&fake, 2);
    fake.messages[0].value = fake.messages[1].value = "1";
    fake.script.burst_max = 2;
    fake.script.confirm_max = fake.script.tick_ms = 1;
    fake_use(&fake);
    run(options, 0, failure);
    assert_int_equal(how, PIPELINE_FAILED);
    assert_non_null(strstr(failure, "the output is gone for good: its manifest cannot be"));
    assert_int_equal(fake_count(&fake, FAKE_ACKED), 0);
    fake_close(&fake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_rounds),
        cmocka_unit_test(ends),
        cmocka_unit_test(opens_that_fail),
        cmocka_unit_test(shape_that_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
