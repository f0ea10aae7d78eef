/*
 * test_redis_streams.c: several input streams per worker, on a real redis-server.
 */
#include <errno.h>

#include "tests/connectors/test_redis.h"
#include "tests/support/assert_between.h"

#define N_STREAMS 3

static const char *const names[N_STREAMS] = {"a", "b", "c"};

/* With one more option, which may be one of these again. */
static void open_all(struct station *station, const char *consumer, const char *name,
                     const char *value)
{
    const char *set[] = {"redis.url", server.url,         "redis.stream", "a,b,c", "redis.consumer",
                         consumer,    "redis.claim_idle", "900ms",        name,    value,
                         NULL};
    station_open(station, &rig, true, set);
}

static void add_to(const char *stream, size_t n)
{
    for (size_t i = 0; i < n; i++)
        redis_server_do(&server, "XADD %s %d-1 body %s%d", stream, (int)i + 1, stream, (int)i);
}

static long long pending_in(const char *stream)
{
    redisReply *reply = redis_server_ask(&server, "XPENDING %s embedmill", stream);
    long long n = reply->type == REDIS_REPLY_ARRAY ? reply->element[0]->integer : -1;
    freeReplyObject(reply);
    return n;
}

static long long pending_everywhere(void)
{
    return pending_in("a") + pending_in("b") + pending_in("c");
}

static size_t in_inbox(const struct station *station, const char *stream)
{
    size_t n = 0;
    for (size_t i = 0; i < station->n_inbox; i++)
        n += station->inbox[i]->position.ptr[0] == stream[0];
    return n;
}

static void assert_group_of_all(void)
{
    for (size_t i = 0; i < N_STREAMS; i++) {
        redisReply *reply = redis_server_ask(&server, "XINFO GROUPS %s", names[i]);
        assert_int_equal(reply->type, REDIS_REPLY_ARRAY);
        assert_int_equal(reply->elements, 1);
        freeReplyObject(reply);
    }
}

static void assert_refused(const char *const *set, const char *option, const char *phrase)
{
    const struct option *tables[] = {redis_options, NULL};
    struct settings *settings;
    const char *bad_option = NULL;
    char err[400] = "";

    assert_int_equal(settings_open(&settings, tables), 0);
    for (; *set; set += 2)
        assert_int_equal(settings_set(settings, set[0], set[1], err, sizeof(err)), 0);
    assert_int_equal(redis_config_check(settings, &bad_option, err, sizeof(err)), -EINVAL);
    assert_string_equal(bad_option, option);
    if (!strstr(err, phrase))
        fail_msg("%s", err);
    settings_close(settings);
}

static void test_lists(void **state)
{
    struct redis_streams streams;
    char err[200];
    (void)state;

    assert_int_equal(redis_streams_read(&streams, "a, b ,c", "", NULL, err, sizeof(err)), 0);
    assert_int_equal(streams.n, 3);
    assert_string_equal(streams.items[1].name, "b");
    assert_string_equal(streams.items[1].output, "b:embeddings");
    assert_string_equal(streams.items[2].dead_letters, "c:dlq");
    assert_int_equal(redis_streams_targets(&streams, true), 3);
    assert_ptr_equal(redis_streams_find(&streams, bytes_of("c")), &streams.items[2]);
    assert_null(redis_streams_find(&streams, bytes_of("cc")));
    redis_streams_clear(&streams);
    assert_int_equal(redis_streams_read(&streams, "a,b", "out", "dead", err, sizeof(err)), 0);
    assert_string_equal(streams.items[1].output, "out");
    assert_string_equal(streams.items[0].dead_letters, "dead");
    assert_int_equal(redis_streams_targets(&streams, true), 1);
    redis_streams_clear(&streams);

    static const char *const twice[] = {"redis.stream", "a,b,a", NULL};
    assert_refused(twice, "redis.stream", "'a' is named twice");
    static const char *const nothing[] = {"redis.stream", "a,,b", NULL};
    assert_refused(nothing, "redis.stream", "expected a name");
    static const char *const end[] = {"redis.stream", "a,", NULL};
    assert_refused(end, "redis.stream", "expected a name");
    static const char *const out[] = {"redis.stream", "a,b", "redis.output_stream", "c,d", NULL};
    assert_refused(out, "redis.output_stream", "one name");
    static const char *const round[] = {"redis.stream", "a,b,a:embeddings", NULL};
    assert_refused(round, "redis.output_stream", "'a:embeddings' is the input stream itself");
    static const char *const dead[] = {"redis.stream", "a,b", "redis.dead_letters", "b", NULL};
    assert_refused(dead, "redis.dead_letters", "'b' is the input stream itself");
}

/* A busy stream and quiet ones: a share for each, and never more than was asked for. */
static void test_fair_reading(void **state)
{
    (void)state;
    add_to("a", 500);
    open_all(&one, "one", "redis.claim_idle", "60s");
    request(&one, 10);
    assert_true(station_has(&one, 10, 5000));
    add_to("b", 40);
    add_to("c", 2);
    redis_rig_run(&rig, 200);
    assert_int_equal(one.n_given, 10);
    assert_int_equal(pending_everywhere(), 10); /* nothing was taken that others could have */
    request(&one, 12);
    assert_true(station_has(&one, 22, 5000));
    assert_int_equal(in_inbox(&one, "c"), 2);
    assert_true(in_inbox(&one, "b") >= 4);
    assert_true(in_inbox(&one, "a") > 10);
    redis_rig_run(&rig, 200);
    assert_int_equal(one.n_given, 22);
    assert_int_equal(pending_everywhere(), 22);
    assert_group_of_all();
    station_close(&one, 1000);
}

/* Less credit than streams: they take turns, so that a busy one keeps nobody waiting. */
static void test_less_credit_than_streams(void **state)
{
    (void)state;
    add_to("b", 100);
    open_all(&one, "one", "redis.claim_idle", "60s");
    for (size_t i = 1; i <= 20; i++) {
        if (i == 10)
            add_to("c", 1);
        request(&one, 1);
        assert_true(station_has(&one, i, 5000));
        assert_int_equal(pending_everywhere(), i);
    }
    assert_int_equal(in_inbox(&one, "c"), 1);
    assert_int_equal(in_inbox(&one, "b"), 19);
    station_close(&one, 1000);
}

static long long n_reads(void)
{
    redisReply *reply = redis_server_ask(&server, "INFO commandstats");
    const char *at = strstr(reply->str, "cmdstat_xreadgroup:calls=");
    long long n = at ? atoll(strchr(at, '=') + 1) : 0;
    freeReplyObject(reply);
    return n;
}

/* ... and nothing anywhere: it waits, on all of them in turn, without spinning. */
static void test_little_credit_and_nothing_there(void **state)
{
    (void)state;
    open_all(&one, "one", "redis.claim_idle", "60s");
    request(&one, 1);
    redis_rig_run(&rig, 500);
    long long before = n_reads();
    redis_rig_run(&rig, 1000);
    assert_between(n_reads() - before, 2, 40);
    for (size_t i = 0; i < N_STREAMS; i++) {
        add_to(names[i], 1);
        assert_true(station_has(&one, i + 1, 5000));
        request(&one, 1);
    }
    station_close(&one, 1000);
}

/* The same ids in all streams: each output, dead letter and ack goes where it belongs. */
static void publish_all(const char *name, const char *value, int db)
{
    open_all(&one, "one", name, value);
    for (size_t i = 0; i < N_STREAMS; i++)
        add_to(names[i], 30);
    request(&one, 90);
    assert_true(station_has(&one, 90, 5000));
    for (size_t i = 0; i < 90; i++) {
        struct message *message = station_take(&one);
        char out[40];
        snprintf(out, sizeof(out), "out:%.*s", (int)message->value.len, message->value.ptr);
        bool is_bad = bytes_are(message->value, "b7");
        station_publish(&one, message, "id", out, is_bad ? "bad_json" : NULL);
    }
    assert_true(station_quiet(&one, 5000));
    station_close(&one, 3000);
    assert_int_equal(pending_everywhere(), 0);
    redis_server_do(&server, "SELECT %d", db);
}

static void assert_all_published(void)
{
    for (size_t i = 0; i < N_STREAMS; i++) {
        bool is_b = names[i][0] == 'b';
        redisReply *reply = redis_server_ask(&server, "XRANGE %s:embeddings - +", names[i]);
        assert_int_equal(reply->elements, is_b ? 29 : 30);
        for (size_t k = 0; k < reply->elements; k++)
            assert_int_equal(reply->element[k]->element[1]->element[1]->str[4], names[i][0]);
        freeReplyObject(reply);
    }
    redisReply *reply = redis_server_ask(&server, "XRANGE b:dlq - +");
    assert_int_equal(reply->elements, 1);
    const redisReply *fields = reply->element[0]->element[1];
    assert_string_equal(redis_reply_field(fields, "_stream")->str, "b");
    assert_string_equal(redis_reply_field(fields, "_id")->str, "8-1");
    freeReplyObject(reply);
    assert_int_equal(redis_server_number(&server, "EXISTS a:dlq c:dlq"), 0);
}

static void test_published_in_one_step(void **state)
{
    (void)state;
    publish_all("redis.maxlen", "0", 0);
    assert_int_equal(one.n_acked_too, 90);
    assert_all_published();
}

static void test_published_then_acked(void **state)
{
    char url[80];
    (void)state;

    snprintf(url, sizeof(url), "%s/1", server.url);
    publish_all("redis.output_url", url, 1);
    assert_int_equal(one.n_published, 90);
    assert_all_published();
}

/* One output and one place for dead letters, named by the user. */
static void test_one_output(void **state)
{
    (void)state;
    publish_all("redis.output_stream", "out", 0);
    assert_int_equal(redis_server_number(&server, "XLEN out"), 89);
}

/* After a crash what was pending comes first, from every stream; what was deleted is acked. */
static void test_own_pending(void **state)
{
    (void)state;
    open_all(&one, "one", "redis.claim_idle", "60s");
    for (size_t i = 0; i < N_STREAMS; i++)
        add_to(names[i], 150);
    request(&one, 450);
    assert_true(station_has(&one, 450, 5000));
    station_crash(&one);
    assert_int_equal(pending_everywhere(), 450);
    redis_server_do(&server, "XDEL b 3-1 4-1");
    redis_server_do(&server, "XDEL c 150-1");
    redis_server_do(&server, "XADD a * body new");
    open_all(&one, "one", "redis.claim_idle", "60s");
    request(&one, 1000);
    assert_true(station_has(&one, 448, 5000));
    assert_int_equal(one.n_deleted, 3);
    for (size_t i = 0; i < 447; i++)
        assert_int_equal(one.inbox[i]->deliveries, 2);
    assert_true(bytes_are(one.inbox[447]->value, "new"));
    assert_int_equal(in_inbox(&one, "b"), 148);
    station_close(&one, 2000);

    /* Given back, as if not delivered, in each of them. */
    for (size_t i = 0; i < N_STREAMS; i++) {
        redisReply *reply = redis_server_ask(&server, "XPENDING %s embedmill - + 1", names[i]);
        assert_int_equal(reply->element[0]->element[3]->integer, 1);
        freeReplyObject(reply);
    }
}

/* What a dead one had is taken over in every stream; what a living one has is not in any. */
static void test_claims_and_leases(void **state)
{
    (void)state;
    open_all(&one, "one", "redis.maxlen", "0");
    for (size_t i = 0; i < N_STREAMS; i++)
        add_to(names[i], 10);
    request(&one, 15);
    assert_true(station_has(&one, 15, 5000));
    redis_server_do(&server, "XREADGROUP GROUP embedmill dead COUNT 100 STREAMS a b c > > >");
    open_all(&two, "two", "redis.maxlen", "0");
    request(&two, 100);
    assert_true(station_has(&two, 15, 5000));
    redis_rig_run(&rig, 2500);
    assert_int_equal(two.n_given, 15);
    for (size_t i = 0; i < N_STREAMS; i++)
        assert_int_equal(in_inbox(&one, names[i]) + in_inbox(&two, names[i]), 10);
    station_crash(&one);
    assert_true(station_has(&two, 30, 5000));
    for (size_t i = 0; i < N_STREAMS; i++)
        assert_int_equal(in_inbox(&two, names[i]), 10);
    station_close(&two, 1000);
}

static bool b_has_group(void *ctx)
{
    (void)ctx;
    redisReply *reply = redis_server_ask(&server, "XINFO GROUPS b");
    bool found = reply->type == REDIS_REPLY_ARRAY && reply->elements == 1;
    freeReplyObject(reply);
    return found;
}

/* A group that goes, and a stream that does: made again, and the others go on. */
static void test_lost_group(void **state)
{
    static const char *const losses[] = {"XGROUP DESTROY b embedmill", "DEL b"};
    (void)state;

    open_all(&one, "one", "redis.claim_idle", "60s");
    request(&one, 100);
    assert_true(redis_rig_wait(&rig, 5000, b_has_group, NULL));
    for (size_t i = 0; i < 2; i++) {
        redis_rig_run(&rig, 100);
        redis_server_do(&server, losses[i]);
        assert_true(redis_rig_wait(&rig, 5000, b_has_group, NULL));
        redis_server_do(&server, "XADD b * body again%d", (int)i);
        redis_server_do(&server, "XADD c * body again%d", (int)i);
        assert_true(station_has(&one, 2 * (i + 1), 5000));
    }
    assert_int_equal(one.n_failed, 0);
    station_close(&one, 1000);
}

static bool has_failed(void *ctx)
{
    (void)ctx;
    return one.n_failed > 0;
}

/* It is told which. */
static void test_wrong_type(void **state)
{
    (void)state;
    redis_server_do(&server, "SET b hello");
    open_all(&one, "one", "redis.claim_idle", "60s");
    assert_true(redis_rig_wait(&rig, 5000, has_failed, NULL));
    assert_non_null(strstr(one.why, "stream b,"));
    assert_non_null(strstr(one.why, "holds another type"));
    station_close(&one, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        REDIS_CASE(test_fair_reading),
        REDIS_CASE(test_less_credit_than_streams),
        REDIS_CASE(test_little_credit_and_nothing_there),
        REDIS_CASE(test_published_in_one_step),
        REDIS_CASE(test_published_then_acked),
        REDIS_CASE(test_one_output),
        REDIS_CASE(test_own_pending),
        REDIS_CASE(test_claims_and_leases),
        REDIS_CASE(test_lost_group),
        REDIS_CASE(test_wrong_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
