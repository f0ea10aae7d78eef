/*
 * codec_json_out.c: vectors to JSON, and passed-through fields from msgpack to JSON.
 *
 * Owns:    that whatever came in, what goes out is one valid JSON object in UTF-8.
 * Threads: no state.
 * Why:     written by hand: jansson would build 768 objects for each text first.
 */
#include "worker/codec/codec_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/codec/msgpack_walk.h"
#include "connectors/utf8.h"

enum { NUMBER_ROOM = 32 };

static void word_put(struct writer *writer, const char *word)
{
    writer_put(writer, word, strlen(word));
}

static void character_put(struct writer *writer, const char *ptr, size_t len)
{
    static const char names[] = "btnvfr"; /* 8 to 13; JSON has no \v */
    unsigned char c = (unsigned char)*ptr;
    char escape[8];
    if (c == 0 && writer->no_nul)
        word_put(writer, "\xef\xbf\xbd");
    else if (len > 1 || (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f))
        writer_put(writer, ptr, len);
    else if (c == '"' || c == '\\')
        writer_put(writer, (char[]){'\\', (char)c}, 2);
    else if (c >= 8 && c <= 13 && c != 11)
        writer_put(writer, (char[]){'\\', names[c - 8]}, 2);
    else
        writer_put(writer, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", c));
}

/* Bad UTF-8 becomes U+FFFD, one for each maximal bad part. */
static void string_put(struct writer *writer, struct bytes string)
{
    word_put(writer, "\"");
    for (size_t i = 0; i < string.len;) {
        int step = utf8_next(string.ptr + i, string.len - i);
        if (step < 0)
            word_put(writer, "\xef\xbf\xbd");
        else
            character_put(writer, string.ptr + i, (size_t)step);
        i += (size_t)(step < 0 ? -step : step);
    }
    word_put(writer, "\"");
}

int codec_json_string(struct bytes string, struct buffer *out)
{
    struct writer writer = {.out = out};
    string_put(&writer, string);
    return writer.status;
}

int codec_json_print(struct bytes string, FILE *to)
{
    struct buffer json = {0};
    int rc = codec_json_string(string, &json);
    if (rc == 0)
        fwrite(json.ptr, 1, json.len, to);
    else
        fputs("null", to);
    buffer_close(&json);
    return rc;
}

static void text_put(struct writer *writer, const char *text)
{
    string_put(writer, (struct bytes){text, strlen(text)});
}

/* RFC 4648, with padding. */
static void base64_put(struct writer *writer, struct bytes bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    word_put(writer, "\"");
    for (size_t i = 0; i < bytes.len; i += 3) {
        size_t n = bytes.len - i < 3 ? bytes.len - i : 3;
        unsigned char in[3] = {0};
        memcpy(in, bytes.ptr + i, n);
        char out[4] = {digits[in[0] >> 2], digits[(in[0] & 3) << 4 | in[1] >> 4],
                       n > 1 ? digits[(in[1] & 15) << 2 | in[2] >> 6] : '=',
                       n > 2 ? digits[in[2] & 63] : '='};
        writer_put(writer, out, sizeof out);
    }
    word_put(writer, "\"");
}

/* Always with a point or an exponent: without, -0 and 1.0 come back as integers. */
static void real_put(struct writer *writer, double value, int digits)
{
    char text[NUMBER_ROOM];
    if (!isfinite(value)) {
        word_put(writer, "null");
        return;
    }
    writer_put(writer, text, (size_t)snprintf(text, sizeof text, "%.*g", digits, value));
    if (!strpbrk(text, ".e"))
        word_put(writer, ".0");
}

/* 15 digits are what people wrote; 17 bring any double back exactly. */
static void double_put(struct writer *writer, double value)
{
    char text[NUMBER_ROOM];
    snprintf(text, sizeof text, "%.15g", value);
    real_put(writer, value, strtod(text, NULL) == value ? 15 : 17);
}

static void integer_put(struct writer *writer, int64_t value)
{
    char text[NUMBER_ROOM];
    writer_put(writer, text, (size_t)snprintf(text, sizeof text, "%" PRId64, value));
}

static void natural_put(struct writer *writer, uint64_t value)
{
    char text[NUMBER_ROOM];
    writer_put(writer, text, (size_t)snprintf(text, sizeof text, "%" PRIu64, value));
}

static void value_put(struct writer *writer, struct walk *walk);

/* JSON wants strings as keys: anything else is written as JSON and that text becomes the key. */
static void key_put(struct writer *writer, struct walk *walk)
{
    size_t start = writer->out->len;
    value_put(writer, walk);
    if (writer->status || writer->out->ptr[start] == '"')
        return;
    size_t len = writer->out->len - start;
    writer->status = buffer_reserve(writer->out, 6 * len + 2); /* so that nothing moves */
    string_put(writer, (struct bytes){writer->out->ptr + start, len});
    if (writer->status)
        return;
    writer->out->len -= len;
    memmove(writer->out->ptr + start, writer->out->ptr + start + len, writer->out->len - start);
}

static void pairs_put(struct writer *writer, struct walk *walk, uint32_t count)
{
    word_put(writer, "{");
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0)
            word_put(writer, ",");
        key_put(writer, walk);
        word_put(writer, ":");
        value_put(writer, walk);
    }
    word_put(writer, "}");
}

static void array_put(struct writer *writer, struct walk *walk, uint32_t count)
{
    word_put(writer, "[");
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0)
            word_put(writer, ",");
        value_put(writer, walk);
    }
    word_put(writer, "]");
}

static void ext_put(struct writer *writer, const struct walk_value *value)
{
    word_put(writer, "{\"ext\":");
    integer_put(writer, value->ext_type);
    word_put(writer, ",\"data\":");
    base64_put(writer, value->bytes);
    word_put(writer, "}");
}

/* Recursion ends at CODEC_DEPTH_MAX: fields come from codec_decode, which checked them. */
static void value_put(struct writer *writer, struct walk *walk)
{
    struct walk_value value;
    msgpack_walk_next(walk, &value);
    switch (value.type) {
    case WALK_NIL:
        word_put(writer, "null");
        break;
    case WALK_BOOL:
        word_put(writer, value.is_true ? "true" : "false");
        break;
    case WALK_INT:
        integer_put(writer, value.integer);
        break;
    case WALK_UINT:
        natural_put(writer, value.natural);
        break;
    case WALK_FLOAT:
        double_put(writer, value.real);
        break;
    case WALK_STR:
        string_put(writer, value.bytes);
        break;
    case WALK_BIN:
        base64_put(writer, value.bytes);
        break;
    case WALK_EXT:
        ext_put(writer, &value);
        break;
    case WALK_ARRAY:
        array_put(writer, walk, value.count);
        break;
    case WALK_MAP:
        pairs_put(writer, walk, value.count);
        break;
    }
}

static void id_put(struct writer *writer, struct bytes id, bool is_number)
{
    if (is_number)
        writer_put(writer, id.ptr, id.len);
    else
        string_put(writer, id);
}

static void ids_put(struct writer *writer, const struct output *output)
{
    word_put(writer, "\"id\":");
    if (!output->many) {
        id_put(writer, output->items[0].id, output->items[0].id_is_number);
        return;
    }
    id_put(writer, output->request->id, output->request->id_is_number);
    word_put(writer, ",\"ids\":[");
    for (size_t i = 0; i < output->n; i++) {
        if (i > 0)
            word_put(writer, ",");
        id_put(writer, output->items[i].id, output->items[i].id_is_number);
    }
    word_put(writer, "]");
}

/* Numbers that bring the values of the dtype back exactly; of bits, their bytes. */
static void packed_put(struct writer *writer, enum output_dtype dtype, size_t dim,
                       const char *packed)
{
    size_t n = dtype == DTYPE_B1 ? codec_dtype_bytes(dtype, dim) : dim;
    for (size_t i = 0; i < n; i++) {
        float value = 0;
        uint16_t half = 0;
        if (i > 0)
            word_put(writer, ",");
        if (dtype == DTYPE_F4) {
            memcpy(&value, packed + 4 * i, sizeof value);
            real_put(writer, value, 9);
        } else if (dtype == DTYPE_F2) {
            memcpy(&half, packed + 2 * i, sizeof half);
            real_put(writer, codec_half_value(half), 5);
        } else {
            integer_put(writer, dtype == DTYPE_I1 ? (int8_t)packed[i] : (uint8_t)packed[i]);
        }
    }
}

static void row_put(struct writer *writer, const struct encode_options *options, const float *row)
{
    char packed[4 * CODEC_DIM_MAX];
    assert(options->dim <= CODEC_DIM_MAX);
    codec_dtype_pack(options->dtype, row, options->dim, packed);
    packed_put(writer, options->dtype, options->dim, packed);
}

static void vectors_put(struct writer *writer, const struct output *output)
{
    word_put(writer, output->many ? "[[" : "[");
    for (size_t i = 0; i < output->n; i++) {
        if (i > 0)
            word_put(writer, "],[");
        row_put(writer, output->options, output->vectors + i * output->options->dim);
    }
    word_put(writer, output->many ? "]]" : "]");
}

static void counts_put(struct writer *writer, const struct output *output)
{
    const struct embed_result *results = output->results;
    word_put(writer, output->many ? ",\"tokens\":[" : ",\"tokens\":");
    for (size_t i = 0; i < output->n; i++) {
        if (i > 0)
            word_put(writer, ",");
        natural_put(writer, results[i].n_tokens);
    }
    word_put(writer, output->many ? "],\"truncated\":[" : ",\"truncated\":");
    for (size_t i = 0; i < output->n; i++) {
        if (i > 0)
            word_put(writer, ",");
        word_put(writer, results[i].truncated ? "true" : "false");
    }
    if (output->many)
        word_put(writer, "]");
}

static void chunk_put(struct writer *writer, const struct chunk *chunk, size_t field)
{
    if (!chunk)
        word_put(writer, "null");
    else if (field == 0)
        id_put(writer, chunk->parent, chunk->parent_is_number);
    else
        natural_put(writer, field == 1 ? chunk->number : field == 2 ? chunk->start : chunk->end);
}

static void chunks_put(struct writer *writer, const struct output *output)
{
    for (size_t field = 0; field < 4; field++) {
        word_put(writer, ",\"");
        word_put(writer, codec_chunk_fields[field]);
        word_put(writer, output->many ? "\":[" : "\":");
        for (size_t i = 0; i < output->n; i++) {
            if (i > 0)
                word_put(writer, ",");
            chunk_put(writer, output->items[i].chunk, field);
        }
        if (output->many)
            word_put(writer, "]");
    }
}

void codec_json_write(const struct output *output, struct writer *writer)
{
    const struct request *request = output->request;
    word_put(writer, "{\"v\":");
    natural_put(writer, CODEC_FORMAT_VERSION);
    word_put(writer, ",");
    ids_put(writer, output);
    word_put(writer, ",\"model\":");
    text_put(writer, output->options->model);
    word_put(writer, ",\"model_fingerprint\":");
    text_put(writer, output->options->fingerprint);
    word_put(writer, ",\"prompt\":");
    text_put(writer, output->prompt);
    word_put(writer, ",\"dim\":");
    natural_put(writer, output->options->dim);
    word_put(writer, ",\"dtype\":");
    text_put(writer, codec_dtype_name(output->options->dtype));
    word_put(writer, ",\"embedding\":");
    vectors_put(writer, output);
    counts_put(writer, output);
    if (codec_is_cut(output))
        chunks_put(writer, output);
    word_put(writer, ",\"source\":");
    string_put(writer, output->message->position);
    if (output->message->timestamp_ms >= 0) {
        word_put(writer, ",\"timestamp_ms\":");
        integer_put(writer, output->message->timestamp_ms);
    }
    if (request->n_fields > 0) {
        struct walk walk = {request->fields.ptr, request->fields.ptr + request->fields.len};
        word_put(writer, ",\"fields\":");
        pairs_put(writer, &walk, request->n_fields);
    }
    word_put(writer, "}");
}

int codec_output_json(const struct codec_output *output, struct buffer *out)
{
    struct writer writer = {.out = out};
    const size_t before = out->len, row_bytes = codec_dtype_bytes(output->dtype, output->dim);
    struct walk walk = {output->map.ptr, output->map.ptr + output->map.len};
    struct walk_value head, key;
    msgpack_walk_next(&walk, &head);
    word_put(&writer, "{");
    for (uint32_t i = 0; i < head.count; i++) {
        struct walk peek = walk;
        msgpack_walk_next(&peek, &key);
        word_put(&writer, i ? "," : "");
        key_put(&writer, &walk);
        word_put(&writer, ":");
        if (key.bytes.len != 9 || memcmp(key.bytes.ptr, "embedding", 9) != 0) {
            value_put(&writer, &walk);
            continue;
        }
        msgpack_walk_skip(&walk);
        word_put(&writer, output->many ? "[[" : "[");
        for (size_t row = 0; row < output->n; row++) {
            word_put(&writer, row ? "],[" : "");
            packed_put(&writer, output->dtype, output->dim, output->vectors + row * row_bytes);
        }
        word_put(&writer, output->many ? "]]" : "]");
    }
    word_put(&writer, "}");
    if (writer.status)
        out->len = before;
    return writer.status;
}

void codec_json_put_string(struct writer *writer, struct bytes string)
{
    string_put(writer, string);
}

void codec_json_put_id(struct writer *writer, const struct item *item)
{
    id_put(writer, item->id, item->id_is_number);
}

void codec_json_put_chunk(struct writer *writer, const struct chunk *chunk, bool comma)
{
    for (size_t field = 0; field < 4; field++) {
        word_put(writer, field > 0 || comma ? ",\"" : "\"");
        word_put(writer, codec_chunk_fields[field]);
        word_put(writer, "\":");
        chunk_put(writer, chunk, field);
    }
}

void codec_json_put_vector(struct writer *writer, enum output_dtype dtype, size_t dim,
                           const char *packed)
{
    packed_put(writer, dtype, dim, packed);
}

static bool is_any(struct bytes name, const char *const *names)
{
    for (; *names; names++)
        if (strlen(*names) == name.len && memcmp(*names, name.ptr, name.len) == 0)
            return true;
    return false;
}

void codec_json_put_fields(struct writer *writer, const struct request *request, bool comma,
                           const char *const *ours)
{
    struct walk walk = {request->fields.ptr, request->fields.ptr + request->fields.len};
    for (uint32_t i = 0; i < request->n_fields; i++) {
        struct walk peek = walk;
        struct walk_value key;
        msgpack_walk_next(&peek, &key);
        if (key.type == WALK_STR && is_any(key.bytes, ours)) {
            msgpack_walk_skip(&walk);
            msgpack_walk_skip(&walk);
            continue;
        }
        word_put(writer, comma ? "," : "");
        comma = true;
        key_put(writer, &walk);
        word_put(writer, ":");
        value_put(writer, &walk);
    }
}
