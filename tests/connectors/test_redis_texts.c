/*
 * test_redis_texts.c: texts that change, shrink and go, on a real redis-server: what is left of
 * them, and what a late, older message does.
 */
#include "tests/connectors/test_redis.h"

enum { GONE = -1, NONE = -1 };

static size_t n_outdated;
static void (*station_on_count)(void *ctx, enum counter what, uint64_t n);

static void on_count(void *ctx, enum counter what, uint64_t n)
{
    if (what == COUNTER_OUTDATED)
        n_outdated += n;
    else if (station_on_count)
        station_on_count(ctx, what, n);
}

static struct sink_events events;

static void open_texts(const char *output, const char *prefix, const char *expire)
{
    const char *set[] = {"redis.url", server.url,     "redis.output", output, "redis.output_prefix",
                         prefix,      "redis.expire", expire,         NULL};
    station_open(&one, &rig, true, set);
    n_outdated = 0;
    events = *one.sink->events;
    station_on_count = events.on_count;
    events.on_count = on_count;
    one.sink->events = &events;
}

/* A message about the text `id`, which has so many chunks now (0: it is whole; GONE). */
static void write_text(const char *id, int n_chunks, int64_t version)
{
    static char ids[8][40];
    struct part parts[8] = {{{NULL, 0}, {NULL, 0}, {NULL, 0}, NULL, NULL}};
    struct chunk chunks[8];
    struct document document = {.id = {id, strlen(id)},
                                .is_deleted = n_chunks == GONE,
                                .n_chunks = n_chunks > 0 ? (uint32_t)n_chunks : 0,
                                .has_version = version >= 0,
                                .version = version};
    size_t n = n_chunks > 0 ? (size_t)n_chunks : 1;
    char vector[40];
    size_t len = (size_t)snprintf(vector, sizeof vector, "v%d", (int)version);
    for (size_t i = 0; i < n; i++) {
        snprintf(ids[i], sizeof ids[i], n_chunks > 0 ? "%s#%zu" : "%s", id, i);
        chunks[i] = (struct chunk){.parent = document.id, .number = (uint32_t)i};
        parts[i] = (struct part){.id = {ids[i], strlen(ids[i])},
                                 .chunk = n_chunks > 0 ? &chunks[i] : NULL,
                                 .document = &document};
        if (n_chunks != GONE)
            parts[i].vector = (struct bytes){vector, len};
        if (n_chunks != GONE && one.sink->layout == SINK_PER_TEXT)
            parts[i].value = parts[i].vector;
    }
    redis_server_do(&server, "XADD texts * body a lang de");
    request(&one, 1);
    assert_true(station_has(&one, 1, 3000));
    station_publish_parts(&one, station_take(&one), parts, n);
    assert_true(station_quiet(&one, 3000));
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All keys of a prefix, in order, a space behind each. */
static const char *keys(const char *pattern)
{
    static char out[1000];
    redisReply *reply = redis_server_ask(&server, "KEYS %s", pattern);
    const char *names[64];
    size_t len = 0;
    assert_true(reply->elements < 64);
    for (size_t i = 0; i < reply->elements; i++)
        names[i] = reply->element[i]->str;
    qsort(names, reply->elements, sizeof names[0], compare);
    out[0] = '\0';
    for (size_t i = 0; i < reply->elements; i++)
        len += (size_t)snprintf(out + len, sizeof out - len, "%s ", names[i]);
    freeReplyObject(reply);
    return out;
}

static const char *vector_of(const char *key)
{
    static char out[100];
    redisReply *reply = redis_server_ask(
        &server, one.sink->layout == SINK_VECTORS ? "HGET %s embedding" : "GET %s", key);
    snprintf(out, sizeof out, "%s", reply->type == REDIS_REPLY_STRING ? reply->str : "none");
    freeReplyObject(reply);
    return out;
}

static void check_shrinking(const char *output)
{
    redis_server_do(&server, "FLUSHALL");
    open_texts(output, "e:", "0s");
    write_text("a", 0, NONE);
    assert_string_equal(keys("e:*"), "e:a ");
    write_text("a", 5, NONE);
    assert_string_equal(keys("e:*"), "e:a# e:a#0 e:a#1 e:a#2 e:a#3 e:a#4 ");
    write_text("a", 2, NONE);
    assert_string_equal(keys("e:*"), "e:a# e:a#0 e:a#1 ");
    write_text("a", 3, NONE);
    assert_string_equal(keys("e:*"), "e:a# e:a#0 e:a#1 e:a#2 ");
    write_text("a", 0, NONE);
    assert_string_equal(keys("e:*"), "e:a ");
    write_text("a", 4, NONE);
    write_text("b", 1, NONE);
    write_text("a", GONE, NONE);
    assert_string_equal(keys("e:*"), "e:b# e:b#0 ");
    write_text("a", GONE, NONE);
    write_text("b", GONE, NONE);
    assert_string_equal(keys("e:*"), "");
    /* A text of another one's, that is called like a chunk, is nobody's chunk. */
    write_text("a#0", 0, NONE);
    write_text("a", 0, NONE);
    write_text("a", GONE, NONE);
    assert_string_equal(keys("e:*"), "e:a#0 ");
    station_close(&one, 1000);
}

static void test_shrinking(void **state)
{
    (void)state;
    check_shrinking("key");
    check_shrinking("hash");
}

static void check_versions(const char *output)
{
    redis_server_do(&server, "FLUSHALL");
    open_texts(output, "e:", "0s");
    write_text("a", 0, 5);
    assert_string_equal(keys("e:*"), "e:a e:a# ");
    write_text("a", 0, 4);
    write_text("a", 3, 4);
    write_text("a", GONE, 4);
    assert_int_equal(n_outdated, 3);
    assert_string_equal(keys("e:*"), "e:a e:a# ");
    assert_string_equal(vector_of("e:a"), "v5");
    write_text("a", 2, 5); /* the same one again is written */
    assert_string_equal(keys("e:*"), "e:a# e:a#0 e:a#1 ");
    write_text("a", 1, 40); /* and numbers are not compared as text */
    assert_string_equal(keys("e:*"), "e:a# e:a#0 ");
    write_text("a", 5, 39);
    assert_string_equal(vector_of("e:a#0"), "v40");
    write_text("a", GONE, INT64_MAX);
    assert_string_equal(keys("e:*"), "e:a# ");
    assert_int_equal(n_outdated, 4);
    write_text("a", 5, INT64_MAX - 1);
    assert_string_equal(keys("e:*"), "e:a# ");
    assert_int_equal(n_outdated, 5);
    long long left = redis_server_number(&server, "PTTL e:a#");
    assert_true(left > 6 * 24 * 3600 * 1000LL && left <= 7 * 24 * 3600 * 1000LL);
    write_text("a", 1, NONE); /* no version: what comes last counts, and the latest is remembered */
    assert_string_equal(keys("e:*"), "e:a# e:a#0 ");
    assert_int_equal(redis_server_number(&server, "PTTL e:a#"), -1);
    write_text("a", 2, 7);
    assert_int_equal(n_outdated, 6);
    station_close(&one, 1000);
    assert_int_equal(n_pending(), 0);
    assert_int_equal(one.n_not_ours, 0);
}

static void test_versions(void **state)
{
    (void)state;
    check_versions("key");
    check_versions("hash");
}

/* Fields of others in the hash of a text stay when the text is cut into chunks. */
static void test_fields_of_others(void **state)
{
    (void)state;
    redis_server_do(&server, "HSET e:a mine 1");
    open_texts("hash", "e:", "0s");
    write_text("a", 0, NONE);
    write_text("a", 2, NONE);
    assert_string_equal(keys("e:*"), "e:a e:a# e:a#0 e:a#1 ");
    assert_int_equal(redis_server_number(&server, "HLEN e:a"), 1);
    station_close(&one, 1000);
}

static void test_expiry(void **state)
{
    (void)state;
    open_texts("hash", "e:", "1h");
    write_text("a", 2, 1);
    assert_true(redis_server_number(&server, "PTTL e:a#") > 3500000);
    assert_true(redis_server_number(&server, "PTTL e:a#1") > 3500000);
    write_text("a", 0, 2);
    assert_string_equal(keys("e:*"), "e:a e:a# ");
    assert_true(redis_server_number(&server, "PTTL e:a") > 3500000);
    station_close(&one, 1000);
}

/* The key of a whole text may be a stream of ours also when only its chunks are written. */
static void test_reserved_and_wrong_keys(void **state)
{
    (void)state;
    open_texts("key", "", "0s");
    one.buries = true;
    write_text("texts", 2, NONE);
    assert_int_equal(one.n_refused, 1);
    assert_string_equal(one.refused_code, "key_reserved");
    write_text("other#", 0, NONE);
    assert_int_equal(one.n_refused, 2);
    assert_string_equal(one.refused_code, "key_reserved");
    assert_non_null(strstr(one.refused_reason, "ends in #"));
    write_text("other#", 2, NONE);
    assert_int_equal(one.n_refused, 3);
    assert_string_equal(keys("other*"), "");
    redis_server_do(&server, "SET other# something");
    write_text("other", 2, NONE);
    assert_string_equal(one.refused_code, "key_wrong_type");
    assert_non_null(strstr(one.refused_reason, "'other#'"));
    assert_string_equal(keys("other*"), "other# ");
    station_close(&one, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        REDIS_CASE(test_shrinking),
        REDIS_CASE(test_versions),
        REDIS_CASE(test_fields_of_others),
        REDIS_CASE(test_expiry),
        REDIS_CASE(test_reserved_and_wrong_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
