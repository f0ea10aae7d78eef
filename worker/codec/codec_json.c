/*
 * codec_json.c: JSON in, as the msgpack map it stands for.
 *
 * Owns:    what is meant as JSON, what is refused of it, and how that is said.
 * Refuses: the meaning of fields: codec_msgpack.c reads the map.
 * Threads: no state.
 * Why:     sentences give the place of a fault only, because refusals are logged and logs must not
 *          hold texts.
 */
#define _GNU_SOURCE /* memmem */
#include "worker/codec/codec_internal.h"

#include <errno.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"
#include "worker/codec/json_reader.h"

enum { ENCODED_TWICE_MAX = 4 }; /* strings of JSON inside each other that are looked into */

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

struct bytes codec_json_lead(struct bytes value)
{
    const char *at = value.ptr, *end = value.ptr + value.len;
    while (end - at >= 3 && memcmp(at, "\xef\xbb\xbf", 3) == 0)
        at += 3; /* byte order mark; some programs write one before what has one */
    at = space_skip(at, end);
    if (at < end && *at == '\x1e') /* RFC 7464 puts one before each value of a sequence */
        at = space_skip(at + 1, end);
    return (struct bytes){at, (size_t)(end - at)};
}

static bool is_quote(char c)
{
    return c == '"' || c == '\'';
}

/* Has "text": or "texts": somewhere; in single quotes (Python prints so) or with its quotes escaped
 * (JSON inside a string) it is meant all the same. */
static bool names_text(const char *at, const char *end)
{
    const char *begun = at;
    while ((at = memmem(at, (size_t)(end - at), "text", 4))) {
        const char *name = at;
        at += 4;
        /* "text" inside a longer name, or a word of the prose. */
        if (name == begun || !is_quote(name[-1]))
            continue;
        const char *next = at + (at < end && *at == 's');
        next += next < end && *next == '\\';
        if (next == end || *next != name[-1])
            continue;
        next = space_skip(next + 1, end);
        if (next < end && *next == ':')
            return true;
    }
    return false;
}

/* Begins with "text": or "texts":, as a line of an object does that was printed over several. */
static bool is_member(struct bytes value)
{
    const char *end = value.ptr + value.len;
    const char *name_end = value.len > 2 ? memchr(value.ptr + 1, '"', value.len - 1) : NULL;
    size_t len = name_end ? (size_t)(name_end - value.ptr) - 1 : 0;
    if (*value.ptr != '"' || (len != 4 && len != 5) || memcmp(value.ptr + 1, "texts", len) != 0)
        return false;
    const char *next = space_skip(name_end + 1, end);
    return next < end && *next == ':';
}

/* {text: or {texts: without quotes, and closed at the end: how programs print objects. */
static bool is_unquoted(struct bytes value)
{
    const char *end = value.ptr + value.len;
    while (end > value.ptr && is_space(end[-1]))
        end--;
    if (end - value.ptr < 7 || *value.ptr != '{' || end[-1] != '}')
        return false;
    const char *at = space_skip(value.ptr + 1, end);
    if (end - at < 6 || memcmp(at, "text", 4) != 0)
        return false;
    /* In bounds: six bytes at least are left, and the last is the brace that ends every search
     * here. */
    at += 4 + (at[4] == 's');
    return *space_skip(at, end) == ':';
}

/* An object that was printed, not serialized: what JavaScript makes of any, Python of bytes. */
static bool is_printed(struct bytes value)
{
    static const char object[] = "[object Object]";
    bool is_bytes = value.len >= 5 && *value.ptr == 'b' && is_quote(value.ptr[1]) &&
                    value.ptr[2] == '{' && value.ptr[value.len - 1] == value.ptr[1];
    return is_bytes ||
           (value.len == sizeof object - 1 && memcmp(value.ptr, object, value.len) == 0);
}

int codec_printed_check(const struct decode *decode, struct bytes value)
{
    value = codec_json_lead(value);
    if (value.len == 0 || !(is_unquoted(value) || is_printed(value)))
        return 0;
    return codec_refuse(decode->why, DEAD_LETTER(bad_json),
                        "the value is an object as a program prints it, not JSON; serialize it "
                        "(json.dumps, JSON.stringify), or set input_format to raw");
}

static struct json_reading reading_of(const struct decode *decode)
{
    return (struct json_reading){.max_depth = CODEC_DEPTH_MAX,
                                 .max_values = codec_values_max(decode)};
}

/* The value, with no white space before it, as msgpack in the arena. 0 or -ENOMEM. */
static int pack(const struct decode *decode, struct bytes value, size_t len, struct bytes *out)
{
    struct json_reading reading = reading_of(decode);
    reading.packed = arena_alloc(decode->arena, len);
    if (!reading.packed)
        return -ENOMEM;
    json_reader_run(value, &reading);
    *out = (struct bytes){reading.packed, len};
    return 0;
}

/* What a whole JSON string holds. 0 or -ENOMEM. */
static int string_open(const struct decode *decode, struct bytes value, size_t len,
                       struct bytes *out)
{
    struct bytes packed;
    int err = pack(decode, value, len, &packed);
    if (err)
        return err;
    struct walk walk = {packed.ptr, packed.ptr + packed.len};
    struct walk_value string;
    msgpack_walk_next(&walk, &string);
    *out = codec_json_lead(string.bytes);
    return 0;
}

/* Is what stands before the fault JSON and nothing else? Cut behind a key with its colon, it is. */
static bool is_json_so_far(enum json_fault fault, const struct json_reading *reading)
{
    return fault == JSON_FAULT_DEEP || fault == JSON_FAULT_VALUES || fault == JSON_FAULT_RANGE ||
           fault == JSON_FAULT_NAN || (fault == JSON_FAULT_END && reading->n_pairs > 0);
}

/*
 * What begins with { and names a text is either what we want or a fault of its producer (cut, NaN),
 * and a fault is to be seen, not embedded. So is a whole object that names none: a misspelt key is
 * much likelier than an object to be embedded. What is left is code or prose in braces. So with [:
 * a whole array of strings or objects is JSON, and "[1]" is text. A string is JSON when it holds
 * what is: a text in quotes is text.
 */
int codec_json_detect(const struct decode *decode, struct bytes value, bool *is_json)
{
    *is_json = false;
    value = codec_json_lead(value);
    for (int i = 0; i < ENCODED_TWICE_MAX && !*is_json; i++) {
        if (value.len == 0 || !strchr("{[\"", *value.ptr) || *value.ptr == '\0')
            return 0;
        char first = *value.ptr;
        const char *end = value.ptr + value.len, *next = space_skip(value.ptr + 1, end);
        bool opens = first == '{' || (next < end && *next == '{');
        *is_json = (opens && names_text(value.ptr, end)) || is_member(value);
        if (*is_json || value.len > CODEC_VALUE_BYTES_MAX)
            return 0;
        /* Without room to pack into it only looks: nothing is copied until the value is known to be
         * JSON. */
        struct json_reading reading = reading_of(decode);
        enum json_fault fault = json_reader_run(value, &reading);
        if (first != '"') {
            *is_json =
                is_json_so_far(fault, &reading) || (!fault && (first == '{' || reading.holds_text));
            return 0;
        }
        if (fault)
            return 0;
        int err = string_open(decode, value, reading.packed_len, &value);
        if (err)
            return err;
    }
    return 0;
}

enum { PLACE_SIZE = 60 };

/*
 * Line and column of at, from 1; columns are bytes, as editors of bytes count them. Of a value in
 * one line the column alone: in a file its line is another one, and is in the position of the
 * message.
 */
static const char *place_name(struct bytes value, const char *at, char place[PLACE_SIZE])
{
    const char *begun = value.ptr;
    int line = 1, n = 0;
    for (const char *p = value.ptr; p < at; p++)
        if (*p == '\n') {
            begun = p + 1;
            ++line;
        }
    if (memchr(value.ptr, '\n', value.len))
        n = snprintf(place, PLACE_SIZE, "line %d, ", line);
    snprintf(place + n, (size_t)(PLACE_SIZE - n), "column %d", (int)(at - begun) + 1);
    return place;
}

static int fault_refuse(const struct decode *decode, struct bytes value, enum json_fault fault,
                        const char *at)
{
    static const struct {
        const char *what, *advice;
    } sentences[] = {
        [JSON_FAULT_END] = {"ends too early", "was it cut on the way?"},
        [JSON_FAULT_TRAILING] = {"is followed by more bytes", "send one object in each message"},
        [JSON_FAULT_RANGE] = {"has a number out of range", "send it as a string"},
        [JSON_FAULT_NAN] = {"has NaN or Infinity, which JSON lacks", "send null instead"},
        [JSON_FAULT_CONTROL] = {"has a control character in a string", "escape it, as \\n or \\t"},
        [JSON_FAULT_ESCAPE] = {"has a backslash that begins no escape", "write it twice"},
        [JSON_FAULT_QUOTE] = {"has single quotes",
                              "JSON has double quotes; does a program print its own objects?"},
        [JSON_FAULT_NUL] = {"has a NUL character in a key", "name the field without it"},
        [JSON_FAULT_SYNTAX] = {"is not JSON",
                               "send a JSON object, or configure another input format"},
    };
    char place[PLACE_SIZE];
    if (fault == JSON_FAULT_DEEP)
        return codec_refuse(decode->why, DEAD_LETTER(too_deep),
                            "the JSON value is nested more than %d deep; flatten its fields",
                            CODEC_DEPTH_MAX);
    if (fault == JSON_FAULT_VALUES)
        return codec_refuse(decode->why, DEAD_LETTER(too_many_values),
                            "the JSON value has more keys and values than the limit is, %zu; send "
                            "fewer texts in one message, or msgpack",
                            codec_values_max(decode));
    return codec_refuse(decode->why, DEAD_LETTER(bad_json), "the value %s (%s); %s",
                        sentences[fault].what, place_name(value, at, place),
                        sentences[fault].advice);
}

/* JSON, but no object. */
static int shape_refuse(const struct decode *decode, struct bytes value, size_t packed_len)
{
    struct bytes inside = {NULL, 0};
    int err = 0;
    if (*value.ptr == '"')
        err = string_open(decode, value, packed_len, &inside);
    if (err)
        return err;
    if (inside.len > 0 && (*inside.ptr == '{' || *inside.ptr == '[' || *inside.ptr == '"'))
        return codec_refuse(decode->why, DEAD_LETTER(bad_json),
                            "the value is JSON encoded twice: a string that holds JSON; encode the "
                            "object once");
    return codec_refuse(decode->why, DEAD_LETTER(bad_json),
                        "the JSON value is %s, not an object; send an object with 'text' or "
                        "'texts'",
                        *value.ptr == '['   ? "an array"
                        : *value.ptr == '"' ? "a string"
                                            : "a single value");
}

static int twice_refuse(const struct decode *decode, struct bytes value, size_t key)
{
    struct json_reading reading = reading_of(decode);
    char place[PLACE_SIZE];
    /* Read again, now to find where it stands: messages that are refused pay for this, no
     * others. */
    reading.wanted_key = key;
    json_reader_run(value, &reading);
    return codec_refuse(decode->why, DEAD_LETTER(duplicate_field),
                        "the JSON value has the same key twice in one object (%s); "
                        "send each key once",
                        place_name(value, reading.key_at, place));
}

int codec_json_convert(const struct decode *decode, struct bytes value, struct bytes *out)
{
    const struct bytes led = codec_json_lead(value);
    struct json_reading reading = reading_of(decode);
    struct codec_name second;
    enum json_fault fault = json_reader_run(led, &reading);
    if (fault)
        return fault_refuse(decode, value, fault, reading.at);
    if (*led.ptr != '{')
        return shape_refuse(decode, led, reading.packed_len);
    int err = pack(decode, led, reading.packed_len, out);
    if (!err)
        err = codec_keys_check(decode, *out, &second);
    return err == -EEXIST ? twice_refuse(decode, value, second.number) : err;
}
