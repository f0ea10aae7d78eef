/*
 * test_pipeline_loop.c: which thread does what. The loop thread decodes and encodes nothing, and
 * what it learns of a batch only once that is decoded keeps order and sizes as they should be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "tests/support/pipeline_rig.h"
#include "worker/pipeline/batch.h"

enum { N_MESSAGES = 60, N_TEXTS = 400, TEXT_BYTES = 120, BATCH_TEXTS = 8, MOST_TEXTS = 5 };

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* A JSON message of n texts, escaped so that they are dear to read. */
static char *message_make(size_t number, size_t n)
{
    char *json = malloc(40 + n * (TEXT_BYTES * 2 + 40));
    assert_non_null(json);
    size_t len = (size_t)sprintf(json, "{\"texts\":[");
    for (size_t i = 0; i < n; i++) {
        len += (size_t)sprintf(json + len, "%s\"%zu %zu ", i ? "," : "", number, i);
        for (size_t j = 0; j < TEXT_BYTES; j++)
            len += (size_t)sprintf(json + len, j % 8 ? "%c" : "\\n%c", 'a' + (char)(j % 26));
        json[len++] = '"';
    }
    strcpy(json + len, "]}");
    return json;
}

/* Seconds of CPU time of the loop thread while all go through, and of all threads. The fake sink
 * copies what it gets there, which is dear under a sanitizer; decoding or encoding there as well
 * would be nearly all of the time. */
static void measure(enum output_format format, double *loop, double *all)
{
    struct rig rig;
    rig_open(&rig, N_MESSAGES);
    for (size_t i = 0; i < N_MESSAGES; i++)
        rig.fake.messages[i].value = message_make(i, N_TEXTS);
    rig.fake.script.finite = true;
    rig.fake.script.layout = SINK_LINES;
    rig.options.output_format = format;
    rig.options.collection = "texts";
    *loop = -seconds(CLOCK_THREAD_CPUTIME_ID);
    *all = -seconds(CLOCK_PROCESS_CPUTIME_ID);
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);
    *loop += seconds(CLOCK_THREAD_CPUTIME_ID);
    *all += seconds(CLOCK_PROCESS_CPUTIME_ID);
    assert_int_equal(rig.stats.texts, N_MESSAGES * N_TEXTS);
    for (size_t i = 0; i < N_MESSAGES; i++)
        free((char *)rig.fake.messages[i].value);
    rig_close(&rig);
}

static void test_the_loop_thread_reads_and_writes_no_payload(void **state)
{
    (void)state;
    static const enum output_format formats[] = {OUTPUT_JSON, OUTPUT_QDRANT};
    for (size_t i = 0; i < 2; i++) {
        double loop, all;
        measure(formats[i], &loop, &all);
        print_message("loop thread %.1f ms of %.1f ms\n", loop * 1e3, all * 1e3);
        assert_true(loop < all * 0.65);
    }
}

static size_t largest;

static void on_embedded(void *ctx, const struct batch *batch)
{
    (void)ctx;
    largest = batch->n_texts > largest ? batch->n_texts : largest;
}

/* Messages of more texts than expected: a batch is full once it is decoded, and no larger. What had
 * no room in it comes before what came later, which the fake sink checks. */
static void test_what_has_no_room_goes_first(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 20; seed++) {
        struct rig rig;
        rig_open(&rig, 300);
        rig.fake.script.seed = seed;
        rig.fake.script.finite = true;
        rig.fake.script.burst_max = 1 + seed * 2;
        rig.options.batch_texts = BATCH_TEXTS;
        rig.options.batch_bytes = 1 << 20;
        rig.options.n_threads = 1 + seed % 3;
        rig.options.on_embedded = on_embedded;
        rig.options.linger_ms = seed % 5;
        size_t n_texts = 0;
        for (size_t i = 0; i < 300; i++) {
            size_t n = i % 40 < 30 ? 1 : 1 + i % MOST_TEXTS;
            rig.fake.messages[i].value = message_make(i, n);
            n_texts += n;
        }
        largest = 0;
        rig_start(&rig);
        rig_finish(&rig, PIPELINE_DRAINED);
        assert_int_equal(rig.stats.texts, n_texts);
        assert_int_equal(rig.fake.n_acked, 300);
        assert_in_range(largest, 2, BATCH_TEXTS - 1 + MOST_TEXTS);
        for (size_t i = 0; i < 300; i++)
            free((char *)rig.fake.messages[i].value);
        rig_close(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_loop_thread_reads_and_writes_no_payload),
        cmocka_unit_test(test_what_has_no_room_goes_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
