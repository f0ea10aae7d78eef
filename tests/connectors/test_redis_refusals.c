/*
 * test_redis_refusals.c: one record that a real redis-server refuses among many that it takes.
 *
 * Each text says its own id: "text7" is published under the id "7". What is refused becomes a dead
 * letter, all others come out, and the sink lives on; what is refused for every record ends it.
 */
#include "tests/connectors/test_redis.h"

enum { MANY = 1000, POISON = 417 };

/* The three ways out: in one step with the ack, to another database, to another server. */
enum way { SAME_SERVER, OTHER_DATABASE, OTHER_SERVER, N_WAYS };
static struct redis_server other;
static char user_url[160], output_url[200];

/* user: "name:password@", or "". */
static void open_way(enum way way, const char *user, const char *output)
{
    struct redis_server *to = way == OTHER_SERVER ? &other : &server;
    snprintf(user_url, sizeof(user_url), "redis://%s127.0.0.1:%d/0", user, server.port);
    snprintf(output_url, sizeof(output_url), "redis://%s127.0.0.1:%d/%d", user, to->port,
             way == OTHER_DATABASE);
    const char *set[] = {"redis.url",
                         user_url,
                         "redis.output_url",
                         output_url,
                         "redis.output",
                         output,
                         "redis.output_prefix",
                         "e:",
                         NULL};
    station_open(&one, &rig, true, set);
    one.buries = true;
}

static struct redis_server *out(enum way way)
{
    struct redis_server *to = way == OTHER_SERVER ? &other : &server;
    redis_server_do(to, "SELECT %d", way == OTHER_DATABASE);
    return to;
}

static void back(enum way way)
{
    redis_server_do(way == OTHER_SERVER ? &other : &server, "SELECT 0");
}

static void acl(const char *rules)
{
    char text[300];
    snprintf(text, sizeof(text), "ACL SETUSER %s", rules);
    redis_server_do(&server, text);
    redis_server_do(&other, text);
}

static int set_up_ways(void **state)
{
    redis_server_open(&other, false);
    return set_up(state);
}

static int tear_down_ways(void **state)
{
    int rc = tear_down(state);
    redis_server_close(&other);
    return rc;
}

/* Publish all that is in the inbox, in the order it came. */
static void publish_inbox(void)
{
    while (one.n_inbox) {
        char id[24];
        struct message *message = station_take(&one);
        snprintf(id, sizeof(id), "%.*s", (int)message->value.len - 4, message->value.ptr + 4);
        station_publish(&one, message, id, "value", NULL);
    }
}

static void publish_all(size_t n)
{
    add_texts(n);
    request(&one, n);
    assert_true(station_has(&one, n, 10000));
    publish_inbox();
    assert_true(station_quiet(&one, 10000));
}

static void check_all(enum way way, size_t n, const char *code)
{
    assert_int_equal(one.n_failed, 0);
    assert_int_equal(one.n_refused, 1);
    assert_string_equal(one.refused_code, code);
    assert_int_equal(one.n_dead, 1);
    assert_int_equal(redis_server_number(out(way), "XLEN texts:dlq"), 1);
    redisReply *reply = redis_server_ask(out(way), "KEYS e:*");
    assert_int_equal(reply->elements, n);
    freeReplyObject(reply);
    back(way);
    station_close(&one, 2000);
    assert_int_equal(n_pending(), 0);
}

static void test_a_key_of_another_type(void **state)
{
    (void)state;
    for (enum way way = 0; way < N_WAYS; way++) {
        redis_server_do(&server, "FLUSHALL");
        redis_server_do(out(way), "SET e:%d mine", POISON);
        back(way);
        open_way(way, "", "hash");
        publish_all(MANY);
        assert_non_null(strstr(one.refused_reason, "writing to 'e:417': WRONGTYPE "));
        check_all(way, MANY, "key_wrong_type");
        redisReply *reply = redis_server_ask(out(way), "GET e:417");
        assert_string_equal(reply->str, "mine");
        freeReplyObject(reply);
        back(way);
    }
}

/* SET takes a key of any type. */
static void test_set_takes_any_type(void **state)
{
    (void)state;
    redis_server_do(&server, "XADD e:3 * a 1");
    open_way(SAME_SERVER, "", "key");
    publish_all(5);
    assert_int_equal(one.n_acked_too, 5);
    assert_int_equal(one.n_refused, 0);
    station_close(&one, 1000);
}

/* Rights by patterns: this one has no pattern. */
static void test_a_key_without_a_right(void **state)
{
    (void)state;
    for (enum way way = 0; way < N_WAYS; way++)
        for (int is_hash = 0; is_hash < 2; is_hash++) {
            redis_server_do(&server, "FLUSHALL");
            redis_server_do(&other, "FLUSHALL");
            acl("w on >pw resetkeys ~texts* ~e:[0-35-9]* +@all");
            open_way(way, "w:pw@", is_hash ? "hash" : "key");
            publish_all(5); /* 0 to 4, and the last one is refused */
            assert_non_null(strstr(one.refused_reason, "'e:4'"));
            assert_non_null(strstr(one.refused_reason, "NOPERM"));
            check_all(way, 4, "key_not_allowed");
        }
}

/* It is the first one, and the next ones come later. */
static void test_a_right_is_missing_at_first(void **state)
{
    (void)state;
    acl("w on >pw resetkeys ~texts* ~e:[1-9]* +@all");
    open_way(SAME_SERVER, "w:pw@", "hash");
    add_texts(1);
    request(&one, 100);
    assert_true(station_has(&one, 1, 3000));
    publish_inbox();
    redis_rig_run(&rig, 100);
    assert_int_equal(one.n_failed + one.n_refused, 0); /* whose fault it is does not show yet */
    assert_int_equal(one.state, LINK_WAIT);
    redis_server_do(&server, "XADD texts * body text1");
    redis_server_do(&server, "XADD texts * body text2");
    assert_true(station_has(&one, 2, 3000));
    publish_inbox();
    assert_true(station_quiet(&one, 3000));
    check_all(SAME_SERVER, 2, "key_not_allowed");
}

static bool has_failed(void *ctx)
{
    (void)ctx;
    return one.n_failed > 0;
}

/* No key at all: nothing becomes a dead letter, the worker ends and says so. */
static void test_no_right_to_any_key(void **state)
{
    (void)state;
    for (enum way way = 0; way < N_WAYS; way++)
        for (size_t n = 1; n <= MANY; n *= MANY) {
            redis_server_do(&server, "FLUSHALL");
            acl("w on >pw resetkeys ~texts* +@all");
            open_way(way, "w:pw@", "hash");
            add_texts(n);
            request(&one, n);
            assert_true(station_has(&one, n, 10000));
            publish_inbox();
            assert_true(redis_rig_wait(&rig, 10000, has_failed, NULL));
            assert_non_null(strstr(one.why, "ACL SETUSER"));
            assert_int_equal(one.n_refused, 0);
            station_close(&one, 1000);
        }
}

/* A right to the command is everybody's, at once. */
static void test_no_right_to_the_command(void **state)
{
    (void)state;
    acl("w on >pw resetkeys ~* +@all -hset");
    open_way(OTHER_DATABASE, "w:pw@", "hash");
    add_texts(1);
    request(&one, 1);
    assert_true(station_has(&one, 1, 3000));
    publish_inbox();
    assert_true(redis_rig_wait(&rig, 1000, has_failed, NULL));
    assert_int_equal(one.n_refused, 0);
    station_close(&one, 1000);
}

/* The stream that all outputs go to is nobody's own. */
static void test_an_output_stream_of_another_type(void **state)
{
    (void)state;
    for (enum way way = 0; way < N_WAYS; way++) {
        redis_server_do(&server, "FLUSHALL");
        redis_server_do(out(way), "SET texts:embeddings x");
        back(way);
        open_way(way, "", "stream");
        add_texts(1);
        request(&one, 1);
        assert_true(station_has(&one, 1, 3000));
        publish_inbox();
        assert_true(redis_rig_wait(&rig, 1000, has_failed, NULL));
        assert_non_null(strstr(one.why, "'texts:embeddings'"));
        station_close(&one, 1000);
    }
}

/* Of several texts the refused one is named. */
static void test_the_key_among_many_is_named(void **state)
{
    static const char v[] = "vector";
    (void)state;
    for (enum way way = 0; way < N_WAYS; way++) {
        redis_server_do(&server, "FLUSHALL");
        redis_server_do(out(way), "SADD %b mine", "e:b\n\xff", (size_t)5);
        back(way);
        open_way(way, "", "hash");
        add_texts(1);
        request(&one, 1);
        assert_true(station_has(&one, 1, 3000));
        station_publish_parts(&one, station_take(&one),
                              (struct part[]){{.id = {"a", 1}, .vector = {v, 6}},
                                              {.id = {"b\n\xff", 3}, .vector = {v, 6}},
                                              {.id = {"c", 1}, .vector = {v, 6}}},
                              3);
        assert_true(station_quiet(&one, 3000));
        assert_non_null(strstr(one.refused_reason, "'e:b\\x0a\\xff'"));
        assert_string_equal(one.refused_code, "key_wrong_type");
        assert_int_equal(one.n_dead, 1);
        station_close(&one, 1000);
        assert_int_equal(n_pending(), 0);
    }
}

static bool is_waiting(void *ctx)
{
    (void)ctx;
    return one.state == LINK_WAIT;
}

/* A server that is full refuses everybody, for now. */
static void test_a_full_server_is_waited_for(void **state)
{
    (void)state;
    for (enum way way = 0; way < 2; way++) {
        redis_server_do(&server, "FLUSHALL");
        open_way(way, "", "hash");
        add_texts(20);
        request(&one, 20);
        assert_true(station_has(&one, 20, 3000));
        redis_server_do(&server, "CONFIG SET maxmemory 1");
        publish_inbox();
        assert_true(redis_rig_wait(&rig, 3000, is_waiting, NULL));
        redis_rig_run(&rig, 500);
        assert_int_equal(one.n_refused + one.n_failed, 0);
        redis_server_do(&server, "CONFIG SET maxmemory 0");
        assert_true(station_quiet(&one, 20000));
        assert_int_equal(one.n_published + one.n_acked_too, 20);
        station_close(&one, 1000);
    }
}

/* What the server says when a value is above its limit, whether it tells the limit or not. */
static void test_a_value_above_the_limit(void **state)
{
    static char large[3 << 20];
    (void)state;
    acl("w on >pw ~* +@all -config");
    memset(large, 'x', sizeof(large));
    for (int is_reported = 0; is_reported < 2; is_reported++)
        for (int i = 0; i < 2; i++) {
            redis_server_do(&server, "CONFIG SET %s 2097152",
                            i ? "client-query-buffer-limit" : "proto-max-bulk-len");
            open_way(SAME_SERVER, is_reported ? "" : "w:pw@", "key");
            add_texts(2);
            request(&one, 2);
            assert_true(station_has(&one, 2, 3000));
            station_publish_parts(
                &one, station_take(&one),
                (struct part[]){{.id = {"a", 1}, .value = {large, sizeof(large)}}}, 1);
            station_publish(&one, station_take(&one), "b", "small", NULL);
            assert_true(station_quiet(&one, 60000));
            assert_int_equal(one.n_too_large, 1);
            assert_int_equal(one.n_dead, 1);
            assert_int_equal(one.n_acked_too, 2);
            assert_int_equal(one.n_failed, 0);
            station_close(&one, 1000);
            redis_server_do(&server, "CONFIG SET proto-max-bulk-len 536870912");
            redis_server_do(&server, "CONFIG SET client-query-buffer-limit 1073741824");
        }
}

#define WAYS_CASE(f) cmocka_unit_test_setup_teardown(f, set_up_ways, tear_down_ways)

/* Prefix and id make the name of a stream that the worker uses: not overwritten, not deleted. */
static void test_a_stream_of_ours(void **state)
{
    (void)state;
    static const struct {
        const char *prefix, *ids[4];
        int database;
        size_t n_dead;
    } cases[] = {
        {"", {"texts", "texts:dlq", "texts:embeddings", "text"}, 0, 2},
        {"te", {"xts", "xts:dlq", "texts", "xt"}, 0, 2},
        {"texts", {":dlq", ":", "x", "texts"}, 0, 1},
        {"", {"texts", "texts:dlq", "a", "b"}, 1, 1}, /* input and output in two databases */
        /* Notes of workers and of `migrate`: one that is overwritten would end every worker. */
        {"", {"embedmill:made-with:", "embedmill:next:e:1", "embedmill:7", "embedmill"}, 0, 2},
        {"embedmill:", {"made-with:embedmill:", "moving:e:", "7", "made-with"}, 0, 2},
        {"embed", {"mill:migrating:e:", "mill:next-dlq:", "mill:made-with:embed", "m"}, 0, 3},
        {"embedmill:next:e:", {"7", "8", "9", "embedmill:made-with:"}, 0, 0}, /* as migrate has */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        redis_server_do(&server, "FLUSHALL");
        snprintf(output_url, sizeof output_url, "redis://127.0.0.1:%d/%d", server.port,
                 cases[i].database);
        const char *set[] = {"redis.url",
                             server.url,
                             "redis.output_url",
                             output_url,
                             "redis.output",
                             "key",
                             "redis.output_prefix",
                             cases[i].prefix,
                             NULL};
        station_open(&one, &rig, true, set);
        one.buries = true;
        add_texts(5);
        request(&one, 5);
        assert_true(station_has(&one, 5, 10000));
        for (int j = 0; j < 4; j++)
            station_publish(&one, station_take(&one), cases[i].ids[j], "value", NULL);
        const struct part tombstone = {.id = {cases[i].ids[0], strlen(cases[i].ids[0])}};
        station_publish_parts(&one, station_take(&one), &tombstone, 1);
        assert_true(station_quiet(&one, 10000));
        assert_int_equal(one.n_failed, 0);
        bool is_dead = cases[i].database == 0 && cases[i].n_dead > 0; /* the tombstone, of ids[0] */
        assert_int_equal(one.n_refused, cases[i].n_dead + is_dead);
        if (cases[i].n_dead > 0)
            assert_string_equal(one.refused_code, "key_reserved");
        assert_int_equal(redis_server_number(&server, "XLEN texts"), 5);
        redis_server_do(&server, "SELECT %d", cases[i].database);
        assert_int_equal(redis_server_number(&server, "XLEN texts:dlq"), cases[i].n_dead + is_dead);
        redis_server_do(&server, "SELECT 0");
        station_close(&one, 2000);
        assert_int_equal(n_pending(), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WAYS_CASE(test_a_key_of_another_type),
        WAYS_CASE(test_a_stream_of_ours),
        WAYS_CASE(test_set_takes_any_type),
        WAYS_CASE(test_a_key_without_a_right),
        WAYS_CASE(test_a_right_is_missing_at_first),
        WAYS_CASE(test_no_right_to_any_key),
        WAYS_CASE(test_no_right_to_the_command),
        WAYS_CASE(test_an_output_stream_of_another_type),
        WAYS_CASE(test_the_key_among_many_is_named),
        WAYS_CASE(test_a_full_server_is_waited_for),
        WAYS_CASE(test_a_value_above_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
