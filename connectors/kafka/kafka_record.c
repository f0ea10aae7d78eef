/*
 * kafka_record.c: see kafka_record.h.
 *
 * Why: a dead letter keeps the original byte for byte, and what we add are headers whose names
 *      begin with an underscore, the same as on Redis; those of an earlier death are replaced. It
 *      is stamped with the time of its death: by the input's time its topic's retention could
 *      remove it before anybody has seen it.
 */
#include "connectors/kafka/kafka_record.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/kafka/kafka_errors.h"
#include "connectors/kafka/kafka_source.h"
#include "connectors/utf8.h"

static bool is_kafka(const struct message *origin)
{
    return origin->source && origin->source->ops == &kafka_source_ops;
}

const char *kafka_record_topic(const struct kafka_config *config, const struct record *record)
{
    return record->dead_code ? config->dead_letter_topic : config->output_topic;
}

/* The input's (of a dead letter what is left of it), or what names the text where inputs have no
 * keys; and where a text is deleted, for without a key that says nothing. */
static struct bytes own_key(const struct record *record)
{
    const struct message *origin = record->origin;
    if (record->dead_code || (!origin->key.ptr && !record->parts[0].value.ptr))
        return record->parts[0].id;
    return origin->key.ptr || is_kafka(origin) ? origin->key : record->parts[0].id;
}

bool kafka_record_is_keyless(const struct record *record)
{
    return !own_key(record).ptr;
}

static struct bytes key_of(const struct record *record, const struct kafka_form *form)
{
    struct bytes key = own_key(record), id = record->parts[0].id;
    if (key.ptr || !form->id_as_key)
        return key;
    /* A position, which no other message has, for one that has no id either. */
    return id.len ? id : record->origin->position;
}

bool kafka_record_is_ours(struct bytes name)
{
    static const char *const ours[] = {"_code",   "_error",    "_topic",     "_partition",
                                       "_offset", "_position", "_timestamp", "_deliveries"};
    return bytes_in(name, ours, sizeof ours / sizeof ours[0]);
}

int kafka_record_add_header(rd_kafka_headers_t *headers, struct bytes name, struct bytes value)
{
    char few[256], *to = few;
    if (3 * name.len > sizeof few && !(to = malloc(3 * name.len)))
        return -ENOMEM;
    size_t len = 0;
    for (size_t i = 0; i < name.len;) { /* pieces between NULs */
        size_t n = strnlen(name.ptr + i, name.len - i);
        len += utf8_repair(name.ptr + i, n, to + len);
        i += n;
        if (i < name.len) {
            memcpy(to + len, UTF8_REPLACEMENT, sizeof UTF8_REPLACEMENT - 1);
            len += sizeof UTF8_REPLACEMENT - 1;
            i++;
        }
    }
    rd_kafka_header_add(headers, to, (ssize_t)len, value.ptr, (ssize_t)value.len);
    if (to != few)
        free(to);
    return 0;
}

static void add_text(rd_kafka_headers_t *headers, const char *name, const char *text)
{
    rd_kafka_header_add(headers, name, -1, text, -1);
}

static void add_number(rd_kafka_headers_t *headers, const char *name, int64_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, number);
    add_text(headers, name, text);
}

static void add_death(rd_kafka_headers_t *headers, const struct record *record)
{
    const struct message *origin = record->origin;
    add_text(headers, "_code", record->dead_code);
    add_text(headers, "_error", record->dead_reason ? record->dead_reason : "");
    if (is_kafka(origin)) {
        const struct kafka_message *message = (const struct kafka_message *)origin;
        add_text(headers, "_topic", message->part->topic);
        add_number(headers, "_partition", message->part->partition);
        add_number(headers, "_offset", message->native->offset);
    } else {
        rd_kafka_header_add(headers, "_position", -1, origin->position.ptr,
                            (ssize_t)origin->position.len);
    }
    if (origin->timestamp_ms >= 0)
        add_number(headers, "_timestamp", origin->timestamp_ms);
    add_number(headers, "_deliveries", origin->deliveries);
}

/* A text is gone. Its key need not be its id: a key of the input stays as it is. */
static bool is_tombstone(const struct record *record)
{
    return !record->dead_code && !record->parts[0].value.ptr;
}

/* NULL without memory. */
static rd_kafka_headers_t *headers_of(const struct record *record)
{
    /* Eight more: what a death adds (add_death), or a tombstone's id. */
    rd_kafka_headers_t *headers = rd_kafka_headers_new(record->n_headers + 8);
    int err = 0;
    for (size_t i = 0; i < record->n_headers && !err; i++) {
        const struct header *header = &record->headers[i];
        if (!(record->dead_code && kafka_record_is_ours(header->name)))
            err = kafka_record_add_header(headers, header->name, header->value);
    }
    if (is_tombstone(record) && !err) /* the last: of equal names that is the one that counts */
        err = kafka_record_add_header(headers, bytes_of("id"), record->parts[0].id);
    if (err) {
        rd_kafka_headers_destroy(headers);
        return NULL;
    }
    if (record->dead_code)
        add_death(headers, record);
    return headers;
}

/* The library counts headers only when it has sent them, and the broker hangs up on what is far too
 * large: that would go on and on. */
static size_t size_of(struct bytes key, struct bytes value, const struct record *record)
{
    size_t size = key.len + value.len;
    if (is_tombstone(record))
        size += sizeof "id" - 1 + record->parts[0].id.len;
    for (size_t i = 0; i < record->n_headers; i++)
        size += record->headers[i].name.len + record->headers[i].value.len;
    return size;
}

rd_kafka_resp_err_t kafka_record_produce(rd_kafka_t *rk, const struct kafka_config *config,
                                         const struct record *record, const struct kafka_form *form,
                                         void *opaque)
{
    struct bytes key = key_of(record, form), value = record->parts[0].value;
    if (config->message_max && size_of(key, value, record) > config->message_max)
        return RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    rd_kafka_headers_t *headers = headers_of(record);
    int64_t time = record->origin->timestamp_ms;
    if (!headers)
        return RD_KAFKA_RESP_ERR__QUEUE_FULL; /* no memory now; it is tried again */
    if (time < 0 || form->plain_time || record->dead_code)
        time = 0;
    rd_kafka_resp_err_t err = rd_kafka_producev(
        rk, RD_KAFKA_V_TOPIC(kafka_record_topic(config, record)), RD_KAFKA_V_KEY(key.ptr, key.len),
        RD_KAFKA_V_VALUE((void *)value.ptr, value.len), RD_KAFKA_V_TIMESTAMP(time),
        RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_OPAQUE(opaque), RD_KAFKA_V_END);
    /* Only when it succeeds do the headers belong to the library. */
    if (err)
        rd_kafka_headers_destroy(headers);
    return err;
}

void kafka_record_explain(const struct kafka_config *config, const struct record *record,
                          rd_kafka_resp_err_t err, char *why, size_t size)
{
    snprintf(why, size, "writing to topic %.100s: %.120s (%s)", kafka_record_topic(config, record),
             kafka_error_text(err), kafka_error_advice(err));
}
