/*
 * test_kafka_slots.c: what a refused batch means for each record in it. No broker is needed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "connectors/kafka/kafka_slots.h"

#define HOUR_MS (3600 * 1000)

static struct kafka_config config = {.output_topic = "out", .dead_letter_topic = "dlq"};

static void on_state(void *ctx, enum link_state state, const char *why)
{
    (void)ctx, (void)state, (void)why;
}

static enum kafka_verdict refuse(struct kafka_slots *slots, struct kafka_slot *slot,
                                 rd_kafka_resp_err_t err)
{
    struct health health;
    health_open(&health, 1, on_state, NULL);
    struct kafka_reported reported = {.health = &health, .write = 1};
    return kafka_slot_refuse(slots, slot, err, &config, &reported);
}

static int64_t ahead_of_now(int64_t ms)
{
    return (int64_t)time(NULL) * 1000 + ms;
}

/*
 * Two records lie hours ahead and are in different batches of one transaction: the first is refused
 * and loses its timestamp at once, because one that lay less far ahead has been refused before.
 * Then both are in one batch, which is refused for the second. That is not the fault of the first.
 */
static void time_of_a_neighbour(void **state)
{
    (void)state;
    const rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP;
    struct message messages[3] = {{.timestamp_ms = ahead_of_now(2 * HOUR_MS)},
                                  {.timestamp_ms = ahead_of_now(3 * HOUR_MS)},
                                  {.timestamp_ms = ahead_of_now(3 * HOUR_MS)}};
    struct part part = {.value = {"x", 1}};
    struct record records[3], *list[3];
    struct kafka_slots slots;
    for (size_t i = 0; i < 3; i++) {
        records[i] = (struct record){.origin = &messages[i], .parts = &part, .n_parts = 1};
        list[i] = &records[i];
    }
    kafka_slots_open(&slots);
    assert_int_equal(kafka_slots_add(&slots, list, 3), 0);
    struct kafka_slot *first = kafka_slots_first(&slots), *second = kafka_slots_next(first);
    struct kafka_slot *third = kafka_slots_next(second);

    assert_int_equal(refuse(&slots, first, err), VERDICT_AGAIN);
    assert_true(first->alone && !first->form.plain_time);
    assert_int_equal(refuse(&slots, first, err), VERDICT_AGAIN);
    assert_true(first->form.plain_time);

    assert_int_equal(refuse(&slots, second, err), VERDICT_AGAIN);
    assert_true(second->form.plain_time && !second->alone);
    assert_int_equal(refuse(&slots, second, err), VERDICT_AGAIN);
    assert_int_equal(refuse(&slots, third, err), VERDICT_AGAIN);
    assert_true(second->alone); /* where only its own fault can show */
    assert_true(third->form.plain_time);

    assert_int_equal(refuse(&slots, second, err), VERDICT_REFUSED);
    kafka_slots_close(&slots);
}

/* Others pass three times while one does not; what goes to the other topic says nothing. */
static void codes_nobody_knows(void **state)
{
    (void)state;
    const rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_UNKNOWN;
    struct message message = {.timestamp_ms = -1};
    struct part part = {.value = {"x", 1}};
    struct record records[4], *list[4];
    struct kafka_slots slots;
    for (size_t i = 0; i < 4; i++) {
        records[i] = (struct record){.origin = &message, .parts = &part, .n_parts = i != 3};
        list[i] = &records[i];
    }
    records[2].dead_code = "bad_utf8";
    kafka_slots_open(&slots);
    assert_int_equal(kafka_slots_add(&slots, list, 4), 0);
    struct kafka_slot *odd = kafka_slots_first(&slots), *good = kafka_slots_next(odd),
                      *dead = kafka_slots_next(good);
    assert_int_equal(refuse(&slots, odd, err), VERDICT_AGAIN);
    assert_true(odd->alone && !kafka_slots_lets_pass(&slots, odd));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(refuse(&slots, odd, err), VERDICT_WAIT);
        kafka_slots_passed(&slots, dead);
        assert_true(kafka_slots_lets_pass(&slots, odd));
        kafka_slots_passed(&slots, good);
        assert_false(kafka_slots_lets_pass(&slots, odd));
    }
    assert_int_equal(refuse(&slots, good, err), VERDICT_AGAIN);
    assert_int_equal(refuse(&slots, good, err), VERDICT_WAIT);
    assert_true(kafka_slots_lets_pass(&slots, good));
    assert_int_equal(refuse(&slots, odd, err), VERDICT_REFUSED);
    kafka_slots_take(&slots, odd);
    assert_false(kafka_slots_lets_pass(&slots, good)); /* nobody else goes there */
    kafka_slots_close(&slots);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(time_of_a_neighbour),
        cmocka_unit_test(codes_nobody_knows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
