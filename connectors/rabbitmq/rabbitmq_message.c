/*
 * rabbitmq_message.c: see rabbitmq_message.h.
 *
 * Why:     AMQP has no position. What names a message is its message id, else a hash of what is in
 *          it: both are the same at every delivery, so doubles have the same id.
 */
#include "connectors/rabbitmq/rabbitmq_message.h"

#include "connectors/dead_letter_codes.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "connectors/json.h"

#define POOL_PAGE 1024

bool rabbitmq_header_is_brokers(struct bytes name)
{
    static const char *const names[] = {"x-death", "x-delivery-count", "x-acquired-count",
                                        "x-stream-offset"};
    static const char *const beginnings[] = {"x-first-death-", "x-last-death-"};
    if (bytes_in(name, names, sizeof names / sizeof names[0]))
        return true;
    for (size_t i = 0; i < 2; i++)
        if (name.len > strlen(beginnings[i]) &&
            memcmp(name.ptr, beginnings[i], strlen(beginnings[i])) == 0)
            return true;
    return false;
}

/* ---- values as text */

static void put_value(struct buffer *to, const amqp_field_value_t *value, bool is_inner);

static void put_table(struct buffer *to, const amqp_table_t *table)
{
    buffer_put_text(to, "{");
    for (int i = 0; i < table->num_entries; i++) {
        if (i)
            buffer_put_text(to, ",");
        json_put_string(to, rabbitmq_bytes_of(table->entries[i].key));
        buffer_put_text(to, ":");
        put_value(to, &table->entries[i].value, true);
    }
    buffer_put_text(to, "}");
}

static void put_array(struct buffer *to, const amqp_array_t *array)
{
    buffer_put_text(to, "[");
    for (int i = 0; i < array->num_entries; i++) {
        if (i)
            buffer_put_text(to, ",");
        put_value(to, &array->entries[i], true);
    }
    buffer_put_text(to, "]");
}

/* is_inner: of a table, which becomes JSON. */
static void put_value(struct buffer *to, const amqp_field_value_t *value, bool is_inner)
{
    switch (value->kind) {
    case AMQP_FIELD_KIND_UTF8:
    case AMQP_FIELD_KIND_BYTES:
        if (is_inner)
            json_put_string(to, rabbitmq_bytes_of(value->value.bytes));
        else
            buffer_put(to, value->value.bytes.bytes, value->value.bytes.len);
        return;
    case AMQP_FIELD_KIND_BOOLEAN:
        buffer_put_text(to, value->value.boolean ? "true" : "false");
        return;
    case AMQP_FIELD_KIND_I8:
        json_put_integer(to, value->value.i8);
        return;
    case AMQP_FIELD_KIND_U8:
        json_put_natural(to, value->value.u8);
        return;
    case AMQP_FIELD_KIND_I16:
        json_put_integer(to, value->value.i16);
        return;
    case AMQP_FIELD_KIND_U16:
        json_put_natural(to, value->value.u16);
        return;
    case AMQP_FIELD_KIND_I32:
        json_put_integer(to, value->value.i32);
        return;
    case AMQP_FIELD_KIND_U32:
        json_put_natural(to, value->value.u32);
        return;
    case AMQP_FIELD_KIND_I64:
        json_put_integer(to, value->value.i64);
        return;
    case AMQP_FIELD_KIND_U64:
    case AMQP_FIELD_KIND_TIMESTAMP:
        json_put_natural(to, value->value.u64);
        return;
    case AMQP_FIELD_KIND_F32:
        json_put_real(to, value->value.f32, 9);
        return;
    case AMQP_FIELD_KIND_F64:
        json_put_double(to, value->value.f64);
        return;
    case AMQP_FIELD_KIND_TABLE:
        put_table(to, &value->value.table);
        return;
    case AMQP_FIELD_KIND_ARRAY:
        put_array(to, &value->value.array);
        return;
    default: /* a decimal fraction, or nothing */
        buffer_put_text(to, is_inner ? "null" : "");
    }
}

/* A header's value: its own bytes, or text in the pool. False: no memory. */
static bool read_value(struct rabbitmq_message *message, const amqp_field_value_t *value,
                       struct bytes *out)
{
    struct buffer text = {0};
    if (value->kind == AMQP_FIELD_KIND_UTF8 || value->kind == AMQP_FIELD_KIND_BYTES) {
        *out = rabbitmq_bytes_of(value->value.bytes);
        return true;
    }
    put_value(&text, value, false);
    char *copy = text.status ? NULL : amqp_pool_alloc(&message->pool, text.len + 1);
    if (copy && text.len)
        memcpy(copy, text.ptr, text.len);
    *out = (struct bytes){copy, text.len};
    buffer_close(&text);
    return copy;
}

/* ---- what the headers say */

static int64_t integer_of(const amqp_field_value_t *value)
{
    switch (value->kind) {
    case AMQP_FIELD_KIND_I8:
        return value->value.i8;
    case AMQP_FIELD_KIND_U8:
        return value->value.u8;
    case AMQP_FIELD_KIND_I16:
        return value->value.i16;
    case AMQP_FIELD_KIND_U16:
        return value->value.u16;
    case AMQP_FIELD_KIND_I32:
        return value->value.i32;
    case AMQP_FIELD_KIND_U32:
        return value->value.u32;
    case AMQP_FIELD_KIND_I64:
        return value->value.i64;
    default:
        return 0;
    }
}

/* A quorum queue counts the deliveries that failed; of a first one the header is its publisher's.
 */
static void note_brokers(struct rabbitmq_message *message, bool redelivered)
{
    const amqp_table_t *table = &message->properties.headers;
    message->taken.message.deliveries = redelivered ? 2 : 1;
    for (int i = 0; i < table->num_entries; i++) {
        const amqp_table_entry_t *entry = &table->entries[i];
        int64_t n = integer_of(&entry->value);
        if (bytes_are(rabbitmq_bytes_of(entry->key), "x-stream-offset"))
            message->is_of_stream = true;
        /* Failed ones, so this delivery is one more; capped, for anybody may write a header. */
        if (redelivered && bytes_are(rabbitmq_bytes_of(entry->key), "x-delivery-count") && n > 0)
            message->taken.message.deliveries = n < 1000000 ? (uint32_t)n + 1 : 1000001;
    }
}

/* False: no memory. */
static bool read_headers(struct rabbitmq_message *message)
{
    const amqp_table_t *table = &message->properties.headers;
    const amqp_basic_properties_t *properties = &message->properties;
    /* One more for the content type, which is a property. */
    size_t most = (size_t)table->num_entries + 1, n = 0;
    struct header *headers = amqp_pool_alloc(&message->pool, most * sizeof *headers);
    int *entries = amqp_pool_alloc(&message->pool, most * sizeof *entries);
    if (!headers || !entries)
        return false;
    for (int i = 0; i < table->num_entries; i++) {
        struct bytes name = rabbitmq_bytes_of(table->entries[i].key);
        if (rabbitmq_header_is_brokers(name))
            continue;
        headers[n].name = name;
        if (!read_value(message, &table->entries[i].value, &headers[n].value))
            return false;
        entries[n++] = i;
    }
    if ((properties->_flags & AMQP_BASIC_CONTENT_TYPE_FLAG) && properties->content_type.len) {
        headers[n] = (struct header){{"content-type", strlen("content-type")},
                                     rabbitmq_bytes_of(properties->content_type)};
        entries[n++] = -1;
    }
    message->taken.message.headers = headers;
    message->taken.message.n_headers = n;
    message->table = entries;
    return true;
}

/* False: no memory. What cannot be decoded is the message's own problem. */
static bool read_properties(struct rabbitmq_message *message, size_t len)
{
    void *decoded = NULL;
    struct bytes raw = {message->raw, len};
    if (!rabbitmq_properties_are_sane(raw)) {
        message->taken.message.problem = (struct problem){
            DEAD_LETTER(too_deep), "the headers of the message are nested more than 16 deep or are "
                                   "not AMQP 0-9-1; they are left out"};
        return true;
    }
    if (amqp_decode_properties(AMQP_BASIC_CLASS, &message->pool, (amqp_bytes_t){len, message->raw},
                               &decoded) != AMQP_STATUS_OK) {
        message->taken.message.problem =
            (struct problem){DEAD_LETTER(bad_field),
                             "the headers of the message are no AMQP 0-9-1; they are left out"};
        return true;
    }
    message->properties = *(amqp_basic_properties_t *)decoded;
    if (!(message->properties._flags & AMQP_BASIC_HEADERS_FLAG))
        message->properties.headers = (amqp_table_t){0};
    return true;
}

/* ---- its name */

static bool name_message(struct rabbitmq_message *message, const char *queue)
{
    struct message *base = &message->taken.message;
    char hash[33];
    struct bytes id = base->key;
    if (!id.len) {
        XXH3_state_t *state = XXH3_createState();
        if (!state)
            return false;
        XXH3_128bits_reset(state);
        /* Without what the broker adds at each delivery (rabbitmq_header_is_brokers). */
        XXH3_128bits_update(state, base->value.ptr ? base->value.ptr : "", base->value.len);
        for (size_t i = 0; i < base->n_headers; i++) {
            XXH3_128bits_update(state, base->headers[i].name.ptr, base->headers[i].name.len);
            XXH3_128bits_update(state, base->headers[i].value.ptr, base->headers[i].value.len);
        }
        XXH128_hash_t digest = XXH3_128bits_digest(state);
        XXH3_freeState(state);
        snprintf(hash, sizeof hash, "%016" PRIx64 "%016" PRIx64, (uint64_t)digest.high64,
                 (uint64_t)digest.low64);
        id = (struct bytes){hash, 32};
    }
    size_t queue_len = strlen(queue);
    char *position = amqp_pool_alloc(&message->pool, queue_len + 1 + id.len);
    if (!position)
        return false;
    memcpy(position, queue, queue_len);
    position[queue_len] = '/';
    memcpy(position + queue_len + 1, id.ptr, id.len);
    base->position = (struct bytes){position, queue_len + 1 + id.len};
    return true;
}

/* An empty message that says `deleted` is what our own sink makes of a tombstone. */
static bool is_tombstone(const struct message *message)
{
    for (size_t i = 0; i < message->n_headers; i++) {
        const struct header *header = &message->headers[i];
        if (bytes_are(header->name, "deleted") &&
            (bytes_are(header->value, "1") || bytes_are(header->value, "true")))
            return message->value.len == 0 && message->key.len;
    }
    return false;
}

struct rabbitmq_message *rabbitmq_message_open(struct source *source, const char *queue,
                                               struct rabbitmq_content *content)
{
    struct rabbitmq_message *message = calloc(1, sizeof *message);
    if (!message)
        return NULL;
    init_amqp_pool(&message->pool, POOL_PAGE);
    message->raw = content->properties;
    message->body = content->body;
    /* Taken over: from here on rabbitmq_message_close frees them. */
    content->properties = content->body = NULL;
    message->tag = content->tag;
    message->taken.size = content->body_len + content->properties_len;
    memcpy(message->exchange, content->exchange, sizeof message->exchange);
    memcpy(message->routing_key, content->routing_key, sizeof message->routing_key);
    struct message *base = &message->taken.message;
    base->source = source;
    base->value = (struct bytes){message->body, content->body_len};
    if (!read_properties(message, content->properties_len) || !read_headers(message))
        goto fail;
    const amqp_basic_properties_t *properties = &message->properties;
    if ((properties->_flags & AMQP_BASIC_MESSAGE_ID_FLAG) && properties->message_id.len)
        base->key = rabbitmq_bytes_of(properties->message_id);
    base->timestamp_ms = -1;
    if ((properties->_flags & AMQP_BASIC_TIMESTAMP_FLAG) &&
        properties->timestamp < INT64_MAX / 1000)
        base->timestamp_ms = (int64_t)properties->timestamp * 1000;
    note_brokers(message, content->redelivered);
    if (is_tombstone(base))
        base->value = (struct bytes){NULL, 0};
    if (!name_message(message, queue))
        goto fail;
    return message;
fail:
    rabbitmq_message_close(message);
    return NULL;
}

void rabbitmq_message_close(struct rabbitmq_message *message)
{
    if (!message)
        return;
    empty_amqp_pool(&message->pool);
    free(message->raw);
    free(message->body);
    free(message);
}
