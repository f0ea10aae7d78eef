/*
 * test_redis.h: what the tests on a real redis-server share: the server, a loop, two stations.
 *
 * Threads: the one of the test.
 */
#ifndef TEST_REDIS_H
#define TEST_REDIS_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "connectors/redis/redis_source.h"
#include "tests/support/redis_rig.h"
#include "tests/support/redis_server.h"

static struct redis_server server;
static struct rig rig;
static struct station one, two;

static inline int set_up(void **state)
{
    (void)state;
    redis_server_open(&server, false);
    redis_rig_open(&rig);
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    redis_rig_close(&rig);
    redis_server_close(&server);
    return 0;
}

static inline long long n_pending(void)
{
    redisReply *reply = redis_server_ask(&server, "XPENDING texts embedmill");
    long long n = reply->type == REDIS_REPLY_ARRAY ? reply->element[0]->integer : -1;
    freeReplyObject(reply);
    return n;
}

/* ctx: the station; everything added was published and acked. */
static size_t n_added;
static inline bool is_all_done(void *ctx)
{
    const struct station *station = ctx;
    return station->n_published + station->n_acked_too >= n_added && n_pending() == 0;
}

static inline void add_texts(size_t n)
{
    n_added = n;
    for (size_t i = 0; i < n; i++)
        redis_server_do(&server, "XADD texts * body text%d n %d", (int)i, (int)i);
}

static inline void request(struct station *station, size_t n)
{
    station->source->ops->request(station->source, n, n * 1000);
}

static inline void open_one(const char *claim_idle, const char *output)
{
    const char *set[] = {"redis.url",      server.url,     "redis.claim_idle",
                         claim_idle,       "redis.output", output,
                         "redis.consumer", "one",          NULL};
    station_open(&one, &rig, true, set);
}

static inline void open_two(const char *claim_idle)
{
    const char *set[] = {"redis.url", server.url, "redis.claim_idle", claim_idle, "redis.consumer",
                         "two",       NULL};
    station_open(&two, &rig, true, set);
}

static inline bool has_group(void *ctx)
{
    (void)ctx;
    redisReply *reply = redis_server_ask(&server, "XINFO GROUPS texts");
    bool found = reply->type == REDIS_REPLY_ARRAY && reply->elements == 1;
    freeReplyObject(reply);
    return found;
}

#define REDIS_CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

#endif
