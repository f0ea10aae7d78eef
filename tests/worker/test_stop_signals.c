/*
 * test_stop_signals.c: which signals are one request, whatever the loop did meanwhile.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdbool.h>
#include <unistd.h>
#include <uv.h>

#include "worker/commands/stop_signals.h"

static int n_first, n_again;
static bool is_busy;

static void on_stop(void *ctx, const char *name, int number, bool again)
{
    (void)ctx;
    (void)name;
    assert_int_equal(number, SIGTERM);
    n_first += !again;
    n_again += again;
}

/* Runs behind the handling of signals: the other half of the request comes, and the loop has other
 * things to do for longer than a request may last. */
static void on_check(uv_check_t *check)
{
    (void)check;
    if (!n_first || is_busy)
        return;
    is_busy = true;
    raise(SIGTERM);
    usleep(250000);
}

static void on_time(uv_timer_t *timer)
{
    uv_stop(timer->loop);
}

static void run_for(uv_loop_t *loop, uv_timer_t *timer, uint64_t ms)
{
    uv_timer_start(timer, on_time, ms, 0);
    uv_run(loop, UV_RUN_DEFAULT);
}

static void a_busy_loop(void **state)
{
    (void)state;
    uv_loop_t loop;
    uv_check_t check;
    uv_timer_t timer;
    struct stop_signals signals;
    assert_int_equal(uv_loop_init(&loop), 0);
    uv_timer_init(&loop, &timer);
    uv_check_init(&loop, &check);
    uv_check_start(&check, on_check);
    stop_signals_open(&signals, &loop, on_stop, NULL);
    raise(SIGTERM);
    run_for(&loop, &timer, 600);
    assert_true(is_busy);
    assert_int_equal(n_first, 1);
    assert_int_equal(n_again, 0);
    raise(SIGTERM); /* a request of its own: the loop has had nothing to do for long */
    run_for(&loop, &timer, 50);
    assert_int_equal(n_again, 1);
    stop_signals_close(&signals);
    uv_close((uv_handle_t *)&check, NULL);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_busy_loop)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
