/*
 * test_redis.c: the Redis source and sink against a real redis-server.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "connectors/redis_source.h"
#include "redis_rig.h"
#include "redis_server.h"

static struct redis_server server;
static struct rig rig;
static struct station one, two;

static int set_up(void **state)
{
    (void)state;
    redis_server_open(&server, false);
    redis_rig_open(&rig);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    redis_rig_close(&rig);
    redis_server_close(&server);
    return 0;
}

static long long n_pending(void)
{
    redisReply *reply = redis_server_ask(&server, "XPENDING texts embedmill");
    long long n = reply->type == REDIS_REPLY_ARRAY ? reply->element[0]->integer : -1;
    freeReplyObject(reply);
    return n;
}

/* ctx: the station; everything added was published and acked. */
static size_t n_added;
static bool is_all_done(void *ctx)
{
    const struct station *station = ctx;
    return station->n_published + station->n_acked_too >= n_added && n_pending() == 0;
}

static void add_texts(size_t n)
{
    n_added = n;
    for (size_t i = 0; i < n; i++)
        redis_server_do(&server, "XADD texts * body text%d n %d", (int)i, (int)i);
}

static void request(struct station *station, size_t n)
{
    station->source->ops->request(station->source, n, n * 1000);
}

static void open_one(const char *claim_idle, const char *output)
{
    const char *set[] = {"redis.url",      server.url,     "redis.claim_idle",
                         claim_idle,       "redis.output", output,
                         "redis.consumer", "one",          NULL};
    station_open(&one, &rig, true, set);
}

static void open_two(const char *claim_idle)
{
    const char *set[] = {"redis.url", server.url, "redis.claim_idle", claim_idle, "redis.consumer",
                         "two",       NULL};
    station_open(&two, &rig, true, set);
}

static bool bytes_are(struct bytes bytes, const char *text)
{
    return bytes.ptr && bytes.len == strlen(text) && memcmp(bytes.ptr, text, bytes.len) == 0;
}

/* Count, order, fields, credit, acks. */
static void test_read_and_ack(void **state)
{
    (void)state;
    open_one("60s", "stream");
    assert_false(station_has(&one, 1, 200)); /* no credit, no message */
    add_texts(100);
    redis_server_do(&server, "XADD texts 99999999999999-5 text only other x");
    redis_server_do(&server, "XADD texts 99999999999999-6 nothing here");
    redis_server_do(&server, "XADD texts 99999999999999-7 text second body %b", "a\0b", (size_t)3);
    request(&one, 30);
    assert_true(station_has(&one, 30, 3000));
    redis_rig_run(&rig, 200);
    assert_int_equal(one.n_given, 30);
    request(&one, 1000);
    assert_true(station_has(&one, 103, 3000));
    for (int i = 0; i < 100; i++) {
        char text[16], number[16];
        struct message *message = station_take(&one);
        sprintf(text, "text%d", i);
        sprintf(number, "%d", i);
        assert_true(bytes_are(message->value, text));
        assert_int_equal(message->n_headers, 1);
        assert_true(bytes_are(message->headers[0].name, "n"));
        assert_true(bytes_are(message->headers[0].value, number));
        assert_null(message->key.ptr);
        assert_int_equal(message->deliveries, 1);
        assert_true(message->timestamp_ms > INT64_C(1600000000000));
        assert_memory_equal(message->position.ptr, "texts 1", 7);
        one.source->ops->ack(one.source, message);
    }
    struct message *message = station_take(&one);
    assert_true(bytes_are(message->value, "only"));
    assert_true(bytes_are(message->position, "texts 99999999999999-5"));
    assert_int_equal(message->timestamp_ms, INT64_C(99999999999999));
    one.source->ops->ack(one.source, message);
    message = station_take(&one);
    assert_null(message->value.ptr);
    assert_int_equal(message->n_headers, 1);
    one.source->ops->ack(one.source, message);
    message = station_take(&one);
    assert_int_equal(message->value.len, 3);
    assert_memory_equal(message->value.ptr, "a\0b", 3);
    assert_true(bytes_are(message->headers[0].name, "text"));
    one.source->ops->ack(one.source, message);
    station_close(&one, 2000);
    assert_int_equal(n_pending(), 0);
    assert_int_equal(one.n_ups, 1 + 1); /* source and sink, once each */
    assert_int_equal(one.n_waits, 0);
}

/* A waiting read takes nothing once the credit is withdrawn. */
static void test_credit_withdrawn(void **state)
{
    (void)state;
    open_one("60s", "stream");
    request(&one, 10);
    redis_rig_run(&rig, 300);
    request(&one, 0);
    redis_rig_run(&rig, 200);
    add_texts(5);
    redis_rig_run(&rig, 300);
    assert_int_equal(one.n_given, 0);
    assert_int_equal(n_pending(), 0);
    request(&one, 10);
    assert_true(station_has(&one, 5, 3000));
    station_close(&one, 1000);
}

/* What was pending comes first after a restart, with its delivery count, then what is new. */
static void test_own_pending_first(void **state)
{
    (void)state;
    open_one("60s", "stream");
    add_texts(300);
    request(&one, 300);
    assert_true(station_has(&one, 300, 5000));
    station_crash(&one);
    assert_int_equal(n_pending(), 300);
    redis_server_do(&server, "XADD texts * body new");
    open_one("60s", "stream");
    request(&one, 1000);
    assert_true(station_has(&one, 301, 5000));
    for (int i = 0; i < 301; i++) {
        char text[16];
        struct message *message = station_take(&one);
        sprintf(text, "text%d", i);
        assert_true(bytes_are(message->value, i < 300 ? text : "new"));
        assert_int_equal(message->deliveries, i < 300 ? 2 : 1);
        one.source->ops->ack(one.source, message);
    }
    station_close(&one, 2000);
    assert_int_equal(n_pending(), 0);
}

/* A dead consumer's entries are taken over; a slow living one's are not. */
static void test_claim_and_lease(void **state)
{
    (void)state;
    add_texts(50);
    open_one("900ms", "stream");
    request(&one, 10);
    assert_true(station_has(&one, 10, 3000));
    redis_server_do(&server, "XREADGROUP GROUP embedmill dead COUNT 40 STREAMS texts >");
    open_two("900ms");
    request(&two, 100);
    assert_true(station_has(&two, 40, 5000));
    assert_int_equal(two.inbox[0]->deliveries, 2);
    redis_rig_run(&rig, 3000); /* more than three times the idle limit */
    assert_int_equal(two.n_given, 40);
    assert_int_equal(one.n_given, 10);
    /* Nothing is counted as delivered by renewing. */
    redisReply *reply = redis_server_ask(&server, "XPENDING texts embedmill - + 100 one");
    assert_int_equal(reply->elements, 10);
    assert_int_equal(reply->element[0]->element[3]->integer, 1);
    freeReplyObject(reply);
    station_crash(&one);
    assert_true(station_has(&two, 50, 5000));
    station_close(&two, 1000);
}

/* A worker that slept beyond its lease does not take back what another has. */
static void test_lost_lease_stays_lost(void **state)
{
    (void)state;
    add_texts(3);
    open_one("600ms", "stream");
    request(&one, 10);
    assert_true(station_has(&one, 3, 3000));
    redisReply *reply = redis_server_ask(&server, "XPENDING texts embedmill - + 10 one");
    assert_int_equal(reply->elements, 3);
    redis_server_do(&server, "XCLAIM texts embedmill other 0 %s JUSTID",
                    reply->element[1]->element[0]->str);
    freeReplyObject(reply);
    for (int i = 0; i < 8; i++) { /* the other is alive */
        redis_rig_run(&rig, 150);
        reply = redis_server_ask(&server, "XPENDING texts embedmill - + 10 other");
        assert_int_equal(reply->elements, 1);
        redis_server_do(&server, "XCLAIM texts embedmill other 0 %s JUSTID",
                        reply->element[0]->element[0]->str);
        freeReplyObject(reply);
    }
    station_close(&one, 1000);
}

/* Entries deleted while pending are acked, not given. */
static void test_ghosts(void **state)
{
    (void)state;
    open_one("60s", "stream");
    add_texts(5);
    request(&one, 5);
    assert_true(station_has(&one, 5, 3000));
    station_crash(&one);
    redisReply *reply = redis_server_ask(&server, "XRANGE texts - +");
    redis_server_do(&server, "XDEL texts %s %s", reply->element[1]->element[0]->str,
                    reply->element[3]->element[0]->str);
    freeReplyObject(reply);
    open_one("60s", "stream");
    request(&one, 10);
    assert_true(station_has(&one, 3, 3000));
    redis_rig_run(&rig, 200);
    assert_int_equal(one.n_given, 3);
    assert_int_equal(((struct redis_source *)one.source)->claim.n_ghosts, 2);
    assert_int_equal(n_pending(), 3);
    station_close(&one, 1000);
}

static bool has_group(void *ctx)
{
    (void)ctx;
    redisReply *reply = redis_server_ask(&server, "XINFO GROUPS texts");
    bool found = reply->type == REDIS_REPLY_ARRAY && reply->elements == 1;
    freeReplyObject(reply);
    return found;
}

static void test_flush_under_read(void **state)
{
    (void)state;
    open_one("60s", "stream");
    request(&one, 100);
    assert_true(redis_rig_wait(&rig, 3000, has_group, NULL));
    for (int i = 0; i < 3; i++) {
        redis_rig_run(&rig, 100);
        redis_server_do(&server, "FLUSHALL");
        assert_true(redis_rig_wait(&rig, 3000, has_group, NULL));
        redis_server_do(&server, "XADD texts * body again%d", i);
        assert_true(station_has(&one, (size_t)i + 1, 5000));
    }
    redis_server_do(&server, "XGROUP DESTROY texts embedmill");
    assert_true(redis_rig_wait(&rig, 3000, has_group, NULL));
    redis_rig_run(&rig, 500); /* the entry is still with us: not given twice */
    assert_int_equal(one.n_given, 3);
    while (one.n_inbox)
        one.source->ops->ack(one.source, station_take(&one));
    station_close(&one, 1000);
    assert_int_equal(one.n_failed, 0);
}

static void test_wrong_type_is_fatal(void **state)
{
    (void)state;
    redis_server_do(&server, "SET texts hello");
    open_one("60s", "stream");
    redis_rig_run(&rig, 500);
    assert_int_equal(one.n_failed, 1);
    assert_non_null(strstr(one.why, "holds another type"));
    station_close(&one, 1000);
}

static void test_bad_password_is_fatal(void **state)
{
    char url[128];
    const char *set[] = {"redis.url", url, NULL};
    static const char *const cases[][2] = {{"redis://127.0.0.1:%d", "wants a password"},
                                           {"redis://:WRONG@127.0.0.1:%d", "is wrong"},
                                           {"redis://who:WRONG@127.0.0.1:%d", "is wrong"},
                                           {"redis://:pw@127.0.0.1:%d/99", "no such database"}};
    (void)state;

    redis_server_do(&server, "CONFIG SET requirepass pw");
    for (size_t i = 0; i < 4; i++) {
        snprintf(url, sizeof(url), cases[i][0], server.port);
        station_open(&one, &rig, false, set);
        redis_rig_run(&rig, 300);
        assert_int_equal(one.n_failed, 1);
        assert_non_null(strstr(one.why, cases[i][1]));
        assert_null(strstr(one.why, "WRONG@"));
        station_close(&one, 1000);
    }
    snprintf(url, sizeof(url), "redis://default:pw@127.0.0.1:%d/3", server.port);
    station_open(&one, &rig, false, set);
    request(&one, 1);
    redis_rig_run(&rig, 300);
    assert_int_equal(one.n_ups, 1);
    station_close(&one, 1000);
    redis_server_do(&server, "AUTH pw");
    redis_server_do(&server, "SELECT 3");
    assert_int_equal(redis_server_number(&server, "EXISTS texts"), 1);
}

/* Two workers have the same entry: one publishes, the other is told that it is not its own. */
static void test_exactly_once(void **state)
{
    (void)state;
    add_texts(20);
    open_one("700ms", "stream");
    request(&one, 20);
    assert_true(station_has(&one, 20, 3000));
    redisReply *reply = redis_server_ask(&server, "XPENDING texts embedmill - + 20");
    for (size_t i = 0; i < 10; i++)
        redis_server_do(&server, "XCLAIM texts embedmill two 0 %s JUSTID",
                        reply->element[i]->element[0]->str);
    freeReplyObject(reply);
    open_two("700ms");
    request(&two, 100);
    assert_true(station_has(&two, 10, 3000)); /* own pending */
    for (int i = 0; i < 20; i++)
        station_publish(&one, station_take(&one), "id", "value", NULL);
    assert_true(station_quiet(&one, 3000));
    assert_int_equal(one.n_acked_too, 10);
    assert_int_equal(one.n_not_ours, 10);
    for (int i = 0; i < 10; i++)
        station_publish(&two, station_take(&two), "id", "value", NULL);
    assert_true(station_quiet(&two, 3000));
    assert_int_equal(two.n_acked_too, 10);
    assert_int_equal(redis_server_number(&server, "XLEN texts:embeddings"), 20);
    assert_int_equal(n_pending(), 0);
    station_close(&one, 1000);
    station_close(&two, 1000);
}

static void assert_fields(const redisReply *fields, const char *const *expected, size_t n)
{
    assert_int_equal(fields->elements, n);
    for (size_t i = 0; i < n; i++)
        assert_string_equal(fields->element[i]->str, expected[i]);
}

static void test_stream_output(void **state)
{
    static const char *const fields[] = {"body", "value", "text", "b", "_body", "c", "n", "1"};
    static const char value[] = "\0\1\r\n\xff$5\r\n*";
    (void)state;

    /* The body is one header here, so that it collides with ours. */
    const char *set[] = {"redis.url", server.url, "redis.body", "main", NULL};
    station_open(&one, &rig, true, set);
    redis_server_do(&server, "XADD texts * main a text b body c n 1");
    request(&one, 2);
    assert_true(station_has(&one, 1, 3000));
    station_publish(&one, station_take(&one), "id", "value", NULL);
    assert_true(station_quiet(&one, 3000));
    redisReply *reply = redis_server_ask(&server, "XRANGE texts:embeddings - +");
    assert_int_equal(reply->elements, 1);
    assert_fields(reply->element[0]->element[1], fields, 8);
    freeReplyObject(reply);

    /* Any bytes come out as they went in. */
    redis_server_do(&server, "XADD texts * main x");
    assert_true(station_has(&one, 1, 3000));
    station_publish_parts(&one, station_take(&one),
                          (struct part[]){{{"i", 1}, {value, sizeof(value)}, {NULL, 0}}}, 1);
    assert_true(station_quiet(&one, 3000));
    reply = redis_server_ask(&server, "XREVRANGE texts:embeddings + - COUNT 1");
    const redisReply *body = reply->element[0]->element[1]->element[1];
    assert_int_equal(body->len, sizeof(value));
    assert_memory_equal(body->str, value, sizeof(value));
    freeReplyObject(reply);
    station_close(&one, 1000);
}

static void test_stream_is_trimmed(void **state)
{
    const char *set[] = {"redis.url", server.url, "redis.maxlen", "100", NULL};
    (void)state;

    redis_server_do(&server, "CONFIG SET stream-node-max-entries 10");
    station_open(&one, &rig, true, set);
    one.is_worker = true;
    one.n_credit = 64;
    request(&one, 64);
    add_texts(500);
    assert_true(redis_rig_wait(&rig, 5000, is_all_done, &one));
    station_close(&one, 1000);
    assert_in_range(redis_server_number(&server, "XLEN texts:embeddings"), 100, 120);
}

static void publish_parts(const char *output, const char *expire)
{
    static const char v1[] = "\0\1\2\r\n", v2[] = "second";
    const char *set[] = {"redis.url",
                         server.url,
                         "redis.output",
                         output,
                         "redis.expire",
                         expire,
                         "redis.output_prefix",
                         "e:",
                         NULL};
    station_open(&one, &rig, true, set);
    assert_int_equal(one.sink->layout, SINK_PER_TEXT);
    redis_server_do(&server, "XADD texts * body a lang de embedding mine");
    request(&one, 2);
    assert_true(station_has(&one, 1, 3000));
    station_publish_parts(&one, station_take(&one),
                          (struct part[]){{{"a", 1}, {v1, 5}, {v1, 5}},
                                          {{"b\0c", 3}, {v2, 6}, {v2, 6}},
                                          {{"gone", 4}, {NULL, 0}, {NULL, 0}}},
                          3);
    assert_true(station_quiet(&one, 3000));
    assert_int_equal(one.n_acked_too, 1);
    assert_int_equal(n_pending(), 0);
    station_close(&one, 1000);
}

static void test_key_output(void **state)
{
    (void)state;
    redis_server_do(&server, "SET e:gone x");
    publish_parts("key", "0s");
    redisReply *reply = redis_server_ask(&server, "GET e:a");
    assert_int_equal(reply->len, 5);
    assert_memory_equal(reply->str, "\0\1\2\r\n", 5);
    freeReplyObject(reply);
    reply = redis_server_ask(&server, "GET %b", "e:b\0c", (size_t)5);
    assert_string_equal(reply->str, "second");
    freeReplyObject(reply);
    assert_int_equal(redis_server_number(&server, "EXISTS e:gone"), 0);
    assert_int_equal(redis_server_number(&server, "PTTL e:a"), -1);
    publish_parts("key", "1h");
    assert_in_range(redis_server_number(&server, "PTTL e:a"), 3500000, 3600000);
}

static void test_hash_output(void **state)
{
    static const char *const b[] = {"embedding", "second", "lang", "de", "_embedding", "mine"};
    (void)state;

    publish_parts("hash", "1h");
    redisReply *reply = redis_server_ask(&server, "HGETALL %b", "e:b\0c", (size_t)5);
    assert_fields(reply, b, 6);
    freeReplyObject(reply);
    reply = redis_server_ask(&server, "HGET e:a embedding");
    assert_int_equal(reply->len, 5);
    assert_memory_equal(reply->str, "\0\1\2\r\n", 5);
    freeReplyObject(reply);
    assert_in_range(redis_server_number(&server, "PTTL e:a"), 3500000, 3600000);
}

static void test_dead_letter(void **state)
{
    (void)state;
    open_one("60s", "stream");
    redis_server_do(&server, "XADD texts 5-1 a 1 text bad b 2 _code old");
    request(&one, 2);
    assert_true(station_has(&one, 1, 3000));
    station_publish(&one, station_take(&one), "", "", "bad_json");
    assert_true(station_quiet(&one, 3000));
    assert_int_equal(one.n_acked_too, 1);
    assert_int_equal(n_pending(), 0);
    static const char *const fields[] = {
        "a",      "1",          "text",    "bad",   "b",   "2",   "_code",       "bad_json",
        "_error", "a sentence", "_stream", "texts", "_id", "5-1", "_deliveries", "1"};
    redisReply *reply = redis_server_ask(&server, "XRANGE texts:dlq - +");
    assert_int_equal(reply->elements, 1);
    assert_fields(reply->element[0]->element[1], fields, 16);
    freeReplyObject(reply);
    station_close(&one, 1000);
}

/* Another database is another place: published, then acked by the source. */
static void test_plain_output(void **state)
{
    char url[80];
    const char *set[] = {"redis.url", server.url, "redis.output_url", url, NULL};
    (void)state;

    snprintf(url, sizeof(url), "%s/1", server.url);
    station_open(&one, &rig, true, set);
    one.is_worker = true;
    one.n_credit = 64;
    request(&one, 64);
    add_texts(300);
    assert_true(redis_rig_wait(&rig, 5000, is_all_done, &one));
    station_close(&one, 1000);
    assert_int_equal(one.n_published, 300);
    redis_server_do(&server, "SELECT 1");
    assert_int_equal(redis_server_number(&server, "XLEN texts:embeddings"), 300);
}

/* OOM on XADD: nothing is lost, nothing written twice, it goes on when there is memory again. */
static void test_out_of_memory(void **state)
{
    (void)state;
    add_texts(50);
    open_one("60s", "stream");
    one.is_worker = true;
    one.n_credit = 16;
    assert_true(redis_rig_wait(&rig, 3000, has_group, NULL));
    redis_server_do(&server, "CONFIG SET maxmemory 1");
    request(&one, 16);
    redis_rig_run(&rig, 700);
    assert_int_equal(one.n_acked_too, 0);
    assert_int_equal(one.n_waits, 1); /* said once, not per attempt */
    assert_non_null(strstr(one.why, "maxmemory"));
    redis_server_do(&server, "CONFIG SET maxmemory 0");
    assert_true(redis_rig_wait(&rig, 20000, is_all_done, &one));
    station_close(&one, 1000);
    assert_int_equal(redis_server_number(&server, "XLEN texts:embeddings"), 50);
    assert_int_equal(one.n_failed, 0);
}

static void test_output_of_wrong_type(void **state)
{
    (void)state;
    redis_server_do(&server, "SET texts:embeddings hello");
    add_texts(1);
    open_one("60s", "stream");
    request(&one, 1);
    assert_true(station_has(&one, 1, 3000));
    station_publish(&one, station_take(&one), "id", "value", NULL);
    redis_rig_run(&rig, 300);
    assert_int_equal(one.n_failed, 1);
    assert_non_null(strstr(one.why, "texts:embeddings"));
    assert_int_equal(n_pending(), 1);
    station_close(&one, 500);
}

/* The server's own limit, which is below what we would send. */
static void test_too_large(void **state)
{
    static char big[2 << 20];
    (void)state;

    redis_server_do(&server, "CONFIG SET proto-max-bulk-len 1mb");
    add_texts(2);
    open_one("60s", "stream");
    request(&one, 2);
    assert_true(station_has(&one, 2, 3000));
    station_publish_parts(&one, station_take(&one),
                          (struct part[]){{{"a", 1}, {big, 2 << 20}, {0}}}, 1);
    station_publish(&one, station_take(&one), "id", "small", NULL);
    assert_true(station_quiet(&one, 3000));
    assert_int_equal(one.n_too_large, 1);
    assert_int_equal(one.n_acked_too, 1);
    station_close(&one, 500);
}

/* The script cache is emptied under us. */
static void test_script_flush(void **state)
{
    (void)state;
    add_texts(40);
    open_one("60s", "stream");
    request(&one, 40);
    assert_true(station_has(&one, 40, 3000));
    for (int i = 0; i < 40; i++) {
        if (i % 10 == 0)
            redis_server_do(&server, "SCRIPT FLUSH");
        station_publish(&one, station_take(&one), "id", "value", NULL);
        if (i % 3 == 0)
            assert_true(station_quiet(&one, 3000));
    }
    assert_true(station_quiet(&one, 3000));
    assert_int_equal(one.n_acked_too, 40);
    assert_int_equal(redis_server_number(&server, "XLEN texts:embeddings"), 40);
    station_close(&one, 500);
}

static void test_unix_socket(void **state)
{
    const char *set[] = {"redis.url", server.socket_url, NULL};
    (void)state;

    station_open(&one, &rig, true, set);
    add_texts(1);
    request(&one, 1);
    assert_true(station_has(&one, 1, 3000));
    station_publish(&one, station_take(&one), "id", "value", NULL);
    assert_true(station_quiet(&one, 3000));
    assert_int_equal(one.n_acked_too, 1);
    station_close(&one, 500);

    set[1] = "unix:///nonexistent/redis.sock";
    station_open(&one, &rig, false, set);
    redis_rig_run(&rig, 300);
    assert_int_equal(one.n_failed, 0);
    assert_int_equal(one.n_waits, 1);
    assert_non_null(strstr(one.why, "/nonexistent/redis.sock"));
    station_close(&one, 100);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(test_read_and_ack),
        CASE(test_credit_withdrawn),
        CASE(test_own_pending_first),
        CASE(test_claim_and_lease),
        CASE(test_lost_lease_stays_lost),
        CASE(test_ghosts),
        CASE(test_flush_under_read),
        CASE(test_wrong_type_is_fatal),
        CASE(test_bad_password_is_fatal),
        CASE(test_exactly_once),
        CASE(test_stream_output),
        CASE(test_stream_is_trimmed),
        CASE(test_key_output),
        CASE(test_hash_output),
        CASE(test_dead_letter),
        CASE(test_plain_output),
        CASE(test_out_of_memory),
        CASE(test_output_of_wrong_type),
        CASE(test_too_large),
        CASE(test_script_flush),
        CASE(test_unix_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
