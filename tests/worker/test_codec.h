/*
 * test_codec.h: what the tests of the codec share.
 *
 * Why: a value is always copied into memory of exactly its size, so that the address sanitizer
 *      sees the first byte read past it.
 */
#ifndef TEST_CODEC_H
#define TEST_CODEC_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <msgpack.h>

#include "worker/codec/codec.h"

#define BYTES(literal) ((struct bytes){(literal), sizeof(literal) - 1})

static const struct decode_options test_options[] = {
    {.format = INPUT_AUTO, .max_texts = 100, .max_text_bytes = 1000},
    {.format = INPUT_RAW, .max_texts = 100, .max_text_bytes = 1000},
    {.format = INPUT_JSON, .max_texts = 100, .max_text_bytes = 1000},
    {.format = INPUT_MSGPACK, .max_texts = 100, .max_text_bytes = 1000},
};

static inline struct bytes bytes_copy(struct bytes from)
{
    char *copy = malloc(from.len ? from.len : 1);
    assert_non_null(copy);
    memcpy(copy, from.ptr, from.len);
    return (struct bytes){copy, from.len};
}

static inline struct message message_of(struct bytes value)
{
    return (struct message){
        .value = value, .position = BYTES("texts 1-0"), .timestamp_ms = -1, .deliveries = 1};
}

/* JSON to msgpack, for tests that say one thing in both. Not the codec's own way: small, and only
 * for what the tests write. */
static inline void json_pack_into(msgpack_packer *packer, json_t *value)
{
    const char *key;
    json_t *inner;
    size_t i;
    if (json_is_object(value)) {
        msgpack_pack_map(packer, json_object_size(value));
        json_object_foreach(value, key, inner)
        {
            msgpack_pack_str(packer, strlen(key));
            msgpack_pack_str_body(packer, key, strlen(key));
            json_pack_into(packer, inner);
        }
    } else if (json_is_array(value)) {
        msgpack_pack_array(packer, json_array_size(value));
        json_array_foreach(value, i, inner) json_pack_into(packer, inner);
    } else if (json_is_string(value)) {
        msgpack_pack_str(packer, json_string_length(value));
        msgpack_pack_str_body(packer, json_string_value(value), json_string_length(value));
    } else if (json_is_integer(value)) {
        msgpack_pack_int64(packer, json_integer_value(value));
    } else if (json_is_real(value)) {
        msgpack_pack_double(packer, json_real_value(value));
    } else if (json_is_null(value)) {
        msgpack_pack_nil(packer);
    } else {
        json_is_true(value) ? msgpack_pack_true(packer) : msgpack_pack_false(packer);
    }
}

/* Free .ptr. */
static inline struct bytes msgpack_of(const char *json)
{
    json_error_t error;
    json_t *root = json_loads(json, JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
    if (!root)
        fail_msg("test wrote bad JSON: %s: %s", json, error.text);
    msgpack_sbuffer buffer;
    msgpack_packer packer;
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    json_pack_into(&packer, root);
    json_decref(root);
    struct bytes out = bytes_copy((struct bytes){buffer.data, buffer.size});
    msgpack_sbuffer_destroy(&buffer);
    return out;
}

/* Refused with this code and a sentence that says what to do, and nothing else has happened. */
static inline void expect_refused(const struct message *message,
                                  const struct decode_options *options, const char *code,
                                  const char *sentence)
{
    struct arena arena = {0};
    struct request request = {.n_items = 77};
    struct refusal why = {.code = "none"};
    int err = codec_decode(message, options, &arena, &request, &why);
    if (err != -EINVAL)
        fail_msg("format %d: returned %d, expected refusal %s: %s", options->format, err, code,
                 sentence);
    if (strcmp(why.code, code) != 0 || !strstr(why.reason, sentence))
        fail_msg("format %d: %s: %s; expected %s: ...%s...", options->format, why.code, why.reason,
                 code, sentence);
    assert_int_equal(request.n_items, 77);
    assert_null(strstr(why.reason, "sesame")); /* the tests' texts all hold it */
    if (!strpbrk(why.reason, ";?"))            /* what happened; what to do */
        fail_msg("'%s' does not say what to do", why.reason);
    arena_close(&arena);
}

/* xorshift64*: the same numbers on every machine. */
static inline uint64_t random_next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dULL;
}

#endif
