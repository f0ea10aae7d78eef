/*
 * test_redis_sink.c: outputs, dead letters and the atomic step on a real redis-server.
 */
#include "tests/connectors/test_redis.h"
#include "tests/support/assert_between.h"

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
                          (struct part[]){{.id = {"i", 1}, .value = {value, sizeof(value)}}}, 1);
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
    assert_between(redis_server_number(&server, "XLEN texts:embeddings"), 100, 120);
}

static void publish_parts(const char *output, const char *expire)
{
    static const char v1[] = "\0\1\2\r\n", v2[] = "second";
    static const struct chunk chunk = {{"b", 1}, false, 3, 70, 4000000000};
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
    assert_int_equal(one.sink->layout, strcmp(output, "hash") == 0 ? SINK_VECTORS : SINK_PER_TEXT);
    bool is_hash = one.sink->layout == SINK_VECTORS; /* whose values are absent */
    redis_server_do(&server, "XADD texts * body a lang de embedding mine start x");
    request(&one, 2);
    assert_true(station_has(&one, 1, 3000));
    station_publish_parts(
        &one, station_take(&one),
        (struct part[]){{{"a", 1}, {is_hash ? NULL : v1, 5}, {v1, 5}, NULL, NULL},
                        {{"b\0c", 3}, {is_hash ? NULL : v2, 6}, {v2, 6}, &chunk, NULL},
                        {.id = {"gone", 4}}},
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
    assert_between(redis_server_number(&server, "PTTL e:a"), 3500000, 3600000);
}

static void test_hash_output(void **state)
{
    static const char *const b[] = {"embedding", "second", "lang", "de",        "_embedding",
                                    "mine",      "start",  "70",   "parent",    "b",
                                    "chunk",     "3",      "end",  "4000000000"};
    (void)state;

    publish_parts("hash", "1h");
    redisReply *reply = redis_server_ask(&server, "HGETALL %b", "e:b\0c", (size_t)5);
    assert_fields(reply, b, 14);
    freeReplyObject(reply);
    reply = redis_server_ask(&server, "HGET e:a embedding");
    assert_int_equal(reply->len, 5);
    assert_memory_equal(reply->str, "\0\1\2\r\n", 5);
    freeReplyObject(reply);
    assert_between(redis_server_number(&server, "PTTL e:a"), 3500000, 3600000);
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

static void publish_one(const char *url, const char *output_url, size_t n_acked_too,
                        size_t n_published)
{
    const char *set[] = {"redis.url", url, "redis.output_url", output_url, NULL};

    station_open(&one, &rig, true, set);
    redis_server_do(&server, "XADD texts * body a");
    request(&one, 1);
    assert_true(station_has(&one, 1, 3000));
    station_publish(&one, station_take(&one), "id", "value", NULL);
    assert_true(station_quiet(&one, 3000));
    station_close(&one, 1000);
    if (one.n_acked_too != n_acked_too || one.n_published != n_published)
        fail_msg("%s to %s: %zu in one step, %zu acked afterwards", url, output_url,
                 one.n_acked_too, one.n_published);
}

/* Which server it is, is asked; how its URL is spelt does not matter. */
static void test_one_server_by_several_names(void **state)
{
    struct redis_server other;
    char name[80], db_name[100], db_socket[120], db_one[120];
    (void)state;

    snprintf(name, sizeof(name), "redis://localhost:%d", server.port);
    publish_one(server.url, name, 1, 0);
    publish_one(name, server.socket_url, 1, 0);
    publish_one(server.socket_url, server.url, 1, 0);
    assert_int_equal(redis_server_number(&server, "XLEN texts:embeddings"), 3);

    snprintf(db_socket, sizeof(db_socket), "%s?db=1", server.socket_url);
    publish_one(server.url, db_socket, 0, 1);
    snprintf(db_name, sizeof(db_name), "%s/1", name);
    redis_server_do(&server, "SELECT 1");
    publish_one(db_name, db_socket, 1, 0);
    snprintf(db_one, sizeof(db_one), "%s/0", server.url);
    publish_one(db_name, db_one, 0, 1);
    redis_server_do(&server, "SELECT 0");

    redis_server_open(&other, false);
    publish_one(server.url, other.url, 0, 1);
    assert_int_equal(redis_server_number(&other, "XLEN texts:embeddings"), 1);
    redis_server_close(&other);
    assert_int_equal(n_pending(), 0);
}

/* A user who may not ask: the URLs decide, as well as they can. */
static void test_a_server_that_does_not_tell(void **state)
{
    char url[120], name[120];
    (void)state;

    redis_server_do(&server, "ACL SETUSER mute on >pw ~* +@all -info");
    snprintf(url, sizeof(url), "redis://mute:pw@127.0.0.1:%d", server.port);
    snprintf(name, sizeof(name), "redis://mute:pw@localhost:%d", server.port);
    publish_one(url, url, 1, 0);
    publish_one(url, name, 0, 1);
    publish_one(server.url, url, 1, 0);
}

/* Found out late, because the URLs did not show it; not one entry may go round. */
static void test_output_into_the_input(void **state)
{
    const char *set[] = {
        "redis.url", server.url, "redis.output_url", server.socket_url, "redis.output_stream",
        "texts",     NULL};
    (void)state;

    station_open(&one, &rig, true, set);
    add_texts(1);
    request(&one, 1);
    assert_true(station_has(&one, 1, 3000));
    station_publish(&one, station_take(&one), "id", "value", NULL);
    redis_rig_run(&rig, 300);
    assert_int_equal(one.n_failed, 1);
    assert_non_null(strstr(one.why, "redis.output_stream: 'texts' is the input stream itself"));
    station_close(&one, 300);
    assert_int_equal(redis_server_number(&server, "XLEN texts"), 1);
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
                          (struct part[]){{.id = {"a", 1}, .value = {big, 2 << 20}}}, 1);
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
    assert_non_null(strstr(one.why, "is the server running, with this unixsocket?"));
    station_close(&one, 100);
}

/* A user with no right to the note: what waits at a new connection is written all the same. */
static void test_a_note_that_may_not_be_kept(void **state)
{
    char url[120];
    const char *set[] = {"redis.url", url, "redis.output", "key", "redis.output_prefix",
                         "e:",        NULL};
    (void)state;

    redis_server_do(&server, "ACL SETUSER writer on >pw ~texts* ~e:* +@all");
    snprintf(url, sizeof(url), "redis://writer:pw@127.0.0.1:%d", server.port);
    station_open(&one, &rig, true, set);
    one.sink->made_with = "model: m\n";
    add_texts(1);
    request(&one, 1);
    assert_true(station_has(&one, 1, 3000));
    redis_server_do(&server, "CLIENT KILL TYPE normal SKIPME yes");
    redis_rig_run(&rig, 20); /* both links are down now, and pause */
    station_publish(&one, station_take(&one), "id", "value", NULL);
    assert_true(station_quiet(&one, 3000));
    assert_int_equal(one.n_acked_too, 1);
    assert_int_equal(one.n_failed, 0);
    station_close(&one, 500);
    assert_int_equal(redis_server_number(&server, "EXISTS e:id embedmill:made-with:e:"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        REDIS_CASE(test_exactly_once),
        REDIS_CASE(test_stream_output),
        REDIS_CASE(test_stream_is_trimmed),
        REDIS_CASE(test_key_output),
        REDIS_CASE(test_hash_output),
        REDIS_CASE(test_dead_letter),
        REDIS_CASE(test_one_server_by_several_names),
        REDIS_CASE(test_a_server_that_does_not_tell),
        REDIS_CASE(test_output_into_the_input),
        REDIS_CASE(test_plain_output),
        REDIS_CASE(test_out_of_memory),
        REDIS_CASE(test_output_of_wrong_type),
        REDIS_CASE(test_too_large),
        REDIS_CASE(test_script_flush),
        REDIS_CASE(test_unix_socket),
        REDIS_CASE(test_a_note_that_may_not_be_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
