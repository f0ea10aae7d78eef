/*
 * redis_link.h: one connection to Redis that comes back for as long as it is wanted.
 *
 * Owns:    resolve, connect, AUTH, SELECT, name, a readiness PING, timers against silence,
 *          reconnecting with backoff, pipelined commands and the order of their replies. In a
 *          cluster: which node serves the slot, also when it moves.
 * Refuses: what the commands mean; sending a command twice (the caller knows what is safe).
 * Threads: the loop thread; nothing blocks.
 * Why:     hiredis' async contexts free themselves from inside callbacks, abort on a reply nobody
 *          asked for, and resolve names on the calling thread. So hiredis reads the protocol here
 *          and libuv's own streams move the bytes; the same code serves hiredis 0.14 and 1.x.
 */
#ifndef REDIS_LINK_H
#define REDIS_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "connectors/connector.h"
#include "connectors/redis/redis_url.h"
#include "connectors/redis/redis_wire.h"
#include "connectors/tls.h"

struct redis_link;

/* How the sentence of on_lost ends. */
#define REDIS_LINK_RETRIES "; trying again, at most 10 s apart"

/* All from the loop. */
struct redis_link_events {
    /* Commands may be sent now. */
    void (*on_ready)(void *ctx);
    /* Not connected, or not any more; every command sent has had its NULL reply. Each attempt. */
    void (*on_lost)(void *ctx, const char *why);
    /* It works. Told at once, but for a connection that comes back after one that did not last:
     * that one must last a second first, so that a server which refuses everything does not flap.
     */
    void (*on_good)(void *ctx);
    /* Gone for good; only close may follow. */
    void (*on_failed)(void *ctx, int err, const char *why);
};

struct redis_detour_ops; /* redis_detour.h */

struct redis_link_options {
    const struct redis_url *url;   /* borrowed for the life of the link */
    const struct tls_context *tls; /* NULL: plain; borrowed likewise */
    const char *name;              /* CLIENT SETNAME; copied */
    uint64_t timeout_ms;           /* to connect, and for a reply */
    /* Of a cluster: the slot of all keys that are in its commands, and how it follows ASK. */
    int slot;
    const struct redis_detour_ops *detour;
};

int redis_link_open(struct redis_link **out, uv_loop_t *loop,
                    const struct redis_link_options *options,
                    const struct redis_link_events *events, void *ctx);

bool redis_link_ready(const struct redis_link *link);
/* CLIENT ID of this connection, 0 when unknown. */
uint64_t redis_link_client_id(const struct redis_link *link);
/* The run_id of the server this link was last connected to: 40 digits that no other run of a server
 * has. "" when the server does not tell. */
const char *redis_link_run_id(const struct redis_link *link);
/* The slot has moved to another node of the cluster, and the link goes there. */
bool redis_link_is_moving(const struct redis_link *link);
/* "host:port" of the server, while the link is ready. */
void redis_link_print_server(const struct redis_link *link, char *out, size_t size);
/* Bytes of commands not yet handed to the kernel; in a cluster of those not yet answered. */
size_t redis_link_backlog(const struct redis_link *link);

/*
 * Send one command; the bytes are copied. extra_ms: how much longer than the timeout its reply may
 * take (a BLOCK). -ENOTCONN or -ENOMEM: not sent, cb is not called. Replies come in the order of
 * the commands, but for those that a cluster sends to another node (ASK).
 */
int redis_link_send(struct redis_link *link, const struct bytes *args, size_t n, uint64_t extra_ms,
                    redis_reply_cb cb, void *arg);

/* While it is corked commands gather, and go at its end in one write. */
void redis_link_cork(struct redis_link *link, bool is_corked);

/* A command did what it should: should this connection be lost, the next pauses are short. */
void redis_link_good(struct redis_link *link);
/* Give this connection up and connect again after a pause. From reply callbacks and timers only:
 * the replies still out are answered with NULL at once. */
void redis_link_drop(struct redis_link *link, const char *why);

/* No callback but closed comes after this call. Accepts no NULL. */
void redis_link_close(struct redis_link *link, void (*closed)(void *ctx), void *ctx);

#endif
