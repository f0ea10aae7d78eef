/*
 * rabbitmq_record.c: see rabbitmq_record.h.
 *
 * Why:     from RabbitMQ to RabbitMQ headers keep their types, and properties that mean something
 *          to the reader (correlation id, priority ...) pass. What the broker would act upon does
 *          not: an expiry would delete a dead letter, CC and BCC would send embeddings to other
 *          queues, another user's id would be refused.
 */
#include "connectors/rabbitmq/rabbitmq_record.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/rabbitmq/rabbitmq_message.h"

#define NAME_BYTES_MAX 255 /* of a header, a message id ... in the protocol */

static const struct rabbitmq_message *own_origin(const struct record *record)
{
    const struct message *origin = record->origin;
    bool is_own = origin->source && origin->source->ops == &rabbitmq_source_ops;
    return is_own ? (const struct rabbitmq_message *)origin : NULL;
}

/* Whether a header is one that a dead letter adds. */
static bool is_ours(struct bytes name)
{
    static const char *const ours[] = {"_code",      "_error",    "_queue",     "_exchange",
                                       "_timestamp", "_position", "_deliveries"};
    return bytes_in(name, ours, sizeof ours / sizeof ours[0]);
}

/* A name that the server gives a meaning of its own. */
static bool is_reserved(struct bytes name)
{
    return bytes_are(name, "CC") || bytes_are(name, "BCC") || rabbitmq_header_is_brokers(name);
}

/* ---- headers */

struct headers {
    amqp_pool_t *pool;
    amqp_table_entry_t *entries;
    int n;
    bool no_memory;
};

static void add_bytes(struct headers *headers, amqp_bytes_t name, struct bytes value)
{
    amqp_table_entry_t *entry = &headers->entries[headers->n++];
    *entry = (amqp_table_entry_t){.key = name};
    entry->value.kind = AMQP_FIELD_KIND_UTF8;
    entry->value.value.bytes = rabbitmq_bytes(value);
}

static void add_text(struct headers *headers, const char *name, const char *text)
{
    size_t len = strlen(text);
    char *copy = amqp_pool_alloc(headers->pool, len + 1);
    if (!copy) {
        headers->no_memory = true;
        return;
    }
    memcpy(copy, text, len);
    add_bytes(headers, rabbitmq_text(name), (struct bytes){copy, len});
}

static void add_number(struct headers *headers, const char *name, int64_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, number);
    add_text(headers, name, text);
}

/* The value as it came, with its type, unless the pipeline has another one. */
static const amqp_field_value_t *typed_value(const struct rabbitmq_message *own,
                                             const struct header *header)
{
    for (size_t i = 0; own && i < own->taken.message.n_headers; i++)
        /* The same bytes at the same place: the pipeline has handed the header on as it was. */
        if (own->taken.message.headers[i].value.ptr == header->value.ptr &&
            own->taken.message.headers[i].value.len == header->value.len &&
            own->taken.message.headers[i].name.ptr == header->name.ptr && own->table[i] >= 0)
            return &own->properties.headers.entries[own->table[i]].value;
    return NULL;
}

static void add_header(struct headers *headers, const struct rabbitmq_message *own,
                       const struct header *header)
{
    struct bytes name = header->name;
    bool is_renamed = is_reserved(name) || name.len > NAME_BYTES_MAX;
    if (is_renamed) {
        size_t len = name.len < NAME_BYTES_MAX - 1 ? name.len : NAME_BYTES_MAX - 1;
        char *copy = amqp_pool_alloc(headers->pool, len + 1);
        if (!copy) {
            headers->no_memory = true;
            return;
        }
        /* Kept under another name: to the server it would be an order, as CC is. */
        copy[0] = '_';
        memcpy(copy + 1, name.ptr, len);
        name = (struct bytes){copy, len + 1};
    }
    const amqp_field_value_t *value = is_renamed ? NULL : typed_value(own, header);
    add_bytes(headers, rabbitmq_bytes(name), header->value);
    if (value)
        headers->entries[headers->n - 1].value = *value;
}

static void add_death(struct headers *headers, const struct record *record,
                      const struct rabbitmq_config *config, const struct rabbitmq_message *own)
{
    const struct message *origin = record->origin;
    add_text(headers, "_code", record->dead_code);
    add_text(headers, "_error", record->dead_reason ? record->dead_reason : "");
    add_bytes(headers, rabbitmq_text("_position"), origin->position);
    if (own) {
        add_text(headers, "_queue", config->queue);
        add_text(headers, "_exchange", own->exchange);
    }
    if (origin->timestamp_ms >= 0)
        add_number(headers, "_timestamp", origin->timestamp_ms);
    add_number(headers, "_deliveries", origin->deliveries);
}

/* ---- properties */

static void set_text(amqp_basic_properties_t *to, amqp_bytes_t *field, amqp_flags_t flag,
                     struct bytes value)
{
    if (!value.ptr || !value.len || value.len > NAME_BYTES_MAX)
        return;
    *field = rabbitmq_bytes(value);
    to->_flags |= flag;
}

/* What a reader of the output may want of the input. */
static void copy_properties(amqp_basic_properties_t *to, const amqp_basic_properties_t *from)
{
    const amqp_flags_t passed = AMQP_BASIC_CONTENT_ENCODING_FLAG | AMQP_BASIC_PRIORITY_FLAG |
                                AMQP_BASIC_CORRELATION_ID_FLAG | AMQP_BASIC_REPLY_TO_FLAG |
                                AMQP_BASIC_TYPE_FLAG | AMQP_BASIC_APP_ID_FLAG;
    to->_flags |= from->_flags & passed;
    to->content_encoding = from->content_encoding;
    to->priority = from->priority;
    to->correlation_id = from->correlation_id;
    to->reply_to = from->reply_to;
    to->type = from->type;
    to->app_id = from->app_id;
}

int rabbitmq_record_build(const struct rabbitmq_config *config, const struct record *record,
                          amqp_pool_t *pool, amqp_basic_properties_t *properties,
                          struct bytes *body)
{
    const struct rabbitmq_message *own = own_origin(record);
    struct bytes value = record->parts[0].value, id = record->parts[0].id;
    struct headers headers = {.pool = pool};
    /* Eight more: what a death adds, or `deleted`. */
    size_t most = record->n_headers + 8;
    headers.entries = amqp_pool_alloc(pool, most * sizeof *headers.entries);
    if (!headers.entries)
        return -ENOMEM;
    *properties = (amqp_basic_properties_t){.delivery_mode = AMQP_DELIVERY_PERSISTENT};
    properties->_flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_HEADERS_FLAG;
    if (own)
        copy_properties(properties, &own->properties);
    if (own && !record->dead_code) /* the output is not encoded as the input was */
        properties->_flags &= ~(amqp_flags_t)AMQP_BASIC_CONTENT_ENCODING_FLAG;
    for (size_t i = 0; i < record->n_headers; i++) {
        const struct header *header = &record->headers[i];
        if (bytes_are(header->name, "content-type") && header->value.len <= NAME_BYTES_MAX)
            set_text(properties, &properties->content_type, AMQP_BASIC_CONTENT_TYPE_FLAG,
                     header->value);
        else if (!(record->dead_code && is_ours(header->name)))
            add_header(&headers, own, header);
    }
    if (record->dead_code)
        add_death(&headers, record, config, own);
    else if (!value.ptr)
        add_text(&headers, "deleted", "1");
    set_text(properties, &properties->message_id, AMQP_BASIC_MESSAGE_ID_FLAG, id);
    if (record->origin->timestamp_ms >= 0) {
        properties->timestamp = (uint64_t)record->origin->timestamp_ms / 1000;
        properties->_flags |= AMQP_BASIC_TIMESTAMP_FLAG;
    }
    properties->headers = (amqp_table_t){headers.n, headers.entries};
    *body = value.ptr ? value : (struct bytes){"", 0};
    return headers.no_memory ? -ENOMEM : 0;
}

void rabbitmq_record_restore(const amqp_basic_properties_t *from, amqp_table_entry_t *headers,
                             amqp_basic_properties_t *to)
{
    int n = 0;
    *to = *from;
    /* A letter that was put back must not expire, and another user's id would be refused. */
    to->_flags &= ~(amqp_flags_t)(AMQP_BASIC_EXPIRATION_FLAG | AMQP_BASIC_USER_ID_FLAG |
                                  AMQP_BASIC_CLUSTER_ID_FLAG);
    to->delivery_mode = AMQP_DELIVERY_PERSISTENT;
    to->_flags |= AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_HEADERS_FLAG;
    for (int i = 0; i < from->headers.num_entries; i++) {
        struct bytes name = rabbitmq_bytes_of(from->headers.entries[i].key);
        if (!is_ours(name) && !is_reserved(name))
            headers[n++] = from->headers.entries[i];
    }
    to->headers = (amqp_table_t){n, headers};
}
