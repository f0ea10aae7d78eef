/*
 * redis_link_internal.h: the inside of a link, for redis_link.c, redis_connection.c,
 * redis_connect.c, redis_hello.c, redis_sentinel.c, redis_cluster.c and redis_detour.c only.
 *
 * Owns:    the phases of a link and what a connection keeps.
 * Threads: the loop thread.
 */
#ifndef REDIS_LINK_INTERNAL_H
#define REDIS_LINK_INTERNAL_H

#include <sys/queue.h>

#include "connectors/health.h"
#include "connectors/redis/redis_link.h"
#include "connectors/redis/redis_slot.h"
#include "connectors/redis/redis_wire.h"
#include "connectors/tls.h"

#define READ_SIZE 65536
#define NODES_MAX 16 /* of a cluster that are remembered beside those of the URL */

enum link_phase {
    PHASE_WAIT, /* until the backoff has passed */
    PHASE_RESOLVE,
    PHASE_CONNECT,
    PHASE_HELLO,
    PHASE_READY,
    PHASE_FAILED,
    PHASE_CLOSING,
};

struct connection {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } uv;
    struct redis_link *link;
    bool alive; /* the link's current one */
    uv_connect_t connect;
    uv_write_t write;
    bool writing;  /* and after a write that failed: nothing more is sent */
    int write_err; /* of that one; 0: none */
    bool heard;    /* anything at all was received */
    struct redis_wire wire;
    struct tls *tls;    /* NULL: plain */
    uint64_t active_ms; /* when bytes last moved */
    size_t unsent;      /* bytes libuv still had, when last looked at */
    bool warned;        /* silent already once; the grace runs */
    char in[READ_SIZE];
};

/* How a step of an attempt ends. */
enum link_event {
    LINK_CONNECTED, /* bytes can be sent, by TLS if that is wanted */
    LINK_MASTER,    /* a sentinel or node has told link->master and port */
    LINK_GREETED,   /* commands may be sent */
    LINK_LOST,      /* this attempt or connection is over; why */
    LINK_REFUSED,   /* and so will be any other; why */
};

struct resolve {
    uv_getaddrinfo_t req;
    struct redis_link *link; /* NULL: given up */
};

/* A command of a cluster, kept until it is answered: it may have to be sent to another node. */
struct redis_kept {
    TAILQ_ENTRY(redis_kept) entry;
    struct redis_link *link;
    redis_reply_cb cb;
    void *arg;
    uint64_t extra_ms;
    bool is_detoured, is_sent; /* goes to the node that an ASK named, and was sent there */
    size_t size, n;
    struct bytes words[]; /* [n], and their bytes behind them */
};

/* How ASK is followed: redis_detour.h. */
struct redis_detour;
struct redis_detour_ops {
    /* Takes the command: it is answered by the node `to`, or lost with the link. 0 or -ENOMEM. */
    int (*ask)(struct redis_link *link, struct redis_kept *kept, const struct redis_node *to);
    void (*stop)(
        struct redis_link *link); /* no answer comes any more; accepts that there is none */
};

struct redis_link {
    uv_loop_t *loop;
    const struct redis_url *url;
    const struct tls_context *tls;
    const struct redis_link_events *events;
    void *ctx;
    void (*on_event)(struct redis_link *link, enum link_event event, const char *why);
    uint64_t timeout_ms;
    char name[128], where[200];
    enum link_phase phase;
    uv_timer_t timer, settle_timer;
    size_t n_handles; /* the timers' and those of all connections not yet closed */
    struct backoff backoff;
    bool proven;  /* a command did its work since it was ready */
    bool settled; /* ready for a while, and answering */
    bool flaky;   /* the connection before this one was lost before it had settled */
    struct connection *conn;
    bool is_corked; /* commands gather; the owner says when they go */
    struct resolve *resolve;
    const char *host; /* of the server or sentinel of this attempt; NULL: a unix socket */
    int port;
    struct addrinfo *addresses, *next_address;
    bool asking;    /* this attempt is still at a sentinel, or a node that need not be the owner */
    size_t node;    /* the one asked, or to be asked first */
    size_t n_asked; /* in vain, in this attempt */
    char master[REDIS_HOST_SIZE]; /* what a sentinel or node said; host points here */
    /* Of a cluster: */
    int slot;       /* -1: this is none */
    bool is_moving; /* the slot went to moved_to, which the next attempt tries */
    struct redis_node moved_to;
    struct redis_node nodes[NODES_MAX]; /* seen in the last answer */
    size_t n_nodes;
    TAILQ_HEAD(, redis_kept) kept; /* without a reply yet, in the order they were sent */
    size_t n_kept_bytes;
    const struct redis_detour_ops *detours;
    struct redis_detour *detour; /* NULL: none is under way */
    uint64_t client_id;
    char run_id[41]; /* of the server */
    void (*closed)(void *ctx);
    void *closed_ctx;
};

/* The one way back up: the last thing that a step does. */
static inline void redis_link_event(struct redis_link *link, enum link_event event, const char *why)
{
    link->on_event(link, event, why);
}

/* ---- redis_connection.c */

/* Of the link, with its handle initialised; NULL: no memory. */
struct connection *redis_connection_open(struct redis_link *link);
/* Take it off the link and close it; accepts none. */
void redis_connection_detach(struct redis_link *link);
void redis_connection_unref(struct redis_link *link); /* one of its handles is closed */
int redis_connection_listen(struct connection *conn); /* start to read; 0 or negative errno */
void redis_connection_flush(struct connection *conn); /* send what is due, if that can be now */
int redis_connection_command(struct redis_link *link, const struct bytes *args, size_t n,
                             struct redis_due due);
/* The first words on a connection to who only knows where the server is: AUTH when the URL has a
 * password, then ask[n]. */
void redis_connection_ask(struct redis_link *link, redis_reply_cb on_auth, const struct bytes *ask,
                          size_t n, redis_reply_cb on_answer);

/* ---- redis_connect.c */

/* To link->host and port, or the unix socket. Ends in LINK_CONNECTED or LINK_LOST. */
void redis_connect_start(struct redis_link *link);
void redis_connect_forget(struct redis_link *link); /* what connecting keeps; not a connection */

/* ---- redis_hello.c */

/* AUTH, SELECT, a name, PING; ends in LINK_GREETED, LINK_LOST or LINK_REFUSED. */
void redis_hello_send(struct redis_link *link);

/* ---- redis_sentinel.c */

/* Connect to a sentinel. */
void redis_sentinel_start(struct redis_link *link);
/* This sentinel is of no use: go on to the next. False: all have been asked. */
bool redis_sentinel_next(struct redis_link *link);
/* The greeting of a sentinel; ends in LINK_MASTER or LINK_LOST. */
void redis_sentinel_ask(struct redis_link *link);

/* ---- redis_cluster.c: the same three of nodes, which may refuse a login */

void redis_cluster_start(struct redis_link *link);
bool redis_cluster_next(struct redis_link *link);
void redis_cluster_ask(struct redis_link *link);
/* As redis_link_send, of a link that is ready. */
int redis_cluster_send(struct redis_link *link, const struct bytes *args, size_t n,
                       uint64_t extra_ms, redis_reply_cb cb, void *arg);
/* The answer to a command, from whichever node: MOVED and ASK are followed. */
void redis_cluster_answer(struct redis_kept *kept, const redisReply *reply);
/* Answer all that is left with NULL, unless the link is closing: then it is dropped. */
void redis_cluster_lose(struct redis_link *link);

#endif
