/*
 * rabbitmq_message.h: a delivery of RabbitMQ as a message of the contract.
 *
 * Owns:    its memory, its properties as they came, and the name that stands for it for good.
 * Threads: the loop thread.
 */
#ifndef RABBITMQ_MESSAGE_H
#define RABBITMQ_MESSAGE_H

#include "connectors/connector.h"
#include "connectors/intake.h"
#include "connectors/rabbitmq/rabbitmq_link.h"

struct rabbitmq_message {
    struct taken taken; /* first: a message of this source is one of these */
    amqp_pool_t pool;
    amqp_basic_properties_t properties;
    char *raw, *body; /* what properties and value point into */
    const int *table; /* [n_headers] which entry of the headers' table each is; -1: none */
    uint64_t tag, epoch, taken_ms;
    bool is_of_stream;
    char exchange[256], routing_key[256];
};

/* Takes properties and body out of content. NULL: no memory. queue: outlives it. */
struct rabbitmq_message *rabbitmq_message_open(struct source *source, const char *queue,
                                               struct rabbitmq_content *content);
void rabbitmq_message_close(struct rabbitmq_message *message); /* accepts NULL */

/* Whether RabbitMQ itself puts a header of that name on messages: it says nothing of the text. */
bool rabbitmq_header_is_brokers(struct bytes name);

#endif
