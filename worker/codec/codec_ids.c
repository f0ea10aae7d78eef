/*
 * codec_ids.c: a value as an id.
 *
 * Owns:    integers as their digits; ids as MongoDB's connector writes them.
 * Refuses: where an id is looked for: codec_change.c, codec_msgpack.c.
 * Threads: no state.
 * Why:     MongoDB's rows say {"_id": {"$oid": "5f"}} or {"_id": "a"} and their keys, JSON in a
 *          string, {"id": "{\"$oid\": \"5f\"}"} and {"id": "\"a\""}. A delete has nothing but the
 *          key, so unless both become one id it would delete nothing. Formats: MongoDB's Extended
 *          JSON, version 2; Debezium's documentation, "MongoDB connector", "Change event keys".
 */
#include "worker/codec/codec_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int integer_print(const struct decode *decode, const struct walk_value *value,
                         struct id *out)
{
    enum { DIGITS = 24 };
    char *text = arena_alloc(decode->arena, DIGITS);
    if (!text)
        return -ENOMEM;
    int len = value->type == WALK_UINT ? snprintf(text, DIGITS, "%" PRIu64, value->natural)
                                       : snprintf(text, DIGITS, "%" PRId64, value->integer);
    *out = (struct id){{text, (size_t)len}, true};
    return 0;
}

int codec_value_id(const struct decode *decode, const struct walk_value *value, struct id *out)
{
    if (value->type != WALK_STR)
        return integer_print(decode, value, out);
    *out = (struct id){value->bytes, false};
    return 0;
}

static bool is_mongodb(const struct decode *decode)
{
    return strcmp(codec_field_name(decode, CODEC_FIELD_ID), "_id") == 0;
}

static bool is_text(struct bytes bytes, const char *text)
{
    return bytes.len == strlen(text) && memcmp(bytes.ptr, text, bytes.len) == 0;
}

/* As printf writes them, so that the digits of the id stay the same. */
static bool integer_read(struct bytes digits, struct walk_value *out)
{
    char text[24], again[24];
    int64_t value;
    if (digits.len == 0 || digits.len >= sizeof text)
        return false;
    snprintf(text, sizeof text, "%.*s", (int)digits.len, digits.ptr);
    if (sscanf(text, "%" SCNd64, &value) != 1)
        return false;
    snprintf(again, sizeof again, "%" PRId64, value);
    if (strcmp(text, again) != 0)
        return false;
    *out = (struct walk_value){.type = WALK_INT, .integer = value, .natural = (uint64_t)value};
    return true;
}

void codec_row_unpack(const struct decode *decode, struct walk *walk, struct walk_value *value)
{
    struct walk inside = *walk;
    struct walk_value key, held;
    if (value->type != WALK_MAP || value->count != 1 || !is_mongodb(decode))
        return;
    msgpack_walk_next(&inside, &key);
    msgpack_walk_next(&inside, &held);
    if (key.type != WALK_STR || held.type != WALK_STR || held.bytes.len == 0)
        return;
    if (is_text(key.bytes, "$numberLong") || is_text(key.bytes, "$numberInt")) {
        if (!integer_read(held.bytes, value))
            return;
    } else if (is_text(key.bytes, "$oid")) {
        *value = held;
    } else {
        return;
    }
    *walk = inside;
}

int codec_key_unpack(const struct decode *decode, struct walk_value *value)
{
    static const char head[] = "{\"_id\":";
    struct bytes map;
    struct refusal why;
    struct decode inner = *decode;
    /* A scalar alone is not what the reader of JSON takes, so it gets an object around it. */
    if (!is_mongodb(decode) || value->type != WALK_STR || value->bytes.len == 0)
        return 0;
    size_t len = sizeof head - 1 + value->bytes.len + 1;
    char *object = arena_alloc(decode->arena, len);
    if (!object)
        return -ENOMEM;
    memcpy(object, head, sizeof head - 1);
    memcpy(object + sizeof head - 1, value->bytes.ptr, value->bytes.len);
    object[len - 1] = '}';
    inner.why = &why;
    inner.is_json = true;
    /* With its own `why`: that a key is not JSON is no fault of the message. */
    int err = codec_json_convert(&inner, (struct bytes){object, len}, &map);
    if (err)
        return err == -ENOMEM ? err : 0; /* a string that is no JSON: the id itself */
    struct walk walk = {map.ptr, map.ptr + map.len};
    struct walk_value outer, key, held;
    msgpack_walk_next(&walk, &outer);
    msgpack_walk_next(&walk, &key);
    msgpack_walk_next(&walk, &held);
    codec_row_unpack(decode, &walk, &held);
    bool is_id = held.type == WALK_INT || held.type == WALK_UINT ||
                 (held.type == WALK_STR && held.bytes.len > 0);
    if (is_id && outer.count == 1 && walk.at == walk.end)
        *value = held;
    return 0;
}
