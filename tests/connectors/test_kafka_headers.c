/*
 * test_kafka_headers.c: headers that leave here, read again, on librdkafka's mock cluster.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/kafka_rig.h"

enum { WAIT_MS = 30000 };

static struct kafka_rig rig;
static struct kafka_post post;

static int open_all(void **state)
{
    (void)state;
    static const char *const no_options[] = {NULL};
    char err[512] = "";
    kafka_rig_open(&rig, 1);
    rd_kafka_mock_topic_create(rig.cluster, "in", 1, 1);
    rd_kafka_mock_topic_create(rig.cluster, "out", 1, 1);
    rd_kafka_mock_topic_create(rig.cluster, "dlq", 1, 1);
    if (kafka_post_open(&post, &rig, no_options, err, sizeof err))
        fail_msg("%s", err);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    kafka_post_close(&post, 5000);
    kafka_rig_close(&rig);
    return 0;
}

/* Fields of Redis may be called anything; what leaves here as the name of a header is UTF-8. */
static void names_of_headers(void **state)
{
    (void)state;
    static const char binary[] = "\xff\xfe\0z", code[] = "_code\0x", cut[] = "\xe2\x82";
    static char name[300], many[600];
    struct header headers[] = {{{binary, 4}, {"\0\1\xff", 3}}, {{cut, 2}, {"v", 1}},
                               {{"\xc3\xbc", 2}, {"v", 1}},    {{"", 0}, {"v", 1}},
                               {{code, 7}, {"v", 1}},          {{name, sizeof name}, {"v", 1}}};
    struct kafka_found found[2];
    memset(name, 'n', sizeof name);
    name[299] = '\xed';
    kafka_rig_feed(&rig, "in", "key", "text");
    kafka_rig_feed(&rig, "in", "key", "text");
    post.source->ops->request(post.source, 2, 1 << 20);
    assert_true(kafka_post_has(&post, 2, WAIT_MS));
    for (int i = 0; i < 2; i++) {
        struct message *message = kafka_post_take(&post);
        message->headers = headers;
        message->n_headers = i == 0 ? 6 : 5;
        kafka_post_publish(&post, message, i == 0 ? "out" : NULL, 3, i == 0 ? NULL : "bad_json");
    }
    assert_true(kafka_post_quiet(&post, WAIT_MS));
#define R "\xef\xbf\xbd"
    static const char few[] = R R R "z=;" R "=v;\xc3\xbc=v;=v;_code" R "x=v;";
    snprintf(many, sizeof many, "%s%.299s" R "=v;", few, name);
    assert_int_equal(kafka_rig_read(&rig, "out", found, 1, 2), 1);
    assert_string_equal(found[0].headers, many);
    assert_int_equal(kafka_rig_read(&rig, "dlq", found, 1, 2), 1);
    assert_memory_equal(found[0].headers, few, sizeof few - 1);
#undef R
}

/* The key is that of the input and need not be the id; of equal headers readers take the last. */
static void tombstones_name_the_text(void **state)
{
    (void)state;
    struct header headers[] = {{{"a", 1}, {"1", 1}}, {{"id", 2}, {"other", 5}}};
    struct kafka_found found[3];
    size_t n = kafka_rig_read(&rig, "out", found, 1, 3); /* of the test before */
    kafka_rig_feed(&rig, "in", "user-1", "text");
    post.source->ops->request(post.source, 1, 1 << 20);
    assert_true(kafka_post_has(&post, 1, WAIT_MS));
    struct message *message = kafka_post_take(&post);
    message->headers = headers;
    message->n_headers = 2;
    message->value = (struct bytes){NULL, 0};
    kafka_post_publish(&post, message, NULL, 0, NULL);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    assert_int_equal(kafka_rig_read(&rig, "out", found, n + 1, 3), n + 1);
    assert_true(found[n].is_tombstone);
    assert_string_equal(found[n].key, "user-1");
    assert_string_equal(found[n].headers, "a=1;id=other;id=user-1;");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_headers),
        cmocka_unit_test(tombstones_name_the_text),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
