/*
 * test_kafka_done.c: what was put back is known the next time, whatever was left between.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "connectors/kafka/kafka_done.h"

#define N     400
#define SEED  20261124u
#define ROUND 50

static void in_order_needs_no_text(void **state)
{
    struct kafka_done done;
    char text[KAFKA_DONE_SIZE];
    (void)state;
    kafka_done_open(&done, 5, "", 0);
    for (int64_t offset = 7; offset < 100; offset += 2) { /* with gaps */
        kafka_done_meet(&done, offset);
        kafka_done_note(&done);
    }
    kafka_done_print(&done, text);
    assert_int_equal(done.base, 100);
    assert_string_equal(text, "");
}

static void gaps_are_bridged(void **state)
{
    struct kafka_done done;
    char text[KAFKA_DONE_SIZE];
    (void)state;
    kafka_done_open(&done, 0, "", 0);
    kafka_done_meet(&done, 3);
    kafka_done_pass(&done);
    kafka_done_meet(&done, 5);
    kafka_done_note(&done);
    kafka_done_meet(&done, 8);
    kafka_done_note(&done);
    kafka_done_meet(&done, 9);
    kafka_done_pass(&done);
    kafka_done_print(&done, text);
    assert_int_equal(done.base, 0);
    assert_string_equal(text, "5-9,");
}

static void foreign_text_is_nothing(void **state)
{
    static const char *const texts[] = {"hello", "5", "5-", "5-9", "-", ",", "9223372036854775808"};
    struct kafka_done done;
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        kafka_done_open(&done, 3, texts[i], strlen(texts[i]));
        assert_true(kafka_done_has(&done, 2));
        assert_false(kafka_done_has(&done, 3));
        assert_false(kafka_done_has(&done, 6));
    }
    char *longest = malloc(100000);
    memset(longest, '1', 100000);
    kafka_done_open(&done, 3, longest, 100000);
    assert_false(kafka_done_has(&done, 6));
    free(longest);
}

/* One run over what is there, some of it gone by compaction, ended anywhere. */
static void run_once(struct kafka_done *done, bool *truth, const bool *exists)
{
    int64_t from = done->base, to = rand() % N;
    int often = rand() % 5 + 1;
    for (int64_t offset = from; offset < to; offset++) {
        if (!exists[offset])
            continue;
        assert_int_equal(kafka_done_has(done, offset), truth[offset]);
        kafka_done_meet(done, offset);
        if (truth[offset]) {
            kafka_done_note(done);
        } else if (rand() % often == 0 && kafka_done_has_room(done)) {
            kafka_done_note(done);
            truth[offset] = true;
        } else {
            kafka_done_pass(done);
        }
    }
}

/* Against a plain array of flags, through the text each time. */
static void random_runs(void **state)
{
    char text[KAFKA_DONE_SIZE] = "";
    (void)state;
    print_message("seed %u\n", SEED);
    srand(SEED);
    for (int round = 0; round < ROUND; round++) {
        bool truth[N] = {false}, exists[N];
        int64_t base = 0;
        text[0] = '\0';
        for (int i = 0; i < N; i++)
            exists[i] = rand() % 8 != 0;
        for (int run = 0; run < 8; run++) {
            struct kafka_done done;
            kafka_done_open(&done, base, text, strlen(text));
            run_once(&done, truth, exists);
            kafka_done_print(&done, text);
            base = done.base;
            for (int i = 0; i < N; i++) {
                kafka_done_open(&done, base, text, strlen(text));
                if (exists[i])
                    assert_int_equal(kafka_done_has(&done, i), truth[i]);
            }
        }
    }
}

/* Every other one, until it says that there is no room; the text stays within its bounds. */
static void full(void **state)
{
    struct kafka_done done;
    char text[KAFKA_DONE_SIZE];
    int64_t first = INT64_MAX - 1000, offset = first;
    (void)state;
    kafka_done_open(&done, first, "", 0);
    for (kafka_done_meet(&done, offset); kafka_done_has_room(&done); offset++) {
        kafka_done_pass(&done);
        kafka_done_meet(&done, ++offset);
        if (!kafka_done_has_room(&done))
            break;
        kafka_done_note(&done);
        kafka_done_meet(&done, offset + 1);
    }
    assert_int_equal(done.n_now, KAFKA_DONE_MAX);
    kafka_done_print(&done, text);
    kafka_done_open(&done, first, text, strlen(text));
    assert_int_equal(done.n_before, KAFKA_DONE_MAX);
    assert_true(kafka_done_has(&done, offset - 2) != kafka_done_has(&done, offset - 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order_needs_no_text),
        cmocka_unit_test(gaps_are_bridged),
        cmocka_unit_test(foreign_text_is_nothing),
        cmocka_unit_test(random_runs),
        cmocka_unit_test(full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
