/*
 * kafka_limits.h: what a topic takes, by its configuration.
 *
 * Owns:    asking the cluster for it, and comparing topics with each other.
 * Threads: the calling one; it waits for the answer.
 */
#ifndef KAFKA_LIMITS_H
#define KAFKA_LIMITS_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdint.h>

#include "connectors/check.h"
#include "connectors/kafka/kafka.h"

/*
 * Report what of an input would not fit into the topics for outputs and dead letters, and which of
 * these are compacted. message_max: of the producer. is_source: kafka.topic is read. Each answer is
 * waited for up to ms.
 */
void kafka_limits_check(rd_kafka_t *rk, const struct kafka_config *config, int64_t message_max,
                        bool is_source, int ms, finding_cb report, void *ctx);

#endif
