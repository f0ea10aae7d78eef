/*
 * codec_foreign.c: values that are neither text nor JSON nor a map of msgpack, and what they are.
 *
 * Owns:    the frames of schema registries, and the header that takes their place; CBOR and BSON.
 *          Packers, pictures and other encodings are in connectors/magic.c.
 * Refuses: to read them, but for JSON inside a frame.
 * Threads: no state.
 * Why:     a tokenizer takes any bytes, so they would be embedded like text, and nobody would see
 *          it.
 */
#include "worker/codec/codec_internal.h"

#include <stdint.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"
#include "connectors/magic.h"
#include "connectors/utf8.h"

/* What a serializer puts before its bytes, so that a reader finds the schema. */
static const struct frame {
    const char *name, *begins;
    size_t begins_len, len;
} frames[] = {
    {"a schema registry (0 and a schema id)", "\0", 1, 5}, /* Confluent, Apicurio */
    {"a schema registry (0 and an id of 8 bytes)", "\0", 1, 9},
    {"a schema registry (1 and a UUID)", "\1", 1, 17},
    {"the Glue schema registry", "\3\0", 2, 18},
    {"the Glue schema registry, compressed", "\3\5", 2, 18},
};

enum { N_FRAMES = sizeof frames / sizeof frames[0] };

static bool has_frame(const struct frame *frame, struct bytes value)
{
    return value.len > frame->len && memcmp(value.ptr, frame->begins, frame->begins_len) == 0;
}

struct bytes codec_frame_skip(struct bytes value)
{
    for (size_t i = 0; i < N_FRAMES; i++) {
        /* Two kinds begin with a zero byte: the one with an object behind it is meant. */
        if (!has_frame(&frames[i], value))
            continue;
        struct bytes inside = {value.ptr + frames[i].len, value.len - frames[i].len};
        struct bytes led = codec_json_lead(inside);
        /* Only an object: Avro and Protobuf behind a frame may begin with any other byte. */
        if (led.len > 0 && *led.ptr == '{')
            return inside;
    }
    return (struct bytes){NULL, 0};
}

/* ---- CBOR (RFC 8949) and BSON */

enum { CBOR_INDEFINITE = 31, CBOR_DEPTH = 16 };

struct cbor {
    const unsigned char *at, *end;
};

/* The argument of a head; false: there is none like it. */
static bool cbor_argument(struct cbor *cbor, unsigned low, uint64_t *out)
{
    *out = low;
    if (low < 24 || low == CBOR_INDEFINITE)
        return true;
    /* 28 to 30 are reserved: no width is so large. */
    size_t width = low <= 27 ? (size_t)1 << (low - 24) : SIZE_MAX;
    if (width > (size_t)(cbor->end - cbor->at))
        return false;
    *out = 0;
    while (width-- > 0)
        *out = *out << 8 | *cbor->at++;
    return true;
}

static bool cbor_skip(struct cbor *cbor, unsigned depth);

/* Items up to the byte that ends an indefinite number of them. */
static bool cbor_skip_open(struct cbor *cbor, unsigned depth)
{
    while (cbor->at < cbor->end && *cbor->at != 0xff)
        if (!cbor_skip(cbor, depth))
            return false;
    return cbor->at++ < cbor->end;
}

static bool cbor_skip(struct cbor *cbor, unsigned depth)
{
    uint64_t n;
    if (cbor->at == cbor->end || depth == CBOR_DEPTH)
        return false;
    unsigned head = *cbor->at++, major = head >> 5, low = head & 31;
    if (!cbor_argument(cbor, low, &n))
        return false;
    size_t left = (size_t)(cbor->end - cbor->at);
    if (low == CBOR_INDEFINITE)
        return major >= 2 && major <= 5 && cbor_skip_open(cbor, depth + 1);
    if (major == 2 || major == 3) {
        if (n > left)
            return false;
        cbor->at += n;
        return true;
    }
    /* An entry has a byte at least. */
    if (n > left && (major == 4 || major == 5))
        return false;
    /* A tag has one value behind it; numbers and simple values were all in their heads. */
    n = major == 4 ? n : major == 5 ? 2 * n : major == 6;
    while (n-- > 0)
        if (!cbor_skip(cbor, depth + 1))
            return false;
    return true;
}

/* One map or array, perhaps behind the tag that says so, and nothing behind it. */
static bool is_cbor(struct bytes value)
{
    struct cbor cbor = {(const unsigned char *)value.ptr,
                        (const unsigned char *)value.ptr + value.len};
    if (value.len > 3 && memcmp(value.ptr, "\xd9\xd9\xf7", 3) == 0)
        cbor.at += 3;
    unsigned major = *cbor.at >> 5;
    return value.len > 1 && (major == 4 || major == 5) && cbor_skip(&cbor, 0) &&
           cbor.at == cbor.end;
}

/* It begins with its own length and ends with a NUL; the shortest has five bytes. */
static bool is_bson(struct bytes value)
{
    const unsigned char *at = (const unsigned char *)value.ptr;
    return value.len >= 5 && value.len <= INT32_MAX && value.ptr[value.len - 1] == '\0' &&
           ((uint32_t)at[3] << 24 | (uint32_t)at[2] << 16 | (uint32_t)at[1] << 8 | at[0]) ==
               value.len;
}

/* ---- refusals */

static int refuse(const struct decode *decode, const char *what, const char *advice)
{
    return codec_refuse(decode->why, DEAD_LETTER(not_text), "the value is %s, not text; %s", what,
                        advice);
}

static int refuse_magic(const struct decode *decode, const struct magic *magic)
{
    switch (magic->kind) {
    case MAGIC_GZIP:
    case MAGIC_ZSTD:
    case MAGIC_PACKED:
        return refuse(decode, magic->name, "unpack it before it is sent");
    case MAGIC_UTF16LE:
    case MAGIC_UTF16BE:
    case MAGIC_WIDE:
    case MAGIC_FOREIGN:
        return codec_refuse(decode->why, DEAD_LETTER(not_text), "the value is %s; send UTF-8",
                            magic->name);
    case MAGIC_BINARY:
    case MAGIC_NUL:
        break;
    }
    return refuse(decode, magic->name, "send text in UTF-8, JSON or msgpack");
}

static int refuse_frame(const struct decode *decode, const struct frame *frame)
{
    return codec_refuse(decode->why, DEAD_LETTER(not_text),
                        "the value has the frame of %s and no JSON object in it; Avro and Protobuf "
                        "are not read: send JSON, or text without the frame",
                        frame->name);
}

/* Does magic.c call it by the name of a format? Else it is binary data of an unknown one. */
static bool is_named(const struct magic *magic)
{
    return magic && magic->kind != MAGIC_FOREIGN && strncmp(magic->name, "binary", 6) != 0;
}

/* The newer form of Confluent's serializers: nothing before the bytes, and the schema in a header
 * of Kafka. Avro and Protobuf then often look like text: a string behind a byte for its length. */
static int header_check(const struct decode *decode, struct bytes value)
{
    struct bytes led = codec_json_lead(value);
    if (!codec_header(decode->message, "__value_schema_id").ptr ||
        (led.len > 0 && strchr("{[\"", *led.ptr) && *led.ptr != '\0'))
        return 0;
    return codec_refuse(decode->why, DEAD_LETTER(not_text),
                        "the message names a schema (header __value_schema_id) and its value is no "
                        "JSON; Avro and Protobuf are not read: send JSON, or text without the "
                        "header");
}

/* Nobody writes a text that begins with a control character, but binary formats do: with the length
 * of what follows, or the number of a field. A line end before it may be one, too. */
static bool begins_with_control(struct bytes value)
{
    size_t at = 0;
    while (at < value.len && strchr(" \t\n\v\f\r", value.ptr[at]) && value.ptr[at] != '\0')
        at++;
    if (at == value.len)
        return false;
    unsigned char c = (unsigned char)value.ptr[at];
    return (c < 0x20 && c != 0x1a && c != 0x1b && c != 0x1e) || c == 0x7f;
}

/* No schema has the id 0; a file that was to be written on and lost its power ends in NULs. */
static bool is_nothing(const struct frame *frame, struct bytes value)
{
    size_t n = 0;
    while (n < frame->len && value.ptr[n] == '\0')
        n++;
    return n == frame->len;
}

/* A frame that has no NUL need not look binary: its id of 16 bytes is not text. */
static const struct frame *find_frame(struct bytes value, bool is_binary)
{
    for (size_t i = 0; i < N_FRAMES; i++) {
        const struct frame *frame = &frames[i];
        if (has_frame(frame, value) && !is_nothing(frame, value) &&
            (is_binary || (*frame->begins && !utf8_is_valid(value.ptr, frame->len))))
            return frame;
    }
    return NULL;
}

int codec_named_check(const struct decode *decode, struct bytes value)
{
    const struct magic *magic = magic_find(value.ptr, value.len);
    if (is_bson(value))
        return refuse(decode, "BSON", "send JSON or msgpack");
    if (is_cbor(value))
        return refuse(decode, "CBOR", "send JSON or msgpack");
    return is_named(magic) ? refuse_magic(decode, magic) : 0;
}

int codec_encoding_check(const struct decode *decode, struct bytes value)
{
    const struct magic *magic = magic_find(value.ptr, value.len);
    int err = codec_named_check(decode, value);
    return !err && magic && magic->kind == MAGIC_FOREIGN ? refuse_magic(decode, magic) : err;
}

int codec_foreign_check(const struct decode *decode, struct bytes value)
{
    const struct magic *magic = magic_find(value.ptr, value.len);
    int err = codec_named_check(decode, value); /* first: films and UTF-16 can begin with NUL */
    if (!err)
        err = header_check(decode, value);
    if (err)
        return err;
    const struct frame *frame = find_frame(value, magic != NULL);
    if (frame)
        return refuse_frame(decode, frame);
    if (!magic && begins_with_control(value))
        return refuse(decode, "binary data (it begins with a control character)",
                      "send text in UTF-8, JSON or msgpack");
    return magic ? refuse_magic(decode, magic) : 0;
}
