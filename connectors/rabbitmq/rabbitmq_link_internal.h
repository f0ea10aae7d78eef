/*
 * rabbitmq_link_internal.h: the inside of a link, for rabbitmq_link.c, rabbitmq_greeting.c and
 * rabbitmq_content.c only.
 *
 * Threads: the loop thread.
 */
#ifndef RABBITMQ_LINK_INTERNAL_H
#define RABBITMQ_LINK_INTERNAL_H

#include "connectors/health.h"
#include "connectors/rabbitmq/rabbitmq_link.h"
#include "connectors/tcp.h"

enum link_phase {
    PHASE_WAIT, /* until the backoff has passed */
    PHASE_CONNECT,
    PHASE_GREETING,
    PHASE_READY,
    PHASE_FAILED,
    PHASE_CLOSING, /* connection.close is sent */
    PHASE_CLOSED,
};

/* A message of which frames are still to come. */
struct rabbitmq_assembly {
    enum { AWAIT_NOTHING, AWAIT_HEADER, AWAIT_BODY } state;
    struct rabbitmq_content content;
    size_t n_got; /* bytes of the body */
};

struct rabbitmq_link {
    uv_loop_t *loop;
    const struct rabbitmq_urls *urls;
    size_t url_at;
    const struct tls_context *tls;
    const struct rabbitmq_link_events *events;
    void *ctx;
    uint64_t timeout_ms;
    bool has_certificate;
    char name[200], where[600];
    enum link_phase phase;
    uv_timer_t timer;
    struct tcp *tcp;
    size_t n_open; /* the timer, and connections not yet closed */
    struct backoff backoff;
    struct buffer in; /* a frame of which bytes are still to come */
    amqp_pool_t pool; /* of the method in hand */
    size_t frame_max;
    uint64_t heartbeat_ms, heard_ms, written_ms, ready_ms;
    bool is_warned, is_paused, proven;
    uint16_t close_code; /* by which the server closed the last connection; 0: it did not */
    char *version, *capabilities; /* of the server; capabilities: " one two " */
    struct rabbitmq_assembly assemblies[RABBITMQ_CHANNELS + 1];
    void (*closed)(void *ctx);
    void *closed_ctx;
};

/* ---- rabbitmq_greeting.c */

/* In what a method of channel 0 ends. */
struct rabbitmq_ending {
    enum {
        ENDS_NOT,     /* it goes on */
        ENDS_READY,   /* let in: channels may be opened */
        ENDS_LOST,    /* to be tried again; why */
        ENDS_REFUSED, /* not to be tried again; err, why */
        ENDS_CLOSED,  /* our own close is answered */
    } in;
    int err;
    char why[600];
};

/* Login, limits, vhost, alarms, the end. */
struct rabbitmq_ending rabbitmq_greeting_method(struct rabbitmq_link *link, uint32_t id,
                                                const void *decoded);

/* ---- rabbitmq_content.c */

bool rabbitmq_assembly_begins(uint32_t id);
void rabbitmq_assembly_start(struct rabbitmq_assembly *assembly, uint32_t id, const void *decoded);
/* A header or a piece of the body. 1: the content is whole; 0; -EPROTO or -ENOMEM with *why. */
int rabbitmq_assembly_add(struct rabbitmq_assembly *assembly, const struct rabbitmq_frame *frame,
                          const char **why);
void rabbitmq_assembly_clear(struct rabbitmq_assembly *assembly);

#endif
