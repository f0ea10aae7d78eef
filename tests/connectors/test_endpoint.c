/*
 * test_endpoint.c: the life of an endpoint, and the queues of records.
 *
 * The owner is as small as one can be: it has a timer of its own, and its pump counts.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "connectors/endpoint.h"
#include "connectors/slots.h"

/* What was reported. */
static struct {
    int n_states, n_failed, n_closed, n_freed, err;
    enum link_state state;
    char why[100];
} seen;

struct owner {
    struct source base;
    struct endpoint end;
    uv_timer_t timer;
    int n_pumped, n_resumed, n_finished;
    bool is_late, is_flushed;
};

static void on_state(void *ctx, enum link_state state, const char *why)
{
    (void)ctx, (void)why;
    seen.n_states++;
    seen.state = state;
}

static void on_failed(void *ctx, int err, const char *why)
{
    (void)ctx;
    seen.n_failed++;
    seen.err = err;
    snprintf(seen.why, sizeof seen.why, "%s", why);
}

static const struct source_events events = {.on_state = on_state, .on_failed = on_failed};

static void pump(void *arg)
{
    struct owner *owner = arg;
    assert_int_equal(owner->n_finished, 0);
    owner->n_pumped++;
    if (owner->end.closing && (owner->is_flushed || owner->end.failed))
        endpoint_finish(&owner->end);
}

static void resume(void *arg)
{
    struct owner *owner = arg;
    assert_false(owner->end.paused);
    owner->n_resumed++;
}

static void finish(void *arg, bool is_late)
{
    struct owner *owner = arg;
    owner->n_finished++;
    owner->is_late = is_late;
    endpoint_close_handle(&owner->end, (uv_handle_t *)&owner->timer);
    endpoint_finish(&owner->end); /* does nothing: it is under way */
}

static void free_owner(void *arg)
{
    struct owner *owner = arg;
    assert_int_equal(owner->n_finished, 1);
    assert_int_equal(seen.n_closed, 0);
    seen.n_freed++;
    free(owner);
}

static const struct endpoint_ops ops = {pump, resume, finish, free_owner};

static void on_closed(void *ctx)
{
    (void)ctx;
    assert_int_equal(seen.n_freed, 1);
    seen.n_closed++;
}

static uv_loop_t loop;

static struct owner *owner_open(void)
{
    struct owner *owner = calloc(1, sizeof *owner);
    assert_non_null(owner);
    memset(&seen, 0, sizeof seen);
    assert_int_equal(uv_loop_init(&loop), 0);
    owner->base = (struct source){.events = &events};
    endpoint_open_source(&owner->end, &loop, &owner->base, 1, &ops, owner);
    endpoint_timer(&owner->end, &owner->timer);
    return owner;
}

/* All events of the loop to its end. */
static void run_out(void)
{
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    assert_int_equal(seen.n_freed, 1);
}

static void calls_pump_from_the_loop_once(void **state)
{
    (void)state;
    struct owner *owner = owner_open();
    endpoint_pump_soon(&owner->end);
    endpoint_pump_soon(&owner->end);
    assert_int_equal(owner->n_pumped, 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(owner->n_pumped, 1);
    owner->is_flushed = true;
    endpoint_close(&owner->end, 60000, on_closed, NULL);
    assert_int_equal(owner->n_finished, 0);
    run_out();
    assert_int_equal(seen.n_closed, 1);
    assert_int_equal(seen.n_failed, 0);
}

static void reports_state_until_it_closes(void **state)
{
    (void)state;
    struct owner *owner = owner_open();
    health_good(&owner->end.health, 1);
    assert_int_equal(seen.n_states, 1);
    assert_int_equal(seen.state, LINK_UP);
    health_wait(&owner->end.health, 1, "away");
    assert_int_equal(seen.n_states, 2);
    endpoint_close(&owner->end, 20, on_closed, NULL);
    health_wait(&owner->end.health, 1, "still away");
    endpoint_fail(&owner->end, -EACCES, "nobody asks any more");
    assert_int_equal(seen.n_states, 2);
    run_out();
    assert_int_equal(seen.n_failed, 0);
    assert_int_equal(seen.n_closed, 1);
}

static void ends_late_and_says_what_is_lost(void **state)
{
    (void)state;
    struct owner *owner = owner_open();
    uint64_t before = uv_now(&loop);
    endpoint_unflushed(&owner->end, "not closing yet");
    assert_int_equal(seen.n_failed, 0);
    endpoint_close(&owner->end, 30, on_closed, NULL);
    while (owner->n_finished == 0)
        uv_run(&loop, UV_RUN_ONCE);
    assert_true(owner->is_late);
    assert_true(uv_now(&loop) - before >= 30);
    endpoint_unflushed(&owner->end, "two acks");
    assert_int_equal(seen.n_failed, 1);
    assert_int_equal(seen.err, -ETIMEDOUT);
    endpoint_pump_soon(&owner->end); /* too late */
    endpoint_pause(&owner->end);
    run_out();
}

static void fails_once(void **state)
{
    (void)state;
    struct owner *owner = owner_open();
    endpoint_fail_soon(&owner->end);
    assert_int_equal(seen.n_failed, 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(seen.n_failed, 1);
    assert_int_equal(seen.err, -ENOMEM);
    endpoint_fail(&owner->end, -EACCES, "again");
    endpoint_close(&owner->end, 60000, on_closed, NULL); /* ends at once: it has failed */
    endpoint_unflushed(&owner->end, "all was said");
    run_out();
    assert_int_equal(seen.n_failed, 1);
    assert_int_equal(seen.n_closed, 1);
}

static void pauses_longer_and_longer(void **state)
{
    (void)state;
    struct owner *owner = owner_open();
    uint64_t last = 0;
    for (int i = 0; i < 3; i++) {
        uint64_t before = uv_now(&loop);
        endpoint_pause(&owner->end);
        endpoint_pause(&owner->end);
        assert_true(owner->end.paused);
        uv_run(&loop, UV_RUN_DEFAULT);
        assert_int_equal(owner->n_resumed, i + 1);
        assert_int_equal(owner->n_pumped, i + 1);
        last = uv_now(&loop) - before;
        assert_in_range(last, (uint64_t)(BACKOFF_FIRST_MS << i) / 2, UINT64_MAX);
    }
    endpoint_close(&owner->end, 0, NULL, NULL);
    run_out();
}

/* An open that fails half way: nobody waits for its end. */
static void is_finished_without_close(void **state)
{
    (void)state;
    struct owner *owner = owner_open();
    endpoint_finish(&owner->end);
    run_out();
    assert_int_equal(seen.n_closed, 0);
}

struct numbered {
    struct slot base;
    int refusals;
};

static void queues_keep_their_order(void **state)
{
    (void)state;
    struct slot_pool pool = {.size = sizeof(struct numbered)};
    struct slot_queue first = {0}, second = {0};
    struct record records[4];
    struct record *all[] = {&records[0], &records[1], &records[2], &records[3]};
    assert_null(slots_pop(&first));
    assert_int_equal(slots_add(&pool, &first, all, 4), 0);
    assert_int_equal(first.n, 4);
    struct slot *one = first.first->next, *last = first.last;
    slots_remove(&first, one); /* from the middle, the end, the beginning */
    slots_push(&second, one);
    slots_remove(&first, last);
    slots_push(&second, last);
    slots_move(&second, &first);
    assert_int_equal(first.n, 0);
    assert_null(first.first);
    assert_null(first.last);
    slots_move(&second, &first); /* of nothing */
    static const int order[] = {1, 3, 0, 2};
    for (size_t i = 0; i < 4; i++) {
        struct slot *slot = slots_pop(&second);
        assert_ptr_equal(slot->record, &records[order[i]]);
        ((struct numbered *)slot)->refusals = 7;
        slots_give(&pool, slot);
    }
    assert_int_equal(second.n, 0);
    assert_int_equal(slots_add(&pool, &first, all, 1), 0); /* used again, and as if it were new */
    assert_int_equal(((struct numbered *)first.first)->refusals, 0);
    struct slot *only = first.first; /* 0 */
    assert_int_equal(slots_add(&pool, &second, all + 1, 3), 0);
    struct slot *two = second.first->next;
    slots_remove(&second, two);
    slots_insert(&first, only, two); /* at the beginning, the end, between */
    slots_insert(&first, NULL, slots_pop(&second));
    slots_insert(&first, only, slots_pop(&second));
    static const int again[] = {2, 3, 0, 1};
    const struct slot *at = first.first, *before = NULL;
    for (size_t i = 0; i < 4; before = at, at = at->next, i++) {
        assert_ptr_equal(at->record, &records[again[i]]);
        assert_ptr_equal(at->prev, before);
    }
    assert_null(at);
    assert_ptr_equal(first.last, before);
    slots_give_all(&pool, &first);
    slots_close(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_pump_from_the_loop_once),
        cmocka_unit_test(reports_state_until_it_closes),
        cmocka_unit_test(ends_late_and_says_what_is_lost),
        cmocka_unit_test(fails_once),
        cmocka_unit_test(pauses_longer_and_longer),
        cmocka_unit_test(is_finished_without_close),
        cmocka_unit_test(queues_keep_their_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
