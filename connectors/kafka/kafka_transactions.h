/*
 * kafka_transactions.h: a sink that publishes and commits the inputs in one transaction.
 *
 * Owns:    what kafka_sink.c opens in its place when delivery is exactly-once.
 * Threads: the loop thread.
 */
#ifndef KAFKA_TRANSACTIONS_H
#define KAFKA_TRANSACTIONS_H

#include "connectors/connector.h"

/* As open of sink_ops; -EINVAL unless peer is a Kafka source. */
int kafka_transactions_open(struct sink **out, uv_loop_t *loop, const struct settings *settings,
                            struct source *peer, const struct sink_events *events, void *ctx,
                            char *err, size_t err_size);

#endif
