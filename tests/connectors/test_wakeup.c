/*
 * test_wakeup.c: nothing that threads say before they wake the loop is lost, however they meet it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "connectors/wakeup.h"

enum { THREADS = 4, EACH = 20000 };

static struct {
    struct wakeup wakeup;
    atomic_size_t n_said;
    size_t n_seen, n_woken, n_wanted;
    int n_closed;
} seen;

static void on_closed(void *ctx)
{
    assert_ptr_equal(ctx, &seen);
    seen.n_closed++;
}

static void on_wakeup(void *ctx)
{
    assert_ptr_equal(ctx, &seen);
    seen.n_woken++;
    seen.n_seen = atomic_load(&seen.n_said);
    if (seen.n_seen == seen.n_wanted)
        wakeup_close(&seen.wakeup, on_closed);
}

static void say(void *arg)
{
    (void)arg;
    for (size_t i = 0; i < EACH; i++) {
        atomic_fetch_add(&seen.n_said, 1);
        wakeup_send(&seen.wakeup);
    }
}

static void open_one(uv_loop_t *loop, size_t n_wanted)
{
    seen.n_seen = seen.n_woken = 0;
    seen.n_closed = 0;
    seen.n_wanted = n_wanted;
    atomic_store(&seen.n_said, 0);
    assert_int_equal(uv_loop_init(loop), 0);
    assert_int_equal(wakeup_open(&seen.wakeup, loop, on_wakeup, &seen), 0);
}

/* The last word of the last thread is heard, or this test hangs: its deadline is ctest's. */
static void no_word_is_lost(void **state)
{
    uv_loop_t loop;
    uv_thread_t threads[THREADS];
    (void)state;
    open_one(&loop, THREADS * EACH);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(uv_thread_create(&threads[i], say, NULL), 0);
    /* It is closed once all is said; the last send may still be on its way, so it is awaited. */
    while (atomic_load(&seen.n_said) < THREADS * EACH)
        uv_run(&loop, UV_RUN_NOWAIT);
    for (size_t i = 0; i < THREADS; i++)
        uv_thread_join(&threads[i]);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(seen.n_seen, THREADS * EACH);
    assert_true(seen.n_woken >= 1 && seen.n_woken <= THREADS * EACH);
    assert_int_equal(seen.n_closed, 1);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void what_is_not_answered_is_one(void **state)
{
    uv_loop_t loop;
    (void)state;
    open_one(&loop, EACH);
    say(NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(seen.n_woken, 1);
    assert_int_equal(seen.n_closed, 1);
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* As a job that ends in the loop's own callback. */
static void it_may_be_sent_from_the_loop(void **state)
{
    uv_loop_t loop;
    (void)state;
    open_one(&loop, 2);
    atomic_store(&seen.n_said, 1);
    wakeup_send(&seen.wakeup);
    uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(seen.n_woken, 1);
    uv_run(&loop, UV_RUN_NOWAIT); /* an answered one does not come again */
    assert_int_equal(seen.n_woken, 1);
    atomic_store(&seen.n_said, 2);
    wakeup_send(&seen.wakeup);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(seen.n_woken, 2);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_word_is_lost),
        cmocka_unit_test(what_is_not_answered_is_one),
        cmocka_unit_test(it_may_be_sent_from_the_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
