/*
 * kafka.h: the Apache Kafka connector, among its own files.
 *
 * Owns:    the kafka.* options, what they mean, and the properties handed on to librdkafka.
 * Refuses: properties that the worker depends on; see kafka_options.c.
 * Threads: the loop thread.
 */
#ifndef KAFKA_H
#define KAFKA_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connectors/check.h"
#include "connectors/connector.h"
#include "connectors/dead_letters.h"

extern const struct source_ops kafka_source_ops;
extern const struct sink_ops kafka_sink_ops;

extern const struct connector_check kafka_check;
extern const struct dead_letters_ops kafka_dead_letters;

extern const struct option kafka_options[];

/* What the options say. Texts are owned. */
struct kafka_config {
    rd_kafka_topic_partition_list_t *topics; /* to read */
    char *brokers, *group, *output_topic, *dead_letter_topic;
    uint64_t revoke_ms;      /* how long finishing may hold up a rebalance */
    uint64_t transaction_ms; /* longest that one call of a transaction may take */
    size_t message_max;      /* bytes of a record, by message.max.bytes; 0: not known yet */
    bool exactly_once;
};

/* 0; -EINVAL with a sentence; -ENOMEM. Nothing to clear on failure. */
int kafka_config_read(struct kafka_config *out, const struct settings *settings, char *err,
                      size_t err_size);
void kafka_config_clear(struct kafka_config *config); /* zeroed ones are fine */
/* Whether a topic is one that is read by that entry of topics: of that name, or matched by it. */
bool kafka_topic_matches(const char *entry, const char *topic);
/* Of what several models read, before their names are in it: one group, and no topic for two. 0 or
 * -EINVAL. */
int kafka_check_models(const struct settings *settings, char *err, size_t err_size);
/* The check of source_ops and sink_ops. */
int kafka_check_options(const struct settings *settings, const char **bad_option, char *err,
                        size_t err_size);

/*
 * Properties for a consumer or a producer: what the worker wants as a default, what the user
 * passes through (kafka, then kafka.consumer or kafka.producer), what the worker depends on.
 * 0; -EINVAL with a sentence; -ENOMEM. Whoever makes a client of it gives it away by that.
 */
int kafka_conf_open(rd_kafka_conf_t **out, rd_kafka_type_t type, const struct kafka_config *config,
                    const struct settings *settings, char *err, size_t err_size);

/* message.max.bytes of a client. */
size_t kafka_message_max(const rd_kafka_t *rk);

/*
 * The transactional.id of this worker: its group, and its group.instance.id or its name on this
 * machine (worker_name.h, also for lock). 0 or -ENOMEM.
 */
int kafka_transactional_id(const struct kafka_config *config, const struct settings *settings,
                           char **out, int *lock);

#endif
