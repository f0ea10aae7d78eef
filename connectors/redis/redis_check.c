/*
 * redis_check.c: what `embedmill doctor` asks a Redis server.
 *
 * Owns:    connection, version, role, memory policy, persistence, clock, stream and group, and
 *          whether this user may do what the worker does.
 * Refuses: writing: each command is queued in a MULTI, where permission, memory, role and disk are
 *          checked, and then discarded.
 * Threads: the main thread, on a loop of its own that runs while an answer is awaited; a connection
 *          that is silent for redis.timeout is given up.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "connectors/redis/redis.h"
#include "connectors/redis/redis_detour.h"
#include "connectors/redis/redis_fault.h"
#include "connectors/redis/redis_link.h"
#include "connectors/redis/redis_reply.h"
#include "connectors/redis/redis_script.h"

#define CLOCK_LIMIT_S 2.0
#define WORDS_MAX     12

struct visit {
    struct redis_config config;
    uv_loop_t loop;
    struct redis_link *link;
    enum { CALLING, READY, GONE } state;
    bool told;               /* that it is gone */
    char why[400];           /* it is gone */
    const char *option;      /* that names this server */
    int slot;                /* of a cluster; else -1 */
    bool is_source, is_sink; /* what is asked of this server */
    bool wants_tls;          /* files for TLS are named */
    bool from_redis;         /* the input is Redis, here or on another server */
    bool *has_group;         /* [config.streams.n] where the input has its group already */
    finding_cb report;
    void *ctx;
    void (*take)(struct visit *visit, const redisReply *reply); /* of the answer awaited */
    bool answered, accepted;
    bool found;            /* the group of the stream last looked at, or it may be there */
    const char *asked_for; /* what a refusal is told as */
    const char *key;       /* that is asked about */
    char type[40];         /* of the last key asked about */
};

#define say(visit, ...) check_say((visit)->report, (visit)->ctx, __VA_ARGS__)

/* ---- one command at a time */

static void on_reply(void *ctx, void *arg, const redisReply *reply)
{
    struct visit *visit = ctx;
    (void)arg;
    visit->answered = true;
    if (reply)
        visit->take(visit, reply);
}

/* Words end with NULL. False, and told of once, when the connection is gone. */
static bool ask(struct visit *visit, void (*take)(struct visit *visit, const redisReply *reply),
                ...)
{
    struct bytes words[WORDS_MAX];
    size_t n = 0;
    va_list args;
    va_start(args, take);
    for (const char *word; n < WORDS_MAX && (word = va_arg(args, const char *));)
        words[n++] = bytes_of(word);
    va_end(args);
    visit->take = take;
    visit->answered = false;
    bool sent = redis_link_send(visit->link, words, n, 0, on_reply, NULL) == 0;
    while (sent && !visit->answered && visit->state == READY)
        uv_run(&visit->loop, UV_RUN_ONCE);
    if (visit->state == READY && sent)
        return true;
    if (!visit->told)
        say(visit, FINDING_BAD, "connection", "connection lost during the checks: %s; try again",
            visit->why);
    visit->told = true;
    return false;
}

static bool is_error(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_ERROR;
}

/* The value of "name:value" in a section of INFO; "" when there is none. */
static const char *info_field(const redisReply *info, const char *name, char *out, size_t size)
{
    char key[64];
    out[0] = '\0';
    if (!redis_reply_is_text(info))
        return out;
    snprintf(key, sizeof key, "\n%s:", name);
    const char *at = strstr(info->str, key);
    if (at) {
        at += strlen(key);
        snprintf(out, size, "%.*s", (int)strcspn(at, "\r\n"), at);
    }
    return out;
}

/* ---- getting in */

static void on_ready(void *ctx)
{
    struct visit *visit = ctx;
    if (visit->state == CALLING)
        visit->state = READY;
}

static void on_lost(void *ctx, const char *why)
{
    struct visit *visit = ctx;
    const char *retries = strstr(why, REDIS_LINK_RETRIES); /* which we do not */
    int len = (int)(retries ? (size_t)(retries - why) : strlen(why));
    if (visit->state != GONE)
        snprintf(visit->why, sizeof visit->why, "%.*s; see %s", len, why, visit->option);
    visit->state = GONE;
}

static void on_good(void *ctx)
{
    (void)ctx;
}

static void on_failed(void *ctx, int err, const char *why)
{
    struct visit *visit = ctx;
    (void)err;
    if (visit->state != GONE)
        snprintf(visit->why, sizeof visit->why, "%s; see %s", why, visit->option);
    visit->state = GONE;
}

/* Of a cluster. */
static int slot_of(const struct visit *visit, const struct redis_url *url)
{
    return url == &visit->config.url ? visit->config.slot : visit->config.output_slot;
}

/* Connects, logs in, selects the database: all that a link does by itself. */
static bool enter(struct visit *visit, const struct redis_url *url)
{
    static const struct redis_link_events events = {on_ready, on_lost, on_good, on_failed};
    struct redis_link_options options = {url,
                                         url->tls ? visit->config.tls : NULL,
                                         "embedmill-doctor",
                                         visit->config.timeout_ms,
                                         slot_of(visit, url),
                                         &redis_detour_ops};
    char where[300];
    redis_url_print(url, where, sizeof where);
    visit->state = CALLING;
    visit->told = false;
    visit->option = url == &visit->config.url ? "redis.url" : "redis.output_url";
    visit->slot = slot_of(visit, url);
    if (redis_link_open(&visit->link, &visit->loop, &options, &events, visit) != 0) {
        say(visit, FINDING_BAD, "connection", "out of memory");
        return false;
    }
    while (visit->state == CALLING)
        uv_run(&visit->loop, UV_RUN_ONCE);
    if (visit->state == READY)
        say(visit, visit->wants_tls && !url->tls ? FINDING_WARN : FINDING_OK, "connection",
            "%s answers%s", where,
            url->tls           ? " over TLS"
            : visit->wants_tls ? ", not encrypted: redis.tls_ca or redis.tls_cert is set, and the "
                                 "URL is not rediss://"
                               : "");
    else
        say(visit, FINDING_BAD, "connection", "%s", visit->why);
    return visit->state == READY;
}

/* ---- the server */

static void check_version(const struct visit *visit, const redisReply *info)
{
    char version[40], valkey[40], name[120], role[20];
    int major = 0, minor = 0;
    info_field(info, "redis_version", version, sizeof version);
    if (info_field(info, "valkey_version", valkey, sizeof valkey)[0])
        snprintf(name, sizeof name, "Valkey %s, compatible with Redis %s", valkey, version);
    else
        snprintf(name, sizeof name, "Redis %s", version);
    if (sscanf(version, "%d.%d", &major, &minor) != 2)
        say(visit, FINDING_WARN, "version",
            "INFO does not report it; Redis 6.2 or newer is needed");
    else if (major < 6 || (major == 6 && minor < 2))
        say(visit, FINDING_BAD, "version", "%s; 6.2 or newer is needed: upgrade it", name);
    else if (major < 7)
        say(visit, FINDING_WARN, "version",
            "%s works, but reports no lag of a group; 7 or newer does", name);
    else
        say(visit, FINDING_OK, "version", "%s", name);
    if (strcmp(info_field(info, "role", role, sizeof role), "slave") == 0)
        say(visit, FINDING_BAD, "role", "this is a replica; %s must lead to the master",
            visit->option);
}

static void check_keeping(const struct visit *visit, const redisReply *info)
{
    char limit[40], policy[40], aof[8];
    info_field(info, "maxmemory", limit, sizeof limit);
    info_field(info, "maxmemory_policy", policy, sizeof policy);
    if (strcmp(limit, "0") != 0 && policy[0] && strcmp(policy, "noeviction") != 0)
        say(visit, FINDING_WARN, "memory policy",
            "maxmemory-policy is %s: a full server evicts streams and embeddings; set "
            "noeviction, with which the worker waits instead",
            policy);
    if (strcmp(info_field(info, "aof_enabled", aof, sizeof aof), "0") == 0)
        say(visit, FINDING_WARN, "persistence",
            "appendonly is off: a crash of the server loses messages since its last snapshot; "
            "CONFIG SET appendonly yes, unless that is accepted");
}

/* A node of a cluster that fails takes its slots with it, unless a replica has them. */
static void check_replicas(const struct visit *visit, const redisReply *info)
{
    char replicas[20];
    if (strcmp(info_field(info, "connected_slaves", replicas, sizeof replicas), "0") == 0)
        say(visit, FINDING_WARN, "replicas",
            "the node that serves the worker's slot has no replica: when it fails, the worker "
            "waits until it is back; add one (redis-cli --cluster add-node ... --cluster-slave)");
}

static void take_cluster(struct visit *visit, const redisReply *reply)
{
    char state[40], nodes[20], server[120];
    if (is_error(reply)) {
        say(visit, FINDING_WARN, "cluster", "CLUSTER INFO is refused: %s; its state is not known",
            reply->str);
        return;
    }
    /* The state is the first line, with nothing before it. */
    bool is_ok = redis_reply_is_text(reply) && strstr(reply->str, "cluster_state:ok");
    snprintf(state, sizeof state, "%s", is_ok ? "ok" : "fail");
    info_field(reply, "cluster_known_nodes", nodes, sizeof nodes);
    redis_link_print_server(visit->link, server, sizeof server);
    say(visit, is_ok ? FINDING_OK : FINDING_BAD, "cluster",
        is_ok ? "state %s, %s nodes; %s serves slot %d, where all keys of the worker are"
              : "state %s, %s nodes, says %s: slots are not served (slot %d is the worker's); see "
                "CLUSTER INFO and CLUSTER SHARDS",
        state, nodes, server, visit->slot);
}

static void take_info(struct visit *visit, const redisReply *reply)
{
    if (is_error(reply)) {
        say(visit, FINDING_WARN, "server",
            "INFO is refused: %s; version, role and persistence are not known", reply->str);
        return;
    }
    check_version(visit, reply);
    check_keeping(visit, reply);
    if (visit->slot >= 0)
        check_replicas(visit, reply);
}

static void take_time(struct visit *visit, const redisReply *reply)
{
    const redisReply *seconds = redis_reply_at(reply, 0), *micro = redis_reply_at(reply, 1);
    struct timespec now;
    if (!redis_reply_is_text(seconds) || !redis_reply_is_text(micro))
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    double ahead = (double)now.tv_sec + (double)now.tv_nsec * 1e-9 - atof(seconds->str) -
                   atof(micro->str) * 1e-6;
    bool far = ahead > CLOCK_LIMIT_S || ahead < -CLOCK_LIMIT_S;
    say(visit, far ? FINDING_WARN : FINDING_OK, "clock",
        far ? "this machine is %+.1f s off the server's clock: end-to-end times will be wrong; let "
              "both follow NTP"
            : "within %+.2f s of the server's",
        ahead);
}

/* ---- stream and group */

/* Output streams, of the first so many input streams: all may have the same. */
static size_t n_outputs(const struct redis_config *config)
{
    return config->output == REDIS_OUTPUT_STREAM ? redis_streams_targets(&config->streams, true)
                                                 : 0;
}

static long long field_number(const redisReply *group, const char *name)
{
    const redisReply *field = redis_reply_field(group, name);
    return field && field->type == REDIS_REPLY_INTEGER ? field->integer : -1;
}

static void take_groups(struct visit *visit, const redisReply *reply)
{
    const struct redis_config *config = &visit->config;
    for (size_t i = 0; redis_reply_is_array(reply) && i < reply->elements; i++) {
        const redisReply *group = reply->element[i], *name = redis_reply_field(group, "name");
        if (!redis_reply_is_text(name) || strcmp(name->str, config->group) != 0)
            continue;
        visit->found = true;
        say(visit, FINDING_OK, "group",
            "%s of %s: %lld consumers, %lld pending, lag %lld (-1: unknown)", config->group,
            visit->key, field_number(group, "consumers"), field_number(group, "pending"),
            field_number(group, "lag"));
    }
    if (is_error(reply)) {
        visit->found = true;
        say(visit, FINDING_WARN, "group", "XINFO is refused: %s; the lag will not be known",
            reply->str);
    } else if (!visit->found)
        say(visit, FINDING_OK, "group", "%s of %s does not exist yet; the worker creates it",
            config->group, visit->key);
}

static void take_type(struct visit *visit, const redisReply *reply)
{
    snprintf(visit->type, sizeof visit->type, "%s",
             is_error(reply) || !redis_reply_is_text(reply) ? "" : reply->str);
}

static void check_type(struct visit *visit, const char *key, bool is_input)
{
    visit->key = key;
    visit->found = false;
    if (!ask(visit, take_type, "TYPE", key, NULL) || !visit->type[0])
        return;
    bool missing = strcmp(visit->type, "none") == 0, good = strcmp(visit->type, "stream") == 0;
    if (!missing && !good)
        say(visit, FINDING_BAD, "stream", "%s is a %s, not a stream: name another key", key,
            visit->type);
    else if (is_input && missing)
        say(visit, FINDING_OK, "stream", "%s does not exist yet; the worker creates it", key);
    else if (is_input)
        ask(visit, take_groups, "XINFO", "GROUPS", key, NULL);
}

/* ---- permissions */

static void take_permission(struct visit *visit, const redisReply *reply)
{
    visit->accepted = !is_error(reply);
    if (!visit->accepted)
        say(visit, FINDING_BAD, visit->asked_for, "%s: %s (%s)", visit->key, reply->str,
            redis_fault_find(reply->str).advice);
}

/* Queues one command and tells when it is refused. */
#define MAY(visit, what, ...)                                                                      \
    ((visit)->asked_for = (what), (visit)->accepted = false,                                       \
     ask((visit), take_permission, __VA_ARGS__, NULL) && (visit)->accepted)

static void take_quietly(struct visit *visit, const redisReply *reply)
{
    visit->accepted = !is_error(reply);
}

static bool may_read(struct visit *visit, size_t i)
{
    const struct redis_config *c = &visit->config;
    const char *stream = c->streams.items[i].name;
    visit->key = stream;
    bool all = visit->has_group[i] || MAY(visit, "may make the group", "XGROUP", "CREATE", stream,
                                          c->group, "0", "MKSTREAM");
    all &= MAY(visit, "may read", "XREADGROUP", "GROUP", c->group, "check", "COUNT", "1", "STREAMS",
               stream, ">");
    all &= MAY(visit, "may ack", "XACK", stream, c->group, "0-1");
    all &= MAY(visit, "may list", "XPENDING", stream, c->group, "-", "+", "1");
    all &= MAY(visit, "may look", "XRANGE", stream, "-", "+", "COUNT", "1");
    all &= MAY(visit, "may claim", "XCLAIM", stream, c->group, "check", "1000", "0-1");
    all &= MAY(visit, "may renew", "EVAL", redis_script_renew, "1", stream, c->group, "check");
    return all;
}

static bool may_add(struct visit *visit, const char *what, const char *stream)
{
    visit->key = stream;
    return MAY(visit, what, "XADD", stream, "*", "check", "1");
}

/* Where the worker may not load a script it sends it each time. */
static bool may_script(struct visit *visit, const char *key)
{
    const struct redis_config *c = &visit->config;
    static const char unknown[] = "ffffffffffffffffffffffffffffffffffffffff";
    visit->key = key;
    if (!MAY(visit, "may script", "EVAL", redis_script_publish, "1", key, c->group, "check", "0-1"))
        return false;
    if (!ask(visit, take_quietly, "SCRIPT", "LOAD", redis_script_publish, NULL) || !visit->accepted)
        return true;
    return MAY(visit, "may script", "EVALSHA", unknown, "1", key);
}

/* An output of its own for each text. */
static bool may_set(struct visit *visit, const char *key)
{
    const struct redis_config *c = &visit->config;
    bool is_hash = c->output == REDIS_OUTPUT_HASH;
    visit->key = key;
    bool all = is_hash ? MAY(visit, "may write", "HSET", key, "check", "1")
                       : MAY(visit, "may write", "SET", key, "1");
    if (is_hash && c->expire_ms)
        all &= MAY(visit, "may expire", "PEXPIRE", key, "1000");
    if (!visit->from_redis) /* which has no tombstones */
        all &= MAY(visit, "may delete", "DEL", key);
    return all;
}

static bool may_write(struct visit *visit)
{
    const struct redis_config *c = &visit->config;
    char key[600];
    bool all = true;
    for (size_t i = 0; i < redis_streams_targets(&c->streams, false); i++)
        all &= may_add(visit, "may bury", c->streams.items[i].dead_letters);
    for (size_t i = 0; i < n_outputs(c); i++)
        all &= may_add(visit, "may write", c->streams.items[i].output);
    snprintf(key, sizeof key, "%scheck", c->output_prefix);
    if (c->output != REDIS_OUTPUT_STREAM)
        all &= may_set(visit, key);
    /* Of output and ack, or of all the keys of one message. */
    if (visit->is_source)
        all &= may_script(visit, c->streams.items[0].name);
    else if (c->output != REDIS_OUTPUT_STREAM)
        all &= may_script(visit, key);
    return all;
}

static void check_permissions(struct visit *visit)
{
    const struct redis_streams *streams = &visit->config.streams;
    visit->key = streams->list;
    if (!MAY(visit, "may check", "MULTI"))
        return;
    bool all = true;
    for (size_t i = 0; visit->is_source && i < streams->n; i++)
        all &= may_read(visit, i);
    if (visit->is_sink)
        all &= may_write(visit);
    all &= MAY(visit, "may check", "DISCARD");
    if (all)
        say(visit, FINDING_OK, "permissions",
            "this user may do all the worker does; nothing was "
            "written");
}

/* ---- the contract */

static void on_closed(void *ctx)
{
    struct visit *visit = ctx;
    visit->link = NULL;
}

static void visit_server(struct visit *visit, const struct redis_url *url)
{
    const struct redis_config *c = &visit->config;
    if (enter(visit, url) && ask(visit, take_info, "INFO", NULL) &&
        ask(visit, take_time, "TIME", NULL) &&
        (visit->slot < 0 || ask(visit, take_cluster, "CLUSTER", "INFO", NULL))) {
        for (size_t i = 0; visit->is_source && i < c->streams.n; i++) {
            check_type(visit, c->streams.items[i].name, true);
            visit->has_group[i] = visit->found;
        }
        for (size_t i = 0; visit->is_sink && i < redis_streams_targets(&c->streams, false); i++)
            check_type(visit, c->streams.items[i].dead_letters, false);
        for (size_t i = 0; visit->is_sink && i < n_outputs(c); i++)
            check_type(visit, c->streams.items[i].output, false);
        if (visit->state == READY)
            check_permissions(visit);
    }
    if (visit->link)
        redis_link_close(visit->link, on_closed, visit);
    uv_run(&visit->loop, UV_RUN_DEFAULT);
}

static bool is_named(const struct settings *settings, const char *option)
{
    const char *text = settings_text(settings, option);
    return text && *text;
}

static void check_broker(const struct settings *settings, bool is_source, bool is_sink,
                         finding_cb report, void *ctx)
{
    struct visit visit = {.report = report, .ctx = ctx};
    char err[400];
    if (redis_config_read(&visit.config, settings, err, sizeof err) != 0)
        return; /* told of by the check of the options */
    visit.from_redis = is_source;
    visit.wants_tls = is_named(settings, "redis.tls_ca") || is_named(settings, "redis.tls_cert");
    visit.has_group = calloc(visit.config.streams.n, sizeof *visit.has_group);
    if (!visit.has_group || uv_loop_init(&visit.loop) != 0) {
        free(visit.has_group);
        redis_config_clear(&visit.config);
        return;
    }
    bool same = redis_url_same(&visit.config.url, &visit.config.output_url);
    if (is_source || same) {
        visit.is_source = is_source;
        visit.is_sink = is_sink && same;
        visit_server(&visit, &visit.config.url);
    }
    if (is_sink && !same) {
        visit.is_source = false;
        visit.is_sink = true;
        visit_server(&visit, &visit.config.output_url);
    }
    uv_loop_close(&visit.loop);
    free(visit.has_group);
    redis_config_clear(&visit.config);
}

static void check_library(finding_cb report, void *ctx)
{
    char said[200];
    snprintf(said, sizeof said, "%d.%d.%d", HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH);
    report(ctx, FINDING_OK, "hiredis", said);
}

const struct connector_check redis_check = {check_library, check_broker};
