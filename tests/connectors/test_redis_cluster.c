/*
 * test_redis_cluster.c: slots and tags, and workers whose nodes say MOVED, ASK, TRYAGAIN or
 * CLUSTERDOWN.
 *
 * The oracle of the latter: in the end every entry was published once and acked, nothing failed for
 * good, and nothing spun meanwhile. The two nodes are imitations that share nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "connectors/redis/redis.h"
#include "connectors/redis/redis_reply.h"
#include "connectors/redis/redis_slot.h"
#include "tests/support/fake_redis.h"
#include "tests/support/redis_rig.h"
#include "tests/support/redis_server.h"

#define N_ENTRIES 10
#define STREAM    "{texts}"

/* ---- without a server */

static void test_slots(void **state)
{
    static const struct {
        const char *key;
        int slot; /* as a Redis 7.0 says by CLUSTER KEYSLOT */
    } cases[] = {
        {"", 0}, {"123456789", 12739}, {"foo", 12182}, {"{foo}", 12182}, {"a{foo}b{bar}", 12182},
    };
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(redis_slot_of(bytes_of(cases[i].key)), cases[i].slot);
    assert_int_not_equal(redis_slot_of(bytes_of("{foo")), 12182);
    assert_int_not_equal(redis_slot_of(bytes_of("{}{foo}")), 12182);
    /* The first closing brace ends it. */
    assert_int_equal(redis_slot_of(bytes_of("x{{foo}}y")), redis_slot_of(bytes_of("{foo")));
}

static void test_redirects(void **state)
{
    static const struct {
        const char *text, *host; /* host NULL: it is none */
        int slot, port;
        bool is_ask;
    } cases[] = {
        {"MOVED 3999 127.0.0.1:6381", "127.0.0.1", 3999, 6381, false},
        {"ASK 0 a.example:1", "a.example", 0, 1, true},
        {"MOVED 16383 [::1]:7000", "::1", 16383, 7000, false},
        {"MOVED 16383 ::1:7000", "::1", 16383, 7000, false},
        {"MOVED 1 :6381", "", 1, 6381, false},
        {"MOVED 1 ?:6381", "", 1, 6381, false},
        {"MOVED 16384 h:1", NULL, 0, 0, false},
        {"MOVED -1 h:1", NULL, 0, 0, false},
        {"MOVED 1 h", NULL, 0, 0, false},
        {"MOVED 1 h:", NULL, 0, 0, false},
        {"MOVED 1 h:65536", NULL, 0, 0, false},
        {"MOVED 1 h:0", NULL, 0, 0, false},
        {"MOVED 1", NULL, 0, 0, false},
        {"MOVED ", NULL, 0, 0, false},
        {"MOVED  ", NULL, 0, 0, false},
        {"MOVED 1 ", NULL, 0, 0, false},
        {"ASK", NULL, 0, 0, false},
        {"ASKING 1 h:1", NULL, 0, 0, false},
        {"", NULL, 0, 0, false},
    };
    char long_host[400] = "MOVED 1 ";
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct redis_redirect out;
        bool is_one = redis_slot_redirect(&out, cases[i].text);
        if (is_one != (cases[i].host != NULL))
            fail_msg("'%s' is%s a redirection", cases[i].text, is_one ? "" : " not");
        if (!is_one)
            continue;
        assert_string_equal(out.to.host, cases[i].host);
        assert_int_equal(out.slot, cases[i].slot);
        assert_int_equal(out.to.port, cases[i].port);
        assert_int_equal(out.is_ask, cases[i].is_ask);
    }
    memset(long_host + 8, 'h', 300);
    strcpy(long_host + 308, ":1");
    assert_false(redis_slot_redirect(&(struct redis_redirect){0}, long_host));
}

static redisReply *read_reply(redisReader *reader, const char *text)
{
    void *reply = NULL;
    redisReaderFeed(reader, text, strlen(text));
    assert_int_equal(redisReaderGetReply(reader, &reply), REDIS_OK);
    assert_non_null(reply);
    return reply;
}

static void test_owners(void **state)
{
    /* Two ranges; the first has a replica without a name, and more than Redis 6 says of each. */
    static const char text[] =
        "*2\r\n"
        "*4\r\n:0\r\n:99\r\n"
        "*4\r\n$1\r\na\r\n:1\r\n$1\r\nx\r\n*0\r\n*3\r\n$-1\r\n:2\r\n$1\r\ny\r\n"
        "*3\r\n:100\r\n:200\r\n*3\r\n$1\r\nb\r\n:3\r\n$1\r\nz\r\n";
    static const char *const bad[] = {"*0\r\n",
                                      "+OK\r\n",
                                      ":1\r\n",
                                      "*1\r\n:1\r\n",
                                      "*1\r\n*2\r\n:0\r\n:9\r\n",
                                      "*1\r\n*3\r\n:0\r\n:9\r\n*0\r\n",
                                      "*1\r\n*3\r\n:0\r\n:9\r\n*2\r\n$1\r\na\r\n:0\r\n"};
    redisReader *reader = redisReaderCreate();
    redisReply *reply = read_reply(reader, text);
    struct redis_node node, nodes[4];
    (void)state;

    assert_true(redis_slot_owner(reply, 99, &node));
    assert_string_equal(node.host, "a");
    assert_true(redis_slot_owner(reply, 100, &node));
    assert_string_equal(node.host, "b");
    assert_int_equal(node.port, 3);
    assert_false(redis_slot_owner(reply, 201, &node));
    assert_int_equal(redis_slot_nodes(reply, nodes, 4), 3);
    assert_string_equal(nodes[1].host, "");
    assert_int_equal(nodes[1].port, 2);
    assert_int_equal(redis_slot_nodes(reply, nodes, 2), 2);
    freeReplyObject(reply);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        reply = read_reply(reader, bad[i]);
        assert_false(redis_slot_owner(reply, 0, &node));
        freeReplyObject(reply);
    }
    redisReaderFree(reader);
}

/* Options end with NULL. */
static void expect_names(const char *option, const char *says, const char *const *set)
{
    const struct option *tables[] = {redis_options, NULL};
    struct settings *settings;
    const char *bad_option = NULL;
    char err[700] = "";

    assert_int_equal(settings_open(&settings, tables), 0);
    for (; *set; set += 2)
        assert_int_equal(settings_set(settings, set[0], set[1], err, sizeof(err)), 0);
    int rc = redis_config_check(settings, &bad_option, err, sizeof(err));
    if ((rc != 0) != (option != NULL))
        fail_msg("expected %s, got %d: %s", option ? option : "no error", rc, err);
    if (option) {
        assert_string_equal(bad_option, option);
        if (!strstr(err, says))
            fail_msg("'%s' does not say '%s'", err, says);
    }
    settings_close(settings);
}
#define NAMES(option, says, ...)                                                                   \
    expect_names(option, says, (const char *const[]){"redis.url", "redis+cluster://h", __VA_ARGS__})

static void test_names(void **state)
{
    (void)state;
    NAMES(NULL, "", "redis.stream", STREAM, NULL);
    NAMES(NULL, "", "redis.stream", "a{x}, b{x}", NULL);
    NAMES("redis.stream", "redis.stream '{texts}'", NULL);
    NAMES("redis.stream", "redis.stream '{a}', and '{a}:b'", "redis.stream", "{a},b", NULL);
    NAMES("redis.output_stream", "redis.output_stream '{texts}:out'", "redis.stream", STREAM,
          "redis.output_stream", "out", NULL);
    NAMES("redis.dead_letters", "redis.dead_letters '{texts}:out'", "redis.stream", STREAM,
          "redis.dead_letters", "out", NULL);
    NAMES("redis.output_prefix", "redis.output_prefix '{texts}:embedding:'", "redis.stream", STREAM,
          "redis.output", "key", NULL);
    /* The tag ends in the id of a text. */
    NAMES("redis.output_prefix", "all over the cluster", "redis.stream", STREAM, "redis.output",
          "hash", "redis.output_prefix", "v{texts", NULL);
    NAMES("redis.output_prefix", "another slot", "redis.stream", STREAM, "redis.output", "hash",
          "redis.output_prefix", "{other}", NULL);
    NAMES(NULL, "", "redis.stream", STREAM, "redis.output", "hash", "redis.output_prefix",
          "v:{texts}:", NULL);
    /* Two systems: each by itself. */
    NAMES("redis.stream", "redis.stream '{a}', and '{a}:b'", "redis.output_url", "redis://o",
          "redis.stream", "a,b", NULL);
    NAMES(NULL, "", "redis.output_url", "redis://o", "redis.stream", "a", NULL);
    NAMES(NULL, "", "redis.output_url", "redis+cluster://o", "redis.stream", "a",
          "redis.output_stream", "{o}out", "redis.dead_letters", "{o}dlq", NULL);
    expect_names("redis.stream", "in another slot",
                 (const char *const[]){"redis.output_url", "redis+cluster://o", NULL});
    expect_names(NULL, "", (const char *const[]){"redis.url", "redis://h", NULL});
}

/* ---- two nodes */

static struct rig rig;
static struct fake_redis near, far;
static struct station station;
static char url[100], moved[100], back[100], ask[100], slots[300];

static void slots_print(const char *host, int port)
{
    snprintf(slots, sizeof(slots),
             "*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$%zu\r\n%s\r\n:%d\r\n$2\r\nid\r\n", strlen(host),
             host, port);
}

static void open_nodes(void)
{
    int port = free_port(), far_port, slot = redis_slot_of(bytes_of(STREAM));

    redis_rig_open(&rig);
    fake_redis_open(&near, &rig.loop, port, N_ENTRIES);
    far_port = free_port();
    fake_redis_open(&far, &rig.loop, far_port, N_ENTRIES);
    snprintf(url, sizeof(url), "redis+cluster://127.0.0.1:%d", port);
    snprintf(moved, sizeof(moved), "-MOVED %d 127.0.0.1:%d\r\n", slot, far_port);
    snprintf(back, sizeof(back), "-MOVED %d 127.0.0.1:%d\r\n", slot, port);
    snprintf(ask, sizeof(ask), "-ASK %d 127.0.0.1:%d\r\n", slot, far_port);
    slots_print("127.0.0.1", port);
    fake_redis_rule(&near, "CLUSTER", FAKE_SAY, slots, -1);
    fake_redis_rule(&far, "CLUSTER", FAKE_SAY, slots, -1);
}

static void start(void)
{
    const char *set[] = {
        "redis.url", url, "redis.timeout", "400ms", "redis.stream", STREAM, "redis.consumer",
        "one",       NULL};
    station_open(&station, &rig, true, set);
    station.is_worker = true;
    station.n_credit = 4;
    station.work_ms = 1;
    station.source->ops->request(station.source, 4, 4000);
}

static bool all_done(void *ctx)
{
    return fake_redis_all_acked(ctx) && station.n_under_way == 0;
}

/* All entries of that node are done, each once. */
static void finish(const struct fake_redis *owner)
{
    if (!redis_rig_wait(&rig, 20000, all_done, (void *)(uintptr_t)owner))
        fail_msg("not done: %zu published and acked, state %d, %s", station.n_acked_too,
                 station.state, station.why);
    assert_int_equal(station.n_failed, 0);
    for (size_t i = 0; i < N_ENTRIES; i++)
        assert_int_equal(owner->entries[i].published, 1);
    station_close(&station, 200);
    fake_redis_close(&near);
    fake_redis_close(&far);
    redis_rig_close(&rig);
}

static void test_moved(void **state)
{
    (void)state;
    open_nodes();
    near.elsewhere = moved;
    start();
    finish(&far);
}

static bool some_done(void *ctx)
{
    (void)ctx;
    return near.entries[3].acked;
}

/* In the middle of the work: what is under way is done by the other node. */
static void test_moved_later(void **state)
{
    (void)state;
    open_nodes();
    start();
    assert_true(redis_rig_wait(&rig, 20000, some_done, NULL));
    memcpy(far.entries, near.entries, sizeof(far.entries));
    far.group = true;
    near.elsewhere = moved;
    assert_false(fake_redis_all_acked(&near));
    finish(&far);
}

/* The owner has no name in the answer: it is who was asked; and MOVED without a host likewise. */
static void test_no_name(void **state)
{
    int slot = redis_slot_of(bytes_of(STREAM));
    (void)state;
    open_nodes();
    slots_print("", near.port);
    snprintf(moved, sizeof(moved), "-MOVED %d :%d\r\n", slot, far.port);
    near.elsewhere = moved;
    start();
    finish(&far);
}

/* All that the near one has is at the far one already, which takes commands with ASKING only. */
static void ask_far(enum fake_action action, int times)
{
    open_nodes();
    near.n_streams = far.n_streams = 1;
    fake_redis_rule(&near, "EVALSHA", FAKE_SAY, ask, -1);
    fake_redis_rule(&near, "EVAL", FAKE_SAY, ask, -1);
    if (times)
        fake_redis_rule(&far, "EVALSHA", action, NULL, times);
    far.elsewhere = back;
    for (size_t i = 0; i < N_ENTRIES; i++)
        far.entries[i].delivered = true;
    start();
    finish(&far);
    assert_true(far.n_asked >= N_ENTRIES);
}

static void test_ask(void **state)
{
    (void)state;
    ask_far(FAKE_SAY, 0);
}

/* The node that an ASK names is lost, before or after it did it. */
static void test_ask_lost(void **state)
{
    static const enum fake_action actions[] = {FAKE_RESET, FAKE_DO_RESET, FAKE_DO_HALF,
                                               FAKE_SILENT};
    (void)state;
    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
        ask_far(actions[i], 2);
}

/* A read waits at the node that is asked for once, too; it is not woken by a wrong number. */
static void test_ask_to_read(void **state)
{
    (void)state;
    open_nodes();
    near.elsewhere = ask;
    far.elsewhere = back;
    start();
    finish(&far);
}

static void test_wait(void **state)
{
    static const struct {
        const char *command, *text;
    } cases[] = {
        {"EVALSHA", "-TRYAGAIN Multiple keys request during rehashing of slot\r\n"},
        {"EVALSHA", "-CLUSTERDOWN The cluster is down\r\n"},
        {"XREADGROUP", "-CLUSTERDOWN Hash slot not served\r\n"},
        {"XGROUP", "-TRYAGAIN Multiple keys request during rehashing of slot\r\n"},
        {"XREADGROUP", "-LOADING Redis is loading the dataset in memory\r\n"},
        {"CLUSTER", "*0\r\n"},
        {"CLUSTER", "-ERR This instance has cluster support disabled\r\n"},
        {"EVALSHA",
         "*2\r\n:1\r\n$68\r\nERR Script attempted to access a non local key in a cluster "
         "node now\r\n"},
    };
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        open_nodes();
        if (strcmp(cases[i].command, "CLUSTER") == 0)
            near.n_rules = 0; /* rules of a command are taken in their order */
        fake_redis_rule(&near, cases[i].command, FAKE_SAY, cases[i].text, 3);
        fake_redis_rule(&near, "CLUSTER", FAKE_SAY, slots, -1);
        start();
        finish(&near);
    }
}

/* Two nodes that each say it is the other: the pauses grow. */
static void test_round_and_round(void **state)
{
    (void)state;
    open_nodes();
    near.elsewhere = moved;
    far.elsewhere = back;
    start();
    redis_rig_run(&rig, 2000);
    if (near.n_connections + far.n_connections > 100)
        fail_msg("%zu connections in 2 s", near.n_connections + far.n_connections);
    far.elsewhere = NULL;
    finish(&far);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots),    cmocka_unit_test(test_redirects),
        cmocka_unit_test(test_owners),   cmocka_unit_test(test_names),
        cmocka_unit_test(test_moved),    cmocka_unit_test(test_moved_later),
        cmocka_unit_test(test_no_name),  cmocka_unit_test(test_ask),
        cmocka_unit_test(test_ask_lost), cmocka_unit_test(test_ask_to_read),
        cmocka_unit_test(test_wait),     cmocka_unit_test(test_round_and_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
