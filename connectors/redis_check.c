/*
 * redis_check.c: what `embedmill doctor` asks a Redis server.
 *
 * Owns:    connection, version, role, memory policy, persistence, clock, stream and group, and
 *          whether this user may do what the worker does.
 * Refuses: writing: each command is queued in a MULTI, where permission, memory, role and disk are
 *          checked, and then discarded.
 * Threads: the main thread; hiredis' blocking calls, each limited by redis.timeout.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include "connectors/redis.h"
#include "connectors/redis_reply.h"
#include "connectors/redis_script.h"

#define CLOCK_LIMIT_S 2.0

struct visit {
    struct redis_config config;
    redisContext *context;
    bool is_source, is_sink; /* what is asked of this server */
    finding_cb report;
    void *ctx;
};

__attribute__((format(printf, 4, 5))) static void say(const struct visit *visit, enum finding how,
                                                      const char *what, const char *format, ...)
{
    char said[600];
    va_list args;
    va_start(args, format);
    vsnprintf(said, sizeof said, format, args);
    va_end(args);
    visit->report(visit->ctx, how, what, said);
}

/* NULL and told of when the connection broke; an error reply is a reply. */
__attribute__((format(printf, 2, 3))) static redisReply *ask(const struct visit *visit,
                                                             const char *format, ...)
{
    va_list args;
    va_start(args, format);
    redisReply *reply = redisvCommand(visit->context, format, args);
    va_end(args);
    if (!reply)
        say(visit, FINDING_BAD, "connection", "lost in the middle of the checks: %s; try again",
            visit->context->errstr);
    return reply;
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

static bool accepted(const struct visit *visit, const char *what, redisReply *reply)
{
    bool good = reply && !is_error(reply);
    if (reply && !good)
        say(visit, FINDING_BAD, what, "%s (%s)", reply->str, redis_fault_find(reply->str).advice);
    freeReplyObject(reply);
    return good;
}

static bool enter(struct visit *visit, const struct redis_url *url)
{
    struct timeval limit = {(time_t)(visit->config.timeout_ms / 1000),
                            (suseconds_t)(visit->config.timeout_ms % 1000 * 1000)};
    char where[300];
    redis_url_print(url, where, sizeof where);
    visit->context = url->host ? redisConnectWithTimeout(url->host, url->port, limit)
                               : redisConnectUnixWithTimeout(url->path, limit);
    if (!visit->context || visit->context->err) {
        say(visit, FINDING_BAD, "connection",
            "%s: %s; is the server running, and is redis.url right for this machine?", where,
            visit->context ? visit->context->errstr : "out of memory");
        return false;
    }
    redisSetTimeout(visit->context, limit);
    if (url->user && !accepted(visit, "login", ask(visit, "AUTH %s %s", url->user, url->password)))
        return false;
    if (!url->user && url->password &&
        !accepted(visit, "login", ask(visit, "AUTH %s", url->password)))
        return false;
    if (url->db && !accepted(visit, "database", ask(visit, "SELECT %d", url->db)))
        return false;
    if (!accepted(visit, "connection", ask(visit, "PING")))
        return false;
    say(visit, FINDING_OK, "connection", "%s answers", where);
    return true;
}

/* ---- the server */

static void check_version(const struct visit *visit, const redisReply *info)
{
    char version[40], role[20];
    int major = 0, minor = 0;
    info_field(info, "redis_version", version, sizeof version);
    if (sscanf(version, "%d.%d", &major, &minor) != 2)
        say(visit, FINDING_WARN, "version", "INFO does not tell it; Redis 6.2 or newer is needed");
    else if (major < 6 || (major == 6 && minor < 2))
        say(visit, FINDING_BAD, "version", "Redis %s; 6.2 or newer is needed: upgrade it", version);
    else if (major < 7)
        say(visit, FINDING_WARN, "version",
            "Redis %s works, but tells no lag of a group; 7 or newer does", version);
    else
        say(visit, FINDING_OK, "version", "Redis %s", version);
    if (strcmp(info_field(info, "role", role, sizeof role), "slave") == 0)
        say(visit, FINDING_BAD, "role", "this is a replica; redis.url must name the master");
}

static void check_keeping(const struct visit *visit, const redisReply *info)
{
    char limit[40], policy[40], aof[8];
    info_field(info, "maxmemory", limit, sizeof limit);
    info_field(info, "maxmemory_policy", policy, sizeof policy);
    if (strcmp(limit, "0") != 0 && policy[0] && strcmp(policy, "noeviction") != 0)
        say(visit, FINDING_WARN, "memory policy",
            "maxmemory-policy is %s: a full server throws streams and embeddings away; set "
            "noeviction, with which the worker waits instead",
            policy);
    if (strcmp(info_field(info, "aof_enabled", aof, sizeof aof), "0") == 0)
        say(visit, FINDING_WARN, "persistence",
            "appendonly is off: a crash of the server loses messages since its last snapshot; "
            "CONFIG SET appendonly yes, unless that is accepted");
}

static void check_clock(const struct visit *visit)
{
    redisReply *reply = ask(visit, "TIME");
    if (!reply)
        return;
    const redisReply *seconds = redis_reply_at(reply, 0), *micro = redis_reply_at(reply, 1);
    struct timespec now;
    if (redis_reply_is_text(seconds) && redis_reply_is_text(micro)) {
        clock_gettime(CLOCK_REALTIME, &now);
        double ahead = (double)now.tv_sec + (double)now.tv_nsec * 1e-9 - atof(seconds->str) -
                       atof(micro->str) * 1e-6;
        bool far = ahead > CLOCK_LIMIT_S || ahead < -CLOCK_LIMIT_S;
        say(visit, far ? FINDING_WARN : FINDING_OK, "clock",
            far ? "this machine is %+.1f s off the server's clock: end-to-end times will be wrong; "
                  "let both follow NTP"
                : "within %+.2f s of the server's",
            ahead);
    }
    freeReplyObject(reply);
}

/* ---- stream and group */

static const redisReply *group_field(const redisReply *group, const char *name)
{
    for (size_t i = 0; redis_reply_is_array(group) && i + 1 < group->elements; i += 2)
        if (redis_reply_is_text(group->element[i]) && strcmp(group->element[i]->str, name) == 0)
            return group->element[i + 1];
    return NULL;
}

static long long field_number(const redisReply *group, const char *name)
{
    const redisReply *field = group_field(group, name);
    return field && field->type == REDIS_REPLY_INTEGER ? field->integer : -1;
}

static void check_group(const struct visit *visit)
{
    const struct redis_config *config = &visit->config;
    redisReply *reply = ask(visit, "XINFO GROUPS %s", config->stream);
    bool found = false;
    for (size_t i = 0; redis_reply_is_array(reply) && i < reply->elements; i++) {
        const redisReply *group = reply->element[i], *name = group_field(group, "name");
        if (!redis_reply_is_text(name) || strcmp(name->str, config->group) != 0)
            continue;
        found = true;
        say(visit, FINDING_OK, "group", "%s: %lld consumers, %lld pending, lag %lld (-1: unknown)",
            config->group, field_number(group, "consumers"), field_number(group, "pending"),
            field_number(group, "lag"));
    }
    if (reply && is_error(reply))
        say(visit, FINDING_WARN, "group", "XINFO is refused: %s; the lag will not be known",
            reply->str);
    else if (reply && !found)
        say(visit, FINDING_OK, "group", "%s is not there yet; the worker makes it", config->group);
    freeReplyObject(reply);
}

static void check_type(const struct visit *visit, const char *key, bool is_input)
{
    redisReply *reply = ask(visit, "TYPE %s", key);
    if (!redis_reply_is_text(reply)) {
        freeReplyObject(reply);
        return;
    }
    bool missing = strcmp(reply->str, "none") == 0, good = strcmp(reply->str, "stream") == 0;
    if (!missing && !good)
        say(visit, FINDING_BAD, "stream", "%s is a %s, not a stream: name another key", key,
            reply->str);
    else if (is_input && missing)
        say(visit, FINDING_OK, "stream", "%s is not there yet; the worker makes it", key);
    else if (is_input)
        check_group(visit);
    freeReplyObject(reply);
}

/* ---- permissions */

/* Queues one command and tells when it is refused. */
__attribute__((format(printf, 3, 4))) static bool may(const struct visit *visit, const char *what,
                                                      const char *format, ...)
{
    va_list args;
    va_start(args, format);
    redisReply *reply = redisvCommand(visit->context, format, args);
    va_end(args);
    if (!reply) {
        say(visit, FINDING_BAD, what, "the connection was lost: %s", visit->context->errstr);
        return false;
    }
    bool good = !is_error(reply);
    if (!good)
        say(visit, FINDING_BAD, what, "%s (%s)", reply->str, redis_fault_find(reply->str).advice);
    freeReplyObject(reply);
    return good;
}

static bool may_read(const struct visit *visit)
{
    const struct redis_config *c = &visit->config;
    bool all = may(visit, "may read", "XREADGROUP GROUP %s check COUNT 1 STREAMS %s >", c->group,
                   c->stream);
    all &= may(visit, "may ack", "XACK %s %s 0-1", c->stream, c->group);
    all &= may(visit, "may list", "XPENDING %s %s - + 1", c->stream, c->group);
    all &= may(visit, "may claim", "XCLAIM %s %s check 1000 0-1", c->stream, c->group);
    all &=
        may(visit, "may renew", "EVAL %s 1 %s %s check", redis_script_renew, c->stream, c->group);
    return all;
}

static bool may_write(const struct visit *visit)
{
    const struct redis_config *c = &visit->config;
    bool all = may(visit, "may bury", "XADD %s * check 1", c->dead_letters);
    if (c->output == REDIS_OUTPUT_STREAM)
        all &= may(visit, "may write", "XADD %s * check 1", c->output_stream);
    else if (c->output == REDIS_OUTPUT_HASH)
        all &= may(visit, "may write", "HSET %scheck check 1", c->output_prefix);
    else
        all &= may(visit, "may write", "SET %scheck 1", c->output_prefix);
    return all & may(visit, "may script", "EVAL %s 1 %s %s check 0-1", redis_script_publish,
                     c->stream, c->group);
}

static void check_permissions(const struct visit *visit)
{
    if (!may(visit, "may check", "MULTI"))
        return;
    bool all = true;
    if (visit->is_source)
        all &= may_read(visit);
    if (visit->is_sink)
        all &= may_write(visit);
    may(visit, "may check", "DISCARD");
    if (all)
        say(visit, FINDING_OK, "permissions",
            "this user may do all the worker does; nothing was "
            "written");
}

/* ---- the contract */

static void visit_server(struct visit *visit, const struct redis_url *url)
{
    if (enter(visit, url)) {
        redisReply *info = ask(visit, "INFO");
        if (info && is_error(info)) {
            say(visit, FINDING_WARN, "server",
                "INFO is refused: %s; version, role and "
                "persistence are not known",
                info->str);
        } else if (info) {
            check_version(visit, info);
            check_keeping(visit, info);
        }
        freeReplyObject(info);
        check_clock(visit);
        if (visit->is_source)
            check_type(visit, visit->config.stream, true);
        if (visit->is_sink && visit->config.output == REDIS_OUTPUT_STREAM)
            check_type(visit, visit->config.output_stream, false);
        if (!visit->context->err)
            check_permissions(visit);
    }
    if (visit->context)
        redisFree(visit->context);
    visit->context = NULL;
}

static void check_broker(const struct settings *settings, bool is_source, bool is_sink,
                         finding_cb report, void *ctx)
{
    struct visit visit = {.report = report, .ctx = ctx};
    char err[400];
    if (redis_config_read(&visit.config, settings, err, sizeof err) != 0)
        return; /* told of by check_settings */
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
    redis_config_clear(&visit.config);
}

static int check_settings(const struct settings *settings, char *err, size_t err_size)
{
    struct redis_config config;
    int rc = redis_config_read(&config, settings, err, err_size);
    if (rc == 0)
        redis_config_clear(&config);
    return rc;
}

static void check_library(finding_cb report, void *ctx)
{
    char said[200];
    snprintf(said, sizeof said, "%d.%d.%d", HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH);
    report(ctx, FINDING_OK, "hiredis", said);
}

const struct connector_check redis_check = {"redis", check_settings, check_library, check_broker};
