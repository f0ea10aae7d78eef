/*
 * test_nats_parts.c: the parts of the NATS connector that need no server: options, subjects,
 * answers and their JSON, questions under way, what records look like.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "connectors/nats/nats.h"
#include "connectors/nats/nats_asks.h"
#include "connectors/nats/nats_json.h"
#include "connectors/nats/nats_record.h"
#include "connectors/nats/nats_reply.h"

/* ---- options */

/* A sentence that begins with the option's name, or "" when it is accepted. */
static void read_with(const char *option, const char *value, struct nats_config *config,
                      char err[400])
{
    const struct option *const tables[] = {nats_options, NULL};
    struct settings *settings;
    assert_int_equal(settings_open(&settings, tables), 0);
    if (option)
        assert_int_equal(settings_set(settings, option, value, err, 400), 0);
    err[0] = '\0';
    int rc = nats_config_read(config, settings, err, 400);
    assert_int_equal(rc, err[0] ? -EINVAL : 0);
    settings_close(settings);
}

static void test_defaults(void **state)
{
    struct nats_config config;
    char err[400];
    (void)state;
    read_with("nats.stream", "papers", &config, err);
    assert_string_equal(err, "");
    assert_string_equal(config.output_subject, "papers-embeddings");
    assert_string_equal(config.dead_letter_subject, "papers-dlq");
    assert_string_equal(config.consumer, "embedmill");
    assert_null(config.subject);
    assert_false(config.is_secure);
    nats_config_clear(&config);
    read_with("nats.url", "nats://u:p@h:1,[::1]:4222,tls://x", &config, err);
    assert_string_equal(err, "");
    assert_int_equal(config.n_urls, 3);
    assert_string_equal(config.urls[1], "[::1]:4222");
    assert_true(config.is_secure);
    nats_config_clear(&config);
}

static void test_refused_options(void **state)
{
    static const char *const cases[][2] = {
        {"nats.url", "http://h"},        {"nats.url", ""},
        {"nats.url", "nats://h:0"},      {"nats.url", "nats://h:1x"},
        {"nats.url", "nats://u:p@"},     {"nats.url", "nats://h/texts"},
        {"nats.stream", "a.b"},          {"nats.stream", ""},
        {"nats.consumer", "a b"},        {"nats.consumer", "a/b"},
        {"nats.output_subject", "a.*"},  {"nats.output_subject", ".a"},
        {"nats.output_subject", "a..b"}, {"nats.dead_letter_subject", "a."},
        {"nats.subject", "a b"},         {"nats.password", "secret"},
        {"nats.api_prefix", "$JS.>"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nats_config config;
        char err[400];
        read_with(cases[i][0], cases[i][1], &config, err);
        assert_int_equal(strncmp(err, cases[i][0], strlen(cases[i][0])), 0);
        assert_null(strstr(err, "secret"));
    }
}

/* What the inputs' subject stands for cannot be an output's. */
static void test_circle(void **state)
{
    static const char *const cases[] = {"texts-embeddings", "*", ">", "texts-dlq"};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nats_config config;
        char err[400];
        read_with("nats.subject", cases[i], &config, err);
        assert_non_null(strstr(err, "the worker would read what it writes"));
    }
}

static void test_subjects(void **state)
{
    static const struct {
        const char *pattern, *subject;
        bool matches;
    } cases[] = {
        {"a", "a", true},       {"a", "b", false},        {"a", "a.b", false},
        {"a.b", "a", false},    {"*", "a", true},         {"*", "a.b", false},
        {"a.*", "a.b", true},   {"a.*.c", "a.b.c", true}, {">", "a.b", true},
        {"a.>", "a.b.c", true}, {"a.>", "a", false},      {"a.>", "b.c", false},
        {"a*", "ab", false},    {"a.*", "a", false},      {"a.b.c", "a.b", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (nats_subject_matches(cases[i].pattern, cases[i].subject) != cases[i].matches)
            fail_msg("%s and %s", cases[i].pattern, cases[i].subject);
}

/* ---- answers */

static void test_json(void **state)
{
    static const char text[] =
        " {\"type\":\"x\", \"a\" : {\"b\":[1,{\"c\":\"}]\"},[2]], \"n\":-12,\"t\":true},"
        "\"s\":\"q\\\"\\\\ \\u003e\",\"b\":\"\\\\u0041\",\"e\":{},\"last\": 7}";
    struct bytes json = bytes_of(text), one;
    char out[32];
    size_t n = 0;
    (void)state;
    assert_int_equal(nats_json_number(json, "a.n", 1), -12);
    assert_int_equal(nats_json_number(json, "last", 1), 7);
    assert_int_equal(nats_json_number(json, "a.x", 5), 5);
    assert_int_equal(nats_json_number(json, "type", 5), 5);
    assert_true(nats_json_bool(json, "a.t"));
    assert_false(nats_json_bool(json, "a.n"));
    nats_json_text(json, "s", out, sizeof out);
    assert_string_equal(out, "q\"\\ >");
    nats_json_text(json, "s", out, 3);
    assert_string_equal(out, "q\"");
    nats_json_text(json, "b", out, sizeof out);
    assert_string_equal(out, "\\u0041"); /* a backslash, and no escape behind it */
    assert_null(nats_json_find(json, "e.x").ptr);
    struct bytes array = nats_json_find(json, "a.b");
    for (size_t at = 0; nats_json_next(array, &at, &one);)
        n++;
    assert_int_equal(n, 3);
}

/* Cut anywhere, and with any byte in place of another: found or not, but never read beyond. */
static void test_json_damaged(void **state)
{
    static const char text[] = "{\"a\":{\"b\":[1,\"\\u003e\"]},\"error\":{\"code\":404}}";
    (void)state;
    for (size_t len = 0; len < sizeof text; len++)
        for (size_t i = 0; i <= len; i++)
            for (const char *c = "{}[]\",:\\u0"; *c; c++) {
                char *copy = malloc(len + 1), out[8];
                struct bytes json = {copy, len}, one;
                memcpy(copy, text, len);
                if (i < len)
                    copy[i] = *c;
                nats_json_number(json, "error.code", 0);
                nats_json_text(json, "a.b", out, sizeof out);
                struct bytes array = nats_json_find(json, "a.b");
                for (size_t at = 0, n = 0; array.ptr && nats_json_next(array, &at, &one); n++) {
                    assert_true(n < 64);
                    nats_json_string(one, out, sizeof out);
                }
                free(copy);
            }
}

static void test_delivery(void **state)
{
    struct nats_delivery delivery;
    (void)state;
    assert_true(
        nats_reply_delivery("$JS.ACK.texts.mill.3.417.12.1700000000123456789.9", &delivery));
    assert_memory_equal(delivery.stream.ptr, "texts", 5);
    assert_int_equal(delivery.stream.len, 5);
    assert_int_equal(delivery.deliveries, 3);
    assert_int_equal(delivery.sequence, 417);
    assert_int_equal(delivery.timestamp_ns, INT64_C(1700000000123456789));
    assert_int_equal(delivery.pending, 9);
    assert_true(nats_reply_delivery("$JS.ACK._.hash.texts.mill.1.5.5.1700.0.abc", &delivery));
    assert_memory_equal(delivery.consumer.ptr, "mill", 4);
    assert_int_equal(delivery.sequence, 5);
    assert_false(nats_reply_delivery("$JS.ACK.texts.mill.3.417.12.17", &delivery));
    assert_false(nats_reply_delivery("$JS.ACK.texts.mill.0.1.1.1.1", &delivery));
    assert_false(nats_reply_delivery("_INBOX.a.b.c.d.e.f.g.h", &delivery));
    assert_false(nats_reply_delivery("", &delivery));
}

static void read_error(const char *body, struct nats_error *error)
{
    natsMsg *message;
    assert_int_equal(natsMsg_Create(&message, "s", NULL, body, (int)strlen(body)), NATS_OK);
    nats_reply_error(message, error);
    natsMsg_Destroy(message);
}

static void test_errors(void **state)
{
    struct nats_error error;
    (void)state;
    read_error("{\"stream\":\"s\",\"seq\":1}", &error);
    assert_int_equal(error.code, 0);
    read_error("{\"error\":{\"code\":400,\"err_code\":10054,\"description\":\"too big\"}}", &error);
    assert_int_equal(error.err_code, 10054);
    assert_string_equal(error.text, "too big");
    assert_int_equal(nats_reply_refusal(&error), NATS_RECORD_TOO_LARGE);
    error = (struct nats_error){.code = 503, .err_code = 10077};
    assert_int_equal(nats_reply_refusal(&error), NATS_RECORD_AGAIN);
    error = (struct nats_error){.code = 503};
    assert_int_equal(nats_reply_refusal(&error), NATS_RECORD_AGAIN);
    error = (struct nats_error){.code = 500};
    assert_int_equal(nats_reply_refusal(&error), NATS_RECORD_AGAIN);
    error = (struct nats_error){.code = 500, .err_code = 99999};
    assert_int_equal(nats_reply_refusal(&error), NATS_SERVER_UNKNOWN);
    error = (struct nats_error){.code = 400, .err_code = 99999};
    assert_int_equal(nats_reply_refusal(&error), NATS_RECORD_UNKNOWN);
}

/* ---- questions */

static void answered(void *ctx, void *arg, natsMsg *answer)
{
    (void)ctx, (void)arg, (void)answer;
}

static void test_asks(void **state)
{
    struct nats_asks asks = {0};
    struct nats_ask ask;
    uint64_t number;
    int args[1000];
    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_int_equal(nats_asks_add(&asks, answered, &args[i], (uint64_t)i), 0);
    assert_false(nats_asks_take(&asks, 1000, &ask));
    for (int i = 999; i >= 500; i--) { /* the newest first: the ring cannot move on */
        assert_true(nats_asks_take(&asks, (uint64_t)i, &ask));
        assert_ptr_equal(ask.arg, &args[i]);
        assert_false(nats_asks_take(&asks, (uint64_t)i, &ask));
    }
    assert_int_equal(asks.n_open, 500);
    for (int i = 0; i < 300; i++) {
        assert_true(nats_asks_take_late(&asks, 300, &ask));
        assert_ptr_equal(ask.arg, &args[i]);
    }
    assert_false(nats_asks_take_late(&asks, 300, &ask));
    assert_int_equal(asks.first, 300);
    while (nats_asks_take_late(&asks, UINT64_MAX, &ask))
        ;
    assert_int_equal(asks.n_open, 0);
    assert_int_equal(asks.first, 1000);
    nats_asks_close(&asks);
    assert_true(nats_asks_parse("_INBOX.ab.r.18446744073709551615", &number));
    assert_int_equal(number, UINT64_MAX);
    assert_false(nats_asks_parse("_INBOX.ab.r.x1", &number));
    assert_false(nats_asks_parse("_INBOX.ab.r.1x", &number));
    assert_false(nats_asks_parse("none", &number));
}

/* ---- records */

struct sample {
    struct nats_config config;
    struct message origin;
    struct part part;
    struct record record;
};

static void make_sample(struct sample *sample)
{
    char err[400];
    *sample = (struct sample){.origin = {.position = bytes_of("texts 7"), .timestamp_ms = 1700},
                              .part = {.value = bytes_of("payload")}};
    read_with(NULL, NULL, &sample->config, err);
    sample->record =
        (struct record){.origin = &sample->origin, .parts = &sample->part, .n_parts = 1};
}

static void test_ids(void **state)
{
    struct sample sample;
    char first[NATS_ID_SIZE], other[NATS_ID_SIZE];
    (void)state;
    make_sample(&sample);
    assert_int_equal(nats_record_id(&sample.config, &sample.record, 0, first), 0);
    assert_int_equal(nats_record_id(&sample.config, &sample.record, 0, other), 0);
    assert_string_equal(first, other);
    assert_int_equal(nats_record_id(&sample.config, &sample.record, 1, other), 0);
    assert_string_not_equal(first, other);
    sample.part.value = bytes_of("payloae"); /* another model, say */
    assert_int_equal(nats_record_id(&sample.config, &sample.record, 0, other), 0);
    assert_string_not_equal(first, other);
    sample.part.value = bytes_of("payload");
    sample.origin.timestamp_ms = 1701; /* the stream was made anew */
    assert_int_equal(nats_record_id(&sample.config, &sample.record, 0, other), 0);
    assert_string_not_equal(first, other);
    sample.origin.timestamp_ms = 1700;
    sample.record.dead_code = "bad_json";
    assert_int_equal(nats_record_id(&sample.config, &sample.record, 0, other), 0);
    assert_string_not_equal(first, other);
    nats_config_clear(&sample.config);
}

/* Nothing of an input tells the server what to do, or ends a header early. */
static void test_headers(void **state)
{
    static const struct header headers[] = {
        {{"color", 5}, {"blue", 4}},
        {{"Nats-Rollup", 11}, {"all", 3}},
        {{"nats-msg-id", 11}, {"x", 1}},
        {{"_code", 5}, {"old", 3}},
        {{"a: b\r\nNats-TTL", 14}, {"1\r\nNats-Rollup: all\0x", 21}},
        {{"empty", 5}, {"", 0}},
    };
    struct sample sample;
    natsMsg *message = NULL;
    const char *value = NULL;
    size_t size;
    (void)state;
    make_sample(&sample);
    sample.record.headers = headers;
    sample.record.n_headers = sizeof headers / sizeof headers[0];
    sample.record.dead_code = "bad_json";
    sample.record.dead_reason = "because";
    assert_int_equal(
        nats_record_message(&message, &sample.config, &sample.record, "id", "reply", &size), 0);
    assert_string_equal(natsMsg_GetSubject(message), "texts-dlq");
    assert_int_equal(natsMsgHeader_Get(message, "color", &value), NATS_OK);
    assert_string_equal(value, "blue");
    assert_int_equal(natsMsgHeader_Get(message, "_code", &value), NATS_OK);
    assert_string_equal(value, "bad_json");
    assert_int_equal(natsMsgHeader_Get(message, "_position", &value), NATS_OK);
    assert_string_equal(value, "texts 7");
    assert_int_equal(natsMsgHeader_Get(message, "Nats-Msg-Id", &value), NATS_OK);
    assert_string_equal(value, "id");
    assert_int_not_equal(natsMsgHeader_Get(message, "Nats-Rollup", &value), NATS_OK);
    assert_int_not_equal(natsMsgHeader_Get(message, "nats-msg-id", &value), NATS_OK);
    assert_int_equal(natsMsgHeader_Get(message, "a--b--Nats-TTL", &value), NATS_OK);
    assert_string_equal(value, "1  Nats-Rollup: all x");
    natsMsg_Destroy(message);
    nats_config_clear(&sample.config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_refused_options),
        cmocka_unit_test(test_circle),   cmocka_unit_test(test_subjects),
        cmocka_unit_test(test_json),     cmocka_unit_test(test_json_damaged),
        cmocka_unit_test(test_delivery), cmocka_unit_test(test_errors),
        cmocka_unit_test(test_asks),     cmocka_unit_test(test_ids),
        cmocka_unit_test(test_headers),
    };
    if (nats_Open(-1) != NATS_OK)
        return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    nats_Close();
    return rc;
}
