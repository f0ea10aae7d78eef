/*
 * codec_json.c: JSON in, as the msgpack map it stands for.
 *
 * Owns:    the limits on JSON before jansson builds it, and what is JSON at all.
 * Refuses: the meaning of fields: codec_msgpack.c reads the map.
 * Threads: no state.
 * Why:     jansson's sentences quote the input near the fault; ours give the place only, because
 *          refusals are logged and logs must not hold texts.
 */
#define _GNU_SOURCE /* memmem */
#include "worker/codec/codec_internal.h"

#include <errno.h>
#include <jansson.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

static struct bytes byte_order_mark_skip(struct bytes value)
{
    if (value.len >= 3 && memcmp(value.ptr, "\xef\xbb\xbf", 3) == 0)
        return (struct bytes){value.ptr + 3, value.len - 3};
    return value;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static const char *space_skip(const char *at, const char *end)
{
    while (at < end && is_space(*at))
        at++;
    return at;
}

/* Has "text": or "texts": somewhere. */
static bool names_text(const char *at, const char *end)
{
    while ((at = memmem(at, (size_t)(end - at), "\"text", 5))) {
        at += 5;
        at += at < end && *at == 's';
        if (at == end || *at != '"')
            continue;
        at = space_skip(at + 1, end);
        if (at < end && *at == ':')
            return true;
    }
    return false;
}

struct json_size {
    size_t depth;  /* deepest nesting */
    size_t values; /* at most so many values and keys */
};

/* Exact for valid JSON; for anything else jansson has the last word. */
static struct json_size json_measure(struct bytes value)
{
    struct json_size size = {0, 1};
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < value.len; i++) {
        char c = value.ptr[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            size.values++;
            depth++;
            if (depth > size.depth)
                size.depth = depth;
        } else if (c == '}' || c == ']') {
            depth -= depth > 0;
        } else if (c == ',' || c == ':') {
            size.values++;
        }
    }
    return size;
}

static int too_deep_refuse(const struct decode *decode)
{
    return codec_refuse(decode->why, "too_deep",
                        "the JSON value is nested more than %d deep; flatten its fields",
                        CODEC_DEPTH_MAX);
}

/* jansson reports some failed allocations as bad syntax; a message must not be refused for them. */
static _Thread_local bool no_memory;

static void *watched_malloc(size_t size)
{
    void *out = malloc(size);
    no_memory |= !out;
    return out;
}

static int json_refuse(const struct decode *decode, const json_error_t *error)
{
    const char *what = "is not JSON";
    if (no_memory)
        return -ENOMEM;
    switch (json_error_code(error)) {
    case json_error_out_of_memory:
        return -ENOMEM;
    case json_error_stack_overflow:
        return too_deep_refuse(decode);
    case json_error_duplicate_key:
        return codec_refuse(decode->why, "duplicate_field",
                            "the JSON value has the same key twice in one object (line %d, column "
                            "%d); send each key once",
                            error->line, error->column);
    case json_error_premature_end_of_input:
        what = "ends too early (was it cut on the way?)";
        break;
    case json_error_end_of_input_expected:
        what = "is followed by more bytes (send one object in each message)";
        break;
    case json_error_invalid_utf8:
        what = "is not UTF-8";
        break;
    case json_error_numeric_overflow:
        what = "has a number out of range (send it as a string)";
        break;
    case json_error_null_byte_in_key:
        what = "has a NUL character in a key";
        break;
    default:
        break;
    }
    return codec_refuse(decode->why, "bad_json",
                        "the value %s: line %d, column %d; send a JSON object, or configure "
                        "another input format",
                        what, error->line, error->column);
}

/* Where the packed bytes go: counted only while ptr is NULL. */
struct packed {
    char *ptr;
    size_t len;
};

static int packed_write(void *data, const char *bytes, size_t len)
{
    struct packed *packed = data;
    if (packed->ptr)
        memcpy(packed->ptr + packed->len, bytes, len);
    packed->len += len;
    return 0;
}

static void string_pack(msgpack_packer *packer, const char *ptr, size_t len)
{
    msgpack_pack_str(packer, len);
    msgpack_pack_str_body(packer, ptr, len);
}

static void value_pack(msgpack_packer *packer, json_t *value);

static void object_pack(msgpack_packer *packer, json_t *object)
{
    const char *key;
    json_t *value;
    msgpack_pack_map(packer, json_object_size(object));
    json_object_foreach(object, key, value)
    {
        string_pack(packer, key, strlen(key));
        value_pack(packer, value);
    }
}

/* Recursion ends at CODEC_DEPTH_MAX, checked before. */
static void value_pack(msgpack_packer *packer, json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        object_pack(packer, value);
        break;
    case JSON_ARRAY:
        msgpack_pack_array(packer, json_array_size(value));
        for (size_t i = 0; i < json_array_size(value); i++)
            value_pack(packer, json_array_get(value, i));
        break;
    case JSON_STRING:
        string_pack(packer, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
        msgpack_pack_int64(packer, json_integer_value(value));
        break;
    case JSON_REAL:
        msgpack_pack_double(packer, json_real_value(value));
        break;
    case JSON_TRUE:
        msgpack_pack_true(packer);
        break;
    case JSON_FALSE:
        msgpack_pack_false(packer);
        break;
    case JSON_NULL:
        msgpack_pack_nil(packer);
        break;
    }
}

static int root_pack(const struct decode *decode, json_t *root, struct bytes *out)
{
    struct packed packed = {NULL, 0};
    msgpack_packer packer;
    msgpack_packer_init(&packer, &packed, packed_write);
    value_pack(&packer, root);
    packed = (struct packed){arena_alloc(decode->arena, packed.len), 0};
    if (!packed.ptr)
        return -ENOMEM;
    value_pack(&packer, root);
    *out = (struct bytes){packed.ptr, packed.len};
    return 0;
}

static size_t values_max(const struct decode *decode)
{
    return CODEC_JSON_VALUES_MAX + 16 * decode->max_texts;
}

/*
 * What begins with { and names a text is either what we want or a fault of its producer (cut, NaN),
 * and a fault is to be seen, not embedded. So is a whole object that names none: a misspelt key is
 * much likelier than an object to be embedded. What is left is code or prose in braces.
 */
int codec_json_detect(const struct decode *decode, struct bytes value, bool *is_json)
{
    value = byte_order_mark_skip(value);
    const char *end = value.ptr + value.len;
    const char *at = space_skip(value.ptr, end);
    *is_json = at < end && *at == '{' && names_text(at, end);
    if (at == end || *at != '{' || *is_json || value.len > CODEC_VALUE_BYTES_MAX ||
        json_measure(value).values > values_max(decode))
        return 0;
    json_error_t error;
    json_set_alloc_funcs(watched_malloc, free);
    no_memory = false;
    json_t *root =
        json_loadb(value.ptr, value.len, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
    *is_json = root != NULL;
    json_decref(root);
    return no_memory ? -ENOMEM : 0;
}

int codec_json_convert(const struct decode *decode, struct bytes value, struct bytes *out)
{
    value = byte_order_mark_skip(value);
    struct json_size size = json_measure(value);
    if (size.values > values_max(decode))
        return codec_refuse(decode->why, "too_many_values",
                            "the JSON value has about %zu keys and values and the limit is %zu; "
                            "send fewer texts in one message, or msgpack",
                            size.values, values_max(decode));
    if (size.depth > CODEC_DEPTH_MAX)
        return too_deep_refuse(decode);

    json_error_t error;
    json_set_alloc_funcs(watched_malloc, free);
    no_memory = false;
    json_t *root =
        json_loadb(value.ptr, value.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!root)
        return json_refuse(decode, &error);
    int err = 0;
    if (json_is_object(root))
        err = root_pack(decode, root, out);
    else
        err = codec_refuse(decode->why, "bad_json",
                           "the JSON value is not an object; send an object with 'text' or "
                           "'texts'");
    json_decref(root);
    return err;
}
