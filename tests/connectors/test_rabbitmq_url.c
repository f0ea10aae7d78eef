/*
 * test_rabbitmq_url.c: URLs of RabbitMQ, and options that cannot go together.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/rabbitmq/rabbitmq.h"
#include "connectors/rabbitmq/rabbitmq_management.h"
#include "connectors/rabbitmq/rabbitmq_url.h"

static void test_forms(void **state)
{
    struct rabbitmq_urls urls;
    char err[300], where[600];
    (void)state;
    assert_int_equal(rabbitmq_urls_parse(&urls,
                                         "amqp://u%40x:p%2Fw@one/%2Fv,AMQPS://two,"
                                         "amqp://[::1]:1234/",
                                         err, sizeof err),
                     0);
    assert_int_equal(urls.n, 3);
    assert_string_equal(urls.items[0].user, "u@x");
    assert_string_equal(urls.items[0].password, "p/w");
    assert_string_equal(urls.items[0].vhost, "/v");
    assert_int_equal(urls.items[0].port, 5672);
    assert_true(urls.items[1].tls);
    assert_int_equal(urls.items[1].port, 5671);
    assert_string_equal(urls.items[1].vhost, "/");
    assert_null(urls.items[1].user);
    assert_string_equal(urls.items[2].host, "::1");
    rabbitmq_url_print(&urls.items[2], where, sizeof where);
    assert_string_equal(where, "[::1]:1234");
    rabbitmq_url_print(&urls.items[0], where, sizeof where);
    assert_string_equal(where, "one:5672//v");
    rabbitmq_urls_clear(&urls);
}

/* Refused in a sentence that does not show the password. */
static void test_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "redis://host",
        "amqp://",
        "amqp://u:secret@",
        "amqp://u:secret@host:0",
        "amqp://u:secret@host:65536",
        "amqp://u:secret@host:12x",
        "amqp://u:secret@[::1",
        "amqp://u:secret@::1",
        "amqp://u:secret%zz@host",
        "amqp://u:secret@host/a/b",
        "amqp://u:secret@host/v?heartbeat=1",
        "amqp://u:secret@host,",
        "amqp://u:secret@host,http://other",
        "amqp://u:secret%00@host",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct rabbitmq_urls urls = {0};
        char err[300] = "";
        assert_int_equal(rabbitmq_urls_parse(&urls, bad[i], err, sizeof err), -EINVAL);
        assert_non_null(strstr(err, "amqp[s]://"));
        assert_null(strstr(err, "secret"));
    }
}

static const struct option ends[] = {
    {"source", OPTION_TEXT, "rabbitmq", NULL, 0, 0, NULL, ""},
    {"delivery", OPTION_TEXT, "at-least-once", NULL, 0, 0, NULL, ""},
    {NULL, OPTION_TEXT, NULL, NULL, 0, 0, NULL, NULL},
};

/* What the check says of these two settings; NULL: nothing. */
static const char *checked(const char *name, const char *value, const char *other,
                           const char *other_value)
{
    const struct option *tables[] = {rabbitmq_options, ends, NULL};
    struct settings *settings;
    const char *bad = NULL;
    char err[400];
    assert_int_equal(settings_open(&settings, tables), 0);
    assert_int_equal(settings_set(settings, name, value, err, sizeof err), 0);
    if (other)
        assert_int_equal(settings_set(settings, other, other_value, err, sizeof err), 0);
    int rc = rabbitmq_config_check(settings, &bad, err, sizeof err);
    settings_close(settings);
    return rc ? bad : NULL;
}

static void test_options(void **state)
{
    char name[300];
    (void)state;
    memset(name, 'q', sizeof name);
    name[256] = '\0';
    assert_null(checked("rabbitmq.queue", "work", NULL, NULL));
    assert_string_equal(checked("rabbitmq.queue", name, NULL, NULL), "rabbitmq.queue");
    name[250] = '\0'; /* too long with its suffix */
    assert_string_equal(checked("rabbitmq.queue", name, NULL, NULL), "rabbitmq.output_queue");
    assert_string_equal(checked("rabbitmq.output_queue", "texts", NULL, NULL),
                        "rabbitmq.output_queue");
    assert_null(checked("rabbitmq.output_queue", "texts", "rabbitmq.output_exchange", "x"));
    assert_null(
        checked("rabbitmq.output_queue", "texts", "rabbitmq.output_url", "amqp://127.0.0.1/other"));
    assert_null(checked("rabbitmq.output_queue", "texts", "source", "redis"));
    assert_string_equal(checked("rabbitmq.dead_letter_queue", "texts", NULL, NULL),
                        "rabbitmq.dead_letter_queue");
    assert_null(checked("rabbitmq.dead_letter_queue", "texts", "rabbitmq.dead_letters", "reject"));
    assert_string_equal(checked("rabbitmq.dead_letters", "reject", "source", "kafka"),
                        "rabbitmq.dead_letters");
    assert_string_equal(checked("delivery", "exactly-once", NULL, NULL), "delivery");
    assert_string_equal(checked("rabbitmq.url", "amqps://host", "rabbitmq.tls_ca", "/nonexistent"),
                        "rabbitmq.tls_ca");
}

static void test_management_url(void **state)
{
    struct rabbitmq_urls urls;
    char err[300];
    (void)state;
    assert_int_equal(rabbitmq_management_parse(&urls, "https://u:p@h", err, sizeof err), 0);
    assert_int_equal(urls.items[0].port, 15671);
    assert_true(urls.items[0].tls);
    rabbitmq_urls_clear(&urls);
    assert_int_equal(rabbitmq_management_parse(&urls, "amqp://h", err, sizeof err), -EINVAL);
    assert_non_null(strstr(err, "http[s]://"));
}

/* What the management API says of a queue, and answers that are cut or something else. */
static void test_facts(void **state)
{
    static const char json[] =
        "{\"arguments\": {\"x-delivery-limit\": 7, \"x-queue-type\": \"quorum\", \"n\": [1, {}]},"
        " \"effective_policy_definition\": {\"delivery-limit\": 5, \"message-ttl\": 60000,"
        " \"dead-letter-exchange\": \"\", \"x\\\"y\": null}, \"type\": \"quorum\"}";
    struct rabbitmq_queue_facts facts;
    char cut[sizeof json];
    (void)state;
    assert_int_equal(rabbitmq_management_read(json, &facts), 0);
    assert_string_equal(facts.type, "quorum");
    assert_int_equal(facts.delivery_limit, 5); /* the smaller one counts */
    assert_int_equal(facts.message_ttl_ms, 60000);
    assert_int_equal(facts.max_length, -1);
    assert_true(facts.has_dead_letter_exchange);
    assert_int_equal(
        rabbitmq_management_read("{\"arguments\":{},\"type\":\"rabbit_classic_queue\"}", &facts),
        0);
    assert_string_equal(facts.type, "classic");
    assert_false(facts.has_dead_letter_exchange);
    for (size_t i = 0; i + 1 < sizeof json - 1; i++) {
        memcpy(cut, json, i);
        cut[i] = '\0';
        assert_int_equal(rabbitmq_management_read(cut, &facts), -EPROTO);
    }
    assert_int_equal(rabbitmq_management_read("<html>", &facts), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_options), cmocka_unit_test(test_management_url),
        cmocka_unit_test(test_facts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
