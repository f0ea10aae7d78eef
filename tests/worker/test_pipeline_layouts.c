/*
 * test_pipeline_layouts.c: what a sink that stores texts one by one is given and what it is spared.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/pipeline_rig.h"

/* A sink that stores ids and vectors alone is given nothing else. */
static void test_vectors_alone(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 1);
    rig.fake.messages[0].value = "{\"id\":\"m\",\"texts\":[\"one\",\"other\"],\"more\":\"fields\"}";
    rig.fake.script.finite = true;
    rig.fake.script.layout = SINK_VECTORS;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);
    const struct fake_message *message = &rig.fake.messages[0];
    assert_int_equal(message->n_outputs, 1);
    assert_int_equal(message->n_parts, 2);
    assert_int_equal(message->value_out_len, 0);
    assert_int_equal(message->vector_out_len, 2 * RIG_DIM * sizeof(float));
    float vector[RIG_DIM];
    rig_vector("document", NULL, "other", vector);
    assert_memory_equal(message->vector_out + sizeof vector, vector, sizeof vector);
    rig_close(&rig);
}

/* Fields that would stand beside each of very many texts are not written a thousand times. */
static void test_fields_of_many_texts(void **state)
{
    (void)state;
    enum { N_TEXTS = 1000, FIELD = 70000 };
    static const enum sink_layout layouts[] = {SINK_PER_TEXT, SINK_LINES, SINK_VECTORS,
                                               SINK_PER_MESSAGE};
    static const enum output_format formats[] = {OUTPUT_MSGPACK, OUTPUT_PGVECTOR, OUTPUT_MSGPACK,
                                                 OUTPUT_MSGPACK};
    char *value = malloc(N_TEXTS * 8 + FIELD + 100);
    size_t len = (size_t)sprintf(value, "{\"texts\":[\"first\"");
    for (size_t i = 1; i < N_TEXTS; i++)
        len += (size_t)sprintf(value + len, ",\"%zu\"", i);
    sprintf(value + len, "],\"more\":\"%0*d\"}", FIELD, 7);
    for (size_t i = 0; i < 4; i++) {
        struct rig rig;
        rig_open(&rig, 1);
        rig.fake.messages[0].value = value;
        rig.fake.script.finite = true;
        rig.fake.script.layout = layouts[i];
        rig.options.output_format = formats[i];
        rig_start(&rig);
        rig_finish(&rig, PIPELINE_DRAINED);
        const struct fake_message *message = &rig.fake.messages[0];
        assert_int_equal(message->n_outputs, i < 2 ? 0 : 1);
        assert_int_equal(message->n_dead, i < 2 ? 1 : 0);
        if (i < 2)
            assert_string_equal(message->dead_code, "output_too_large");
        rig_close(&rig);
    }
    free(value);
}

/* And headers are not, where each text has a hash of its own. */
static void test_headers_of_many_texts(void **state)
{
    (void)state;
    enum { N_TEXTS = 1000, HEADER = 70000 };
    char *value = malloc(N_TEXTS * 8 + 100), *header = malloc(HEADER + 1);
    size_t len = (size_t)sprintf(value, "{\"texts\":[\"first\"");
    for (size_t i = 1; i < N_TEXTS; i++)
        len += (size_t)sprintf(value + len, ",\"%zu\"", i);
    sprintf(value + len, "]}");
    for (size_t i = 0; i < 2; i++) {
        struct rig rig;
        rig_open(&rig, 1);
        memset(header, 'h', HEADER);
        header[i == 0 ? HEADER : HEADER / 2] = '\0'; /* 70 MB in all, and 35 */
        rig.fake.messages[0].value = value;
        rig.fake.messages[0].header = header;
        rig.fake.script.finite = true;
        rig.fake.script.layout = SINK_VECTORS;
        rig_start(&rig);
        rig_finish(&rig, PIPELINE_DRAINED);
        const struct fake_message *message = &rig.fake.messages[0];
        assert_int_equal(message->n_dead, i == 0);
        assert_int_equal(message->n_outputs, i != 0);
        if (i == 0)
            assert_string_equal(message->dead_code, "output_too_large");
        rig_close(&rig);
    }
    free(header);
    free(value);
}

/* A sink is given the whole texts that its parts are, so that it can replace what it had of them.
 */
static void test_documents(void **state)
{
    (void)state;
    static const enum sink_layout layouts[] = {SINK_VECTORS, SINK_PER_MESSAGE};
    static const char *const seen[] = {"a [0]\nb [1]\n", "a\nb\n"};
    for (size_t i = 0; i < 2; i++) {
        struct rig rig;
        rig_open(&rig, 2);
        rig.fake.messages[0].value = "{\"id\":\"m\",\"texts\":[\"x\",\"y\"],\"ids\":[\"a\",\"b\"]}";
        rig.fake.messages[1].value = "{\"id\":\"m\",\"text\":\"z\",\"more\":1}";
        rig.fake.script.finite = true;
        rig.fake.script.layout = layouts[i];
        rig_start(&rig);
        rig_finish(&rig, PIPELINE_DRAINED);
        assert_string_equal(rig.fake.messages[0].documents_out, seen[i]);
        assert_string_equal(rig.fake.messages[1].documents_out, "m [0]\n");
        rig_close(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors_alone),
        cmocka_unit_test(test_fields_of_many_texts),
        cmocka_unit_test(test_headers_of_many_texts),
        cmocka_unit_test(test_documents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
