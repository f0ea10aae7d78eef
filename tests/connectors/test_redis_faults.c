/*
 * test_redis_faults.c: the Redis connector against a server that answers wrongly, half or not.
 *
 * The oracle: whatever happens for a while, in the end every entry of two streams was published and
 * acked, with the atomic step exactly once; nothing failed for good; nothing spun while it lasted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/fake_redis.h"
#include "tests/support/redis_rig.h"
#include "tests/support/redis_server.h"

#define N_ENTRIES 10
#define N_CREDIT  4

static struct rig rig;
static struct fake_redis fake;
static struct station station;
static char url[64], output_url[64];

static bool all_done(void *ctx)
{
    (void)ctx;
    return fake_redis_all_acked(&fake) && station.n_under_way == 0;
}

static void station_work(struct station *worker)
{
    worker->is_worker = true;
    worker->n_credit = N_CREDIT;
    worker->work_ms = 1;
    worker->source->ops->request(worker->source, N_CREDIT, N_CREDIT * 1000);
}

static void start(bool atomic)
{
    const char *set[] = {"redis.url",
                         url,
                         "redis.output_url",
                         atomic ? url : output_url,
                         "redis.timeout",
                         "400ms",
                         "redis.stream",
                         FAKE_STREAMS,
                         NULL};
    station_open(&station, &rig, true, set);
    station_work(&station);
}

static void open_fake(void)
{
    int port = free_port();

    redis_rig_open(&rig);
    fake_redis_open(&fake, &rig.loop, port, N_ENTRIES);
    fake.n_streams = 2;
    snprintf(url, sizeof(url), "redis://127.0.0.1:%d", port);
    /* The same server under another name: the plain way, without the script. */
    snprintf(output_url, sizeof(output_url), "redis://localhost:%d", port);
}

static void close_fake(void)
{
    station_close(&station, 200);
    fake_redis_close(&fake);
    redis_rig_close(&rig);
}

/* Run one fault on one command to the end. */
static void survive(const char *command, enum fake_action action, const char *text, bool atomic)
{
    open_fake();
    fake_redis_rule(&fake, command, action, text, 1);
    start(atomic);
    bool done = redis_rig_wait(&rig, 20000, all_done, NULL);
    for (size_t i = 0; i < N_ENTRIES; i++)
        if (!done || fake.entries[i].published < 1 || (atomic && fake.entries[i].published > 1))
            fail_msg("%s, action %d %s, %s: entry %zu published %d times, acked %d; %s", command,
                     action, text ? text : "", atomic ? "atomic" : "plain", i,
                     fake.entries[i].published, fake.entries[i].acked, station.why);
    if (station.n_failed)
        fail_msg("%s, action %d %s: failed for good: %s", command, action, text ? text : "",
                 station.why);
    if (fake.n_most > N_CREDIT)
        fail_msg("%s, action %d: %zu entries in one answer, for a credit of %d", command, action,
                 fake.n_most, N_CREDIT);
    /* About 60 commands are needed when nothing is wrong. */
    if (fake.n_commands > 200)
        fail_msg("%s, action %d %s: %zu commands", command, action, text ? text : "",
                 fake.n_commands);
    close_fake();
}

static const char *const source_commands[] = {"PING", "XGROUP", "XPENDING", "XREADGROUP"};
static const char *const atomic_commands[] = {"EVALSHA", "SCRIPT", "CONFIG"};
static const char *const plain_commands[] = {"XADD", "XACK"};

static void survive_everywhere(enum fake_action action, const char *text)
{
    for (size_t i = 0; i < 4; i++)
        survive(source_commands[i], action, text, true);
    for (size_t i = 0; i < 3; i++)
        survive(atomic_commands[i], action, text, true);
    for (size_t i = 0; i < 2; i++)
        survive(plain_commands[i], action, text, false);
}

static void test_nothing_wrong(void **state)
{
    (void)state;
    survive("NOTHING", FAKE_RESET, NULL, true);
    survive("NOTHING", FAKE_RESET, NULL, false);
}

static void test_error_replies(void **state)
{
    static const char *const errors[] = {
        "-LOADING Redis is loading the dataset in memory\r\n",
        "-MASTERDOWN Link with MASTER is down\r\n",
        "-READONLY You can't write against a read only replica.\r\n",
        "-MISCONF Redis is configured to save RDB snapshots\r\n",
        "-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        "-BUSY Redis is busy running a script.\r\n",
        "-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
        "-CLUSTERDOWN Hash slot not served\r\n",
        "-ERR max number of clients reached\r\n",
        "-ERR something nobody has heard of\r\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
        survive_everywhere(FAKE_SAY, errors[i]);
}

static void test_group_replies(void **state)
{
    (void)state;
    survive("XREADGROUP", FAKE_SAY, "-NOGROUP No such key\r\n", true);
    survive("XPENDING", FAKE_SAY, "-NOGROUP No such key\r\n", true);
    survive("XREADGROUP", FAKE_SAY, "-UNBLOCKED the stream key no longer exists\r\n", true);
    survive("EVALSHA", FAKE_SAY, "-NOSCRIPT No matching script.\r\n", true);
    survive("XGROUP", FAKE_SAY, "-NOPERM no\r\n", true);
    survive("CLIENT", FAKE_SAY, "-ERR unknown command\r\n", true);
}

static void test_broken_connections(void **state)
{
    (void)state;
    survive_everywhere(FAKE_RESET, NULL);
    survive_everywhere(FAKE_DO_RESET, NULL);
    survive_everywhere(FAKE_DO_CLOSE, NULL);
    survive_everywhere(FAKE_DO_HALF, NULL);
    survive_everywhere(FAKE_DO_TWICE, NULL);
}

static void test_silence(void **state)
{
    (void)state;
    survive("PING", FAKE_SILENT, NULL, true);
    survive("XGROUP", FAKE_SILENT, NULL, true);
    survive("EVALSHA", FAKE_SILENT, NULL, true);
    survive("XACK", FAKE_SILENT, NULL, false);
    survive("XREADGROUP", FAKE_SILENT, NULL, true);
}

static void test_garbage(void **state)
{
    static const char *const garbage[] = {
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "*2147483647\r\n",
        "*1\r\n*1\r\n*1\r\n$-7\r\n",
        "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        ":abc\r\n",
        "$99999999999999999999\r\n",
        "*1\r\n*2\r\n$5\r\ntexts\r\n*1\r\n*2\r\n$3\r\nx-y\r\n*0\r\n",
        "*1\r\n*2\r\n$5\r\ntexts\r\n*1\r\n*2\r\n$3\r\n9-9\r\n*1\r\n$1\r\na\r\n",
        "*1\r\n*2\r\n$5\r\ntexts\r\n*1\r\n*2\r\n$3\r\n9-9\r\n*2\r\n:1\r\n:2\r\n",
        "*1\r\n*0\r\n",
        "+OK\r\n",
        ":5\r\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
        survive("XREADGROUP", FAKE_SAY, garbage[i], true);
        survive("XPENDING", FAKE_SAY, garbage[i], true);
        survive("XGROUP", FAKE_SAY, garbage[i][0] == '+' ? "!x\r\n" : garbage[i], true);
        survive("SCRIPT", FAKE_SAY, garbage[i], true);
        survive("PING", FAKE_SAY, garbage[i], true);
    }
}

/* Every reply arrives one byte at a time. */
static void test_drip(void **state)
{
    (void)state;
    open_fake();
    fake.drip = true;
    start(true);
    assert_true(redis_rig_wait(&rig, 30000, all_done, NULL));
    assert_int_equal(station.n_failed, 0);
    close_fake();
}

/* A fault that stays. All at once, each with a server and a worker of its own: this is waiting. */
static const struct fake_rule faults[] = {
    {"XREADGROUP", FAKE_SAY, "-NOGROUP No such key\r\n", -1},
    {"XREADGROUP", FAKE_SAY, "-UNBLOCKED the stream key no longer exists\r\n", -1},
    {"XREADGROUP", FAKE_SAY, "-READONLY You can't write\r\n", -1},
    {"XREADGROUP", FAKE_SAY, "garbage\r\n", -1},
    {"XREADGROUP", FAKE_RESET, NULL, -1},
    {"XPENDING", FAKE_RESET, NULL, -1},
    {"XGROUP", FAKE_SAY, "-MISCONF no disk\r\n", -1},
    {"XPENDING", FAKE_SAY, "-BUSY script\r\n", -1},
    {"PING", FAKE_SAY, "-LOADING\r\n", -1},
    {"PING", FAKE_RESET, NULL, -1},
    {"EVALSHA", FAKE_SAY, "-OOM no memory\r\n", -1},
    {"EVALSHA", FAKE_SAY, "-READONLY no\r\n", -1},
    {"EVALSHA", FAKE_RESET, NULL, -1},
    {"SCRIPT", FAKE_RESET, NULL, -1},
    {"*", FAKE_RESET, NULL, -1},
    {"*", FAKE_SAY, "-LOADING\r\n", -1},
};
#define N_SPINS (sizeof(faults) / sizeof(faults[0]))

static struct spin {
    const struct fake_rule *fault;
    struct fake_redis fake;
    struct station station;
    size_t n_commands, n_waits;
} spins[N_SPINS];

static void spin_open(struct spin *spin, const struct fake_rule *fault)
{
    int port = free_port();
    const char *set[] = {"redis.url", url, "redis.timeout", "400ms", NULL};

    snprintf(url, sizeof(url), "redis://127.0.0.1:%d", port);
    fake_redis_open(&spin->fake, &rig.loop, port, N_ENTRIES);
    fake_redis_rule(&spin->fake, fault->command, fault->action, fault->text, fault->times);
    spin->fault = fault;
    station_open(&spin->station, &rig, true, set);
    station_work(&spin->station);
}

static void spin_check(const struct spin *spin)
{
    const char *command = spin->fault->command;
    const char *text = spin->fault->text ? spin->fault->text : "reset";
    size_t n_commands = spin->fake.n_commands - spin->n_commands;
    size_t n_waits = spin->station.n_waits - spin->n_waits;

    /* Three connections with some six commands each, at most three attempts in two seconds;
     * a healthy read waits 100 ms here. */
    if (n_commands > 90)
        fail_msg("%s %s: %zu commands in 2 s", command, text, n_commands);
    if (n_waits > 1)
        fail_msg("%s %s: told %zu times that it waits", command, text, n_waits);
    if (spin->station.n_waits == 0 || spin->station.n_failed)
        fail_msg("%s %s: told %zu times that it waits, failed %zu times", command, text,
                 spin->station.n_waits, spin->station.n_failed);
}

static bool spins_done(void *ctx)
{
    (void)ctx;
    for (size_t i = 0; i < N_SPINS; i++)
        if (!fake_redis_all_acked(&spins[i].fake) || spins[i].station.n_under_way)
            return false;
    return true;
}

/* A handful of attempts a second, said once; and all is well when the fault ends. */
static void test_no_spinning(void **state)
{
    (void)state;
    redis_rig_open(&rig);
    for (size_t i = 0; i < N_SPINS; i++)
        spin_open(&spins[i], &faults[i]);
    redis_rig_run(&rig, 1000);
    for (size_t i = 0; i < N_SPINS; i++) {
        spins[i].n_commands = spins[i].fake.n_commands;
        spins[i].n_waits = spins[i].station.n_waits;
    }
    redis_rig_run(&rig, 2000);
    for (size_t i = 0; i < N_SPINS; i++) {
        spin_check(&spins[i]);
        spins[i].fake.n_rules = 0;
    }
    assert_true(redis_rig_wait(&rig, 20000, spins_done, NULL));
    for (size_t i = 0; i < N_SPINS; i++) {
        station_close(&spins[i].station, 200);
        fake_redis_close(&spins[i].fake);
    }
    redis_rig_close(&rig);
}

static bool is_waiting(void *ctx)
{
    (void)ctx;
    return station.n_waits > 0;
}

/* Nobody listens, then somebody does. */
static void test_refused(void **state)
{
    int port = free_port();
    (void)state;

    redis_rig_open(&rig);
    snprintf(url, sizeof(url), "redis://localhost:%d", port);
    start(true);
    assert_true(redis_rig_wait(&rig, 3000, is_waiting, NULL));
    assert_non_null(strstr(station.why, "refused"));
    redis_rig_run(&rig, 1000);
    assert_int_equal(station.n_waits, 2); /* source and sink, once each */
    fake_redis_open(&fake, &rig.loop, port, N_ENTRIES);
    fake.n_streams = 2;
    assert_true(redis_rig_wait(&rig, 10000, all_done, NULL));
    assert_int_equal(station.n_ups, 2);
    close_fake();
}

/* Names that do not exist are a fault of the environment too. */
static void test_unknown_host(void **state)
{
    const char *set[] = {"redis.url", "redis://no-such-host.invalid", NULL};
    (void)state;

    redis_rig_open(&rig);
    station_open(&station, &rig, false, set);
    assert_true(redis_rig_wait(&rig, 20000, is_waiting, NULL));
    assert_int_equal(station.n_failed, 0);
    station_close(&station, 100);
    redis_rig_close(&rig);
}

static bool has_failed(void *ctx)
{
    (void)ctx;
    return station.n_failed > 0;
}

static void test_fatal_replies(void **state)
{
    static const char *const errors[] = {
        "-NOAUTH Authentication required.\r\n", "-NOPERM no permissions\r\n",
        "-WRONGTYPE Operation against a key\r\n", "-MOVED 3999 127.0.0.1:6381\r\n"};
    static const char *const commands[] = {"XREADGROUP", "EVALSHA", "XPENDING"};
    (void)state;

    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < 3; k++) {
            open_fake();
            fake_redis_rule(&fake, commands[k], FAKE_SAY, errors[i], -1);
            start(true);
            assert_true(redis_rig_wait(&rig, 5000, has_failed, NULL));
            size_t commands_then = fake.n_commands;
            redis_rig_run(&rig, 300);
            assert_true(fake.n_commands - commands_then < 20);
            assert_int_equal(station.n_failed, 1);
            close_fake();
        }
}

/* Acks that were under way when everything went away are made when it comes back. */
static void test_close_flushes_acks(void **state)
{
    (void)state;
    open_fake();
    fake_redis_rule(&fake, "XACK", FAKE_DO_RESET, NULL, 1);
    fake_redis_rule(&fake, "XACK", FAKE_RESET, NULL, 1);
    start(false);
    redis_rig_run(&rig, 100);
    station_close(&station, 5000);
    size_t n_acked = 0;
    for (size_t i = 0; i < N_ENTRIES; i++)
        n_acked += fake.entries[i].acked;
    assert_true(station.n_published > 0);
    assert_int_equal(n_acked, station.n_published);
    fake_redis_close(&fake);
    redis_rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_wrong), cmocka_unit_test(test_error_replies),
        cmocka_unit_test(test_group_replies), cmocka_unit_test(test_broken_connections),
        cmocka_unit_test(test_silence),       cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_drip),          cmocka_unit_test(test_no_spinning),
        cmocka_unit_test(test_refused),       cmocka_unit_test(test_unknown_host),
        cmocka_unit_test(test_fatal_replies), cmocka_unit_test(test_close_flushes_acks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
