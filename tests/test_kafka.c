/*
 * test_kafka.c: source and sink at least once, on librdkafka's mock cluster.
 *
 * The first member of a group waits three seconds in the mock, so few groups are made and each test
 * does much with one.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kafka_rig.h"

enum { WAIT_MS = 20000, PRODUCE = 0, FETCH = 1 };

static const char *const no_options[] = {NULL};
static struct kafka_rig rig;
static struct kafka_post post;

static void open_topics(void)
{
    kafka_rig_open(&rig, 1);
    rd_kafka_mock_topic_create(rig.cluster, "in", 1, 1);
    rd_kafka_mock_topic_create(rig.cluster, "out", 1, 1);
    rd_kafka_mock_topic_create(rig.cluster, "dlq", 1, 1);
}

static void open_post(const char *const *options)
{
    char err[512] = "";
    if (kafka_post_open(&post, &rig, options, err, sizeof err))
        fail_msg("%s", err);
}

static void request(size_t n)
{
    post.source->ops->request(post.source, n, 1 << 20);
}

static bool is_up(void *ctx)
{
    (void)ctx;
    return post.source_state == LINK_UP && post.sink_state == LINK_UP && post.n_ups >= 2;
}

static bool is_lag_zero(void *ctx)
{
    (void)ctx;
    return post.lag == 0;
}

/* Bytes through and through; acks in any order; what is committed at the end. */
static void bytes_and_offsets(void **state)
{
    (void)state;
    struct kafka_found found[16];
    open_topics();
    kafka_rig_feed(&rig, "in", "key", "first");
    kafka_rig_feed(&rig, "in", NULL, "no key");
    kafka_rig_feed(&rig, "in", "gone", NULL);
    kafka_rig_feed(&rig, "in", "", "");
    kafka_rig_feed(&rig, "in", "bad", "poison");
    open_post(no_options);
    kafka_rig_run(&rig, 300);
    assert_int_equal(post.n_given, 0); /* no credit, no message */
    request(3);
    assert_true(kafka_post_has(&post, 3, WAIT_MS));
    kafka_rig_run(&rig, 200);
    assert_int_equal(post.n_given, 3);
    request(100);
    assert_true(kafka_post_has(&post, 5, WAIT_MS));
    assert_int_equal(post.n_rebalances, 1);

    struct message *m[5];
    for (int i = 0; i < 5; i++)
        m[i] = kafka_post_take(&post);
    assert_memory_equal(m[0]->position.ptr, "in/0/0", 7);
    assert_int_equal(m[0]->timestamp_ms, INT64_C(1700000000123));
    assert_int_equal(m[0]->n_headers, 1);
    assert_null(m[1]->key.ptr);
    assert_null(m[2]->value.ptr);
    assert_non_null(m[3]->value.ptr);
    assert_non_null(m[3]->key.ptr);
    assert_int_equal(m[3]->value.len + m[3]->key.len, 0);

    kafka_post_publish(&post, m[4], NULL, 0, "bad_utf8");
    kafka_post_publish(&post, m[2], NULL, 0, NULL);
    kafka_post_publish(&post, m[1], "out1", 4, NULL);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    kafka_rig_run(&rig, 1300);                                         /* the interval of commits */
    assert_int_equal(kafka_rig_committed(&rig, "embedmill", "in"), 0); /* it is under way */
    kafka_post_publish(&post, m[0], "out0", 4, NULL);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    /* m[3] is left: the source releases it. */
    kafka_post_close(&post, 5000);
    assert_int_equal(kafka_rig_committed(&rig, "embedmill", "in"), 3);
    assert_int_equal(post.n_waits + post.n_failed, 0);
    assert_int_equal(post.n_published, 4);

    assert_int_equal(kafka_rig_read(&rig, "out", found, 3, 16), 3);
    assert_true(found[0].is_tombstone);
    assert_string_equal(found[0].key, "gone");
    assert_string_equal(found[1].value, "out1");
    assert_false(found[1].has_key);
    assert_string_equal(found[2].key, "key");
    assert_string_equal(found[2].headers, "a=b;");
    assert_int_equal(found[2].timestamp, INT64_C(1700000000123));
    assert_int_equal(kafka_rig_read(&rig, "dlq", found, 1, 16), 1);
    assert_string_equal(found[0].value, "poison");
    assert_string_equal(found[0].key, "bad");
    assert_string_equal(found[0].headers,
                        "a=b;_code=bad_utf8;_error=a sentence;_topic=in;_partition=0;_offset=4;"
                        "_timestamp=1700000000123;_deliveries=1;");
    kafka_rig_close(&rig);
}

/* Refusals of the broker, one after another; the worker goes on after each. */
static void faults_of_the_output(void **state)
{
    (void)state;
    struct kafka_found found[16];
    const char *const options[] = {"kafka.producer.message.max.bytes", "2000", NULL};
    char *large = calloc(1, 3000);
    open_topics();
    for (int i = 0; i < 5; i++)
        kafka_rig_feed(&rig, "in", "key", "text");
    open_post(options);
    request(100);
    assert_true(kafka_post_has(&post, 5, WAIT_MS));

    /* Larger than our own limit, and than the broker's. */
    kafka_post_publish(&post, kafka_post_take(&post), large, 3000, NULL);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    assert_int_equal(post.n_too_large, 1);
    rd_kafka_mock_push_request_errors(rig.cluster, PRODUCE, 2, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
                                      RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    kafka_post_publish(&post, kafka_post_take(&post), "one", 3, NULL);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    assert_int_equal(post.n_too_large, 2);

    /* In company only: neither of the two is too large by itself. */
    rd_kafka_mock_push_request_errors(rig.cluster, PRODUCE, 1,
                                      RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    kafka_post_publish(&post, kafka_post_take(&post), "two", 3, NULL);
    kafka_post_publish(&post, kafka_post_take(&post), "three", 5, NULL);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    assert_int_equal(post.n_too_large, 2);
    assert_int_equal(post.n_waits, 0);

    /* Authorization lost and given back. */
    rd_kafka_mock_push_request_errors(rig.cluster, PRODUCE, 2,
                                      RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
                                      RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    kafka_post_publish(&post, kafka_post_take(&post), "four", 4, NULL);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    assert_int_equal(post.n_waits, 1);
    assert_non_null(strstr(post.why, "allow this user to write"));
    assert_true(kafka_rig_wait(&rig, WAIT_MS, is_up, NULL));

    assert_true(kafka_rig_wait(&rig, WAIT_MS, is_lag_zero, NULL));
    kafka_post_close(&post, 5000);
    assert_int_equal(post.n_failed, 0);
    assert_int_equal(kafka_rig_committed(&rig, "embedmill", "in"), 5);
    assert_int_equal(kafka_rig_read(&rig, "out", found, 3, 16), 3);
    assert_string_equal(found[0].value, "two");
    assert_string_equal(found[1].value, "three");
    assert_string_equal(found[2].value, "four");
    assert_int_equal(kafka_rig_read(&rig, "dlq", found, 2, 16), 2);
    kafka_rig_close(&rig);
    free(large);
}

static bool has_two_rebalances(void *ctx)
{
    return ((struct kafka_post *)ctx)->n_rebalances >= 2;
}

static bool has_waited(void *ctx)
{
    return ((struct kafka_post *)ctx)->n_waits > 0;
}

/* A second worker comes while the first has messages: the first finishes some, the rest is late. */
static void revoke_and_loss(void **state)
{
    (void)state;
    struct kafka_found found[16];
    static struct kafka_post other;
    char err[512] = "";
    const char *const options[] = {"kafka.revoke_timeout", "1500ms", "kafka.session.timeout.ms",
                                   "6000", NULL};
    open_topics();
    for (int i = 0; i < 4; i++)
        kafka_rig_feed(&rig, "in", "key", "text");
    open_post(options);
    request(100);
    assert_true(kafka_post_has(&post, 4, WAIT_MS));
    kafka_post_publish(&post, kafka_post_take(&post), "a", 1, NULL);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    kafka_rig_run(&rig, 1300); /* the mock refuses commits while it rebalances; Kafka does not */
    assert_int_equal(kafka_rig_committed(&rig, "embedmill", "in"), 1);
    if (kafka_post_open(&other, &rig, options, err, sizeof err))
        fail_msg("%s", err);
    assert_true(kafka_rig_wait(&rig, WAIT_MS, has_two_rebalances, &post));
    for (int i = 0; i < 3; i++)
        kafka_post_publish(&post, kafka_post_take(&post), "late", 4, NULL);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    kafka_rig_run(&rig, 100);
    assert_int_equal(post.n_late, 3);
    other.source->ops->request(other.source, 100, 1 << 20);
    struct kafka_post *owner = kafka_post_has(&other, 1, 3000) ? &other : &post;
    assert_true(kafka_post_has(owner, 3, WAIT_MS));

    /* The cluster goes away and comes back. */
    size_t waits = other.n_waits;
    rd_kafka_mock_broker_set_down(rig.cluster, 1);
    other.n_waits = 0;
    assert_true(kafka_rig_wait(&rig, WAIT_MS, has_waited, &other));
    assert_non_null(strstr(other.why, "connecting again"));
    rd_kafka_mock_broker_set_up(rig.cluster, 1);
    other.n_waits += waits;
    while (owner->n_inbox)
        kafka_post_publish(owner, kafka_post_take(owner), "b", 1, NULL);
    assert_true(kafka_post_quiet(owner, WAIT_MS));
    assert_true(kafka_rig_wait(&rig, WAIT_MS, is_up, NULL));
    kafka_rig_run(&rig, 1300);
    kafka_post_close(&other, 5000);
    kafka_post_close(&post, 5000);
    assert_int_equal(post.n_failed + other.n_failed, 0);
    assert_int_equal(kafka_rig_committed(&rig, "embedmill", "in"), 4);
    assert_int_equal(kafka_rig_read(&rig, "out", found, 7, 16), 7); /* three of them twice */
    kafka_rig_close(&rig);
}

/* Nothing there at start; then the output topic is made. For the input topic the mock's groups are
 * too simple; see test_kafka_live.py. */
static void topic_made_later(void **state)
{
    (void)state;
    const char *const options[] = {"kafka.topic.metadata.refresh.interval.ms", "300",
                                   "kafka.topic.metadata.propagation.max.ms", "300", NULL};
    open_topics();
    kafka_rig_feed(&rig, "in", "key", "text");
    rd_kafka_mock_topic_set_error(rig.cluster, "out", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    open_post(options);
    request(10);
    assert_true(kafka_post_has(&post, 1, WAIT_MS));
    kafka_post_publish(&post, kafka_post_take(&post), "a", 1, NULL);
    assert_true(kafka_rig_wait(&rig, WAIT_MS, has_waited, &post));
    assert_non_null(strstr(post.why, "create the topic"));
    rd_kafka_mock_topic_set_error(rig.cluster, "out", RD_KAFKA_RESP_ERR_NO_ERROR);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    assert_int_equal(post.sink_state, LINK_UP);
    kafka_post_close(&post, 5000);

    rd_kafka_mock_topic_set_error(rig.cluster, "in", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    open_post(options);
    assert_true(kafka_rig_wait(&rig, WAIT_MS, has_waited, &post));
    assert_non_null(strstr(post.why, "create the topic"));
    kafka_post_close(&post, 5000);
    kafka_rig_close(&rig);
}

static void close_at_any_time(void **state)
{
    (void)state;
    open_topics();
    kafka_rig_feed(&rig, "in", "key", "text");
    for (int i = 0; i < 4; i++) {
        open_post(no_options);
        request(10);
        kafka_rig_run(&rig, i == 3 ? 0 : 30 * (uint64_t)i);
        kafka_post_close(&post, i == 2 ? 0 : 5000);
    }
    rd_kafka_mock_broker_set_down(rig.cluster, 1);
    open_post(no_options);
    kafka_rig_run(&rig, 100);
    kafka_post_close(&post, 300);
    kafka_rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_and_offsets), cmocka_unit_test(faults_of_the_output),
        cmocka_unit_test(revoke_and_loss),   cmocka_unit_test(topic_made_later),
        cmocka_unit_test(close_at_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
