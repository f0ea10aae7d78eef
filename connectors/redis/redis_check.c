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

struct probe {
    struct redis_config config;
    uv_loop_t loop;
    struct redis_link *link;
    enum { CALLING, READY, GONE } state;
    bool reported;           /* that it is gone */
    char why[400];           /* it is gone */
    const char *option;      /* that names this server */
    int slot;                /* of a cluster; else -1 */
    bool is_source, is_sink; /* what is asked of this server */
    bool wants_tls;          /* files for TLS are named */
    bool from_redis;         /* the input is Redis, here or on another server */
    bool *has_group;         /* [config.streams.n] where the input has its group already */
    finding_cb report;
    void *ctx;
    void (*take)(struct probe *probe, const redisReply *reply); /* of the answer awaited */
    bool answered, accepted;
    bool found;            /* the group of the stream last looked at, or it may be there */
    const char *asked_for; /* what a refusal is told as */
    const char *key;       /* that is asked about */
    char type[40];         /* of the last key asked about */
};

#define say(probe, ...) check_say((probe)->report, (probe)->ctx, __VA_ARGS__)

/* ---- one command at a time */

static void on_reply(void *ctx, void *arg, const redisReply *reply)
{
    struct probe *probe = ctx;
    (void)arg;
    probe->answered = true;
    if (reply)
        probe->take(probe, reply);
}

/* Words end with NULL. False, and told of once, when the connection is gone. */
static bool ask(struct probe *probe, void (*take)(struct probe *probe, const redisReply *reply),
                ...)
{
    struct bytes words[WORDS_MAX];
    size_t n = 0;
    va_list args;
    va_start(args, take);
    for (const char *word; n < WORDS_MAX && (word = va_arg(args, const char *));)
        words[n++] = bytes_of(word);
    va_end(args);
    probe->take = take;
    probe->answered = false;
    bool sent = redis_link_send(probe->link, words, n, 0, on_reply, NULL) == 0;
    /* RUN_ONCE may return with nothing done. */
    while (sent && !probe->answered && probe->state == READY)
        uv_run(&probe->loop, UV_RUN_ONCE);
    if (probe->state == READY && sent)
        return true;
    /* All checks behind this one fail, too: it is said once. */
    if (!probe->reported)
        say(probe, FINDING_BAD, "connection", "connection lost during the checks: %s; try again",
            probe->why);
    probe->reported = true;
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
    /* From the beginning of a line, or it could be the end of another name. */
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
    struct probe *probe = ctx;
    if (probe->state == CALLING)
        probe->state = READY;
}

static void on_lost(void *ctx, const char *why)
{
    struct probe *probe = ctx;
    const char *retries = strstr(why, REDIS_LINK_RETRIES); /* which we do not */
    int len = (int)(retries ? (size_t)(retries - why) : strlen(why));
    if (probe->state != GONE)
        snprintf(probe->why, sizeof probe->why, "%.*s; see %s", len, why, probe->option);
    probe->state = GONE;
}

static void on_good(void *ctx)
{
    (void)ctx;
}

static void on_failed(void *ctx, int err, const char *why)
{
    struct probe *probe = ctx;
    (void)err;
    if (probe->state != GONE)
        snprintf(probe->why, sizeof probe->why, "%s; see %s", why, probe->option);
    probe->state = GONE;
}

/* Of a cluster. */
static int slot_of(const struct probe *probe, const struct redis_url *url)
{
    return url == &probe->config.url ? probe->config.slot : probe->config.output_slot;
}

/* Connects, logs in, selects the database: all that a link does by itself. */
static bool enter(struct probe *probe, const struct redis_url *url)
{
    static const struct redis_link_events events = {on_ready, on_lost, on_good, on_failed};
    struct redis_link_options options = {url,
                                         url->tls ? probe->config.tls : NULL,
                                         "embedmill-doctor",
                                         probe->config.timeout_ms,
                                         slot_of(probe, url),
                                         &redis_detour_ops};
    char where[300];
    redis_url_print(url, where, sizeof where);
    probe->state = CALLING;
    probe->reported = false;
    probe->option = url == &probe->config.url ? "redis.url" : "redis.output_url";
    probe->slot = slot_of(probe, url);
    if (redis_link_open(&probe->link, &probe->loop, &options, &events, probe) != 0) {
        say(probe, FINDING_BAD, "connection", "out of memory");
        return false;
    }
    while (probe->state == CALLING)
        uv_run(&probe->loop, UV_RUN_ONCE);
    if (probe->state == READY)
        say(probe, probe->wants_tls && !url->tls ? FINDING_WARN : FINDING_OK, "connection",
            "%s answers%s", where,
            url->tls           ? " over TLS"
            : probe->wants_tls ? ", not encrypted: redis.tls_ca or redis.tls_cert is set, and the "
                                 "URL is not rediss://"
                               : "");
    else
        say(probe, FINDING_BAD, "connection", "%s", probe->why);
    return probe->state == READY;
}

/* ---- the server */

static void check_version(const struct probe *probe, const redisReply *info)
{
    char version[40], valkey[40], name[120], role[20];
    int major = 0, minor = 0;
    info_field(info, "redis_version", version, sizeof version);
    if (info_field(info, "valkey_version", valkey, sizeof valkey)[0])
        snprintf(name, sizeof name, "Valkey %s, compatible with Redis %s", valkey, version);
    else
        snprintf(name, sizeof name, "Redis %s", version);
    if (sscanf(version, "%d.%d", &major, &minor) != 2)
        say(probe, FINDING_WARN, "version",
            "INFO does not report it; Redis 6.2 or newer is needed");
    else if (major < 6 || (major == 6 && minor < 2))
        say(probe, FINDING_BAD, "version", "%s; 6.2 or newer is needed: upgrade it", name);
    else if (major < 7)
        say(probe, FINDING_WARN, "version",
            "%s works, but reports no lag of a group; 7 or newer does", name);
    else
        say(probe, FINDING_OK, "version", "%s", name);
    if (strcmp(info_field(info, "role", role, sizeof role), "slave") == 0)
        say(probe, FINDING_BAD, "role", "this is a replica; %s must lead to the master",
            probe->option);
}

static void check_keeping(const struct probe *probe, const redisReply *info)
{
    char limit[40], policy[40], aof[8];
    info_field(info, "maxmemory", limit, sizeof limit);
    info_field(info, "maxmemory_policy", policy, sizeof policy);
    if (strcmp(limit, "0") != 0 && policy[0] && strcmp(policy, "noeviction") != 0)
        say(probe, FINDING_WARN, "memory policy",
            "maxmemory-policy is %s: a full server evicts streams and embeddings; set "
            "noeviction, with which the worker waits instead",
            policy);
    if (strcmp(info_field(info, "aof_enabled", aof, sizeof aof), "0") == 0)
        say(probe, FINDING_WARN, "persistence",
            "appendonly is off: a crash of the server loses messages since its last snapshot; "
            "CONFIG SET appendonly yes, unless that is accepted");
}

/* A node of a cluster that fails takes its slots with it, unless a replica has them. */
static void check_replicas(const struct probe *probe, const redisReply *info)
{
    char replicas[20];
    if (strcmp(info_field(info, "connected_slaves", replicas, sizeof replicas), "0") == 0)
        say(probe, FINDING_WARN, "replicas",
            "the node that serves the worker's slot has no replica: when it fails, the worker "
            "waits until it is back; add one (redis-cli --cluster add-node ... --cluster-slave)");
}

static void take_cluster(struct probe *probe, const redisReply *reply)
{
    char state[40], nodes[20], server[120];
    if (is_error(reply)) {
        say(probe, FINDING_WARN, "cluster", "CLUSTER INFO is refused: %s; its state is not known",
            reply->str);
        return;
    }
    /* The state is the first line, with nothing before it. */
    bool is_ok = redis_reply_is_text(reply) && strstr(reply->str, "cluster_state:ok");
    snprintf(state, sizeof state, "%s", is_ok ? "ok" : "fail");
    info_field(reply, "cluster_known_nodes", nodes, sizeof nodes);
    redis_link_print_server(probe->link, server, sizeof server);
    say(probe, is_ok ? FINDING_OK : FINDING_BAD, "cluster",
        is_ok ? "state %s, %s nodes; %s serves slot %d, where all keys of the worker are"
              : "state %s, %s nodes, says %s: slots are not served (slot %d is the worker's); see "
                "CLUSTER INFO and CLUSTER SHARDS",
        state, nodes, server, probe->slot);
}

static void take_info(struct probe *probe, const redisReply *reply)
{
    if (is_error(reply)) {
        say(probe, FINDING_WARN, "server",
            "INFO is refused: %s; version, role and persistence are not known", reply->str);
        return;
    }
    check_version(probe, reply);
    check_keeping(probe, reply);
    if (probe->slot >= 0)
        check_replicas(probe, reply);
}

static void take_time(struct probe *probe, const redisReply *reply)
{
    const redisReply *seconds = redis_reply_at(reply, 0), *micro = redis_reply_at(reply, 1);
    struct timespec now;
    if (!redis_reply_is_text(seconds) || !redis_reply_is_text(micro))
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    double ahead = (double)now.tv_sec + (double)now.tv_nsec * 1e-9 - atof(seconds->str) -
                   atof(micro->str) * 1e-6;
    bool far = ahead > CLOCK_LIMIT_S || ahead < -CLOCK_LIMIT_S;
    say(probe, far ? FINDING_WARN : FINDING_OK, "clock",
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

static void take_groups(struct probe *probe, const redisReply *reply)
{
    const struct redis_config *config = &probe->config;
    for (size_t i = 0; redis_reply_is_array(reply) && i < reply->elements; i++) {
        const redisReply *group = reply->element[i], *name = redis_reply_field(group, "name");
        if (!redis_reply_is_text(name) || strcmp(name->str, config->group) != 0)
            continue;
        long long n_consumers = field_number(group, "consumers"), lag = field_number(group, "lag");
        char number[24] = "unknown"; /* before Redis 7, and after an XDEL in the middle */
        if (lag >= 0)
            snprintf(number, sizeof number, "%lld", lag);
        probe->found = true;
        say(probe, FINDING_OK, "group", "%s of %s: %lld consumer%s, %lld pending, lag %s",
            config->group, probe->key, n_consumers, n_consumers == 1 ? "" : "s",
            field_number(group, "pending"), number);
    }
    if (is_error(reply)) {
        probe->found = true;
        say(probe, FINDING_WARN, "group", "XINFO is refused: %s; the lag will not be known",
            reply->str);
    } else if (!probe->found)
        say(probe, FINDING_OK, "group", "%s of %s does not exist yet; the worker creates it",
            config->group, probe->key);
}

static void take_type(struct probe *probe, const redisReply *reply)
{
    snprintf(probe->type, sizeof probe->type, "%s",
             is_error(reply) || !redis_reply_is_text(reply) ? "" : reply->str);
}

static void check_type(struct probe *probe, const char *key, bool is_input)
{
    probe->key = key;
    probe->found = false;
    if (!ask(probe, take_type, "TYPE", key, NULL) || !probe->type[0])
        return;
    bool missing = strcmp(probe->type, "none") == 0, good = strcmp(probe->type, "stream") == 0;
    if (!missing && !good)
        say(probe, FINDING_BAD, "stream", "%s is a %s, not a stream: name another key", key,
            probe->type);
    else if (is_input && missing)
        say(probe, FINDING_OK, "stream", "%s does not exist yet; the worker creates it", key);
    else if (is_input)
        ask(probe, take_groups, "XINFO", "GROUPS", key, NULL);
}

/* ---- permissions */

static void take_permission(struct probe *probe, const redisReply *reply)
{
    probe->accepted = !is_error(reply);
    if (!probe->accepted)
        say(probe, FINDING_BAD, probe->asked_for, "%s: %s (%s)", probe->key, reply->str,
            redis_fault_find(reply->str).advice);
}

/* Queues one command and tells when it is refused. */
#define MAY(probe, what, ...)                                                                      \
    ((probe)->asked_for = (what), (probe)->accepted = false,                                       \
     ask((probe), take_permission, __VA_ARGS__, NULL) && (probe)->accepted)

static void take_quietly(struct probe *probe, const redisReply *reply)
{
    probe->accepted = !is_error(reply);
}

static bool may_read(struct probe *probe, size_t i)
{
    const struct redis_config *c = &probe->config;
    const char *stream = c->streams.items[i].name;
    probe->key = stream;
    /* No && between them: all that is missing is reported in one run. */
    bool all = probe->has_group[i] || MAY(probe, "may make the group", "XGROUP", "CREATE", stream,
                                          c->group, "0", "MKSTREAM");
    all &= MAY(probe, "may read", "XREADGROUP", "GROUP", c->group, "check", "COUNT", "1", "STREAMS",
               stream, ">");
    all &= MAY(probe, "may ack", "XACK", stream, c->group, "0-1");
    all &= MAY(probe, "may list", "XPENDING", stream, c->group, "-", "+", "1");
    all &= MAY(probe, "may look", "XRANGE", stream, "-", "+", "COUNT", "1");
    all &= MAY(probe, "may claim", "XCLAIM", stream, c->group, "check", "1000", "0-1");
    all &= MAY(probe, "may renew", "EVAL", redis_script_renew, "1", stream, c->group, "check");
    return all;
}

static bool may_add(struct probe *probe, const char *what, const char *stream)
{
    probe->key = stream;
    return MAY(probe, what, "XADD", stream, "*", "check", "1");
}

/* Where the worker may not load a script it sends it each time. */
static bool may_script(struct probe *probe, const char *key)
{
    const struct redis_config *c = &probe->config;
    static const char unknown[] = "ffffffffffffffffffffffffffffffffffffffff";
    probe->key = key;
    if (!MAY(probe, "may script", "EVAL", redis_script_publish, "1", key, c->group, "check", "0-1"))
        return false;
    if (!ask(probe, take_quietly, "SCRIPT", "LOAD", redis_script_publish, NULL) || !probe->accepted)
        return true;
    /* In a MULTI it is only queued, so a digest that nobody knows is no error. */
    return MAY(probe, "may script", "EVALSHA", unknown, "1", key);
}

/* An output of its own for each text. */
static bool may_set(struct probe *probe, const char *key)
{
    const struct redis_config *c = &probe->config;
    bool is_hash = c->output == REDIS_OUTPUT_HASH;
    probe->key = key;
    bool all = is_hash ? MAY(probe, "may write", "HSET", key, "check", "1")
                       : MAY(probe, "may write", "SET", key, "1");
    if (is_hash && c->expire_ms)
        all &= MAY(probe, "may expire", "PEXPIRE", key, "1000");
    if (!probe->from_redis) /* which has no tombstones */
        all &= MAY(probe, "may delete", "DEL", key);
    return all;
}

static bool may_write(struct probe *probe)
{
    const struct redis_config *c = &probe->config;
    char key[600];
    bool all = true;
    for (size_t i = 0; i < redis_streams_targets(&c->streams, false); i++)
        all &= may_add(probe, "may dead-letter", c->streams.items[i].dead_letters);
    for (size_t i = 0; i < n_outputs(c); i++)
        all &= may_add(probe, "may write", c->streams.items[i].output);
    snprintf(key, sizeof key, "%scheck", c->output_prefix);
    if (c->output != REDIS_OUTPUT_STREAM)
        all &= may_set(probe, key);
    /* Of output and ack, or of all the keys of one message. */
    if (probe->is_source)
        all &= may_script(probe, c->streams.items[0].name);
    else if (c->output != REDIS_OUTPUT_STREAM)
        all &= may_script(probe, key);
    return all;
}

static void check_permissions(struct probe *probe)
{
    const struct redis_streams *streams = &probe->config.streams;
    probe->key = streams->list;
    if (!MAY(probe, "may check", "MULTI"))
        return;
    bool all = true;
    for (size_t i = 0; probe->is_source && i < streams->n; i++)
        all &= may_read(probe, i);
    if (probe->is_sink)
        all &= may_write(probe);
    /* What was refused has not ended the MULTI. */
    all &= MAY(probe, "may check", "DISCARD");
    if (all)
        say(probe, FINDING_OK, "permissions",
            "this user may do all the worker does; nothing was "
            "written");
}

/* ---- the contract */

static void on_closed(void *ctx)
{
    struct probe *probe = ctx;
    probe->link = NULL;
}

static void probe_server(struct probe *probe, const struct redis_url *url)
{
    const struct redis_config *c = &probe->config;
    if (enter(probe, url) && ask(probe, take_info, "INFO", NULL) &&
        ask(probe, take_time, "TIME", NULL) &&
        (probe->slot < 0 || ask(probe, take_cluster, "CLUSTER", "INFO", NULL))) {
        for (size_t i = 0; probe->is_source && i < c->streams.n; i++) {
            check_type(probe, c->streams.items[i].name, true);
            probe->has_group[i] = probe->found;
        }
        for (size_t i = 0; probe->is_sink && i < redis_streams_targets(&c->streams, false); i++)
            check_type(probe, c->streams.items[i].dead_letters, false);
        for (size_t i = 0; probe->is_sink && i < n_outputs(c); i++)
            check_type(probe, c->streams.items[i].output, false);
        if (probe->state == READY)
            check_permissions(probe);
    }
    if (probe->link)
        redis_link_close(probe->link, on_closed, probe);
    /* Until the link is closed. */
    uv_run(&probe->loop, UV_RUN_DEFAULT);
    probe->link = NULL;
}

static void check_broker(const struct settings *settings, bool is_source, bool is_sink,
                         finding_cb report, void *ctx)
{
    struct probe probe = {.report = report, .ctx = ctx};
    char err[400];
    if (redis_config_read(&probe.config, settings, err, sizeof err) != 0)
        return; /* told of by the check of the options */
    probe.from_redis = is_source;
    probe.wants_tls =
        settings_has(settings, "redis.tls_ca") || settings_has(settings, "redis.tls_cert");
    probe.has_group = calloc(probe.config.streams.n, sizeof *probe.has_group);
    if (!probe.has_group || uv_loop_init(&probe.loop) != 0) {
        free(probe.has_group);
        redis_config_clear(&probe.config);
        return;
    }
    bool same = redis_url_same(&probe.config.url, &probe.config.output_url);
    /* One server for both is asked once. */
    if (is_source || same) {
        probe.is_source = is_source;
        probe.is_sink = is_sink && same;
        probe_server(&probe, &probe.config.url);
    }
    if (is_sink && !same) {
        probe.is_source = false;
        probe.is_sink = true;
        probe_server(&probe, &probe.config.output_url);
    }
    uv_loop_close(&probe.loop);
    free(probe.has_group);
    redis_config_clear(&probe.config);
}

static void check_library(finding_cb report, void *ctx)
{
    char said[200];
    snprintf(said, sizeof said, "%d.%d.%d", HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH);
    report(ctx, FINDING_OK, "hiredis", said);
}

const struct connector_check redis_check = {check_library, check_broker};
