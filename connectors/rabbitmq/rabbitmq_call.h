/*
 * rabbitmq_call.h: a connection to RabbitMQ for what a person waits for: one method at a time,
 * blocking.
 *
 * Owns:    a loop of its own with a link on it; how long an answer may take.
 * Refuses: to connect again. Workers use rabbitmq_link.h.
 * Threads: the calling one.
 */
#ifndef RABBITMQ_CALL_H
#define RABBITMQ_CALL_H

#include "connectors/rabbitmq/rabbitmq.h"
#include "connectors/rabbitmq/rabbitmq_link.h"

struct rabbitmq_call;

struct rabbitmq_answer {
    uint32_t id;                            /* of the method; AMQP_CHANNEL_CLOSE_METHOD: refused */
    uint32_t message_count, consumer_count; /* of a queue.declare-ok */
    uint16_t code;                          /* of a refusal or a return; 0: none ... */
    char text[256];                         /* ... and its words */
    bool is_nack;
};

/* Connects to the first node that answers. config is borrowed for its life. 0; -EIO or -ENOMEM with
 * a sentence in err. */
int rabbitmq_call_open(struct rabbitmq_call **out, const struct rabbitmq_config *config,
                       const struct rabbitmq_urls *urls, const char *what, char *err,
                       size_t err_size);
void rabbitmq_call_close(struct rabbitmq_call *call); /* accepts NULL */

const struct rabbitmq_link *rabbitmq_call_link(const struct rabbitmq_call *call);
uv_loop_t *rabbitmq_call_loop(struct rabbitmq_call *call);

/* Send a method that has an answer, and wait for it. The channel is opened, or opened again after a
 * refusal, by itself. 0 and *out: answered, or refused (out->code); -EIO: the connection, with a
 * sentence in err. */
int rabbitmq_call_do(struct rabbitmq_call *call, uint16_t channel, uint32_t id, const void *method,
                     struct rabbitmq_answer *out, char *err, size_t err_size);
/* Send one that has none. */
int rabbitmq_call_send(struct rabbitmq_call *call, uint16_t channel, uint32_t id,
                       const void *method, char *err, size_t err_size);
/* Publish, mandatory, and wait for the confirm. */
int rabbitmq_call_publish(struct rabbitmq_call *call, uint16_t channel, const char *exchange,
                          const char *routing_key, const amqp_basic_properties_t *properties,
                          struct bytes body, struct rabbitmq_answer *out, char *err,
                          size_t err_size);
/* What the last basic.get brought, to be taken over; NULL: the queue is empty. */
struct rabbitmq_content *rabbitmq_call_content(struct rabbitmq_call *call);

#endif
