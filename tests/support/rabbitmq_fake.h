/*
 * rabbitmq_fake.h: a server on loopback that speaks AMQP 0-9-1 with canned answers, for what no
 * server at hand does: the rules of RabbitMQ 4, refusals at a given moment, torn bytes.
 */
#ifndef RABBITMQ_FAKE_H
#define RABBITMQ_FAKE_H

#include <stdbool.h>
#include <uv.h>

#include "connectors/buffer.h"
#include "connectors/rabbitmq/rabbitmq_frame.h"

enum { FAKE_LOG_MAX = 512, FAKE_CONNECTIONS_MAX = 64 };

struct rabbitmq_fake;

struct rabbitmq_fake_connection {
    uv_tcp_t handle;
    struct rabbitmq_fake *fake;
    struct buffer in;
    bool is_open;
    uint64_t n_published; /* on its channel 1 and 2 alike, since the last confirm.select */
    uint16_t published_on;
    char read[8192];
};

/* A method that a client has sent. number: the tag of an ack, nack or reject, the prefetch of a
 * qos; flag: multiple, requeue (reject), global or passive. */
struct rabbitmq_fake_entry {
    uint32_t id;
    uint16_t channel;
    uint64_t number;
    bool flag;
};

struct rabbitmq_fake {
    uv_loop_t *loop;
    uv_tcp_t server;
    int port;
    struct rabbitmq_fake_connection connections[FAKE_CONNECTIONS_MAX];
    size_t n_connections;
    struct rabbitmq_fake_entry log[FAKE_LOG_MAX];
    size_t n_log;
    size_t n_bodies; /* whole messages that were published */
    size_t body_len; /* of the last one */
    size_t chop;     /* send at most so many bytes at once; 0: as they are */
    /* True: it has answered; else the canned answer is sent. */
    bool (*on_method)(struct rabbitmq_fake_connection *connection, uint16_t channel, uint32_t id,
                      const void *decoded);
    /* A message was published; NULL: it is confirmed. */
    void (*on_published)(struct rabbitmq_fake_connection *connection, uint16_t channel,
                         uint64_t tag);
    void *ctx;
};

void rabbitmq_fake_open(struct rabbitmq_fake *fake, uv_loop_t *loop);
/* Closes all; the loop must run for it to be done. */
void rabbitmq_fake_close(struct rabbitmq_fake *fake);
void rabbitmq_fake_send(struct rabbitmq_fake_connection *connection, uint16_t channel, uint32_t id,
                        const void *method);
void rabbitmq_fake_deliver(struct rabbitmq_fake_connection *connection, uint64_t tag,
                           const char *consumer_tag, const char *message_id, const char *body);
/* Like the mandatory message that no queue takes. */
void rabbitmq_fake_return(struct rabbitmq_fake_connection *connection, uint16_t channel,
                          const char *body);
/* How many methods of that id were logged. */
size_t rabbitmq_fake_count(const struct rabbitmq_fake *fake, uint32_t id);
/* The n-th of that id, from 0; NULL: there are not so many. */
const struct rabbitmq_fake_entry *rabbitmq_fake_find(const struct rabbitmq_fake *fake, uint32_t id,
                                                     size_t n);

#endif
