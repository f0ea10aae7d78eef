/*
 * tcp.h: one connection to a host, plain or over TLS, as bytes in both directions.
 *
 * Owns:    resolving the name, one address after the other, the TLS handshake, one write at a time.
 * Refuses: to connect again, and any protocol: its owner does.
 * Threads: the loop thread.
 * Why:     client libraries that own their sockets block, or want a thread.
 */
#ifndef TCP_H
#define TCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "connectors/buffer.h"
#include "connectors/tls.h"

struct tcp;

/* All from the loop, none of them inside a call below. */
struct tcp_events {
    void (*on_open)(void *ctx); /* bytes may be sent */
    void (*on_bytes)(void *ctx, const char *bytes, size_t len);
    /* It never opened, or is over. Only tcp_close may follow. */
    void (*on_ended)(void *ctx, const char *why);
};

struct tcp_options {
    const char *host;
    int port;
    const struct tls_context *tls; /* NULL: plain; borrowed until closed */
    uint64_t timeout_ms;           /* to resolve, to connect to one address, for the handshake */
};

/* 0 or -ENOMEM. options are copied, but for tls. */
int tcp_open(struct tcp **out, uv_loop_t *loop, const struct tcp_options *options,
             const struct tcp_events *events, void *ctx);

/* Where to append what is to be sent; tcp_flush sends it. */
struct buffer *tcp_output(struct tcp *tcp);
void tcp_flush(struct tcp *tcp);
/* Bytes not yet handed to the kernel. */
size_t tcp_backlog(const struct tcp *tcp);
/* Stop reading, or go on: what the other side sends then fills its buffers and ours. */
void tcp_pause(struct tcp *tcp, bool is_paused);
/* Bytes have come since it was opened. */
bool tcp_has_heard(const struct tcp *tcp);

/* No event comes after this call but closed, which may be NULL. Accepts NULL, without closed. */
void tcp_close(struct tcp *tcp, void (*closed)(void *ctx), void *ctx);

#endif
