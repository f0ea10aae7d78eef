/*
 * test_kafka_options.c: what is passed through to librdkafka and what is refused, and the maps that
 * carry it from flags, variables and the file.
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
#include <unistd.h>

#include "connectors/kafka/kafka.h"
#include "tests/support/c11_threads.h"
#include "worker/config/config_file.h"
#include "worker/config/config_flags.h"
#include "worker/config/config_print.h"

static char *const no_environment[] = {NULL};
static struct options *options;
static char err[1024];

static int read_flags(char *const *environment, int argc, char **argv)
{
    struct flags flags;
    err[0] = '\0';
    assert_int_equal(options_open(&options, NULL, NULL, environment), 0);
    return config_read(options, NULL, argc, argv, environment, &flags, err, sizeof err);
}

#define READ(environment, ...)                                                                     \
    read_flags(environment, (int)(sizeof(char *[]){__VA_ARGS__} / sizeof(char *)),                 \
               (char *[]){__VA_ARGS__})

/* A property as a client of that type gets it; NULL with err set when refused. */
static const char *property(rd_kafka_type_t type, const char *name)
{
    static char value[256];
    size_t size = sizeof value;
    struct kafka_config config;
    rd_kafka_conf_t *conf;
    int rc = kafka_config_read(&config, options_settings(options), err, sizeof err);
    if (rc)
        return NULL;
    rc = kafka_conf_open(&conf, type, &config, options_settings(options), err, sizeof err);
    kafka_config_clear(&config);
    if (rc)
        return NULL;
    assert_int_equal(rd_kafka_conf_get(conf, name, value, &size), RD_KAFKA_CONF_OK);
    rd_kafka_conf_destroy(conf);
    return value;
}

static void flags_reach_the_library(void **state)
{
    (void)state;
    assert_int_equal(READ(no_environment, "-X", "linger.ms=7", "-Xconsumer.client.id=reader",
                          "--kafka-brokers", "a:1,b:2", "-X", "producer.client.id=writer", "-X",
                          "session.timeout.ms=6000"),
                     0);
    assert_string_equal(property(RD_KAFKA_PRODUCER, "linger.ms"), "7");
    assert_string_equal(property(RD_KAFKA_PRODUCER, "client.id"), "writer");
    assert_string_equal(property(RD_KAFKA_CONSUMER, "client.id"), "reader");
    assert_string_equal(property(RD_KAFKA_CONSUMER, "bootstrap.servers"), "a:1,b:2");
    assert_string_equal(property(RD_KAFKA_CONSUMER, "heartbeat.interval.ms"), "2000");
    assert_string_equal(property(RD_KAFKA_CONSUMER, "enable.auto.offset.store"), "false");
    assert_string_equal(property(RD_KAFKA_CONSUMER, "enable.auto.commit"), "true");
    assert_string_equal(property(RD_KAFKA_PRODUCER, "enable.idempotence"), "true");
    options_close(options);
    assert_int_equal(
        READ(no_environment, "--delivery", "exactly-once", "--source", "kafka", "--sink", "kafka"),
        0);
    assert_string_equal(property(RD_KAFKA_CONSUMER, "enable.auto.commit"), "false");
    options_close(options);
}

static void variables_and_file(void **state)
{
    (void)state;
    static const char yaml[] = "kafka:\n"
                               "  topic: in\n"
                               "  security.protocol: SASL_PLAINTEXT\n"
                               "  sasl:\n"
                               "    username: me\n"
                               "    password: ${SECRET}\n"
                               "  linger.ms: 9\n"
                               "  consumer:\n"
                               "    fetch.min.bytes: 17\n"
                               "  producer:\n";
    char *const environment[] = {"EMBEDMILL_KAFKA_LINGER_MS=8", "EMBEDMILL_KAFKA_GROUP=g",
                                 "SECRET=hush", NULL};
    assert_int_equal(READ(environment, "--threads=1"), 0);
    if (config_file_parse(options, "w.yaml", yaml, sizeof yaml - 1, environment, err, sizeof err))
        fail_msg("%s", err);
    assert_string_equal(property(RD_KAFKA_PRODUCER, "linger.ms"), "8"); /* before the file */
    assert_string_equal(property(RD_KAFKA_CONSUMER, "sasl.username"), "me");
    assert_string_equal(property(RD_KAFKA_CONSUMER, "sasl.password"), "hush");
    assert_string_equal(property(RD_KAFKA_CONSUMER, "fetch.min.bytes"), "17");
    assert_string_equal(property(RD_KAFKA_CONSUMER, "group.id"), "g");

    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);
    config_print_effective(options, NULL, to);
    config_print_help(options, NULL, NULL, to);
    fclose(to);
    assert_null(strstr(text, "hush"));
    assert_non_null(strstr(text, "# kafka.sasl.password: \"********\"  # w.yaml:6:15"));
    assert_non_null(strstr(text, "kafka.linger.ms: \"8\"  # EMBEDMILL_KAFKA_LINGER_MS"));
    assert_non_null(strstr(text, "  -X NAME=VALUE"));
    free(text);
    options_close(options);
}

/* As the worker does before it connects: librdkafka checks here how properties go together. */
static void open_consumer(void)
{
    struct kafka_config config;
    rd_kafka_conf_t *conf;
    char why[512];
    assert_int_equal(kafka_config_read(&config, options_settings(options), err, sizeof err), 0);
    if (kafka_conf_open(&conf, RD_KAFKA_CONSUMER, &config, options_settings(options), err,
                        sizeof err) != 0)
        fail_msg("%s", err);
    kafka_config_clear(&config);
    c11_threads_use();
    rd_kafka_t *consumer = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    if (!consumer)
        fail_msg("%s", why);
    rd_kafka_destroy(consumer);
}

static void expect_refusal(char *pair, const char *message);

static void group_protocols(void **state)
{
    (void)state;
    assert_int_equal(READ(no_environment, "--kafka-brokers", "127.0.0.1:1"), 0);
    assert_string_equal(property(RD_KAFKA_CONSUMER, "partition.assignment.strategy"),
                        "range,roundrobin");
    open_consumer();
    options_close(options);
    if (rd_kafka_version() < 0x020400ff) {
        expect_refusal("group.protocol=consumer", "kafka.group.protocol: No such configuration");
        return;
    }
    assert_int_equal(
        READ(no_environment, "--kafka-brokers", "127.0.0.1:1", "-X", "group.protocol=consumer"), 0);
    open_consumer();
    options_close(options);
    static char *const decided[] = {"session.timeout.ms=6000", "heartbeat.interval.ms=500",
                                    "consumer.partition.assignment.strategy=range"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(READ(no_environment, "-X", "group.protocol=consumer", "-X", decided[i]),
                         0);
        assert_null(property(RD_KAFKA_CONSUMER, "client.id"));
        assert_non_null(strstr(err, "has no effect with group.protocol=consumer; set "));
        options_close(options);
    }
}

static void expect_refusal(char *pair, const char *message)
{
    assert_int_equal(READ(no_environment, "-X", pair), 0);
    assert_null(property(RD_KAFKA_CONSUMER, "client.id"));
    assert_non_null(strstr(err, message));
    options_close(options);
}

static void what_is_refused(void **state)
{
    (void)state;
    expect_refusal("bootstrap.servers=x", "kafka.bootstrap.servers cannot be set: kafka.brokers");
    expect_refusal("group.id=x", "kafka.group names the group");
    expect_refusal("enable.auto.commit=true", "the worker commits what it has published");
    expect_refusal("isolation.level=read_uncommitted", "committed messages only");
    expect_refusal("consumer.message.timeout.ms=5", "kafka.consumer.message.timeout.ms cannot");
    expect_refusal("no.such=1", "kafka.no.such: No such configuration property");
    expect_refusal("linger.ms=x", "kafka.linger.ms: ");
    expect_refusal("output_topic=texts", "by 'texts' in kafka.topic");
    expect_refusal("topic=a,b", "name kafka.output_topic and");
    assert_int_equal(READ(no_environment, "-X", "topic=^in", "-X", "output_topic=out", "-X",
                          "dead_letter_topic=in-dlq"),
                     0);
    assert_null(property(RD_KAFKA_CONSUMER, "client.id"));
    assert_non_null(strstr(err, "by '^in' in kafka.topic"));
    options_close(options);
    expect_refusal("topic=,", "expected names of topics");
    if (rd_kafka_version() < 0x020601ff)
        expect_refusal("partition.assignment.strategy=cooperative-sticky", "use range");
    assert_int_equal(READ(no_environment, "-X", "novalue"), -EINVAL);
    assert_string_equal(err, "-X: expected -X NAME=VALUE");
    options_close(options);
    assert_int_equal(READ(no_environment, "-X"), -EINVAL);
    options_close(options);
    assert_int_equal(READ(no_environment, "-Y", "a=b"), -EINVAL);
    assert_string_equal(err, "-Y: unknown flag; --help lists all");
    options_close(options);
}

/* What kafka_check_options says of several models; NULL when it has no objection. */
static const char *models_refused(const char *topic, const char *group, const char *instance)
{
    char property[100];
    const char *bad_option = NULL;
    static char said[1200];
    snprintf(property, sizeof property, "group.instance.id=%s", instance);
    assert_int_equal(READ(no_environment, "--kafka-topic", (char *)topic, "--kafka-group",
                          (char *)group, "-X", property),
                     0);
    int rc = kafka_check_options(options_settings(options), &bad_option, err, sizeof err);
    options_close(options);
    if (rc == 0)
        return NULL;
    assert_int_equal(rc, -EINVAL);
    snprintf(said, sizeof said, "%s: %s", bad_option, err);
    return said;
}

static void topics_of_models(void **state)
{
    (void)state;
    assert_null(models_refused("in", "g", "a"));
    assert_null(models_refused("in-{model}", "g", "a-{model}"));
    assert_null(models_refused("in-{model}", "g-{model}", "a"));
    assert_non_null(strstr(models_refused("in-{model}", "g", "a"), "two members of the group"));
    assert_non_null(strstr(models_refused("^in-{model}", "g-{model}", "a"),
                           "kafka.topic: the expression of one model"));
}

static char *transactional_id(const char *topic, int *lock)
{
    struct kafka_config config;
    char *id;
    assert_int_equal(READ(no_environment, "--kafka-topic", (char *)topic), 0);
    assert_int_equal(kafka_config_read(&config, options_settings(options), err, sizeof err), 0);
    assert_int_equal(kafka_transactional_id(&config, options_settings(options), &id, lock), 0);
    kafka_config_clear(&config);
    options_close(options);
    return id;
}

/* Of two with the same id each would end the other's transactions. */
static void transactional_ids_differ(void **state)
{
    int locks[2];
    char *one = transactional_id("one", &locks[0]), *other = transactional_id("two", &locks[1]);
    (void)state;
    assert_string_not_equal(one, other);
    for (size_t i = 0; i < 2; i++) {
        assert_true(locks[i] >= 0);
        close(locks[i]);
    }
    free(one);
    free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_reach_the_library), cmocka_unit_test(variables_and_file),
        cmocka_unit_test(what_is_refused),         cmocka_unit_test(group_protocols),
        cmocka_unit_test(topics_of_models),        cmocka_unit_test(transactional_ids_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
