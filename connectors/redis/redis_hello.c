/*
 * redis_hello.c: what is said first on a new connection.
 *
 * Owns:    AUTH, SELECT, the connection's name and id, which server this is, a PING that proves
 *          that it serves.
 * Refuses: everything after that.
 * Threads: the loop thread.
 */
#include <stdio.h>
#include <string.h>

#include "connectors/redis/redis_fault.h"
#include "connectors/redis/redis_link_internal.h"
#include "connectors/redis/redis_reply.h"

static void hello_refused(struct redis_link *link, const char *text)
{
    struct redis_fault fault = redis_fault_find(text);
    char why[420];

    snprintf(why, sizeof(why), "%.200s (%s)", text, fault.advice);
    redis_link_event(link, fault.remedy == REMEDY_FATAL ? LINK_REFUSED : LINK_LOST, why);
}

static void on_hello(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_link *link = arg;
    (void)ctx;

    if (reply && reply->type == REDIS_REPLY_ERROR)
        hello_refused(link, reply->str);
}

/* It may be refused; but what the server says unasked, as it hangs up, comes as an answer, too. */
static void on_hello_optional(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_link *link = arg;
    (void)ctx;

    if (!reply)
        return;
    if (reply->type == REDIS_REPLY_ERROR && redis_fault_find(reply->str).remedy == REMEDY_RECONNECT)
        hello_refused(link, reply->str);
    else if (reply->type == REDIS_REPLY_INTEGER)
        link->client_id = (uint64_t)reply->integer;
}

static void on_hello_info(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_link *link = arg;
    const char *at = redis_reply_is_text(reply) ? strstr(reply->str, "\nrun_id:") : NULL;
    (void)ctx;

    if (!at)
        return;
    at += strlen("\nrun_id:");
    /* An imitation that says 000... for every server tells nothing. */
    if (strspn(at, "0123456789abcdef") == 40 && strspn(at, "0") < 40)
        memcpy(link->run_id, at, 40);
}

static void on_hello_ping(void *ctx, void *arg, const redisReply *reply)
{
    struct redis_link *link = arg;
    (void)ctx;

    /* The connection is lost, which is reported where that was found. */
    if (!reply)
        return;
    if (reply->type == REDIS_REPLY_ERROR)
        hello_refused(link, reply->str);
    else if (redis_reply_is_text(reply) && strcmp(reply->str, "PONG") == 0)
        redis_link_event(link, LINK_GREETED, NULL);
    else
        redis_link_event(link, LINK_LOST, "it did not answer PING as Redis does");
}

static int hello_command(struct redis_link *link, redis_reply_cb cb, size_t n, const char **words)
{
    struct bytes args[4];

    for (size_t i = 0; i < n; i++)
        args[i] = bytes_of(words[i]);
    return redis_connection_command(link, args, n, (struct redis_due){cb, link, 0, 0});
}

void redis_hello_send(struct redis_link *link)
{
    const struct redis_url *url = link->url;
    const char *auth[] = {"AUTH", url->user, url->password};
    const char *auth_old[] = {"AUTH", url->password};
    char db[16];
    const char *select[] = {"SELECT", db};
    const char *name[] = {"CLIENT", "SETNAME", link->name};
    const char *id[] = {"CLIENT", "ID"};
    const char *info[] = {"INFO", "server"};
    const char *ping[] = {"PING"};
    int rc = 0;

    snprintf(db, sizeof(db), "%d", url->db);
    /* All of it is sent at once; the answer to PING, the last, ends the greeting. */
    link->phase = PHASE_HELLO;
    memset(link->run_id, 0, sizeof(link->run_id));
    if (url->user)
        rc |= hello_command(link, on_hello, 3, auth);
    else if (url->password)
        rc |= hello_command(link, on_hello, 2, auth_old);
    if (url->db)
        rc |= hello_command(link, on_hello, 2, select);
    rc |= hello_command(link, on_hello_optional, 3, name);
    rc |= hello_command(link, on_hello_optional, 2, id);
    rc |= hello_command(link, on_hello_info, 2, info);
    rc |= hello_command(link, on_hello_ping, 1, ping);
    if (rc)
        redis_link_event(link, LINK_LOST, "no memory");
}
