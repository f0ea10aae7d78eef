/*
 * test_redis_chaos.c: a real redis-server whose connections are cut, which is frozen and killed,
 * under workers that come and go.
 *
 * The oracle: every id is in the output, exactly once with the atomic step, at least once without;
 * in the end nothing is pending.
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

#include "tests/support/redis_rig.h"
#include "tests/support/redis_server.h"

#define N_MAX 6000

static struct redis_server server;
static struct rig rig;
static struct station one, two;
static unsigned seed;
static size_t n_ids;

static void set_up(bool append_only)
{
    const char *given = getenv("REDIS_CHAOS_SEED");

    seed = given ? (unsigned)strtoul(given, NULL, 10) : 20240521;
    print_message("seed %u (REDIS_CHAOS_SEED sets another)\n", seed);
    redis_server_open(&server, append_only);
    redis_rig_open(&rig);
}

static void tear_down(void)
{
    redis_rig_close(&rig);
    redis_server_close(&server);
}

static void add_ids(size_t n)
{
    n_ids = n;
    for (size_t i = 0; i < n; i++)
        redisAppendCommand(server.client, "XADD texts * body text%d", (int)i);
    for (size_t i = 0; i < n; i++) {
        void *reply = NULL;
        assert_int_equal(redisGetReply(server.client, &reply), REDIS_OK);
        freeReplyObject(reply);
    }
}

static void worker_open(struct station *station, const char *name, const char *output_url)
{
    const char *set[] = {"redis.url",
                         server.url,
                         "redis.consumer",
                         name,
                         "redis.claim_idle",
                         "1500ms",
                         "redis.timeout",
                         "1s",
                         "redis.output_url",
                         output_url,
                         NULL};
    station_open(station, &rig, true, set);
    station->is_worker = true;
    station->n_credit = 128;
    station->work_ms = 20;
    station->source->ops->request(station->source, 128, 128000);
}

static bool is_drained(void *ctx)
{
    bool drained;
    (void)ctx;

    redisReply *reply = redis_server_ask(&server, "XINFO GROUPS texts");
    drained = reply->type == REDIS_REPLY_ARRAY && reply->elements == 1;
    if (drained) { /* name, consumers, pending, last id, entries read, lag */
        const redisReply *group = reply->element[0];
        drained = group->element[5]->integer == 0 && group->element[11]->integer == 0 &&
                  group->element[11]->type == REDIS_REPLY_INTEGER;
    }
    freeReplyObject(reply);
    return drained;
}

static void check_output(int db, bool once)
{
    static unsigned seen[N_MAX];
    redisReply *reply;

    memset(seen, 0, sizeof(seen));
    redis_server_do(&server, "SELECT %d", db);
    reply = redis_server_ask(&server, "XRANGE texts:embeddings - +");
    for (size_t i = 0; i < reply->elements; i++) {
        unsigned n;
        assert_int_equal(sscanf(reply->element[i]->element[1]->element[1]->str, "out:text%u", &n),
                         1);
        assert_true(n < n_ids);
        seen[n]++;
    }
    freeReplyObject(reply);
    for (size_t i = 0; i < n_ids; i++)
        if (!seen[i] || (once && seen[i] > 1))
            fail_msg("id %zu is there %u times (seed %u)", i, seen[i], seed);
}

/* Cut connections at random until all is done. */
static void cut_until_drained(void)
{
    static const char *const kinds[] = {"CLIENT KILL TYPE normal SKIPME yes", NULL};
    int n_cuts = 0;

    for (int i = 0; i < 600 && !is_drained(NULL); i++) {
        redis_rig_run(&rig, 30 + (uint64_t)rand_r(&seed) % 200);
        if (n_cuts++ < 40)
            redis_server_do(&server, kinds[0]);
    }
    assert_true(redis_rig_wait(&rig, 30000, is_drained, NULL));
    print_message("%d cuts\n", n_cuts);
    assert_true(n_cuts > 5);
}

static void test_cut_connections_atomic(void **state)
{
    (void)state;
    set_up(false);
    add_ids(5000);
    worker_open(&one, "one", server.url);
    worker_open(&two, "two", server.url);
    cut_until_drained();
    station_close(&one, 3000);
    station_close(&two, 3000);
    check_output(0, true);
    assert_int_equal(one.n_failed + two.n_failed, 0);
    tear_down();
}

static void test_cut_connections_plain(void **state)
{
    char url[80];
    (void)state;

    set_up(false);
    snprintf(url, sizeof(url), "%s/1", server.url);
    add_ids(5000);
    worker_open(&one, "one", url);
    worker_open(&two, "two", url);
    cut_until_drained();
    station_close(&one, 3000);
    station_close(&two, 3000);
    check_output(1, false);
    tear_down();
}

/* kill -9 of the server, again and again; its log of writes is on disk. */
static void test_server_killed(void **state)
{
    (void)state;
    set_up(true);
    add_ids(4000);
    worker_open(&one, "one", server.url);
    worker_open(&two, "two", server.url);
    for (int i = 0; i < 6; i++) {
        redis_rig_run(&rig, 50 + (uint64_t)rand_r(&seed) % 250);
        redis_server_kill(&server);
        redis_rig_run(&rig, (uint64_t)rand_r(&seed) % 500);
        redis_server_restart(&server);
    }
    assert_true(redis_rig_wait(&rig, 60000, is_drained, NULL));
    station_close(&one, 3000);
    station_close(&two, 3000);
    check_output(0, true);
    assert_int_equal(one.n_failed + two.n_failed, 0);
    tear_down();
}

/* A frozen server is a silent one; after it thaws everything goes on. */
static void test_server_frozen(void **state)
{
    (void)state;
    set_up(false);
    add_ids(3000);
    worker_open(&one, "one", server.url);
    redis_rig_run(&rig, 200);
    redis_server_signal(&server, SIGSTOP);
    redis_rig_run(&rig,
                  5000); /* longer than a read may take: its block of 2 s and the timeout of 1 s */
    assert_true(one.n_waits > 0);
    redis_server_signal(&server, SIGCONT);
    assert_true(redis_rig_wait(&rig, 30000, is_drained, NULL));
    station_close(&one, 3000);
    check_output(0, true);
    tear_down();
}

/* Workers that die in the middle and come back under the same name. */
static void test_workers_die(void **state)
{
    (void)state;
    set_up(false);
    add_ids(6000);
    worker_open(&one, "one", server.url);
    for (int i = 0; i < 8; i++) {
        worker_open(&two, "two", server.url);
        redis_rig_run(&rig, 50 + (uint64_t)rand_r(&seed) % 150);
        station_crash(&two);
    }
    assert_true(redis_rig_wait(&rig, 30000, is_drained, NULL));
    station_close(&one, 3000);
    check_output(0, true);
    tear_down();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_connections_atomic),
        cmocka_unit_test(test_cut_connections_plain),
        cmocka_unit_test(test_server_killed),
        cmocka_unit_test(test_server_frozen),
        cmocka_unit_test(test_workers_die),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
