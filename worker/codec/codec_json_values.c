/*
 * codec_json_values.c: values of msgpack, written as JSON.
 *
 * Owns:    what becomes of what JSON has not: bytes, extensions, keys that are not strings.
 * Threads: no state.
 */
#include "worker/codec/codec_internal.h"

#include "connectors/json.h"

/* JSON wants strings as keys: anything else is written as JSON and that text becomes the key. */
void codec_json_put_key(struct buffer *to, struct walk *walk)
{
    size_t start = to->len;
    codec_json_put_value(to, walk);
    if (!to->status && to->ptr[start] != '"')
        json_quote(to, start);
}

void codec_json_put_pairs(struct buffer *to, struct walk *walk, uint32_t count)
{
    buffer_put_text(to, "{");
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0)
            buffer_put_text(to, ",");
        codec_json_put_key(to, walk);
        buffer_put_text(to, ":");
        codec_json_put_value(to, walk);
    }
    buffer_put_text(to, "}");
}

static void array_put(struct buffer *to, struct walk *walk, uint32_t count)
{
    buffer_put_text(to, "[");
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0)
            buffer_put_text(to, ",");
        codec_json_put_value(to, walk);
    }
    buffer_put_text(to, "]");
}

static void ext_put(struct buffer *to, const struct walk_value *value)
{
    buffer_put_text(to, "{\"ext\":");
    json_put_integer(to, value->ext_type);
    buffer_put_text(to, ",\"data\":");
    json_put_base64(to, value->bytes);
    buffer_put_text(to, "}");
}

/* Recursion ends at CODEC_DEPTH_MAX: fields come from codec_decode, which checked them. */
void codec_json_put_value(struct buffer *to, struct walk *walk)
{
    struct walk_value value;
    msgpack_walk_next(walk, &value);
    switch (value.type) {
    case WALK_NIL:
        buffer_put_text(to, "null");
        break;
    case WALK_BOOL:
        buffer_put_text(to, value.is_true ? "true" : "false");
        break;
    case WALK_INT:
        json_put_integer(to, value.integer);
        break;
    case WALK_UINT:
        json_put_natural(to, value.natural);
        break;
    case WALK_FLOAT:
        json_put_double(to, value.real);
        break;
    case WALK_STR:
        json_put_string(to, value.bytes);
        break;
    case WALK_BIN:
        json_put_base64(to, value.bytes);
        break;
    case WALK_EXT:
        ext_put(to, &value);
        break;
    case WALK_ARRAY:
        array_put(to, walk, value.count);
        break;
    case WALK_MAP:
        codec_json_put_pairs(to, walk, value.count);
        break;
    }
}
