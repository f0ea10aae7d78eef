/*
 * rabbitmq_record.h: a record of the contract as a message of RabbitMQ.
 *
 * Owns:    properties and headers of what is published.
 * Refuses: when it is published and what becomes of it.
 * Threads: the loop thread.
 */
#ifndef RABBITMQ_RECORD_H
#define RABBITMQ_RECORD_H

#include "connectors/connector.h"
#include "connectors/rabbitmq/rabbitmq_amqp.h"
#include "connectors/rabbitmq/rabbitmq.h"

/* Properties and body; what they point into lies in the record, its origin and pool. 0 or -ENOMEM.
 */
int rabbitmq_record_build(const struct rabbitmq_config *config, const struct record *record,
                          amqp_pool_t *pool, amqp_basic_properties_t *properties,
                          struct bytes *body);

/* The properties of a dead letter as it came in, without what the broker and the dead letter added:
 * for a replay. headers: [n] entries that the caller has room for. */
void rabbitmq_record_restore(const amqp_basic_properties_t *from, amqp_table_entry_t *headers,
                             amqp_basic_properties_t *to);

#endif
