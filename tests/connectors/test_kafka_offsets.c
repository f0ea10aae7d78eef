/*
 * test_kafka_offsets.c: the lowest offset not done, against a plain model, in random orders.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>

#include "connectors/kafka/kafka_offsets.h"

enum { N = 400, ROUNDS = 200 };

/* The same by looking at everything. */
struct model {
    int64_t at[N];
    bool done[N];
    size_t n;
    int64_t next;
};

static int64_t model_lowest(const struct model *model)
{
    for (size_t i = 0; i < model->n; i++)
        if (!model->done[i])
            return model->at[i];
    return model->next ? model->next : -1;
}

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void take(struct kafka_offsets *offsets, struct model *model, uint64_t *seed)
{
    if (model->n == N)
        return;
    int64_t at = model->next + (int64_t)(random_next(seed) % 3 == 0 ? random_next(seed) % 5 : 0);
    assert_int_equal(kafka_offsets_take(offsets, at), 0);
    model->at[model->n++] = at;
    model->next = at + 1;
}

static void finish_any(struct kafka_offsets *offsets, struct model *model, uint64_t *seed)
{
    size_t open[N], n = 0;
    for (size_t i = 0; i < model->n; i++)
        if (!model->done[i])
            open[n++] = i;
    if (!n)
        return;
    size_t i = open[random_next(seed) % n];
    kafka_offsets_done(offsets, model->at[i]);
    model->done[i] = true;
}

static void lowest_is_never_too_high(void **state)
{
    (void)state;
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        uint64_t seed = round * UINT64_C(0x9e3779b97f4a7c15);
        struct kafka_offsets offsets = {0};
        struct model model = {.next = (int64_t)(random_next(&seed) % 3 ? 0 : 1000000)};
        if (model.next)
            kafka_offsets_skip(&offsets, model.next);
        for (int step = 0; step < 1200; step++) {
            uint64_t what = random_next(&seed) % 100;
            if (what < 50)
                take(&offsets, &model, &seed);
            else if (what < 97)
                finish_any(&offsets, &model, &seed);
            else if (model.n)
                kafka_offsets_skip(&offsets, model.next += (int64_t)(random_next(&seed) % 3));
            if (kafka_offsets_lowest(&offsets) != model_lowest(&model))
                fail_msg("seed %llu, step %d: %lld, expected %lld", (unsigned long long)round, step,
                         (long long)kafka_offsets_lowest(&offsets),
                         (long long)model_lowest(&model));
        }
        kafka_offsets_close(&offsets);
    }
}

static void an_older_log_is_refused(void **state)
{
    (void)state;
    struct kafka_offsets offsets = {0};
    assert_int_equal(kafka_offsets_lowest(&offsets), -1);
    assert_int_equal(kafka_offsets_take(&offsets, 7), 0);
    assert_int_equal(kafka_offsets_take(&offsets, 7), -EINVAL);
    assert_int_equal(kafka_offsets_take(&offsets, 0), -EINVAL);
    kafka_offsets_skip(&offsets, 3);
    assert_int_equal(kafka_offsets_lowest(&offsets), 7);
    kafka_offsets_done(&offsets, 7);
    assert_int_equal(kafka_offsets_lowest(&offsets), 8);
    kafka_offsets_close(&offsets);
}

/* Transactions: only a prefix joins, an abort changes nothing. */
static void a_transaction_is_a_prefix(void **state)
{
    (void)state;
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        uint64_t seed = round * UINT64_C(0x9e3779b97f4a7c15);
        struct kafka_offsets offsets = {0};
        struct model model = {0};
        size_t first = 0, begun = 0; /* done below first; begun from there */
        for (int step = 0; step < 600; step++) {
            uint64_t what = random_next(&seed) % 10;
            if (what < 4) {
                take(&offsets, &model, &seed);
            } else if (what < 8 && model.n) {
                size_t i = random_next(&seed) % model.n;
                if (what < 6 && first + begun < model.n)
                    i = first + begun;
                bool expected = i == first + begun;
                assert_int_equal(kafka_offsets_begin(&offsets, model.at[i]), expected);
                begun += expected;
            } else {
                bool committed = what == 8;
                size_t end = first + begun;
                int64_t next = !begun ? -1 : end == model.n ? model.next : model.at[end - 1] + 1;
                assert_int_equal(kafka_offsets_begun(&offsets), next);
                kafka_offsets_end(&offsets, committed);
                first += committed ? begun : 0;
                begun = 0;
                int64_t lowest = first < model.n ? model.at[first] : model.next ? model.next : -1;
                assert_int_equal(kafka_offsets_lowest(&offsets), lowest);
            }
        }
        kafka_offsets_close(&offsets);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lowest_is_never_too_high),
        cmocka_unit_test(an_older_log_is_refused),
        cmocka_unit_test(a_transaction_is_a_prefix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
