/*
 * redis_call.c: see redis_call.h.
 *
 * Why: hiredis of Debian 12 has no TLS. Its context still connects and reads replies; the bytes in
 *      between go through the same filter as the worker's (tls.h).
 */
#include "connectors/redis/redis_call.h"
#include "connectors/redis/redis_fault.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "connectors/redis/redis_reply.h"
#include "connectors/redis/redis_slot.h"

#define MOVES_MAX 5 /* in a row: who sends us round in circles is asked no more */

struct redis_call {
    const struct redis_url *url;
    const struct tls_context *tls_context;
    struct timeval limit;
    int slot; /* of all keys, in a cluster */
    struct redis_node server;
    unsigned n_moves;
    redisContext *context;
    struct tls *tls; /* NULL: plain */
    char where[160];
};

/* ---- TLS */

/* What the filter has for the network. 0 or -EIO. */
static int call_flush(struct redis_call *call, char *err, size_t err_size)
{
    char *bytes;
    size_t len;

    /* The filter gives what it has in one piece; sending it may take several. */
    while ((len = tls_output(call->tls, &bytes)) > 0)
        while (len > 0) {
            ssize_t n = send(call->context->fd, bytes, len, MSG_NOSIGNAL);
            if (n < 0 && errno == EINTR)
                continue;
            if (n <= 0) {
                snprintf(err, err_size, "the connection to %s failed: %s", call->where,
                         strerror(errno));
                return -EIO;
            }
            bytes += n;
            len -= (size_t)n;
        }
    return 0;
}

/* Waits for more from the network and gives it to the filter. */
static int call_receive(struct redis_call *call, char *err, size_t err_size)
{
    char bytes[16384], why[300];
    ssize_t n;

    do
        n = recv(call->context->fd, bytes, sizeof(bytes), 0);
    while (n < 0 && errno == EINTR);
    if (n <= 0) {
        snprintf(err, err_size, "the connection to %s failed: %s", call->where,
                 n == 0            ? "the server closed it"
                 : errno == EAGAIN ? "no answer within redis.timeout"
                                   : strerror(errno));
        return -EIO;
    }
    if (tls_receive(call->tls, bytes, (size_t)n, why, sizeof(why)) != 0) {
        snprintf(err, err_size, "%s: %s", call->where, why);
        return -EIO;
    }
    return call_flush(call, err, err_size);
}

static int call_encrypt(struct redis_call *call, const struct tls_context *tls, const char *host,
                        char *err, size_t err_size)
{
    int rc = tls_open(&call->tls, tls, host);

    if (rc == 0)
        rc = call_flush(call, err, err_size);
    while (rc == 0 && !tls_ready(call->tls))
        rc = call_receive(call, err, err_size);
    return rc;
}

/* lens: of the words; NULL: they end with a NUL. */
static int call_send(struct redis_call *call, size_t n, const char **words, const size_t *lens,
                     char *err, size_t err_size)
{
    char *command;
    long long len = redisFormatCommandArgv(&command, (int)n, words, lens);
    int rc = len < 0 ? -ENOMEM : tls_write(call->tls, command, (size_t)len);

    if (len >= 0)
        free(command);
    return rc ? rc : call_flush(call, err, err_size);
}

/* NULL with a sentence in err: no reply. */
static redisReply *call_ask(struct redis_call *call, size_t n, const char **words,
                            const size_t *lens, char *err, size_t err_size)
{
    redisReader *reader = call->context->reader;
    char plain[16384], why[300];
    void *reply = NULL;
    long len;

    if (call_send(call, n, words, lens, err, err_size) != 0)
        return NULL;
    while (redisReaderGetReply(reader, &reply) == REDIS_OK && !reply) {
        len = tls_read(call->tls, plain, sizeof(plain), why, sizeof(why));
        if (len > 0)
            redisReaderFeed(reader, plain, (size_t)len);
        else if (len < 0)
            snprintf(err, err_size, "%s: %s", call->where, why);
        /* 0: the filter has nothing left to give before more comes from the network. */
        if (len < 0 || (len == 0 && call_receive(call, err, err_size) != 0))
            return NULL;
    }
    if (!reply)
        snprintf(err, err_size, "%s does not answer as Redis does", call->where);
    return reply;
}

/* ---- commands */

/* The reply, or NULL with a sentence in err: the connection failed. */
static redisReply *exchange(struct redis_call *call, size_t n, const char **words,
                            const size_t *lens, char *err, size_t err_size)
{
    redisReply *reply;

    if (call->tls) {
        reply = call_ask(call, n, words, lens, err, err_size);
    } else {
        /* Or one from before would be read as a timeout. */
        errno = 0;
        reply = redisCommandArgv(call->context, (int)n, words, lens);
        bool is_late = errno == EAGAIN || errno == EWOULDBLOCK;
        if (!reply)
            snprintf(err, err_size, "the connection to %s failed: %s", call->where,
                     is_late ? "no answer within redis.timeout" : call->context->errstr);
    }
    if (reply)
        redis_reply_hush(reply);
    return reply;
}

static int dial(struct redis_call *call, const struct redis_node *to, char *err, size_t err_size);

/* -EAGAIN: we are connected to the node that the error names. -ENOENT: it names none. */
static int follow(struct redis_call *call, const redisReply *reply, char *err, size_t err_size)
{
    struct redis_redirect redirect;

    if (!call->url->is_cluster || reply->type != REDIS_REPLY_ERROR ||
        !redis_slot_redirect(&redirect, reply->str) || redirect.is_ask)
        return -ENOENT;
    /* No host: that of the node that says so. */
    if (!redirect.to.host[0])
        snprintf(redirect.to.host, sizeof(redirect.to.host), "%s", call->server.host);
    /* The slot has moved: the new node is asked the same, and all that follows. */
    call->n_moves++;
    int rc = dial(call, &redirect.to, err, err_size);
    return rc ? rc : -EAGAIN;
}

static int command(struct redis_call *call, redisReply **out, size_t n, const char **words,
                   const size_t *lens, char *err, size_t err_size)
{
    redisReply *reply;
    int rc = -EAGAIN;

    for (int moves = 0; rc == -EAGAIN && moves <= MOVES_MAX; moves++) {
        reply = exchange(call, n, words, lens, err, err_size);
        if (!reply)
            return -EIO;
        /* Nodes that send each other in a circle: after some moves the redirect itself is the
         * answer. */
        rc = moves < MOVES_MAX ? follow(call, reply, err, err_size) : -ENOENT;
        if (rc != -ENOENT)
            freeReplyObject(reply);
    }
    if (rc != -ENOENT)
        return rc;
    if (reply->type == REDIS_REPLY_ERROR) {
        snprintf(err, err_size, "%s refuses %s: %.200s (%s)", call->where, words[0], reply->str,
                 redis_fault_find(reply->str).advice);
        freeReplyObject(reply);
        return -EACCES;
    }
    *out = reply;
    return 0;
}

int redis_call_words(struct redis_call *call, redisReply **out, size_t n, const char **words,
                     char *err, size_t err_size)
{
    return command(call, out, n, words, NULL, err, err_size);
}

int redis_call_args(struct redis_call *call, redisReply **out, const struct redis_args *args,
                    char *err, size_t err_size)
{
    const char **words = malloc((args->n + 1) * sizeof *words);
    size_t *lens = malloc((args->n + 1) * sizeof *lens);
    int rc = words && lens && !args->failed ? 0 : -ENOMEM;

    for (size_t i = 0; i < args->n && rc == 0; i++) {
        words[i] = args->items[i].ptr;
        lens[i] = args->items[i].len;
    }
    if (rc)
        snprintf(err, err_size, "out of memory");
    else
        rc = command(call, out, args->n, words, lens, err, err_size);
    free(words);
    free(lens);
    return rc;
}

unsigned redis_call_moves(const struct redis_call *call)
{
    return call->n_moves;
}

static int do_words(struct redis_call *call, size_t n, const char **words, char *err,
                    size_t err_size)
{
    redisReply *reply;
    int rc = redis_call_words(call, &reply, n, words, err, err_size);

    if (rc == 0)
        freeReplyObject(reply);
    return rc;
}

static int greet(struct redis_call *call, char *err, size_t err_size)
{
    const struct redis_url *url = call->url;
    char db[16];
    int rc = 0;

    snprintf(db, sizeof(db), "%d", url->db);
    if (url->user)
        rc = do_words(call, 3, (const char *[]){"AUTH", url->user, url->password}, err, err_size);
    else if (url->password)
        rc = do_words(call, 2, (const char *[]){"AUTH", url->password}, err, err_size);
    if (rc == 0 && url->db)
        rc = do_words(call, 2, (const char *[]){"SELECT", db}, err, err_size);
    return rc;
}

/* ---- sentinels, nodes of a cluster */

/* 0, -ENOENT: this one is of no use, or what failed. */
static int ask_sentinel(struct redis_call *sentinel, const struct redis_url *url,
                        struct redis_node *out, char *err, size_t err_size)
{
    const char *auth[] = {"AUTH", url->user ? url->user : "default", url->password};
    const char *ask[] = {"SENTINEL", "get-master-addr-by-name", url->master};
    redisReply *reply;

    if (url->password) /* refused by one that has none */
        (void)do_words(sentinel, 3, auth, err, err_size);
    int rc = redis_call_words(sentinel, &reply, 3, ask, err, err_size);
    if (rc)
        return rc;
    if (reply->type == REDIS_REPLY_NIL) {
        snprintf(err, err_size, "%s knows no master '%.100s' (see `sentinel monitor`)",
                 sentinel->where, url->master);
        rc = -ENOENT;
    } else if (!redis_reply_master(reply, out->host, sizeof(out->host), &out->port)) {
        snprintf(err, err_size, "%s did not name the master as a sentinel does", sentinel->where);
        rc = -ENOENT;
    }
    freeReplyObject(reply);
    return rc;
}

/* The same of a node of a cluster. */
static int ask_node(struct redis_call *node, int slot, struct redis_node *out, char *err,
                    size_t err_size)
{
    redisReply *reply;
    int rc = redis_call_words(node, &reply, 2, (const char *[]){"CLUSTER", "SLOTS"}, err, err_size);

    if (rc)
        return rc;
    if (!redis_slot_owner(reply, slot, out)) {
        snprintf(err, err_size, "%s knows no node that serves slot %d (see CLUSTER INFO)",
                 node->where, slot);
        rc = -ENOENT;
    } else if (!out->host[0]) {
        snprintf(out->host, sizeof(out->host), "%s", node->url->host);
    }
    freeReplyObject(reply);
    return rc;
}

/* err is of the last one when none knows. */
static int find_server(const struct redis_call *call, uint64_t timeout_ms, struct redis_node *out,
                       char *err, size_t err_size)
{
    const struct redis_url *url = call->url;
    int rc = -ENOENT;

    for (size_t i = 0; rc && i < url->n_nodes; i++) {
        struct redis_url at = {
            .host = url->nodes[i].host, .port = url->nodes[i].port, .tls = url->tls};
        struct redis_call *asked;
        if (url->is_cluster) { /* sentinels need not have the password of the servers */
            at.user = url->user;
            at.password = url->password;
        }
        rc = redis_call_open(&asked, &at, -1, call->tls_context, timeout_ms, err, err_size);
        if (rc)
            continue;
        rc = url->is_cluster ? ask_node(asked, call->slot, out, err, err_size)
                             : ask_sentinel(asked, url, out, err, err_size);
        redis_call_close(asked);
    }
    return rc;
}

/* ---- its life */

static void hang_up(struct redis_call *call)
{
    tls_close(call->tls);
    if (call->context)
        redisFree(call->context);
    call->tls = NULL;
    call->context = NULL;
}

/* Connect and log in there, in place of where we were. */
static int dial(struct redis_call *call, const struct redis_node *to, char *err, size_t err_size)
{
    const struct redis_url *url = call->url;

    /* Replies of the old connection that were not read go with it. */
    hang_up(call);
    call->server = *to;
    call->context = url->path ? redisConnectUnixWithTimeout(url->path, call->limit)
                              : redisConnectWithTimeout(to->host, to->port, call->limit);
    if (!call->context) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    if (call->context->err || redisSetTimeout(call->context, call->limit) != REDIS_OK) {
        snprintf(err, err_size, "cannot connect to %s: %s", call->where, call->context->errstr);
        return -EIO;
    }
    int rc = url->tls ? call_encrypt(call, call->tls_context, to->host, err, err_size) : 0;
    return rc ? rc : greet(call, err, err_size);
}

int redis_call_open(struct redis_call **out, const struct redis_url *url, int slot,
                    const struct tls_context *tls, uint64_t timeout_ms, char *err, size_t err_size)
{
    struct redis_call *call = calloc(1, sizeof(*call));
    struct redis_node server = {.port = url->port};
    int rc = 0;

    if (!call) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    call->url = url;
    call->slot = slot;
    call->tls_context = tls;
    call->limit =
        (struct timeval){(time_t)(timeout_ms / 1000), (suseconds_t)(timeout_ms % 1000 * 1000)};
    redis_url_print(url, call->where, sizeof(call->where));
    signal(SIGPIPE, SIG_IGN); /* hiredis writes to sockets that may be closed */
    if (url->host)
        snprintf(server.host, sizeof(server.host), "%s", url->host);
    else if (!url->path)
        rc = find_server(call, timeout_ms, &server, err, err_size);
    if (rc == 0)
        rc = dial(call, &server, err, err_size);
    if (rc) {
        redis_call_close(call);
        return rc;
    }
    *out = call;
    return 0;
}

int redis_call_wake(struct redis_call *call, char *err, size_t err_size)
{
    const char *ping[] = {"PING"};
    redisReply *reply = exchange(call, 1, ping, NULL, err, err_size);
    struct redis_node server = call->server;
    uint64_t timeout_ms =
        (uint64_t)call->limit.tv_sec * 1000 + (uint64_t)call->limit.tv_usec / 1000;

    if (reply) {
        freeReplyObject(reply);
        return 0;
    }
    /* By sentinels or in a cluster another server may be the one by now. */
    int rc = call->url->host || call->url->path
                 ? 0
                 : find_server(call, timeout_ms, &server, err, err_size);
    return rc ? rc : dial(call, &server, err, err_size);
}

void redis_call_close(struct redis_call *call)
{
    if (!call)
        return;
    hang_up(call);
    free(call);
}
