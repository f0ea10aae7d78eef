/*
 * kafka_record.h: a record of the contract as a message of Kafka.
 *
 * Owns:    topic, key, value, headers and timestamp of what is produced.
 * Refuses: when it is produced and what becomes of it.
 * Threads: any one thread; the record is only read.
 */
#ifndef KAFKA_RECORD_H
#define KAFKA_RECORD_H

#include <librdkafka/rdkafka.h>
#include <stdbool.h>

#include "connectors/connector.h"
#include "connectors/kafka/kafka.h"

/* Whether a header is one that a dead letter adds. */
bool kafka_record_is_ours(struct bytes name);
/* Append a header. Its name becomes UTF-8 without NUL (U+FFFD stands for what is not): the protocol
 * says that names are strings, and some clients end on a record with another one. 0 or -ENOMEM. */
int kafka_record_add_header(rd_kafka_headers_t *headers, struct bytes name, struct bytes value);
/* What a record goes to, for messages too. */
const char *kafka_record_topic(const struct kafka_config *config, const struct record *record);
/* Whether it is produced without a key as it stands. */
bool kafka_record_is_keyless(const struct record *record);

/* What a record is produced with, because its topic has refused it otherwise. */
struct kafka_form {
    bool plain_time; /* the broker's clock or ours stamps it, in place of the input's */
    bool id_as_key;  /* a keyless one has the id of its text, or its position, as the key */
};
/* Hand a copy of it to the library; opaque comes back with the delivery report. The library's own
 * codes: _QUEUE_FULL, MSG_SIZE_TOO_LARGE, ... */
rd_kafka_resp_err_t kafka_record_produce(rd_kafka_t *rk, const struct kafka_config *config,
                                         const struct record *record, const struct kafka_form *form,
                                         void *opaque);

/* "writing to topic T: the broker's words (what to do)". */
void kafka_record_explain(const struct kafka_config *config, const struct record *record,
                          rd_kafka_resp_err_t err, char *why, size_t size);

#endif
