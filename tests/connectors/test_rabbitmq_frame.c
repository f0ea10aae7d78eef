/*
 * test_rabbitmq_frame.c: AMQP 0-9-1 in bytes: frames torn anywhere, lengths that lie, tables within
 * tables, messages in pieces, and the names that messages have.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/rabbitmq/rabbitmq_link_internal.h"
#include "connectors/rabbitmq/rabbitmq_message.h"
#include "connectors/rabbitmq/rabbitmq_record.h"
#include "connectors/rabbitmq/rabbitmq.h"

static struct bytes text(const char *of)
{
    return (struct bytes){of, strlen(of)};
}

static int read_one(struct bytes bytes, struct rabbitmq_frame *frame, size_t *used)
{
    const char *why = NULL;
    int rc = rabbitmq_frame_read(bytes, 4096, frame, used, &why);
    assert_true(rc >= 0 || (rc == -EPROTO && why));
    return rc;
}

static void test_torn(void **state)
{
    struct buffer out = {0};
    struct rabbitmq_frame frame;
    amqp_basic_ack_t ack = {.delivery_tag = 7};
    size_t used = 0;
    (void)state;
    assert_int_equal(rabbitmq_put_method(&out, 3, AMQP_BASIC_ACK_METHOD, &ack), 0);
    assert_int_equal(rabbitmq_put_heartbeat(&out), 0);
    size_t len = out.len - RABBITMQ_FRAME_EXTRA;
    for (size_t i = 0; i < len; i++)
        assert_int_equal(read_one((struct bytes){out.ptr, i}, &frame, &used), 0);
    assert_int_equal(read_one((struct bytes){out.ptr, out.len}, &frame, &used), 1);
    assert_int_equal(used, len);
    assert_int_equal(frame.channel, 3);
    assert_int_equal(rabbitmq_frame_method(frame.payload), AMQP_BASIC_ACK_METHOD);
    assert_int_equal(read_one((struct bytes){out.ptr + len, out.len - len}, &frame, &used), 1);
    assert_int_equal(frame.type, AMQP_FRAME_HEARTBEAT);
    buffer_close(&out);
}

static void test_refused(void **state)
{
    static const char too_long[] = "\x01\0\0\0\0\x10\0";
    static const char no_end[] = "\x08\0\0\0\0\0\0\x01";
    static const char unknown[] = "\x04\0\0\0\0\0\0\xce";
    struct rabbitmq_frame frame;
    size_t used;
    (void)state;
    assert_int_equal(read_one((struct bytes){"AMQP\0\1\0\0", 8}, &frame, &used), -EPROTO);
    assert_int_equal(read_one(text("HTTP/1.1 400"), &frame, &used), -EPROTO);
    assert_int_equal(read_one((struct bytes){"\x15\x03\x03\0\2\2\x46", 7}, &frame, &used), -EPROTO);
    assert_int_equal(read_one((struct bytes){too_long, 7}, &frame, &used), -EPROTO);
    assert_int_equal(read_one((struct bytes){no_end, 8}, &frame, &used), -EPROTO);
    assert_int_equal(read_one((struct bytes){unknown, 8}, &frame, &used), -EPROTO);
}

/* Properties with a headers table of n arrays within each other. */
static size_t nest(char *out, size_t n)
{
    size_t len = 0, inner = 5 * (n - 1);
    memcpy(out, "\x20\x00", 2); /* headers alone */
    len = 6;
    out[len++] = 1;
    out[len++] = 'a';
    for (size_t i = 0; i < n; i++, inner -= inner ? 5 : 0) {
        out[len++] = 'A';
        out[len++] = (char)(inner >> 24);
        out[len++] = (char)(inner >> 16);
        out[len++] = (char)(inner >> 8);
        out[len++] = (char)inner;
    }
    size_t table = len - 6;
    out[2] = (char)(table >> 24);
    out[3] = (char)(table >> 16);
    out[4] = (char)(table >> 8);
    out[5] = (char)table;
    return len;
}

static void test_depth(void **state)
{
    char *bytes = malloc(200000);
    (void)state;
    for (size_t n = 1; n < RABBITMQ_DEPTH_MAX; n++)
        assert_true(rabbitmq_properties_are_sane((struct bytes){bytes, nest(bytes, n)}));
    assert_false(rabbitmq_properties_are_sane((struct bytes){bytes, nest(bytes, 17)}));
    assert_false(rabbitmq_properties_are_sane((struct bytes){bytes, nest(bytes, 26000)}));
    size_t len = nest(bytes, 3);
    for (size_t i = 0; i < len; i++) /* cut anywhere */
        assert_false(rabbitmq_properties_are_sane((struct bytes){bytes, i}));
    free(bytes);
}

static void test_pieces(void **state)
{
    enum { FRAME_MAX = 4096, BODY = 10000 };
    struct rabbitmq_assembly assembly = {0};
    struct buffer out = {0};
    struct rabbitmq_frame frame;
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_MESSAGE_ID_FLAG,
                                          .message_id = rabbitmq_text("m-1")};
    amqp_basic_deliver_t deliver = {.delivery_tag = 9, .routing_key = rabbitmq_text("texts")};
    char *body = malloc(BODY);
    const char *why;
    size_t used = 0, at = 0, n_frames = 0;
    int rc = 0;
    (void)state;
    for (size_t i = 0; i < BODY; i++)
        body[i] = (char)i;
    assert_int_equal(
        rabbitmq_put_content(&out, 1, &properties, (struct bytes){body, BODY}, FRAME_MAX), 0);
    rabbitmq_assembly_start(&assembly, AMQP_BASIC_DELIVER_METHOD, &deliver);
    for (; at < out.len; at += used, n_frames++) {
        assert_int_equal(rc, 0);
        assert_int_equal(read_one((struct bytes){out.ptr + at, out.len - at}, &frame, &used), 1);
        rc = rabbitmq_assembly_add(&assembly, &frame, &why);
    }
    assert_int_equal(rc, 1);
    assert_int_equal(n_frames, 1 + 3);
    assert_int_equal(assembly.content.tag, 9);
    assert_int_equal(assembly.content.body_len, BODY);
    assert_memory_equal(assembly.content.body, body, BODY);
    /* one byte more than it said */
    frame = (struct rabbitmq_frame){AMQP_FRAME_BODY, 1, {body, 1}};
    assert_int_equal(rabbitmq_assembly_add(&assembly, &frame, &why), -EPROTO);
    rabbitmq_assembly_clear(&assembly);
    assert_int_equal(rabbitmq_assembly_add(&assembly, &frame, &why), -EPROTO);
    buffer_close(&out);
    free(body);
}

/* Headers beyond one frame are not a message of AMQP; nothing of it may be left in the buffer. */
static void test_too_large(void **state)
{
    struct buffer out = {0};
    char *value = calloc(1, 5000);
    amqp_table_entry_t entry = {.key = rabbitmq_text("wide")};
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_HEADERS_FLAG};
    (void)state;
    entry.value.kind = AMQP_FIELD_KIND_UTF8;
    entry.value.value.bytes = (amqp_bytes_t){5000, value};
    properties.headers = (amqp_table_t){1, &entry};
    assert_int_equal(rabbitmq_put_content(&out, 1, &properties, text("body"), 4096), -EMSGSIZE);
    assert_int_equal(out.len, 0);
    assert_int_equal(rabbitmq_put_content(&out, 1, &properties, text("body"), 8192), 0);
    buffer_close(&out);
    free(value);
}

/* ---- messages */

static amqp_table_entry_t entry_of(const char *name, int kind, uint64_t number, const char *value)
{
    amqp_table_entry_t entry = {.key = rabbitmq_text(name)};
    entry.value.kind = (uint8_t)kind;
    entry.value.value.u64 = number;
    if (value)
        entry.value.value.bytes = rabbitmq_text(value);
    return entry;
}

static struct rabbitmq_message *deliver(const char *id, const char *body, bool redelivered,
                                        amqp_table_entry_t *entries, int n)
{
    struct rabbitmq_content content = {.redelivered = redelivered, .body_len = strlen(body)};
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_HEADERS_FLAG |
                                                    AMQP_BASIC_CORRELATION_ID_FLAG |
                                                    AMQP_BASIC_EXPIRATION_FLAG,
                                          .headers = {n, entries},
                                          .correlation_id = rabbitmq_text("c-1"),
                                          .expiration = rabbitmq_text("60000")};
    char encoded[4096];
    if (id) {
        properties._flags |= AMQP_BASIC_MESSAGE_ID_FLAG;
        properties.message_id = rabbitmq_text(id);
    }
    int len = amqp_encode_properties(AMQP_BASIC_CLASS, &properties,
                                     (amqp_bytes_t){sizeof encoded, encoded});
    assert_true(len > 0);
    content.properties = malloc((size_t)len);
    memcpy(content.properties, encoded, (size_t)len);
    content.properties_len = (size_t)len;
    content.body = strdup(body);
    struct rabbitmq_message *message = rabbitmq_message_open(NULL, "texts", &content);
    assert_non_null(message);
    return message;
}

/* The count of a first delivery is whatever its publisher put there. */
static void test_deliveries(void **state)
{
    amqp_table_entry_t entries[] = {entry_of("x-delivery-count", AMQP_FIELD_KIND_I64, 41, NULL)};
    (void)state;
    struct rabbitmq_message *first = deliver("a", "text", false, entries, 1);
    struct rabbitmq_message *again = deliver("a", "text", true, entries, 1);
    struct rabbitmq_message *classic = deliver("a", "text", true, NULL, 0);
    assert_int_equal(first->taken.message.deliveries, 1);
    assert_int_equal(again->taken.message.deliveries, 42);
    assert_int_equal(classic->taken.message.deliveries, 2);
    assert_int_equal(again->taken.message.n_headers, 0);
    rabbitmq_message_close(first);
    rabbitmq_message_close(again);
    rabbitmq_message_close(classic);
}

static bool has_position(const struct rabbitmq_message *message, const char *position)
{
    struct bytes is = message->taken.message.position;
    return is.len == strlen(position) && memcmp(is.ptr, position, is.len) == 0;
}

/* What names a message is the same at every delivery, and different for another text. */
static void test_names(void **state)
{
    amqp_table_entry_t count = entry_of("x-delivery-count", AMQP_FIELD_KIND_I64, 1, NULL);
    (void)state;
    struct rabbitmq_message *named = deliver("a", "text", false, NULL, 0);
    struct rabbitmq_message *first = deliver(NULL, "text", false, NULL, 0);
    struct rabbitmq_message *again = deliver(NULL, "text", true, &count, 1);
    struct rabbitmq_message *other = deliver(NULL, "texts", false, NULL, 0);
    assert_true(has_position(named, "texts/a"));
    assert_int_equal(first->taken.message.position.len, 6 + 32);
    assert_memory_equal(first->taken.message.position.ptr, again->taken.message.position.ptr, 38);
    assert_memory_not_equal(first->taken.message.position.ptr, other->taken.message.position.ptr,
                            38);
    assert_null(first->taken.message.key.ptr);
    rabbitmq_message_close(named);
    rabbitmq_message_close(first);
    rabbitmq_message_close(again);
    rabbitmq_message_close(other);
}

static const amqp_field_value_t *header_of(const amqp_basic_properties_t *properties,
                                           const char *name)
{
    for (int i = 0; i < properties->headers.num_entries; i++)
        if (properties->headers.entries[i].key.len == strlen(name) &&
            memcmp(properties->headers.entries[i].key.bytes, name, strlen(name)) == 0)
            return &properties->headers.entries[i].value;
    return NULL;
}

/* Types stay, what the broker would act upon does not pass, and what we add is ours. */
static void test_record(void **state)
{
    amqp_table_entry_t entries[] = {entry_of("priority", AMQP_FIELD_KIND_I32, 5, NULL),
                                    entry_of("CC", AMQP_FIELD_KIND_UTF8, 0, "other-queue"),
                                    entry_of("_code", AMQP_FIELD_KIND_UTF8, 0, "forged")};
    struct rabbitmq_config config = {.queue = "texts"};
    struct rabbitmq_message *message = deliver("a", "text", false, entries, 3);
    struct source source = {.ops = &rabbitmq_source_ops};
    struct part part = {.id = text("a"), .value = message->taken.message.value};
    struct record record = {.origin = &message->taken.message,
                            .parts = &part,
                            .n_parts = 1,
                            .headers = message->taken.message.headers,
                            .n_headers = message->taken.message.n_headers,
                            .dead_code = "bad_json"};
    amqp_basic_properties_t properties;
    amqp_pool_t pool;
    struct bytes body;
    (void)state;
    message->taken.message.source = &source;
    init_amqp_pool(&pool, 4096);
    assert_int_equal(rabbitmq_record_build(&config, &record, &pool, &properties, &body), 0);
    assert_int_equal(body.len, 4);
    assert_int_equal(header_of(&properties, "priority")->kind, AMQP_FIELD_KIND_I32);
    assert_int_equal(header_of(&properties, "priority")->value.i32, 5);
    assert_null(header_of(&properties, "CC"));
    assert_non_null(header_of(&properties, "_CC"));
    assert_int_equal(header_of(&properties, "_code")->value.bytes.len, strlen("bad_json"));
    assert_false(properties._flags & AMQP_BASIC_EXPIRATION_FLAG);
    assert_true(properties._flags & AMQP_BASIC_CORRELATION_ID_FLAG);
    assert_int_equal(properties.delivery_mode, AMQP_DELIVERY_PERSISTENT);
    empty_amqp_pool(&pool);
    rabbitmq_message_close(message);
}

/* A tombstone comes back as one. */
static void test_tombstone(void **state)
{
    amqp_table_entry_t deleted = entry_of("deleted", AMQP_FIELD_KIND_UTF8, 0, "1");
    (void)state;
    struct rabbitmq_message *message = deliver("a", "", false, &deleted, 1);
    assert_null(message->taken.message.value.ptr);
    rabbitmq_message_close(message);
    message = deliver("a", "", false, NULL, 0);
    assert_non_null(message->taken.message.value.ptr);
    rabbitmq_message_close(message);
}

/* Headers that cannot be read are the message's problem, and nobody else's. */
static void test_bad_headers(void **state)
{
    struct rabbitmq_content content = {.properties = malloc(200000), .body = strdup("text")};
    (void)state;
    content.properties_len = nest(content.properties, 20000);
    content.body_len = 4;
    struct rabbitmq_message *message = rabbitmq_message_open(NULL, "texts", &content);
    assert_non_null(message);
    assert_string_equal(message->taken.message.problem.code, "too_deep");
    assert_int_equal(message->taken.message.value.len, 4);
    rabbitmq_message_close(message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torn),      cmocka_unit_test(test_refused),
        cmocka_unit_test(test_depth),     cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_too_large), cmocka_unit_test(test_deliveries),
        cmocka_unit_test(test_names),     cmocka_unit_test(test_record),
        cmocka_unit_test(test_tombstone), cmocka_unit_test(test_bad_headers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
