/*
 * rabbitmq_management.h: what RabbitMQ's management API says of a queue.
 *
 * Owns:    one GET over HTTP, and the few values that are wanted of its JSON.
 * Refuses: anything that changes something over there.
 * Threads: the calling one; blocks.
 * Why:     AMQP 0-9-1 does not tell a queue's type, arguments or policy, and a limit of deliveries
 *          without a dead-letter exchange loses messages.
 */
#ifndef RABBITMQ_MANAGEMENT_H
#define RABBITMQ_MANAGEMENT_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "connectors/rabbitmq/rabbitmq.h"

struct rabbitmq_queue_facts {
    char type[24];                                           /* "quorum", "classic", "stream" */
    int64_t delivery_limit;                                  /* -1: none is set */
    int64_t consumer_timeout_ms, message_ttl_ms, max_length; /* -1: none is set */
    char overflow[40];                                       /* "": none is set */
    bool has_dead_letter_exchange;
};

/* 0; or a negative errno with a sentence in err: it cannot be asked, or not by this user. url: of
 * the node; the API's own, if rabbitmq.management_url names it. */
int rabbitmq_management_queue(const struct rabbitmq_config *config, const struct rabbitmq_url *url,
                              uv_loop_t *loop, const char *queue, struct rabbitmq_queue_facts *out,
                              char *err, size_t err_size);

/* For the tests: the same, of the JSON alone. */
int rabbitmq_management_read(const char *json, struct rabbitmq_queue_facts *out);

#endif
