/*
 * test_redis_source.c: reading, acks, pending entries, leases and groups on a real redis-server.
 */
#include "tests/connectors/test_redis.h"

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

/* What a stopping worker did not finish was not delivered, and is free for others at once. */
static void test_unfinished_at_close_is_returned(void **state)
{
    (void)state;
    add_texts(4);
    open_one("60s", "stream");
    request(&one, 3);
    assert_true(station_has(&one, 3, 3000));
    one.source->ops->ack(one.source, station_take(&one));
    redisReply *reply = redis_server_ask(&server, "XPENDING texts embedmill - + 10");
    const char *taken_away = reply->element[2]->element[0]->str;
    redis_server_do(&server, "XCLAIM texts embedmill other 0 %s", taken_away);
    freeReplyObject(reply);
    station_close(&one, 3000);

    reply = redis_server_ask(&server, "XPENDING texts embedmill - + 10");
    assert_int_equal(reply->elements, 2);
    assert_string_equal(reply->element[0]->element[1]->str, "one");
    assert_true(reply->element[0]->element[2]->integer >= 60000);
    assert_int_equal(reply->element[0]->element[3]->integer, 0);
    assert_string_equal(reply->element[1]->element[1]->str, "other");
    assert_int_equal(reply->element[1]->element[3]->integer, 2);
    freeReplyObject(reply);

    open_one("60s", "stream");
    request(&one, 1);
    assert_true(station_has(&one, 1, 3000));
    assert_int_equal(one.inbox[0]->deliveries, 1);
    station_crash(&one);
    open_one("60s", "stream"); /* a crash counts */
    request(&one, 1);
    assert_true(station_has(&one, 1, 3000));
    assert_int_equal(one.inbox[0]->deliveries, 2);
    station_close(&one, 3000);
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
    assert_int_equal(one.n_deleted, 2);
    assert_int_equal(n_pending(), 3);
    station_close(&one, 1000);
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

    snprintf(url, sizeof(url), "redis://:WRONG@127.0.0.1:%d", server.port);
    station_open(&one, &rig, false, set); /* no password is set: the whole advice is told */
    redis_rig_run(&rig, 300);
    assert_int_equal(one.n_failed, 1);
    assert_non_null(strstr(one.why,
                           "Are you sure your configuration is correct? (the server has no "
                           "password set; remove it from the URL)"));
    station_close(&one, 1000);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        REDIS_CASE(test_read_and_ack),
        REDIS_CASE(test_credit_withdrawn),
        REDIS_CASE(test_own_pending_first),
        REDIS_CASE(test_unfinished_at_close_is_returned),
        REDIS_CASE(test_claim_and_lease),
        REDIS_CASE(test_lost_lease_stays_lost),
        REDIS_CASE(test_ghosts),
        REDIS_CASE(test_flush_under_read),
        REDIS_CASE(test_wrong_type_is_fatal),
        REDIS_CASE(test_bad_password_is_fatal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
