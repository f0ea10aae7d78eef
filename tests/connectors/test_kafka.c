/*
 * test_kafka.c: source and sink at least once, on librdkafka's mock cluster.
 *
 * The first member of a group waits three seconds in the mock, so one worker goes through most of
 * the tests here, which therefore run in their order.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/kafka_rig.h"

enum { WAIT_MS = 30000 };
/* Keys of requests: https://kafka.apache.org/protocol#protocol_api_keys */
enum { PRODUCE = 0, OFFSET_COMMIT = 8, HEARTBEAT = 12 };

static const char *const no_options[] = {NULL};
static struct kafka_rig rig;
static struct kafka_post post;

static void open_post(const char *const *options)
{
    char err[512] = "";
    if (kafka_post_open(&post, &rig, options, err, sizeof err))
        fail_msg("%s", err);
}

static int open_all(void **state)
{
    (void)state;
    const char *const options[] = {"kafka.auto.commit.interval.ms",
                                   "100",
                                   "kafka.topic.metadata.refresh.interval.ms",
                                   "300",
                                   "kafka.topic.metadata.propagation.max.ms",
                                   "300",
                                   "kafka.producer.message.max.bytes",
                                   "2000",
                                   "kafka.session.timeout.ms", /* so long a rejoin takes there */
                                   "3000",
                                   "kafka.heartbeat.interval.ms",
                                   "300",
                                   "kafka.revoke_timeout",
                                   "1s",
                                   NULL};
    kafka_rig_open(&rig, 1);
    rd_kafka_mock_topic_create(rig.cluster, "in", 1, 1);
    rd_kafka_mock_topic_create(rig.cluster, "out", 1, 1);
    rd_kafka_mock_topic_create(rig.cluster, "dlq", 1, 1);
    open_post(options);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    kafka_rig_close(&rig);
    return 0;
}

static void feed(size_t n)
{
    while (n--)
        kafka_rig_feed(&rig, "in", "key", "text");
}

/* Ask for so many and have them. */
static void receive(size_t n)
{
    post.source->ops->request(post.source, n, 1 << 20);
    assert_true(kafka_post_has(&post, n, WAIT_MS));
}

static bool is_committed(void *ctx)
{
    return kafka_rig_committed(&rig, "embedmill", "in") == *(int64_t *)ctx;
}

static void expect_committed(int64_t offset)
{
    if (!kafka_rig_wait(&rig, WAIT_MS, is_committed, &offset))
        fail_msg("committed is %lld, expected %lld",
                 (long long)kafka_rig_committed(&rig, "embedmill", "in"), (long long)offset);
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

static bool is_group_lag_zero(void *ctx)
{
    (void)ctx;
    return post.group_lag == 0;
}

static bool has_waited(void *ctx)
{
    (void)ctx;
    return post.n_waits > 0;
}

/* Wait for a new sentence. */
static void expect_wait(const char *part)
{
    assert_true(kafka_rig_wait(&rig, WAIT_MS, has_waited, NULL));
    assert_non_null(strstr(post.whys, part));
}

static void forget_waits(void)
{
    post.n_waits = 0;
    post.whys[0] = '\0';
}

/* Bytes through and through; acks in any order. */
static void bytes_and_offsets(void **state)
{
    (void)state;
    struct kafka_found found[16];
    kafka_rig_feed(&rig, "in", "key", "first");
    kafka_rig_feed(&rig, "in", NULL, "no key");
    kafka_rig_feed(&rig, "in", "gone", NULL);
    kafka_rig_feed(&rig, "in", "", "");
    kafka_rig_feed(&rig, "in", "bad", "poison");
    kafka_rig_run(&rig, 300);
    assert_int_equal(post.n_given, 0); /* no credit, no message */
    receive(3);
    kafka_rig_run(&rig, 200);
    assert_int_equal(post.n_given, 3);
    post.source->ops->request(post.source, 100, 1 << 20);
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
    kafka_rig_run(&rig, 300);
    expect_committed(0); /* which is under way */
    kafka_post_publish(&post, m[0], "out0", 4, NULL);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    expect_committed(3);
    kafka_post_publish(&post, m[3], "", 0, NULL);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    expect_committed(5);
    assert_int_equal(post.n_failed, 0);
    assert_int_equal(post.n_published, 5);

    assert_int_equal(kafka_rig_read(&rig, "out", found, 4, 16), 4);
    assert_true(found[0].is_tombstone);
    assert_string_equal(found[0].key, "gone");
    assert_string_equal(found[1].value, "out1");
    assert_false(found[1].has_key);
    assert_string_equal(found[2].key, "key");
    assert_string_equal(found[2].headers, "a=b;");
    assert_int_equal(found[2].timestamp, INT64_C(1700000000123));
    assert_false(found[3].is_tombstone);
    assert_int_equal(kafka_rig_read(&rig, "dlq", found, 1, 16), 1);
    assert_string_equal(found[0].value, "poison");
    assert_string_equal(found[0].key, "bad");
    assert_string_equal(found[0].headers,
                        "a=b;_code=bad_utf8;_error=a sentence;_topic=in;_partition=0;_offset=4;"
                        "_timestamp=1700000000123;_deliveries=1;");
}

/* Refusals of the broker, one after another; the worker goes on after each. */
static void faults_of_the_output(void **state)
{
    (void)state;
    struct kafka_found found[16];
    char *large = calloc(1, 3000);
    feed(6);
    receive(6);

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

    /* Authorization lost and given back. */
    forget_waits();
    rd_kafka_mock_push_request_errors(rig.cluster, PRODUCE, 2,
                                      RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
                                      RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    kafka_post_publish(&post, kafka_post_take(&post), "four", 4, NULL);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    expect_wait("allow this user to write");
    assert_true(kafka_rig_wait(&rig, WAIT_MS, is_up, NULL));

    /* The topic is gone and made again. */
    forget_waits();
    rd_kafka_mock_topic_set_error(rig.cluster, "out", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    kafka_rig_run(&rig, 700);
    kafka_post_publish(&post, kafka_post_take(&post), "five", 4, NULL);
    expect_wait("create the topic");
    rd_kafka_mock_topic_set_error(rig.cluster, "out", RD_KAFKA_RESP_ERR_NO_ERROR);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    assert_int_equal(post.sink_state, LINK_UP);

    assert_int_equal(post.n_failed, 0);
    expect_committed(11);
    assert_true(kafka_rig_wait(&rig, WAIT_MS, is_lag_zero, NULL));
    assert_true(kafka_rig_wait(&rig, WAIT_MS, is_group_lag_zero, NULL));
    assert_int_equal(kafka_rig_read(&rig, "out", found, 8, 16), 8);
    assert_string_equal(found[4].value, "two");
    assert_string_equal(found[5].value, "three");
    assert_string_equal(found[6].value, "four");
    assert_string_equal(found[7].value, "five");
    assert_int_equal(kafka_rig_read(&rig, "dlq", found, 3, 16), 3);
    free(large);
}

/* What docs/reliability.md says of order: a refused record is passed by those that were on their
 * way, and by no others. */
static void order_after_a_refusal(void **state)
{
    (void)state;
    struct kafka_found found[16];
    feed(3);
    receive(3);
    forget_waits();
    rd_kafka_mock_broker_push_request_error_rtts(rig.cluster, 1, PRODUCE, 1,
                                                 RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, 500);
    kafka_post_publish(&post, kafka_post_take(&post), "refused", 7, NULL);
    kafka_rig_run(&rig, 100);
    kafka_post_publish(&post, kafka_post_take(&post), "on its way", 10, NULL);
    expect_wait("allow this user to write");
    kafka_post_publish(&post, kafka_post_take(&post), "later", 5, NULL);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    expect_committed(14);
    assert_int_equal(kafka_rig_read(&rig, "out", found, 11, 16), 11);
    assert_string_equal(found[8].value, "on its way");
    assert_string_equal(found[9].value, "refused");
    assert_string_equal(found[10].value, "later");
}

static bool has_rebalanced(void *ctx)
{
    return post.n_rebalances > *(size_t *)ctx;
}

/* A rebalance waits for what is under way, but not without end; what comes later is too late. */
static void revoke(void **state)
{
    (void)state;
    size_t before = post.n_rebalances;
    feed(4);
    receive(4);
    rd_kafka_mock_push_request_errors(rig.cluster, HEARTBEAT, 1,
                                      RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS);
    kafka_rig_run(&rig, 700);
    kafka_post_publish(&post, kafka_post_take(&post), "a", 1, NULL);
    assert_true(kafka_rig_wait(&rig, WAIT_MS, has_rebalanced, &before));
    for (int i = 0; i < 3; i++)
        kafka_post_publish(&post, kafka_post_take(&post), "late", 4, NULL);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    assert_int_equal(post.n_late, 3);
    receive(3); /* again */
    while (post.n_inbox)
        kafka_post_publish(&post, kafka_post_take(&post), "b", 1, NULL);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    expect_committed(18);

    /* Finished in time nothing is done twice. */
    before = post.n_rebalances;
    feed(2);
    receive(2);
    rd_kafka_mock_push_request_errors(rig.cluster, HEARTBEAT, 1,
                                      RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS);
    kafka_rig_run(&rig, 400);
    while (post.n_inbox)
        kafka_post_publish(&post, kafka_post_take(&post), "c", 1, NULL);
    assert_true(kafka_rig_wait(&rig, WAIT_MS, has_rebalanced, &before));
    post.source->ops->request(post.source, 10, 1 << 20);
    kafka_rig_run(&rig, 500);
    assert_int_equal(post.n_inbox, 0);
    assert_int_equal(post.n_late, 3);
    assert_int_equal(post.n_failed, 0);
    expect_committed(20);
}

static void cluster_lost_and_back(void **state)
{
    (void)state;
    forget_waits();
    feed(2);
    rd_kafka_mock_broker_set_down(rig.cluster, 1);
    expect_wait("reconnecting");
    rd_kafka_mock_broker_set_up(rig.cluster, 1);
    receive(2);
    kafka_post_publish(&post, kafka_post_take(&post), "d", 1, NULL);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    assert_true(kafka_rig_wait(&rig, WAIT_MS, is_up, NULL));
    assert_int_equal(post.n_failed, 0);
    /* The second is left and comes again some day; the first is committed by the end itself. */
    kafka_post_close(&post, 5000);
    assert_int_equal(post.n_failed, 0);
    expect_committed(21);
}

/* The end of a worker may not be called clean when what it did last will come again. */
static void last_commit_fails(void **state)
{
    (void)state;
    const rd_kafka_resp_err_t denied = RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
    open_post(no_options);
    receive(1);
    rd_kafka_mock_push_request_errors(rig.cluster, OFFSET_COMMIT, 8, denied, denied, denied, denied,
                                      denied, denied, denied, denied);
    kafka_post_publish(&post, kafka_post_take(&post), "e", 1, NULL);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    kafka_post_close(&post, 5000);
    rd_kafka_mock_clear_request_errors(rig.cluster, OFFSET_COMMIT);
    assert_int_equal(post.n_failed, 1);
    assert_non_null(strstr(post.why, "the last offsets of 1 partition are not committed"));
    assert_non_null(strstr(post.why, rd_kafka_err2str(denied)));
    expect_committed(21);
}

static void close_at_any_time(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        open_post(no_options);
        post.source->ops->request(post.source, 10, 1 << 20);
        kafka_rig_run(&rig, i == 3 ? 0 : 30 * (uint64_t)i);
        kafka_post_close(&post, i == 2 ? 0 : 5000);
    }
    rd_kafka_mock_topic_set_error(rig.cluster, "in", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    open_post(no_options);
    expect_wait("create the topic");
    kafka_post_close(&post, 5000);
    rd_kafka_mock_broker_set_down(rig.cluster, 1);
    open_post(no_options);
    kafka_rig_run(&rig, 100);
    kafka_post_close(&post, 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_and_offsets),     cmocka_unit_test(faults_of_the_output),
        cmocka_unit_test(order_after_a_refusal), cmocka_unit_test(revoke),
        cmocka_unit_test(cluster_lost_and_back), cmocka_unit_test(last_commit_fails),
        cmocka_unit_test(close_at_any_time),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
