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

struct kafka_limits {
    int64_t message_max; /* max.message.bytes; -1: not told */
    bool is_compacted;   /* cleanup.policy has compact: no record without a key */
};

/* The library's own code when the cluster does not answer within ms or does not want to. */
rd_kafka_resp_err_t kafka_limits_read(rd_kafka_t *rk, const char *topic, int ms,
                                      struct kafka_limits *out);

/*
 * Report what of an input would not fit into the topics for outputs and dead letters, and which of
 * these are compacted. message_max: of the producer. is_source: kafka.topic is read. Each answer is
 * waited for up to ms.
 */
void kafka_limits_check(rd_kafka_t *rk, const struct kafka_config *config, int64_t message_max,
                        bool is_source, int ms, finding_cb report, void *ctx);

#endif
