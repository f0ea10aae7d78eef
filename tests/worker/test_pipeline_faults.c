/*
 * test_pipeline_faults.c: how a pipeline ends: drained, at its deadline, failed, or never opened.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/pipeline_rig.h"

static bool one_held(struct rig *rig)
{
    (void)rig;
    return rig_held() == 1;
}

static bool two_held(struct rig *rig)
{
    (void)rig;
    return rig_held() == 2;
}

static bool all_given(struct rig *rig)
{
    return rig->fake.next == rig->fake.n;
}

static bool three_given(struct rig *rig)
{
    return rig->fake.n_given >= 3;
}

static bool some_acked(struct rig *rig)
{
    return rig->fake.n_acked > 20;
}

static bool sink_full(struct rig *rig)
{
    return rig->fake.n_given > 0 && rig->fake.credit == 0 && rig_held() == 0 &&
           rig_embedded() == rig->fake.n_given;
}

static void test_drain_finishes_what_was_taken(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 2000);
    rig_number_texts(&rig);
    rig_start(&rig);
    rig_until(&rig, some_acked, "some acked");
    pipeline_drain(rig.pipeline);
    assert_false(rig.ended); /* never inside the call */
    pipeline_drain(rig.pipeline);
    size_t given = rig.fake.n_given;
    rig_finish(&rig, PIPELINE_DRAINED);
    assert_int_equal(rig.fake.n_given, given);
    assert_int_equal(rig.fake.n_acked, given);
    assert_int_equal(rig.fake.n_released, 0);
    assert_true(given < 2000);
    rig_close(&rig);
}

static void test_drain_sends_the_part_filled_batch_at_once(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 5);
    rig_number_texts(&rig);
    rig.fake.script.burst_max = 1;
    rig.options.linger_ms = 3600 * 1000;
    rig_hold(true);
    rig.fake.n = 1; /* one by one, lest two are a batch */
    rig_start(&rig);
    rig_until(&rig, one_held, "a thread at work");
    rig.fake.n = 2;
    rig_until(&rig, two_held, "two threads at work");
    rig.fake.n = 5;
    rig_until(&rig, all_given, "all given");
    pipeline_drain(rig.pipeline);
    assert_int_equal(pipeline_stats(rig.pipeline)->batches[TRIGGER_DRAIN], 1);
    rig_hold(false);
    rig_finish(&rig, PIPELINE_DRAINED);
    assert_int_equal(rig.fake.n_acked, 5);
    rig_close(&rig);
}

static void test_drain_of_an_idle_pipeline(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 0);
    rig_start(&rig);
    pipeline_drain(rig.pipeline);
    assert_false(rig.ended);
    rig_finish(&rig, PIPELINE_DRAINED);
    rig_close(&rig);
}

static void test_deadline_releases_what_the_sink_has_not_confirmed(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 200);
    rig_number_texts(&rig);
    rig.options.drain_ms = 80;
    rig.fake.messages[3].fate = FATE_UNANSWERED;
    rig_start(&rig);
    rig_until(&rig, some_acked, "some acked");
    uint64_t before = uv_hrtime();
    pipeline_drain(rig.pipeline);
    rig_finish(&rig, PIPELINE_DEADLINE);
    assert_true(uv_hrtime() - before >= 50 * 1000000u);
    assert_true(rig.fake.sink_close_ms <= 80 / 4);
    assert_true(rig.fake.source_close_ms <= 250); /* at least this, to hand back the rest */
    assert_int_equal(rig.fake.n_released, 1);
    assert_int_equal(rig.fake.messages[3].state, FAKE_RELEASED);
    rig_close(&rig);
}

static void test_deadline_with_everything_stuck_at_the_sink(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 200);
    rig_number_texts(&rig);
    rig.options.drain_ms = 40;
    rig.fake.script.sink_stalls = true;
    rig_start(&rig);
    rig_until(&rig, sink_full, "everything at the sink");
    pipeline_drain(rig.pipeline);
    rig_finish(&rig, PIPELINE_DEADLINE);
    assert_int_equal(rig.fake.n_acked, 0);
    assert_int_equal(rig.fake.n_released, rig.fake.n_given);
    rig_close(&rig);
}

/* All was acked, but whether the broker knows is not known: no clean end. */
static void test_acks_that_are_not_flushed(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 100);
    rig_number_texts(&rig);
    rig.fake.script.unflushed = true;
    rig_start(&rig);
    rig_until(&rig, some_acked, "some acked");
    pipeline_drain(rig.pipeline);
    rig_finish(&rig, PIPELINE_UNFLUSHED);
    assert_string_equal(rig.failure, "the fake broker is away");
    rig_close(&rig);
}

/* Running jobs read the messages' bytes: the source must not be closed under them. */
static void test_deadline_waits_for_running_jobs_only(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 100);
    static char texts[100][2001];
    for (size_t i = 0; i < 100; i++) {
        memset(texts[i], 'a' + (int)(i % 26), 2000);
        texts[i][0] = (char)('0' + i / 26);
        rig.fake.messages[i].value = texts[i];
    }
    rig.options.drain_ms = 20;
    rig_hold(true);
    rig_start(&rig);
    rig_until(&rig, two_held, "two threads at work");
    rig_turn(&rig, 30);
    pipeline_drain(rig.pipeline);
    rig_turn(&rig, 60);
    assert_false(rig.ended);
    assert_true(rig.fake.source_open);
    assert_false(rig.fake.sink_open);
    rig_hold(false);
    rig_finish(&rig, PIPELINE_DEADLINE);
    assert_int_equal(rig.fake.n_acked, 0);
    assert_int_equal(rig_embedded(), 2); /* two slices of one such text */
    assert_true(rig.fake.n_given > 2);
    rig_close(&rig);
}

static void test_a_failed_source_ends_it(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 200);
    rig_number_texts(&rig);
    rig.fake.script.source_fails_after = 50;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_FAILED);
    assert_non_null(strstr(rig.failure, "no permission on the fake stream"));
    assert_null(strstr(rig.failure, "ermission denied")); /* the connector has said it */
    assert_int_equal(rig.fake.n_acked + rig.fake.n_released, rig.fake.n_given);
    rig_close(&rig);
}

static void test_a_failed_sink_ends_it(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 200);
    rig_number_texts(&rig);
    rig.fake.script.sink_fails_after = 30;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_FAILED);
    assert_non_null(strstr(rig.failure, "the fake stream is no stream"));
    assert_true(rig.fake.n_acked >= 30);
    assert_int_equal(rig.fake.n_acked + rig.fake.n_released, rig.fake.n_given);
    rig_close(&rig);
}

static void test_failing_while_draining(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 20);
    rig_number_texts(&rig);
    rig.fake.script.sink_fails_after = 1;
    rig.fake.script.confirm_max = 1;
    rig_hold(true);
    rig_start(&rig);
    rig_until(&rig, three_given, "three given"); /* one for each batch, however slow */
    pipeline_drain(rig.pipeline);
    rig_hold(false);
    rig_finish(&rig, PIPELINE_FAILED);
    assert_int_equal(rig.fake.n_acked, 1);
    assert_int_equal(rig.fake.n_released, rig.fake.n_given - 1);
    rig_close(&rig);
}

/* For a reason of its own: the sink's code and words, and the original in it. */
static void test_refused_becomes_a_dead_letter(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 3);
    rig_number_texts(&rig);
    rig.fake.messages[0].fate = FATE_REFUSED;
    rig.fake.messages[0].value = "first";
    rig.fake.messages[1].fate = FATE_DEAD_REFUSED;
    rig.fake.messages[1].key = "the key";
    rig.fake.script.finite = true;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);
    const struct fake_message *first = &rig.fake.messages[0], *second = &rig.fake.messages[1];
    assert_string_equal(first->dead_code, "output_refused");
    assert_string_equal(first->dead_reason, "the fake broker does not like it");
    assert_string_equal(first->value_out, "first");
    assert_string_equal(second->dead_code, "output_refused");
    assert_int_equal(second->value_out_len, 0);
    assert_int_equal(second->n_headers, 0);
    assert_non_null(strstr(second->dead_reason, "the first 0 of 7 key bytes are kept"));
    assert_int_equal(rig.fake.messages[2].n_outputs, 1);
    assert_int_equal(rig.stats.dead_letters, 2);
    rig_close(&rig);
}

/* Whatever is largest is cut, and no more than that. */
static void test_a_key_or_headers_are_cut_before_the_payload(void **state)
{
    (void)state;
    struct rig rig;
    char large[2001];
    memset(large, 'k', 2000);
    large[2000] = '\0';
    rig_open(&rig, 2);
    rig.fake.messages[0].value = rig.fake.messages[1].value = "{\"texts\":[]}";
    rig.fake.messages[0].key = rig.fake.messages[1].header = large;
    rig.fake.messages[0].fate = rig.fake.messages[1].fate = FATE_DEAD_OVER_400;
    rig.fake.script.finite = true;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);
    const struct fake_message *key = &rig.fake.messages[0], *header = &rig.fake.messages[1];
    assert_string_equal(key->dead_code, "bad_field"); /* the key is its id */
    assert_string_equal(key->value_out, "{\"texts\":[]}");
    assert_int_equal(strlen(key->id_out), 125);
    assert_non_null(strstr(key->dead_reason, "; the first 125 of 2000 key bytes are kept"));
    assert_null(strstr(key->dead_reason, "header"));
    assert_string_equal(header->dead_code, "no_text");
    assert_string_equal(header->value_out, "{\"texts\":[]}");
    assert_non_null(strstr(header->dead_reason, "; 1 of 2 headers"));
    assert_null(strstr(header->dead_reason, "payload"));
    rig_close(&rig);
}

/* One by one, so that each is a batch; the first n_doubted are doubted. */
static void doubt(struct rig *rig, size_t n, size_t n_doubted, size_t batch_bytes)
{
    rig_open(rig, n);
    rig_number_texts(rig);
    rig->options.batch_texts = 1;
    rig->options.batch_bytes = batch_bytes;
    rig->fake.script.burst_max = 1;
    rig->fake.script.doubts = true;
    rig->fake.script.finite = n_doubted < n;
    for (size_t i = 0; i < n_doubted; i++)
        rig->fake.messages[i].fate = FATE_DOUBTED;
    rig_start(rig);
    rig->fake.script.max_unfinished = 0;
}

static void test_more_doubted_ones_than_batches_let_others_pass(void **state)
{
    (void)state;
    struct rig rig;
    doubt(&rig, 40, 30, 4096);
    rig_finish(&rig, PIPELINE_DRAINED);
    assert_int_equal(rig.fake.n_acked, 40);
    for (size_t i = 0; i < 40; i++) {
        assert_int_equal(rig.fake.messages[i].n_dead, i < 30);
        assert_int_equal(rig.fake.messages[i].n_outputs, i >= 30);
    }
    rig_close(&rig);
}

static size_t n_awaited;

static bool so_many_given(struct rig *rig)
{
    return rig->fake.n_given >= n_awaited;
}

/* One by one they come, until so many are kept and no more. */
static void doubt_until_full(size_t batch_bytes, size_t n_kept)
{
    struct rig rig;
    doubt(&rig, 100, 100, batch_bytes);
    n_awaited = n_kept;
    rig_until(&rig, so_many_given, "as many given as may be kept");
    rig_turn(&rig, 50);
    assert_int_equal(rig.fake.n_given, n_kept);
    assert_int_equal(rig.fake.credit, 0);
    rig.fake.messages[n_kept - 1].fate = FATE_PUBLISHED;
    n_awaited = n_kept + 1;
    rig_until(&rig, so_many_given, "another in place of one that is done");
    rig_turn(&rig, 50);
    assert_int_equal(rig.fake.n_given, n_kept + 1);
    rig.fake.n_passed = DOUBTED_PASSES;
    pipeline_drain(rig.pipeline);
    rig_finish(&rig, PIPELINE_DRAINED);
    rig_close(&rig);
}

/* Beside the batches 64 messages, or as many as one more batch has bytes. */
static void test_doubted_ones_beside_the_batches_are_few(void **state)
{
    (void)state;
    doubt_until_full(4096, 3 + 64);
    doubt_until_full(2 * strlen("text 1"), 3 + 2);
}

static void test_a_dead_letter_that_never_fits_ends_it(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 3);
    rig_number_texts(&rig);
    rig.fake.messages[1].fate = FATE_NEVER_SMALL;
    rig.fake.script.finite = true;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_FAILED);
    assert_non_null(strstr(rig.failure, "fake 1"));
    assert_int_equal(rig.fake.messages[1].state, FAKE_RELEASED);
    rig_close(&rig);
}

static void test_a_dead_letter_that_is_always_refused_is_dropped_if_wanted(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct rig rig;
        rig_open(&rig, 30);
        rig_number_texts(&rig);
        rig.fake.messages[1].fate = i == 0 ? FATE_NEVER : FATE_NEVER_SMALL;
        rig.fake.script.finite = true;
        rig.options.drop_undeliverable = true;
        rig_start(&rig);
        rig_finish(&rig, PIPELINE_DRAINED);
        assert_int_equal(rig.stats.undeliverable, 1);
        assert_int_equal(rig.n_undeliverable_reported, 1);
        assert_int_equal(rig.stats.dead_letters, 0);
        assert_int_equal(rig.stats.messages, 29);
        assert_int_equal(rig.fake.messages[1].n_given_up, 1);
        assert_int_equal(rig.fake.messages[1].state, FAKE_ACKED);
        rig_close(&rig);
    }
}

static void test_a_dead_letter_that_is_always_refused_ends_it(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 3);
    rig_number_texts(&rig);
    rig.fake.messages[1].fate = FATE_NEVER;
    rig.fake.script.finite = true;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_FAILED);
    assert_non_null(strstr(rig.failure, "fake 1"));
    assert_non_null(strstr(rig.failure, "the fake broker does not like it"));
    assert_non_null(strstr(rig.failure, "--undeliverable drop"));
    assert_int_equal(rig.fake.messages[1].state, FAKE_RELEASED);
    rig_close(&rig);
}

/* The message is not to blame: it must come again, not become a dead letter. */
static void test_memory_is_no_reason_for_a_dead_letter(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 3);
    rig_number_texts(&rig);
    rig.fake.messages[1].value = "no @memory for this";
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_FAILED);
    assert_non_null(strstr(rig.failure, "out of memory"));
    assert_int_equal(rig.stats.dead_letters, 0);
    assert_int_equal(rig.fake.messages[1].state, FAKE_RELEASED);
    rig_close(&rig);
}

static void never_ended(void *ctx, enum pipeline_end how)
{
    (void)ctx;
    fail_msg("a pipeline that was not opened ended with %d", how);
}

static void assert_not_opened(struct rig *rig, int expected, const char *sentence)
{
    struct pipeline *pipeline = NULL;
    char err[300] = "";
    int status = pipeline_open(&pipeline, &rig->loop, NULL, &fake_source_ops, &fake_sink_ops, NULL,
                               &rig->options, never_ended, rig, err, sizeof err);
    assert_int_equal(status, expected);
    assert_null(pipeline);
    if (!strstr(err, sentence))
        fail_msg("'%s' does not say '%s'", err, sentence);
    assert_int_equal(uv_run(&rig->loop, UV_RUN_DEFAULT), 0); /* returns: nothing is left */
    rig_close(rig);
}

static void test_open_fails_half_way(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 1);
    rig.fake.script.source_open_err = -EINVAL;
    assert_not_opened(&rig, -EINVAL, "the fake source does not open");
    rig_open(&rig, 1);
    rig.fake.script.sink_open_err = -EACCES;
    assert_not_opened(&rig, -EACCES, "the fake sink does not open");
    rig_open(&rig, 1);
    rig.options.prompt = "haiku";
    assert_not_opened(&rig, -EINVAL, "unknown prompt 'haiku'");
    rig_open(&rig, 1);
    rig.options.session.dim = RIG_DIM + 1;
    assert_not_opened(&rig, -EINVAL, "dim is 9 and the model gives 8 values: set it to 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_drain_finishes_what_was_taken),
        cmocka_unit_test(test_drain_sends_the_part_filled_batch_at_once),
        cmocka_unit_test(test_drain_of_an_idle_pipeline),
        cmocka_unit_test(test_deadline_releases_what_the_sink_has_not_confirmed),
        cmocka_unit_test(test_deadline_with_everything_stuck_at_the_sink),
        cmocka_unit_test(test_acks_that_are_not_flushed),
        cmocka_unit_test(test_deadline_waits_for_running_jobs_only),
        cmocka_unit_test(test_a_failed_source_ends_it),
        cmocka_unit_test(test_a_failed_sink_ends_it),
        cmocka_unit_test(test_failing_while_draining),
        cmocka_unit_test(test_refused_becomes_a_dead_letter),
        cmocka_unit_test(test_a_key_or_headers_are_cut_before_the_payload),
        cmocka_unit_test(test_more_doubted_ones_than_batches_let_others_pass),
        cmocka_unit_test(test_doubted_ones_beside_the_batches_are_few),
        cmocka_unit_test(test_a_dead_letter_that_never_fits_ends_it),
        cmocka_unit_test(test_a_dead_letter_that_is_always_refused_is_dropped_if_wanted),
        cmocka_unit_test(test_a_dead_letter_that_is_always_refused_ends_it),
        cmocka_unit_test(test_memory_is_no_reason_for_a_dead_letter),
        cmocka_unit_test(test_open_fails_half_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
