/*
 * kafka_message.c: a record of Kafka as a message of the contract.
 *
 * Owns:    the memory beside the library's own record, whose bytes are pointed at and not copied.
 * Threads: the loop thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/kafka/kafka_source.h"

static size_t count_headers(rd_kafka_message_t *native, rd_kafka_headers_t **headers)
{
    *headers = NULL;
    return rd_kafka_message_headers(native, headers) == RD_KAFKA_RESP_ERR_NO_ERROR
               ? rd_kafka_header_cnt(*headers)
               : 0;
}

static void read_headers(const rd_kafka_headers_t *from, struct header *to, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *name = "";
        const void *value = NULL;
        size_t len = 0;
        rd_kafka_header_get_all(from, i, &name, &value, &len);
        to[i] = (struct header){{name, strlen(name)}, {value, len}};
    }
}

struct kafka_message *kafka_message_open(struct source *source, struct kafka_partition *part,
                                         rd_kafka_message_t *native)
{
    rd_kafka_headers_t *native_headers;
    size_t n_headers = count_headers(native, &native_headers);
    size_t position_size = strlen(part->topic) + 40;
    struct kafka_message *message =
        calloc(1, sizeof *message + n_headers * sizeof(struct header) + position_size);
    if (!message) {
        rd_kafka_message_destroy(native);
        return NULL;
    }
    struct header *headers = (struct header *)(message + 1);
    char *position = (char *)(headers + n_headers);
    int len = snprintf(position, position_size, "%s/%d/%lld", part->topic, (int)part->partition,
                       (long long)native->offset);
    rd_kafka_timestamp_type_t type;
    int64_t timestamp = rd_kafka_message_timestamp(native, &type);
    read_headers(native_headers, headers, n_headers);
    /* One more, so that tombstones use up credit, too. */
    message->taken.size = native->len + 1;
    message->taken.message = (struct message){
        .source = source,
        .key = {native->key, native->key_len},
        .value = {native->payload, native->len},
        .headers = headers,
        .n_headers = n_headers,
        .position = {position, (size_t)len},
        .order = native->offset + 1,
        .part = part->name,
        .timestamp_ms = type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE ? -1 : timestamp,
        .deliveries = 1, /* Kafka does not count them */
    };
    message->native = native;
    message->part = part;
    part->n_messages++;
    return message;
}

void kafka_message_close(struct kafka_message *message)
{
    struct kafka_partition *part = message->part;
    rd_kafka_message_destroy(message->native);
    free(message);
    /* Last: with a revoked partition's last message the partition goes. */
    kafka_partition_release(part);
}
