/*
 * test_pipeline.c: what becomes of each message, case by case, between a fake broker and a fake
 * embedder. test_pipeline_faults.c has drains and failures, test_pipeline_random.c all at once.
 */
#define _GNU_SOURCE /* memmem */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <msgpack.h>

#include "tests/support/assert_between.h"
#include "tests/support/pipeline_rig.h"

static void assert_text_embedded(const struct rig *rig, size_t i, const char *prompt,
                                 const char *title, const char *text)
{
    float vector[RIG_DIM];
    rig_vector(prompt, title, text, vector);
    if (!rig_output_has(rig, i, vector))
        fail_msg("the output of message %zu does not hold the vector of '%s'", i, text);
}

/* The parts are n whole msgpack maps, one after another and nothing else. */
static void assert_maps(const struct fake_message *message, size_t n)
{
    size_t at = 0;
    msgpack_unpacked object;
    msgpack_unpacked_init(&object);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(
            msgpack_unpack_next(&object, message->value_out, message->value_out_len, &at),
            MSGPACK_UNPACK_SUCCESS);
        assert_int_equal(object.data.type, MSGPACK_OBJECT_MAP);
    }
    assert_int_equal(at, message->value_out_len);
    msgpack_unpacked_destroy(&object);
}

static void test_every_text_gets_its_own_vector(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 1000);
    rig_number_texts(&rig);
    rig.fake.script.finite = true;
    rig.fake.script.shuffle = true;
    rig.options.n_threads = 3;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);

    assert_int_equal(rig.fake.n_acked, 1000);
    for (size_t i = 0; i < 1000; i++) {
        assert_int_equal(rig.fake.messages[i].n_outputs, 1);
        assert_text_embedded(&rig, i, "document", NULL, rig.fake.messages[i].value);
    }
    assert_int_equal(rig.stats.received, 1000);
    assert_int_equal(rig.stats.messages, 1000);
    assert_int_equal(rig.stats.texts, 1000);
    assert_int_equal(rig.stats.dead_letters, 0);
    assert_int_equal(rig.stats.inflight_texts, 0);
    assert_int_equal(rig.stats.waiting_messages, 0);
    assert_true(rig.stats.batches[TRIGGER_FULL] > 0);
    rig_close(&rig);
}

static void test_one_message_of_many_texts_spans_slices(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 3);
    char json[3][12000], text[64];
    for (size_t m = 0; m < 3; m++) {
        size_t len = (size_t)sprintf(json[m], "{\"texts\":[");
        for (size_t i = 0; i < 300; i++)
            len += (size_t)sprintf(json[m] + len, "%s\"m%zu number %zu %.*s\"", i ? "," : "", m, i,
                                   (int)(i % 13), "xxxxxxxxxxxxx");
        sprintf(json[m] + len, "]}");
        rig.fake.messages[m].value = json[m];
    }
    rig.fake.script.finite = true;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);

    for (size_t m = 0; m < 3; m++) {
        assert_int_equal(rig.fake.messages[m].n_outputs, 1);
        assert_int_equal(rig.fake.messages[m].n_parts, 1);
        assert_maps(&rig.fake.messages[m], 1);
        for (size_t i = 0; i < 300; i++) {
            sprintf(text, "m%zu number %zu %.*s", m, i, (int)(i % 13), "xxxxxxxxxxxxx");
            assert_text_embedded(&rig, m, "document", NULL, text);
        }
    }
    assert_int_equal(rig.stats.texts, 900);
    rig_close(&rig);
}

static void test_equal_texts_are_embedded_once(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 1);
    rig.fake.messages[0].value =
        "{\"texts\":[\"same\",\"other\",\"same\",\"same\",\"other\",\"last\"]}";
    rig.fake.script.finite = true;
    rig.fake.script.layout = SINK_PER_TEXT;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);

    assert_int_equal(rig_embedded(), 3);
    assert_int_equal(rig.stats.duplicates, 3);
    assert_int_equal(rig.stats.embedded_texts, 6);
    assert_int_equal(rig.stats.computed_texts, 3);
    assert_true(rig.stats.computed_tokens > 0);
    assert_true(rig.stats.computed_tokens < rig.stats.embedded_tokens);
    assert_int_equal(rig.stats.texts, 6);
    static const char *const texts[] = {"same", "other", "same", "same", "other", "last"};
    const struct fake_message *message = &rig.fake.messages[0];
    assert_int_equal(message->n_parts, 6);
    assert_maps(message, 6);
    assert_int_equal(message->vector_out_len, 6 * RIG_DIM * sizeof(float));
    for (size_t i = 0; i < 6; i++) {
        float vector[RIG_DIM];
        rig_vector("document", NULL, texts[i], vector);
        assert_memory_equal(message->vector_out + i * sizeof vector, vector, sizeof vector);
    }
    rig_close(&rig);
}

static void test_prompts_and_titles_are_told_apart(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 5);
    rig.fake.messages[0].value = "{\"text\":\"one text\"}";
    rig.fake.messages[1].value = "{\"text\":\"one text\",\"title\":\"A title\"}";
    rig.fake.messages[2].value = "{\"text\":\"one text\",\"prompt\":\"code-retrieval\"}";
    rig.fake.messages[3].value = "{\"text\":\"one text\",\"prompt\":\"none\"}";
    rig.fake.messages[4].value = "{\"text\":\"one text\",\"prompt\":\"haiku\"}";
    rig.fake.script.finite = true;
    rig.options.prompt = "Retrieval-query";
    rig.options.n_batches = 1;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);

    assert_text_embedded(&rig, 0, "query", NULL, "one text");
    assert_text_embedded(&rig, 1, "query", "A title", "one text");
    assert_text_embedded(&rig, 2, "code_retrieval", NULL, "one text");
    assert_text_embedded(&rig, 3, "none", NULL, "one text");
    assert_string_equal(rig.fake.messages[4].dead_code, "unknown_prompt");
    assert_non_null(strstr(rig.fake.messages[4].dead_reason, "sentence_similarity"));
    rig_close(&rig);
}

static void test_headers_pass_and_ours_are_added(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 1);
    rig_number_texts(&rig);
    rig.fake.script.finite = true;
    rig.options.session.dim = 0;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);
    assert_string_equal(rig.fake.messages[0].headers_out,
                        "trace=fake 0\ncontent-type=application/msgpack\n"
                        "embedding-model=fake-model\nembedding-dim=8\nembedding-dtype=<f4\n");
    rig_close(&rig);
}

/* A record of a broker is a row of a store, so it has one text; a line of a file may be several. */
static void test_rows_are_texts(void **state)
{
    (void)state;
    static const enum sink_layout layouts[] = {SINK_PER_MESSAGE, SINK_LINES, SINK_PER_TEXT};
    for (size_t i = 0; i < 3; i++) {
        struct rig rig;
        rig_open(&rig, 2);
        rig.fake.messages[0].value = "{\"id\":\"m\",\"texts\":[\"a\",\"b\"]}";
        rig.fake.messages[1].value = "{\"id\":\"n\",\"texts\":[\"a\"]}";
        rig.fake.script.finite = true;
        rig.fake.script.layout = layouts[i];
        rig.options.output_format = OUTPUT_QDRANT;
        rig.options.collection = "c";
        rig_start(&rig);
        rig_finish(&rig, PIPELINE_DRAINED);
        const struct fake_message *two = &rig.fake.messages[0], *one = &rig.fake.messages[1];
        static const char head[] = "{\"collection_name\":\"c\",\"id\":\"";
        assert_memory_equal(one->value_out, head, sizeof head - 1);
        assert_string_equal(two->dead_code, layouts[i] == SINK_PER_MESSAGE ? "too_many_texts" : "");
        if (layouts[i] != SINK_PER_MESSAGE) {
            assert_int_equal(two->n_parts, layouts[i] == SINK_LINES ? 1 : 2);
            assert_non_null(memmem(two->value_out, two->value_out_len, "\"id\":\"m/0\"}}", 12));
            assert_non_null(memmem(two->value_out, two->value_out_len, "\"id\":\"m/1\"}}", 12));
        }
        assert_non_null(strstr(one->headers_out, "content-type=application/json\n"));
        rig_close(&rig);
    }
}

/* One bad message between good ones; its dead letter is the original, and keeps its place. */
static void assert_dead(const char *value, const char *code)
{
    struct rig rig;
    rig_open(&rig, 9);
    rig_number_texts(&rig);
    rig.fake.messages[4].value = value;
    rig.fake.script.finite = true;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);

    const struct fake_message *bad = &rig.fake.messages[4];
    assert_string_equal(bad->dead_code, code);
    assert_true(strlen(bad->dead_reason) > 10);
    assert_int_equal(bad->n_dead, 1);
    assert_int_equal(bad->n_outputs, 0);
    assert_int_equal(bad->n_parts, 1);
    if (value)
        assert_string_equal(bad->value_out, value);
    assert_string_equal(bad->headers_out, "trace=fake 4\ncontent-type=text/plain\n");
    assert_int_equal(rig.stats.dead_letters, 1);
    assert_int_equal(rig.n_dead_reported, 1);
    assert_int_equal(rig.n_published_reported, 9);
    assert_true(rig.n_embedded_reported >= 8);
    assert_int_equal(rig.stats.messages, 8);
    assert_int_equal(rig.fake.n_acked, 9);
    rig_close(&rig);
}

static void test_what_cannot_be_served_is_a_dead_letter(void **state)
{
    (void)state;
    assert_dead("this one is @long indeed", "text_too_long");
    assert_dead("{\"texts\":[\"fine\",\"@bytes\",\"fine too\"]}", "bad_utf8");
    assert_dead("{\"texts\":[\"fine\",\"@nan\"]}", "bad_embedding");
    assert_dead("{\"texts\":[]}", "no_text");
    assert_dead("{\"text\":\"\"}", "empty_text");
    assert_dead(NULL, "no_body");
}

static void test_too_many_deliveries_are_not_tried_again(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 3);
    rig_number_texts(&rig);
    rig.fake.messages[0].deliveries = 2; /* this is the third */
    rig.fake.messages[1].deliveries = 3;
    rig.fake.script.finite = true;
    rig.options.max_deliveries = 3;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);
    assert_int_equal(rig.fake.messages[0].n_outputs, 1);
    assert_string_equal(rig.fake.messages[1].dead_code, "too_many_deliveries");
    assert_int_equal(rig_embedded(), 2);
    assert_int_equal(rig.stats.redelivered, 2);
    rig_close(&rig);
}

static void test_too_large_becomes_a_dead_letter(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 3);
    rig.fake.messages[0].value = "first";
    rig.fake.messages[0].fate = FATE_TOO_LARGE;
    rig.fake.messages[1].value = "a second one with rather more bytes of payload than four";
    rig.fake.messages[1].fate = FATE_DEAD_TOO_LARGE;
    rig.fake.messages[2].value = "third";
    rig.fake.script.finite = true;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);

    const struct fake_message *first = &rig.fake.messages[0], *second = &rig.fake.messages[1];
    assert_string_equal(first->dead_code, "output_too_large");
    assert_string_equal(first->value_out, "first");
    assert_string_equal(second->dead_code, "output_too_large");
    assert_string_equal(second->value_out, "a s"); /* 56 bytes, a sixteenth */
    assert_non_null(strstr(second->dead_reason, "the first 3 of 56 payload bytes"));
    assert_int_equal(rig.fake.messages[2].n_outputs, 1);
    assert_int_equal(rig.stats.dead_letters, 2);
    assert_int_equal(rig.n_dead_reported, 2);
    rig_close(&rig);
}

static void test_not_ours_and_already_acked(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 90);
    rig_number_texts(&rig);
    for (size_t i = 0; i < 90; i++)
        rig.fake.messages[i].fate = i % 3 == 0   ? FATE_NOT_OURS
                                    : i % 3 == 1 ? FATE_ACKED
                                                 : FATE_PUBLISHED;
    rig.fake.script.finite = true;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);
    assert_int_equal(rig.fake.n_acked, 60);
    assert_int_equal(rig.fake.n_released, 30);
    assert_int_equal(rig.stats.not_ours, 30);
    assert_int_equal(rig.stats.messages, 60);
    rig_close(&rig);
}

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

static bool lingered(struct rig *rig)
{
    return pipeline_stats(rig->pipeline)->batches[TRIGGER_LINGER] == 1;
}

static void test_idle_threads_get_what_there_is_and_busy_ones_a_batch(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 5);
    rig_number_texts(&rig);
    rig.fake.script.burst_max = 1;
    rig.options.linger_ms = 1000; /* what comes before takes a few, on a machine at rest */
    rig_hold(true);
    rig.fake.n = 1; /* one by one, or the second batch may have what is to linger */
    rig_start(&rig);
    rig_until(&rig, one_held, "a thread at work");
    rig.fake.n = 2;
    rig_until(&rig, two_held, "two threads at work");
    assert_int_equal(pipeline_stats(rig.pipeline)->batches[TRIGGER_IDLE], 2);
    rig.fake.n = 5;
    rig_until(&rig, all_given, "all given");
    assert_int_equal(pipeline_stats(rig.pipeline)->batches[TRIGGER_LINGER], 0);
    rig_until(&rig, lingered, "a batch dispatched by linger");
    assert_int_equal(pipeline_stats(rig.pipeline)->inflight_texts, 2); /* both threads are held */
    rig_hold(false);
    pipeline_drain(rig.pipeline);
    rig_finish(&rig, PIPELINE_DRAINED);
    assert_int_equal(rig.stats.batches[TRIGGER_FULL], 0);
    assert_int_equal(rig.fake.n_acked, 5);
    rig_close(&rig);
}

/* Of messages of one text none ever waits: what is asked for has its place. */
static bool credit_gone(struct rig *rig)
{
    assert_int_equal(pipeline_stats(rig->pipeline)->waiting_messages, 0);
    return rig->fake.n_given > 0 && rig->fake.credit == 0;
}

static void test_no_free_batch_no_credit(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 500);
    rig_number_texts(&rig);
    rig.fake.script.sink_stalls = true;
    rig.fake.script.finite = true;
    rig_start(&rig);
    rig_until(&rig, credit_gone, "no more credit");
    rig_turn(&rig, 50);
    assert_int_equal(rig.fake.credit, 0);
    assert_true(rig.fake.n_unfinished <= 3 * 8);
    assert_int_equal(rig.fake.n_acked, 0);
    rig.fake.script.sink_stalls = false;
    rig_finish(&rig, PIPELINE_DRAINED);
    assert_int_equal(rig.fake.n_acked, 500);
    rig_close(&rig);
}

static void fill_with(struct rig *rig, char texts[][512], size_t len)
{
    for (size_t i = 0; i < rig->fake.n; i++) {
        memset(texts[i], 'a' + (int)(i % 26), len);
        sprintf(texts[i], "%zu", i);
        texts[i][strlen(texts[i])] = ' ';
        texts[i][len] = '\0';
        rig->fake.messages[i].value = texts[i];
    }
}

/* However large batches may be: what is read ahead keeps the threads busy, and other workers of the
 * group can have the rest. */
static void test_no_more_is_read_ahead_than_the_threads_need(void **state)
{
    static char texts[400][512];
    static const struct {
        size_t len, least, most;
    } cases[] = {{500, 6, 20}, {50, 12, 130}}; /* tokens: 137 and 24 */
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct rig rig;
        rig_open(&rig, 400);
        fill_with(&rig, texts, cases[i].len);
        rig.options.n_batches = 4;
        rig.options.batch_texts = 128;
        rig.options.batch_bytes = 128 * 1024;
        rig.fake.script.finite = true;
        rig_hold(true);
        rig_start(&rig);
        rig_until(&rig, two_held, "two threads at work");
        rig_until(&rig, credit_gone, "no more credit");
        rig_turn(&rig, 30);
        assert_between(rig.fake.n_given, cases[i].least, cases[i].most);
        rig_hold(false);
        rig_finish(&rig, PIPELINE_DRAINED);
        assert_int_equal(rig.fake.n_acked, 400);
        rig_close(&rig);
    }
}

static bool all_embedded(struct rig *rig)
{
    return pipeline_stats(rig->pipeline)->embedded_texts == 6;
}

/* A message of many texts is published as a whole; how far it is shows before. */
static void test_texts_count_when_embedded(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 1);
    rig.fake.messages[0].value =
        "{\"texts\":[\"same\",\"other\",\"same\",\"same\",\"other\",\"last\"]}";
    rig.fake.script.finite = true;
    rig.fake.script.sink_stalls = true;
    rig_start(&rig);
    rig_until(&rig, all_embedded, "all embedded");
    assert_int_equal(pipeline_stats(rig.pipeline)->texts, 0);
    assert_int_equal(pipeline_stats(rig.pipeline)->inflight_texts, 6);
    assert_true(pipeline_stats(rig.pipeline)->embedded_tokens > 6);
    rig.fake.script.sink_stalls = false;
    rig_finish(&rig, PIPELINE_DRAINED);
    assert_int_equal(rig.stats.texts, 6);
    assert_int_equal(rig.stats.embedded_texts, 6);
    assert_int_equal(rig.stats.embedded_tokens, rig.stats.tokens);
    rig_close(&rig);
}

/* Two messages are stuck at the pool; the batch in hand takes so many more of that value. */
static void check_room_in_hand(const char *value, size_t batch_bytes, size_t room)
{
    struct rig rig;
    rig_open(&rig, 60);
    rig_number_texts(&rig);
    for (size_t i = 2; value && i < 60; i++)
        rig.fake.messages[i].value = value;
    rig.fake.script.burst_max = 1;
    rig.fake.script.finite = true;
    rig.options.linger_ms = 3600 * 1000;
    rig.options.batch_bytes = batch_bytes;
    rig_hold(true);
    rig_start(&rig);
    rig_until(&rig, two_held, "two threads at work");
    rig.fake.script.burst_max = 5;
    rig_until(&rig, credit_gone, "no more credit");
    /* While a batch is decoded, the next one in hand may fill behind it. */
    assert_in_range(rig.fake.n_unfinished, 2 + room, 2 + 2 * room);
    rig_hold(false);
    rig_finish(&rig, PIPELINE_DRAINED);
    assert_int_equal(rig.fake.n_acked, 60);
    rig_close(&rig);
}

static void test_credit_is_the_room_in_hand(void **state)
{
    (void)state;
    char long_text[701];
    memset(long_text, 'x', sizeof long_text);
    long_text[sizeof long_text - 1] = '\0';
    check_room_in_hand(NULL, 4096, 8);
    check_room_in_hand("{\"texts\":[]}", 4096, 8); /* no texts, and yet no end of them */
    check_room_in_hand(long_text, 2048, 3);        /* by bytes */
}

/* Once the first are through, all that were asked for unawares, none waits any more. */
static bool nothing_waits_after_eight(struct rig *rig)
{
    if (rig->fake.n_acked >= 8)
        assert_in_range(pipeline_stats(rig->pipeline)->waiting_messages, 0, 4); /* in decoding */
    return rig->fake.n_acked == rig->fake.n;
}

static void test_credit_learns_how_many_texts_a_message_has(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 100);
    for (size_t i = 0; i < 100; i++)
        rig.fake.messages[i].value =
            "{\"texts\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\"]}";
    rig_start(&rig);
    rig_until(&rig, nothing_waits_after_eight, "all acked");
    pipeline_drain(rig.pipeline);
    rig_finish(&rig, PIPELINE_DRAINED);
    assert_int_equal(rig.stats.texts, 800);
    rig_close(&rig);
}

/* 30 KB of text to a batch of 4 KB: by count alone all would be asked for at once. */
static void test_credit_is_by_bytes_too(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 60);
    static char texts[60][3001];
    for (size_t i = 0; i < 60; i++) {
        memset(texts[i], 'a' + (int)(i % 26), 3000);
        texts[i][0] = (char)('0' + i / 26);
        rig.fake.messages[i].value = texts[i];
    }
    rig.fake.script.sink_stalls = true;
    rig.fake.script.finite = true;
    rig_start(&rig);
    rig_until(&rig, credit_gone, "no more credit");
    assert_true(rig.fake.n_unfinished <= 6); /* three batches of at most two texts */
    rig.fake.script.sink_stalls = false;
    rig_finish(&rig, PIPELINE_DRAINED);
    assert_int_equal(rig.fake.n_acked, 60);
    assert_int_equal(rig.stats.truncated, 60);
    assert_int_equal(rig.stats.tokens, 60 * RIG_MAX_TOKENS);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_text_gets_its_own_vector),
        cmocka_unit_test(test_one_message_of_many_texts_spans_slices),
        cmocka_unit_test(test_equal_texts_are_embedded_once),
        cmocka_unit_test(test_prompts_and_titles_are_told_apart),
        cmocka_unit_test(test_headers_pass_and_ours_are_added),
        cmocka_unit_test(test_rows_are_texts),
        cmocka_unit_test(test_what_cannot_be_served_is_a_dead_letter),
        cmocka_unit_test(test_too_many_deliveries_are_not_tried_again),
        cmocka_unit_test(test_too_large_becomes_a_dead_letter),
        cmocka_unit_test(test_not_ours_and_already_acked),
        cmocka_unit_test(test_idle_threads_get_what_there_is_and_busy_ones_a_batch),
        cmocka_unit_test(test_no_free_batch_no_credit),
        cmocka_unit_test(test_no_more_is_read_ahead_than_the_threads_need),
        cmocka_unit_test(test_texts_count_when_embedded),
        cmocka_unit_test(test_credit_is_the_room_in_hand),
        cmocka_unit_test(test_credit_is_by_bytes_too),
        cmocka_unit_test(test_credit_learns_how_many_texts_a_message_has),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
