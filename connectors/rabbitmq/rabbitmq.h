/*
 * rabbitmq.h: the RabbitMQ connector (AMQP 0-9-1), for the registry and among its own files.
 *
 * Owns:    the rabbitmq.* options (one table for source and sink) and what they mean.
 * Refuses: to declare, bind or change anything over there: queues are made by their owners.
 * Threads: the loop thread.
 */
#ifndef RABBITMQ_H
#define RABBITMQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connectors/check.h"
#include "connectors/connector.h"
#include "connectors/rabbitmq/rabbitmq_url.h"
#include "connectors/tls.h"

extern const struct source_ops rabbitmq_source_ops;
extern const struct sink_ops rabbitmq_sink_ops;

extern const struct connector_check rabbitmq_check;
extern const struct dead_letters_ops rabbitmq_dead_letters;

extern const struct option rabbitmq_options[];

/* What the options say. Texts are owned. */
struct rabbitmq_config {
    struct rabbitmq_urls urls, output_urls, management; /* management: none, or one is used */
    struct tls_context *tls;                            /* NULL: no URL is amqps:// */
    bool has_certificate;                               /* of our own */
    char *queue, *output_queue, *output_exchange, *dead_letter_queue;
    bool rejects;         /* dead letters are left to the queue's own dead-letter exchange */
    uint16_t prefetch;    /* most messages of this consumer that are not acked */
    uint64_t consumer_ms; /* after so long without an ack the server closes the channel; 0: never */
    uint64_t timeout_ms;
};

/* 0; -EINVAL with a sentence; -ENOMEM. Nothing to clear on failure. */
int rabbitmq_config_read(struct rabbitmq_config *out, const struct settings *settings, char *err,
                         size_t err_size);
/* The check of source_ops and sink_ops. */
int rabbitmq_config_check(const struct settings *settings, const char **bad_option, char *err,
                          size_t err_size);
void rabbitmq_config_clear(struct rabbitmq_config *config); /* zeroed ones are fine */

/* "embedmill HOST:PID what", by which the server lists a connection. */
void rabbitmq_connection_name(const char *what, char *out, size_t size);

#endif
