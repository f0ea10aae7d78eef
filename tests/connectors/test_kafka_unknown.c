/*
 * test_kafka_unknown.c: a broker refuses with a code that says nothing about whose fault it is.
 *
 * Whose it is shows when others pass. On librdkafka's mock cluster, which answers requests in their
 * order: 0 lets one pass.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/kafka_rig.h"

enum { WAIT_MS = 30000, PRODUCE = 0 };

/* A server error without a code of its own, and one of a release to come. */
static const rd_kafka_resp_err_t unknown[] = {RD_KAFKA_RESP_ERR_UNKNOWN, (rd_kafka_resp_err_t)1234};

static struct kafka_rig rig;
static struct kafka_post post;

static void open_all(const char *delivery)
{
    const char *const options[] = {"delivery", delivery, NULL};
    char err[512] = "";
    kafka_rig_open(&rig, 1);
    rd_kafka_mock_topic_create(rig.cluster, "in", 1, 1);
    rd_kafka_mock_topic_create(rig.cluster, "out", 1, 1);
    rd_kafka_mock_topic_create(rig.cluster, "dlq", 1, 1);
    for (int i = 0; i < 8; i++)
        kafka_rig_feed(&rig, "in", "key", "text");
    if (kafka_post_open(&post, &rig, options, err, sizeof err))
        fail_msg("%s", err);
    post.source->ops->request(post.source, 8, 1 << 20);
    assert_true(kafka_post_has(&post, 8, WAIT_MS));
}

static void close_all(void)
{
    assert_int_equal(post.n_failed, 0);
    kafka_post_close(&post, 5000);
    kafka_rig_close(&rig);
}

static void publish(const char *value)
{
    kafka_post_publish(&post, kafka_post_take(&post), value, strlen(value), NULL);
}

static void answer(rd_kafka_resp_err_t err)
{
    rd_kafka_mock_push_request_errors(rig.cluster, PRODUCE, 1, err);
}

static bool has_waited(void *ctx)
{
    (void)ctx;
    return post.n_waits > 0;
}

static bool has_passed(void *ctx)
{
    return post.n_published + post.n_acked_too >= *(size_t *)ctx;
}

static bool is_refused(void *ctx)
{
    (void)ctx;
    return post.n_refused > 0;
}

static void expect(size_t n_out, size_t n_dead)
{
    struct kafka_found found[16];
    assert_int_equal(kafka_rig_read(&rig, "out", found, n_out, 16), n_out);
    assert_int_equal(kafka_rig_read(&rig, "dlq", found, n_dead, 16), n_dead);
}

/* In company, alone, and alone again after each of three others. */
static void fault_of_the_record(void **state)
{
    (void)state;
    open_all("at-least-once");
    answer(unknown[0]);
    answer(unknown[0]);
    publish("odd");
    assert_true(kafka_rig_wait(&rig, WAIT_MS, has_waited, NULL));
    for (size_t i = 1; i <= 3; i++) {
        assert_int_equal(post.n_refused, 0);
        publish("good"); /* before the odd one is tried again */
        answer(RD_KAFKA_RESP_ERR_NO_ERROR);
        answer(unknown[i % 2]);
        assert_true(kafka_rig_wait(&rig, WAIT_MS, has_passed, &i));
    }
    assert_true(kafka_rig_wait(&rig, WAIT_MS, is_refused, NULL));
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    assert_int_equal(post.n_refused, 1);
    expect(3, 1);
    close_all();
}

/* Nothing passes for a while: nobody is refused, and at the end all are there. */
static void fault_of_the_destination(void **state)
{
    (void)state;
    open_all("at-least-once");
    for (int i = 0; i < 6; i++)
        answer(unknown[0]);
    for (int i = 0; i < 4; i++)
        publish("good");
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    assert_int_equal(post.n_refused, 0);
    assert_int_equal(post.n_published, 4);
    expect(4, 0);
    close_all();
}

/* Dead letters go elsewhere: that they pass says nothing about outputs. */
static void dead_letters_pass(void **state)
{
    (void)state;
    open_all("at-least-once");
    answer(unknown[0]);
    answer(unknown[0]);
    publish("odd");
    assert_true(kafka_rig_wait(&rig, WAIT_MS, has_waited, NULL));
    rd_kafka_mock_topic_set_error(rig.cluster, "out", RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    for (int i = 0; i < 5; i++)
        kafka_post_publish(&post, kafka_post_take(&post), NULL, 0, "bad_utf8");
    kafka_rig_run(&rig, 2000);
    assert_int_equal(post.n_refused, 0);
    rd_kafka_mock_topic_set_error(rig.cluster, "out", RD_KAFKA_RESP_ERR_NO_ERROR);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    assert_int_equal(post.n_refused, 0);
    expect(1, 5);
    close_all();
}

/* One partition, so that nothing can be committed before the odd one: others pass on trial only,
 * and are written again when it is out of the way. Here nothing passes for a while. */
static void fault_of_the_destination_exactly_once(void **state)
{
    (void)state;
    open_all("exactly-once");
    answer(unknown[0]);
    answer(unknown[1]);
    publish("odd");
    assert_true(kafka_rig_wait(&rig, WAIT_MS, has_waited, NULL));
    publish("one");
    publish("two");
    for (int i = 0; i < 4; i++)
        answer(unknown[0]);
    assert_true(kafka_post_quiet(&post, WAIT_MS));
    assert_int_equal(post.n_refused, 0);
    assert_int_equal(post.n_acked_too, 3);
    expect(3, 0);
    close_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fault_of_the_record),
        cmocka_unit_test(fault_of_the_destination),
        cmocka_unit_test(dead_letters_pass),
        cmocka_unit_test(fault_of_the_destination_exactly_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
