/*
 * kafka_lag.h: how far a group is behind, as the brokers know it.
 *
 * Owns:    asking them.
 * Threads: any; it blocks.
 */
#ifndef KAFKA_LAG_H
#define KAFKA_LAG_H

#include <librdkafka/rdkafka.h>
#include <stdint.h>

/* Messages of a partition beyond the offset in part, which the group has committed (negative: none,
 * so all count); -1: not known. */
int64_t kafka_lag_of(rd_kafka_t *rk, const rd_kafka_topic_partition_t *part, int timeout_ms);

#endif
