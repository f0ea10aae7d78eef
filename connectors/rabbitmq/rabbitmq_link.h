/*
 * rabbitmq_link.h: a connection to RabbitMQ that comes back, and the frames of its channels.
 *
 * Owns:    the socket, greeting and login, heartbeats both ways, several nodes in turn, backoff;
 *          putting the frames of a message together; closing in good order.
 * Refuses: what is done on channels, which the owner opens, and opens again after a loss.
 * Threads: the loop thread.
 * Why:     librabbitmq's own calls block, in a memory alarm without end; its encoders do not.
 */
#ifndef RABBITMQ_LINK_H
#define RABBITMQ_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "connectors/connector.h"
#include "connectors/rabbitmq/rabbitmq_amqp.h"
#include "connectors/rabbitmq/rabbitmq_frame.h"
#include "connectors/rabbitmq/rabbitmq_url.h"
#include "connectors/tls.h"

enum { RABBITMQ_CHANNELS = 3 }; /* a link has at most so many, numbered from 1 */

/* what a link says it will do after a loss, at the end of the sentence */
#define RABBITMQ_LINK_RETRIES "; trying again, at most 10 s apart"

struct rabbitmq_link;

/* A message that came, or came back. Texts are shortened to what the protocol allows. */
struct rabbitmq_content {
    uint32_t method; /* AMQP_BASIC_DELIVER_METHOD, _GET_OK_ or _RETURN_ */
    uint64_t tag;
    bool redelivered;
    char exchange[256], routing_key[256], consumer_tag[256];
    uint16_t reply_code; /* of a return, and why */
    char reply_text[256];
    uint32_t message_count; /* of a get: how many are left */
    /* Owned by the link until the event is over; an owner that keeps them sets them to NULL. */
    char *properties, *body;
    size_t properties_len, body_len;
};

/* All from the loop. */
struct rabbitmq_link_events {
    void (*on_ready)(void *ctx); /* channels may be opened */
    /* Not connected, or not any more: all channels are gone. Each attempt. */
    void (*on_lost)(void *ctx, const char *why);
    /* Gone for good; only close may follow. */
    void (*on_failed)(void *ctx, int err, const char *why);
    /* The server takes no messages for now (why), or does again (NULL). */
    void (*on_blocked)(void *ctx, const char *why);
    /* A method on a channel. decoded: librabbitmq's struct, borrowed. A channel.close is answered
     * by the link. */
    void (*on_method)(void *ctx, uint16_t channel, uint32_t id, const void *decoded);
    void (*on_content)(void *ctx, uint16_t channel, struct rabbitmq_content *content);
};

struct rabbitmq_link_options {
    const struct rabbitmq_urls *urls; /* borrowed for the life of the link */
    const struct tls_context *tls;    /* of amqps:// ones; borrowed likewise */
    const char *name;                 /* as the server lists it; copied */
    uint64_t timeout_ms;              /* to connect, and to be let in */
    bool has_certificate; /* the TLS context does: log in by it where no user is named */
};

int rabbitmq_link_open(struct rabbitmq_link **out, uv_loop_t *loop,
                       const struct rabbitmq_link_options *options,
                       const struct rabbitmq_link_events *events, void *ctx);

bool rabbitmq_link_ready(const struct rabbitmq_link *link);
/* "host:port" of the node that it is, or was last, connected to. */
const char *rabbitmq_link_where(const struct rabbitmq_link *link);
const struct rabbitmq_url *rabbitmq_link_url(const struct rabbitmq_link *link);
/* "3.10.8", of the server; "" before it has said so. */
const char *rabbitmq_link_version(const struct rabbitmq_link *link);
bool rabbitmq_link_has(const struct rabbitmq_link *link, const char *capability);
/* Whether the server closed the last connection with an error, and not the network, nor a person.
 */
bool rabbitmq_link_was_faulted(const struct rabbitmq_link *link);
/* Bytes not yet handed to the kernel. */
size_t rabbitmq_link_backlog(const struct rabbitmq_link *link);

/* To be sent with the next flush, or the next event of the link. 0; -ENOTCONN, -ENOMEM or
 * -EMSGSIZE: not sent. */
int rabbitmq_link_method(struct rabbitmq_link *link, uint16_t channel, uint32_t id,
                         const void *method);
/* A basic.publish and what follows it. */
int rabbitmq_link_publish(struct rabbitmq_link *link, uint16_t channel,
                          const amqp_basic_publish_t *publish,
                          const amqp_basic_properties_t *properties, struct bytes body);
void rabbitmq_link_flush(struct rabbitmq_link *link);
/* Do not read what comes, or go on; the server then waits. */
void rabbitmq_link_pause(struct rabbitmq_link *link, bool is_paused);

/* It did something of use: should it be lost, the next pauses are short. */
void rabbitmq_link_good(struct rabbitmq_link *link);
/* Give this connection up and connect again after a pause. */
void rabbitmq_link_drop(struct rabbitmq_link *link, const char *why);

/* Close in good order, within a second. No callback but closed comes after this call. */
void rabbitmq_link_close(struct rabbitmq_link *link, void (*closed)(void *ctx), void *ctx);

#endif
