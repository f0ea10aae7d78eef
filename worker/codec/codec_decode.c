/*
 * codec_decode.c: which format a value has, and raw text.
 *
 * Owns:    the choice made by INPUT_AUTO.
 * Refuses: the inside of JSON and msgpack: codec_json.c, codec_msgpack.c; ids: codec_change.c.
 * Threads: no state.
 * Why:     a wrong guess must not be embedded in silence. A producer's broken JSON or msgpack is
 *          refused where it can be told from text, see value_is_text.
 */
#include "worker/codec/codec_internal.h"

#include <errno.h>

#include "connectors/dead_letter_codes.h"
#include "connectors/utf8.h"
#include "worker/codec/msgpack_walk.h"

static int raw_read(const struct decode *decode, struct request *out)
{
    const struct message *message = decode->message;
    struct id id;
    int err = codec_foreign_check(decode, message->value);
    if (!err)
        err = codec_text_check(decode, message->value, "the value");
    if (!err)
        err = codec_message_id(decode, (struct id){{NULL, 0}, false}, &id);
    if (err)
        return err;
    struct item *item = arena_alloc(decode->arena, sizeof *item);
    if (!item)
        return -ENOMEM;
    *item = (struct item){
        .id = id.bytes, .title = codec_header(message, "title"), .text = message->value};
    *out = (struct request){
        .items = item, .n_items = 1, .id = id.bytes, .prompt = codec_header(message, "prompt")};
    item->id_is_number = out->id_is_number = id.is_number;
    const struct change none = {.is_deleted = false};
    err = codec_model_read(decode, &none, out);
    return err ? err : codec_version_read(decode, &none, out);
}

static int msgpack_refuse(const struct decode *decode, enum walk_fault fault)
{
    static const char *const sentences[] = {
        [WALK_CUT] = "the msgpack value ends too early; was it cut on the way?",
        [WALK_COUNT] = "the msgpack value claims more entries or bytes than it has; was it cut on "
                       "the way?",
        [WALK_BYTE] = "the msgpack value holds the byte 0xc1, which msgpack never uses; "
                      "was it damaged on the way?",
        [WALK_KEY] = "a key of the msgpack map is not a string; name the fields with strings",
        [WALK_TRAILING] = "more bytes follow the msgpack value; send one map in each message",
    };
    if (fault == WALK_DEPTH)
        return codec_refuse(decode->why, DEAD_LETTER(too_deep),
                            "the msgpack value is nested more than %d deep; flatten its fields",
                            CODEC_DEPTH_MAX);
    return codec_refuse(decode->why, DEAD_LETTER(bad_msgpack), "%s", sentences[fault]);
}

static bool is_map(struct bytes value)
{
    unsigned char head = (unsigned char)value.ptr[0];
    return (head & 0xf0) == 0x80 || head == 0xde || head == 0xdf;
}

static int msgpack_decode(const struct decode *decode, struct request *out)
{
    struct bytes value = decode->message->value;
    int err = codec_size_check(decode);
    if (err)
        return err;
    enum walk_fault fault = msgpack_walk_check(value, CODEC_DEPTH_MAX);
    if (fault) { /* pickles, PNGs, CBOR and Shift-JIS begin like a map, too */
        bool is_text = fault == WALK_KEY && decode->options->format == INPUT_AUTO;
        err = is_text ? codec_encoding_check(decode, value) : codec_named_check(decode, value);
        return err ? err : msgpack_refuse(decode, fault);
    }
    if (!is_map(value))
        return codec_refuse(decode->why, DEAD_LETTER(bad_msgpack),
                            "the msgpack value is not a map; send a map with 'text' or 'texts'");
    return codec_msgpack_read(decode, value, out);
}

/* value: of the message, or what is inside its frame. */
static int json_decode(const struct decode *decode, struct bytes value, struct request *out)
{
    struct decode inner = *decode;
    struct bytes map;
    inner.is_json = true;
    int err = codec_size_check(decode);
    if (!err)
        err = codec_json_convert(&inner, value, &map);
    return err ? err : codec_msgpack_read(&inner, map, out);
}

/* Asked for as JSON: what begins like none is called by its name, if it has one. */
static int json_only_decode(const struct decode *decode, struct request *out)
{
    struct bytes value = decode->message->value, framed = codec_frame_skip(value);
    if (framed.ptr)
        return json_decode(decode, framed, out);
    struct bytes led = codec_json_lead(value);
    int err = led.len > 0 && *led.ptr == '{' ? 0 : codec_foreign_check(decode, value);
    return err ? err : json_decode(decode, value, out);
}

/*
 * Could a value that begins like a msgpack map be text all the same? 0x80 to 0x8f never begin
 * UTF-8. 0xde and 0xdf do (Thaana, N'Ko), but only before a byte that as the upper half of a
 * msgpack count would claim more than 32,767 fields.
 */
static bool value_is_text(struct bytes value)
{
    return (unsigned char)value.ptr[0] >= 0xde && utf8_next(value.ptr, value.len) > 0;
}

static int auto_decode(const struct decode *decode, struct request *out)
{
    struct bytes value = decode->message->value, framed = codec_frame_skip(value);
    /* Behind a frame there is an object for certain (codec_frame_skip), and no text begins so. */
    if (framed.ptr)
        return json_decode(decode, framed, out);
    if (is_map(value) &&
        (!value_is_text(value) || msgpack_walk_check(value, CODEC_DEPTH_MAX) == WALK_OK))
        return msgpack_decode(decode, out);
    bool is_json;
    int err = codec_json_detect(decode, value, &is_json);
    if (err)
        return err;
    if (is_json)
        return json_decode(decode, value, out);
    err = codec_printed_check(decode, value);
    if (err)
        return err;
    /* A whole value of msgpack, and no character begins so: a list or a string of a producer. */
    if (utf8_next(value.ptr, value.len) < 0 && value.len > 1 &&
        value.len <= CODEC_VALUE_BYTES_MAX && msgpack_walk_check(value, CODEC_DEPTH_MAX) == WALK_OK)
        return msgpack_decode(decode, out);
    return raw_read(decode, out);
}

static struct decode decode_open(const struct message *message,
                                 const struct decode_options *options, struct arena *arena,
                                 struct refusal *why)
{
    return (struct decode){
        .message = message,
        .options = options,
        .arena = arena,
        .why = why,
        .max_texts = options->max_texts < CODEC_TEXTS_MAX ? options->max_texts : CODEC_TEXTS_MAX,
    };
}

int codec_decode(const struct message *message, const struct decode_options *options,
                 struct arena *arena, struct request *out, struct refusal *why)
{
    struct decode decode = decode_open(message, options, arena, why);
    if (!message->value.ptr)
        return codec_refuse(why, DEAD_LETTER(no_body),
                            "the message has no value (a tombstone, or the field that should hold "
                            "it is missing); send the text as its value");
    if (message->value.len == 0)
        return codec_refuse(why, DEAD_LETTER(empty_text),
                            "the value is empty; send at least one byte of text");
    switch (options->format) {
    case INPUT_RAW:
        return raw_read(&decode, out);
    case INPUT_JSON:
        return json_only_decode(&decode, out);
    case INPUT_MSGPACK:
        return msgpack_decode(&decode, out);
    case INPUT_AUTO:
        break;
    }
    return auto_decode(&decode, out);
}

int codec_tombstone(const struct message *message, const struct decode_options *options,
                    struct arena *arena, struct request *out, struct refusal *why)
{
    struct decode decode = decode_open(message, options, arena, why);
    struct change change = {.is_deleted = true};
    struct request request = {.is_deleted = true};
    struct id id = {{NULL, 0}, false};
    /* Without a row only key and headers can name the text. */
    int err = codec_delete_check(&decode, change.row);
    if (!err)
        err = codec_message_id(&decode, id, &id);
    if (!err)
        err = codec_version_read(&decode, &change, &request);
    if (!err)
        err = codec_model_read(&decode, &change, &request);
    if (err)
        return err;
    request.id = id.bytes;
    request.id_is_number = id.is_number;
    *out = request;
    return 0;
}
