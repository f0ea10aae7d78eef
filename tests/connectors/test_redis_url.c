/*
 * test_redis_url.c: URLs, ids, entry tables: the parts of the Redis connector that
 * need no server.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "connectors/redis/redis.h"
#include "connectors/redis/redis_entry.h"
#include "connectors/redis/redis_reply.h"
#include "connectors/health.h"
#include "connectors/redis/redis_url.h"
#include "tests/support/assert_between.h"

static void assert_text(const char *got, const char *expected)
{
    if (!expected)
        assert_null(got);
    else
        assert_string_equal(got, expected);
}

static void test_good_urls(void **state)
{
    static const struct {
        const char *text, *host, *path;
        int port;
        const char *user, *password;
        int db;
        const char *print;
    } cases[] = {
        {"redis://h", "h", NULL, 6379, NULL, NULL, 0, "h:6379/0"},
        {"redis://h/", "h", NULL, 6379, NULL, NULL, 0, "h:6379/0"},
        {"REDIS://h:1/15", "h", NULL, 1, NULL, NULL, 15, "h:1/15"},
        {"redis://:pw@h:65535", "h", NULL, 65535, NULL, "pw", 0, "h:65535/0"},
        {"redis://u:p@h", "h", NULL, 6379, "u", "p", 0, "h:6379/0"},
        {"redis://u:p%40%2F%3a%25@h", "h", NULL, 6379, "u", "p@/:%", 0, "h:6379/0"},
        {"redis://u%20v:a@b@h", "h", NULL, 6379, "u v", "a@b", 0, "h:6379/0"},
        {"redis://u:p:q@h", "h", NULL, 6379, "u", "p:q", 0, "h:6379/0"},
        {"redis://[::1]", "::1", NULL, 6379, NULL, NULL, 0, "[::1]:6379/0"},
        {"redis://:x@[fe80::1%25eth0]:7000/2", "fe80::1%eth0", NULL, 7000, NULL, "x", 2,
         "[fe80::1%eth0]:7000/2"},
        {"unix:///run/redis.sock", NULL, "/run/redis.sock", 0, NULL, NULL, 0, "/run/redis.sock/0"},
        {"unix://:pw@/run/a%20b?db=3", NULL, "/run/a b", 0, NULL, "pw", 3, "/run/a b/3"},
        {"redis+sentinel://h/m", NULL, NULL, 0, NULL, NULL, 0, "m/0 by sentinels h:26379"},
        {"rediss+sentinel://u:p@h:1,[::1],g/my%20m/2", NULL, NULL, 0, "u", "p", 2,
         "my m/2 by sentinels h:1,[::1]:26379,g:26379"},
        {"redis+cluster://h", NULL, NULL, 0, NULL, NULL, 0, "cluster h:6379"},
        {"rediss+cluster://u:p@h:1,[::1],g/", NULL, NULL, 0, "u", "p", 0,
         "cluster h:1,[::1]:6379,g:6379"},
        {"redis+cluster://h:7000/0", NULL, NULL, 0, NULL, NULL, 0, "cluster h:7000"},
    };
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct redis_url url;
        char err[400] = "", print[128];
        if (redis_url_parse(&url, cases[i].text, err, sizeof(err)))
            fail_msg("%s: %s", cases[i].text, err);
        assert_text(url.host, cases[i].host);
        assert_text(url.path, cases[i].path);
        assert_text(url.user, cases[i].user);
        assert_text(url.password, cases[i].password);
        if (cases[i].host)
            assert_int_equal(url.port, cases[i].port);
        assert_int_equal(url.db, cases[i].db);
        redis_url_print(&url, print, sizeof(print));
        assert_string_equal(print, cases[i].print);
        redis_url_clear(&url);
    }
}

static void test_bad_urls(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "not a Redis URL"},
        {"http://SECRET@h", "not a Redis URL"},
        {"localhost:6379", "not a Redis URL"},
        {"rediss://u:SECRET@", "host is missing"},
        {"redis://", "host is missing"},
        {"redis://:SECRET@", "host is missing"},
        {"redis://:SECRET@:6379", "host is missing"},
        {"redis://h:0", "port"},
        {"redis://:SECRET@h:65536", "port"},
        {"redis://h:", "port"},
        {"redis://h:12x", "port"},
        {"redis://h/x", "database"},
        {"redis://h/-1", "database"},
        {"redis://h/1/2", "database"},
        {"redis://h/99999999999999999999", "database"},
        {"redis://h?db=1", "options"},
        {"redis://u:SECRET%4@h", "escape"},
        {"redis://u:SECRET%zz@h", "escape"},
        {"redis://u:SECRET%00@h", "escape"},
        {"redis://u:SECRET%", "port"}, /* no @: the password looks like a port */
        {"redis://h%", "host has a bad %-escape"},
        {"redis://[::1", "closing ]"},
        {"redis://[::1]x", "follow the ]"},
        {"redis://::1", "brackets"},
        {"redis://SECRET@h", "no password"},
        {"redis+sentinel://u:SECRET@h", "name of the master is missing"},
        {"redis+sentinel://h/", "name of the master is missing"},
        {"redis+sentinel://h,,g/m", "host is missing"},
        {"redis+sentinel://h,/m", "host is missing"},
        {"redis+sentinel://h:0/m", "port"},
        {"redis+sentinel://h/m/x", "database"},
        {"redis+sentinel://h/m?x=1", "options"},
        {"redis+sentinel://h/%0", "escape"},
        {"redis+cluster://u:SECRET@", "host is missing"},
        {"redis+cluster://h,", "host is missing"},
        {"redis+cluster://h/1", "database 0 only"},
        {"redis+cluster://h?x=1", "database 0 only"},
        {"unix://run/redis.sock", "absolute"},
        {"unix:///", "absolute"},
        {"unix:///a?x=1", "?db=N only"},
        {"unix:///a?db=", "database"},
        {"unix:///0123456789012345678901234567890123456789012345678901234567890123456789012345678"
         "90123456789012345678901234567890",
         "longer"},
    };
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct redis_url url;
        char err[400] = "";
        assert_int_not_equal(redis_url_parse(&url, cases[i].text, err, sizeof(err)), 0);
        if (!strstr(err, cases[i].says))
            fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].text, err, cases[i].says);
        assert_null(strstr(err, "SECRET"));
    }
}

static void test_same_server(void **state)
{
    static const struct {
        const char *a, *b;
        bool same;
    } cases[] = {
        {"redis://h", "redis://u:p@H:6379/0", true},
        {"redis://h", "redis://h/1", false},
        {"redis://h", "redis://h:1", false},
        {"redis://h", "redis://g", false},
        {"unix:///a", "unix:///a?db=0", true},
        {"unix:///a", "unix:///b", false},
        {"unix:///a", "redis://a", false},
        {"redis+sentinel://a,b/m", "redis+sentinel://A:26379,b/m", true},
        {"redis+sentinel://a,b/m", "redis+sentinel://a/m", false},
        {"redis+sentinel://a/m", "redis+sentinel://b/m", false},
        {"redis+sentinel://a/m", "redis+sentinel://a/n", false},
        {"redis+sentinel://a/m", "redis://a:26379", false},
        {"redis+sentinel://a/m", "unix:///a", false},
        {"redis+cluster://a,b", "redis+cluster://A:6379,b/0", true},
        {"redis+cluster://a,b", "redis+cluster://b,a", false},
        {"redis+cluster://a", "redis+sentinel://a:6379/m", false},
        {"redis+cluster://a", "redis://a", false},
    };
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct redis_url a, b;
        char err[400];
        assert_int_equal(redis_url_parse(&a, cases[i].a, err, sizeof(err)), 0);
        assert_int_equal(redis_url_parse(&b, cases[i].b, err, sizeof(err)), 0);
        assert_int_equal(redis_url_same(&a, &b), cases[i].same);
        assert_int_equal(redis_url_same(&b, &a), cases[i].same);
        redis_url_clear(&a);
        redis_url_clear(&b);
    }
}

static void test_hush(void **state)
{
    static const char *const cases[][2] = {
        {"ERR unknown command 'AUTH', with args beginning with: 's3cret' ",
         "ERR unknown command 'AUTH'"},
        {"ERR unknown command `XADD`, with args beginning with: `texts`, `*`, `body`, `a text`, ",
         "ERR unknown command `XADD`"},
        {"OOM command not allowed", "OOM command not allowed"},
    };
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[200];
        snprintf(text, sizeof(text), "%s", cases[i][0]);
        redisReply reply = {.type = REDIS_REPLY_ERROR, .str = text, .len = strlen(text)};
        redis_reply_hush(&reply);
        assert_string_equal(text, cases[i][1]);
        assert_int_equal(reply.len, strlen(text));
        /* A text of a message may well say so. */
        snprintf(text, sizeof(text), "%s", cases[i][0]);
        reply = (redisReply){.type = REDIS_REPLY_STRING, .str = text, .len = strlen(text)};
        redis_reply_hush(&reply);
        assert_string_equal(text, cases[i][0]);
    }
}

static void test_ids(void **state)
{
    static const char *const bad[] = {"",
                                      "1",
                                      "1-",
                                      "-1",
                                      "1-2-3",
                                      "a-1",
                                      "1-a",
                                      " 1-1",
                                      "1-1 ",
                                      "+1-1",
                                      "18446744073709551616-0"};
    struct redis_id id = {7, 7};
    char text[REDIS_ID_SIZE];
    (void)state;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(redis_id_parse(&id, bad[i], strlen(bad[i])));
    assert_int_equal(id.ms, 7);
    assert_true(redis_id_parse(&id, "18446744073709551615-18446744073709551615", 41));
    assert_int_equal(redis_id_print(id, text), 41);
    assert_string_equal(text, "18446744073709551615-18446744073709551615");
    assert_true(redis_id_compare((struct redis_id){1, 9}, (struct redis_id){2, 0}) < 0);
    assert_true(redis_id_compare((struct redis_id){2, 1}, (struct redis_id){2, 0}) > 0);
}

static bool read_master(const char *wire, char *host, size_t size, int *port)
{
    redisReader *reader = redisReaderCreate();
    void *reply = NULL;

    assert_int_equal(redisReaderFeed(reader, wire, strlen(wire)), REDIS_OK);
    assert_int_equal(redisReaderGetReply(reader, &reply), REDIS_OK);
    assert_non_null(reply);
    bool is_master = redis_reply_master(reply, host, size, port);
    freeReplyObject(reply);
    redisReaderFree(reader);
    return is_master;
}

static void test_sentinel_answers(void **state)
{
    static const char *const bad[] = {"*-1\r\n",
                                      "+OK\r\n",
                                      "*1\r\n$2\r\n::\r\n",
                                      "*2\r\n$2\r\n::\r\n$-1\r\n",
                                      "*2\r\n$2\r\n::\r\n$1\r\n0\r\n",
                                      "*2\r\n$2\r\n::\r\n$5\r\n65536\r\n",
                                      "*2\r\n$0\r\n\r\n$4\r\n6379\r\n",
                                      "*2\r\n$8\r\n10.0.0.1\r\n$4\r\n6379\r\n"};
    char host[8] = "before";
    int port = 7;
    (void)state;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(read_master(bad[i], host, sizeof(host), &port));
    assert_string_equal(host, "before");
    assert_int_equal(port, 7);
    assert_true(read_master("*2\r\n$7\r\n1.2.3.4\r\n$5\r\n65535\r\n", host, sizeof(host), &port));
    assert_string_equal(host, "1.2.3.4");
    assert_int_equal(port, 65535);
}

/* Adding and removing at random, against a plain array. */
static void test_table(void **state)
{
    enum { N = 2000 };
    static struct redis_entry *kept[N];
    static const struct redis_stream streams[2];
    struct redis_table table = {0};
    unsigned seed = 20240117;
    size_t n = 0;
    (void)state;

    print_message("seed %u\n", seed);
    for (int step = 0; step < 100000; step++) {
        size_t i = (size_t)rand_r(&seed) % N;
        /* Ids as they come: many in one millisecond, and the same in another stream. */
        const struct redis_stream *stream = &streams[i % 2];
        struct redis_id id = {1700000000000u + i / 2 / 7, i / 2 % 7};
        assert_ptr_equal(redis_table_find(&table, stream, id), kept[i]);
        if (!kept[i]) {
            kept[i] = calloc(1, sizeof(struct redis_entry));
            kept[i]->stream = stream;
            kept[i]->id = id;
            assert_int_equal(redis_table_add(&table, kept[i]), 0);
            n++;
        } else {
            redis_table_remove(&table, kept[i]);
            free(kept[i]);
            kept[i] = NULL;
            n--;
        }
        assert_int_equal(table.n, n);
    }
    size_t n_listed = 0;
    for (size_t k = 0; k < 2; k++)
        for (size_t at = 0; redis_table_next(&table, &streams[k], &at);)
            n_listed++;
    assert_int_equal(n_listed, n);
    redis_table_close(&table);
}

static void test_backoff(void **state)
{
    struct backoff backoff = {0};
    uint64_t pause = 0;
    (void)state;

    for (int i = 0; i < 200; i++) {
        uint64_t most = i < 7 ? (uint64_t)BACKOFF_FIRST_MS << i : BACKOFF_MAX_MS;
        pause = backoff_next(&backoff);
        if (most > BACKOFF_MAX_MS)
            most = BACKOFF_MAX_MS;
        assert_between(pause, most / 2, most);
    }
    backoff.attempts = 0;
    assert_between(backoff_next(&backoff), BACKOFF_FIRST_MS / 2, BACKOFF_FIRST_MS);
}

static int n_reported;
static void count_state(void *ctx, enum link_state state, const char *why)
{
    (void)ctx;
    (void)state;
    (void)why;
    n_reported++;
}

static void test_state_is_reported_once(void **state)
{
    struct health link;
    (void)state;

    n_reported = 0;
    health_open(&link, 3, count_state, NULL);
    health_good(&link, 1);
    assert_int_equal(n_reported, 0);
    health_good(&link, 2);
    health_good(&link, 2);
    assert_int_equal(n_reported, 1);
    health_wait(&link, 1, "away");
    health_wait(&link, 2, "away");
    health_wait(&link, 1, "away");
    assert_int_equal(n_reported, 2);
    health_wait(&link, 1, "loading");
    assert_int_equal(n_reported, 3);
    health_good(&link, 1);
    assert_int_equal(n_reported, 3);
    health_good(&link, 2);
    assert_int_equal(n_reported, 4);
}

static void test_consumer_names(void **state)
{
    struct redis_stream items[] = {{.name = (char *)"s"}, {.name = (char *)"t"}};
    struct redis_config config = {.streams = {.items = items, .n = 1}, .group = (char *)"g"};
    char *a, *b, *c, *d;
    int lock_a, lock_b, lock_c, locks_d[2];
    (void)state;

    assert_int_equal(redis_consumer_name(&config, &a, &lock_a), 0);
    assert_int_equal(redis_consumer_name(&config, &b, &lock_b), 0);
    assert_string_not_equal(a, b);
    /* One stream in common is enough: another name. What it held of the other one is free again. */
    config.streams.n = 2;
    assert_int_equal(redis_consumer_name(&config, &d, locks_d), 0);
    assert_string_not_equal(d, a);
    assert_string_not_equal(d, b);
    close(locks_d[0]);
    close(locks_d[1]);
    free(d);
    config.streams = (struct redis_streams){.items = &items[1], .n = 1};
    assert_int_equal(redis_consumer_name(&config, &d, locks_d), 0);
    assert_string_equal(d, a);
    close(locks_d[0]);
    free(d);
    config.streams = (struct redis_streams){.items = items, .n = 1};
    close(lock_a);
    assert_int_equal(redis_consumer_name(&config, &c, &lock_c), 0);
    assert_string_equal(a, c); /* the same again once the first is gone */
    close(lock_b);
    close(lock_c);
    free(a);
    free(b);
    free(c);
    config.consumer = (char *)"mine";
    assert_int_equal(redis_consumer_name(&config, &a, &lock_a), 0);
    assert_string_equal(a, "mine");
    assert_int_equal(lock_a, -1);
    free(a);
}

static void test_config(void **state)
{
    const struct option *tables[] = {redis_options, NULL};
    struct settings *settings;
    struct redis_config config;
    char err[512];
    (void)state;

    assert_int_equal(settings_open(&settings, tables), 0);
    assert_int_equal(redis_config_read(&config, settings, err, sizeof(err)), 0);
    assert_int_equal(config.streams.n, 1);
    assert_string_equal(config.streams.items[0].output, "texts:embeddings");
    assert_string_equal(config.streams.items[0].dead_letters, "texts:dlq");
    assert_int_equal(config.claim_idle_ms, 60000);
    assert_true(redis_url_same(&config.url, &config.output_url));
    redis_config_clear(&config);
    assert_int_equal(settings_set(settings, "redis.output_url", "rediss://:SECRET@h/x", err, 512),
                     0);
    assert_int_not_equal(redis_config_read(&config, settings, err, sizeof(err)), 0);
    assert_non_null(strstr(err, "redis.output_url"));
    assert_null(strstr(err, "SECRET"));
    settings_close(settings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_urls),
        cmocka_unit_test(test_bad_urls),
        cmocka_unit_test(test_same_server),
        cmocka_unit_test(test_hush),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_sentinel_answers),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_backoff),
        cmocka_unit_test(test_state_is_reported_once),
        cmocka_unit_test(test_consumer_names),
        cmocka_unit_test(test_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
