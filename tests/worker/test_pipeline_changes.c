/*
 * test_pipeline_changes.c: deletes, and changes that leave a text as it was, from source to ack.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/pipeline_rig.h"

static void test_a_tombstone_is_passed_on(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 1);
    rig.fake.messages[0].key = "doc-1";
    rig.fake.script.finite = true;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);
    const struct fake_message *message = &rig.fake.messages[0];
    assert_int_equal(message->n_outputs, 1);
    assert_int_equal(message->value_out_len, 0);
    assert_string_equal(message->id_out, "doc-1");
    assert_string_equal(message->documents_out, "doc-1 deleted [0]\n");
    assert_string_equal(message->dead_code, "");
    rig_close(&rig);
}

/* Sinks say by headers `id` and `deleted` what is gone: the message's would say another text. */
static void test_headers_of_a_delete(void **state)
{
    static const char *const names[] = {"id", "deleted", "mine"};
    (void)state;
    struct rig rig;
    rig_open(&rig, 3);
    for (size_t i = 0; i < 3; i++) {
        rig.fake.messages[i].value = "{\"id\":7,\"delete\":true}";
        rig.fake.messages[i].header_name = names[i];
        rig.fake.messages[i].header = "9";
    }
    rig.fake.script.finite = true;
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);
    assert_string_equal(rig.fake.messages[0].id_out, "7");
    assert_string_equal(rig.fake.messages[0].headers_out, "trace=fake 0\n");
    assert_string_equal(rig.fake.messages[1].headers_out, "trace=fake 1\n");
    assert_string_equal(rig.fake.messages[2].headers_out, "trace=fake 2\nmine=9\n");
    rig_close(&rig);
}

/* Changes of rows: one is embedded, one deleted, one needs nothing. All are acked. */
static void test_changes(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, 4);
    rig.fake.messages[0].value = "{\"op\":\"c\",\"after\":{\"id\":1,\"text\":\"one\"},\"v\":5}";
    rig.fake.messages[1].value = "{\"op\":\"d\",\"before\":{\"id\":2},\"v\":6}";
    rig.fake.messages[2].value = "{\"op\":\"u\",\"before\":{\"id\":3,\"text\":\"same\"},"
                                 "\"after\":{\"id\":3,\"text\":\"same\"},\"v\":7}";
    rig.fake.messages[3].value = "{\"op\":\"t\",\"before\":null,\"v\":8}";
    rig.fake.script.finite = true;
    rig.options.decode.skip_unchanged = true;
    rig.options.decode.version_by = VERSION_FIELD;
    rig.options.decode.version_field = "v";
    rig_start(&rig);
    rig_finish(&rig, PIPELINE_DRAINED);
    assert_string_equal(rig.fake.messages[0].documents_out, "1 version=5 [0]\n");
    assert_string_equal(rig.fake.messages[1].documents_out, "2 deleted version=6 [0]\n");
    assert_int_equal(rig.fake.messages[1].value_out_len, 0);
    assert_int_equal(rig.fake.messages[2].n_parts, 0);
    assert_string_equal(rig.fake.messages[3].dead_code, "table_truncated");
    assert_int_equal(rig_embedded(), 1);
    assert_int_equal(rig.stats.messages, 3);
    assert_int_equal(rig.stats.deleted, 1);
    assert_int_equal(rig.stats.unchanged, 1);
    assert_int_equal(rig.stats.dead_letters, 1);
    assert_int_equal(rig.fake.n_acked, 4);
    rig_close(&rig);
}

static size_t n_notices;

static void on_notice(void *ctx, enum side side, enum notice level, const char *code,
                      const char *text)
{
    (void)ctx;
    assert_int_equal(side, SIDE_INPUT);
    assert_int_equal(level, NOTICE_WARN);
    assert_string_equal(code, "no_version");
    assert_non_null(strstr(text, "no position"));
    n_notices++;
}

/* Messages here have a timestamp and no position. */
static void test_no_version_is_said_once(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct rig rig;
        rig_open(&rig, 3);
        rig_number_texts(&rig);
        rig.fake.script.finite = true;
        rig.options.observer.on_notice = on_notice;
        rig.options.decode.version_by = i == 0 ? VERSION_TIMESTAMP : VERSION_POSITION;
        n_notices = 0;
        rig_start(&rig);
        rig_finish(&rig, PIPELINE_DRAINED);
        assert_int_equal(n_notices, i);
        assert_int_equal(rig.stats.messages, 3);
        rig_close(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_tombstone_is_passed_on),
        cmocka_unit_test(test_headers_of_a_delete),
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_no_version_is_said_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
