/*
 * test_kafka_transactions.c: exactly once on librdkafka's mock cluster, with errors of the protocol
 * in every step. The mock keeps what was aborted in its log and forgets offsets of transactions, so
 * what counts here is what the pipeline is told; the real broker shows that readers see each once.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/kafka_rig.h"

enum { WAIT_MS = 20000 };
/* Keys of requests: https://kafka.apache.org/protocol#protocol_api_keys */
enum { PRODUCE = 0, ADD_PARTITIONS = 24, END_TXN = 26, TXN_OFFSETS = 28 };

static struct kafka_rig rig;
static struct kafka_post post;

static void open_all(int n_brokers, size_t n_messages, const char *deadline)
{
    const char *const options[] = {"delivery", "exactly-once", "kafka.transaction_deadline",
                                   deadline, NULL};
    char err[512] = "", text[16];
    kafka_rig_open(&rig, n_brokers);
    rd_kafka_mock_topic_create(rig.cluster, "in", 1, 1);
    rd_kafka_mock_topic_create(rig.cluster, "out", 1, 1);
    rd_kafka_mock_topic_create(rig.cluster, "dlq", 1, 1);
    for (size_t i = 0; i < n_messages; i++) {
        snprintf(text, sizeof text, "%zu", i);
        kafka_rig_feed(&rig, "in", text, text);
    }
    if (kafka_post_open(&post, &rig, options, err, sizeof err))
        fail_msg("%s", err);
    post.source->ops->request(post.source, n_messages, 1 << 20);
    assert_true(kafka_post_has(&post, n_messages, WAIT_MS));
}

static void publish(size_t n)
{
    while (n--)
        kafka_post_publish(&post, kafka_post_take(&post), "value", 5, NULL);
}

static void publish_all_acked(size_t n)
{
    size_t before = post.n_acked_too;
    publish(n);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    assert_int_equal(post.n_acked_too - before, n);
}

/* The order of publishing is not that of the offsets: only a prefix is ever committed. */
static void a_prefix_is_committed(void)
{
    struct kafka_found found[16];
    struct message *m[6];
    for (int i = 0; i < 6; i++)
        m[i] = kafka_post_take(&post);
    kafka_post_publish(&post, m[2], "two", 3, NULL);
    kafka_post_publish(&post, m[1], "one", 3, NULL);
    kafka_rig_run(&rig, 300);
    assert_int_equal(post.n_acked_too, 0);
    kafka_post_publish(&post, m[0], NULL, 0, "bad_utf8");
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    assert_int_equal(post.n_acked_too, 3);
    kafka_post_publish(&post, m[5], "five", 4, NULL);
    kafka_rig_run(&rig, 300);
    assert_int_equal(post.n_acked_too, 3);
    kafka_post_publish(&post, m[4], "four", 4, NULL);
    kafka_post_publish(&post, m[3], "three", 5, NULL);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    assert_int_equal(post.n_acked_too, 6);
    assert_int_equal(post.n_published + post.n_failed + post.n_waits, 0);
    assert_int_equal(kafka_rig_read(&rig, "dlq", found, 1, 16), 1);
    assert_int_equal(kafka_rig_read(&rig, "out", found, 5, 16), 5);
}

static void feed(size_t n)
{
    while (n--)
        kafka_rig_feed(&rig, "in", "key", "text");
    post.source->ops->request(post.source, 100, 1 << 20);
}

static void errors_in_every_step(void **state)
{
    (void)state;
    open_all(1, 6, "60s");
    a_prefix_is_committed();
    feed(14);
    assert_true(kafka_post_has(&post, 14, WAIT_MS));
    /* Abortable: told to nobody, tried again. */
    rd_kafka_mock_push_request_errors(rig.cluster, TXN_OFFSETS, 1,
                                      RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION);
    publish_all_acked(2);
    assert_int_equal(post.n_waits, 0);
    /* Retried inside the library. */
    rd_kafka_mock_push_request_errors(rig.cluster, END_TXN, 2,
                                      RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
                                      RD_KAFKA_RESP_ERR_NOT_COORDINATOR);
    publish_all_acked(2);
    assert_int_equal(post.n_waits, 0);
    /* Fatal before the commit: a new producer does it again. */
    rd_kafka_mock_push_request_errors(rig.cluster, ADD_PARTITIONS, 1,
                                      RD_KAFKA_RESP_ERR_PRODUCER_FENCED);
    publish_all_acked(2);
    assert_true(post.n_waits > 0);
    assert_int_equal(post.sink_state, LINK_UP);
    /* Fatal at the commit: it may have been made, but the group has no such offset. */
    rd_kafka_mock_push_request_errors(rig.cluster, END_TXN, 1,
                                      RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH);
    publish_all_acked(2);
    /* Too large in company, and alone. */
    rd_kafka_mock_push_request_errors(rig.cluster, PRODUCE, 1,
                                      RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    publish_all_acked(2);
    assert_int_equal(post.n_too_large, 0);
    rd_kafka_mock_push_request_errors(rig.cluster, PRODUCE, 2, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
                                      RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    publish(1);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    assert_int_equal(post.n_too_large, 1);
    /* Authorization lost and given back. */
    rd_kafka_mock_push_request_errors(rig.cluster, PRODUCE, 2,
                                      RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
                                      RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    publish_all_acked(3);
    assert_non_null(strstr(post.whys, "allow this user to write"));
    assert_int_equal(post.sink_state, LINK_UP);
    assert_int_equal(post.n_failed, 0);
    kafka_post_close(&post, 5000);
    kafka_rig_close(&rig);
}

static bool has_failed(void *ctx)
{
    return ((struct kafka_post *)ctx)->n_failed > 0;
}

/* The known hang: offsets are to go to a coordinator that is gone. */
static void a_hang_ends_the_worker(void **state)
{
    (void)state;
    open_all(2, 1, "2s");
    kafka_rig_run(&rig, 1000);
    rd_kafka_mock_coordinator_set(rig.cluster, "group", "embedmill", 2);
    rd_kafka_mock_broker_set_down(rig.cluster, 2);
    publish(1);
    assert_true(kafka_rig_wait(&rig, WAIT_MS, has_failed, &post));
    assert_non_null(strstr(post.why, "sending offsets to the transaction has not returned"));
    kafka_post_close(&post, 300);
    kafka_rig_close(&rig);
}

static void other_sources_are_refused(void **state)
{
    (void)state;
    const struct option *tables[] = {connector_find("kafka")->options, shared_options, NULL};
    static const struct sink_events events;
    struct settings *settings;
    struct sink *sink = NULL;
    uv_loop_t loop;
    char err[300] = "";
    uv_loop_init(&loop);
    assert_int_equal(settings_open(&settings, tables), 0);
    assert_int_equal(settings_set(settings, "delivery", "exactly-once", err, sizeof err), 0);
    assert_int_equal(
        sink_find("kafka")->open(&sink, &loop, settings, NULL, &events, NULL, err, sizeof err),
        -EINVAL);
    assert_non_null(strstr(err, "from Kafka to Kafka only"));
    settings_close(settings);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_in_every_step),
        cmocka_unit_test(a_hang_ends_the_worker),
        cmocka_unit_test(other_sources_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
