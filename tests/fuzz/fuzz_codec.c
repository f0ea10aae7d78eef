/*
 * fuzz_codec.c: any bytes to codec_decode in every format, and what it accepts through
 * codec_encode. Run by scripts/fuzz.
 *
 * The first byte chooses the format and what comes beside the value; the rest is the value.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/codec/codec_internal.h"
#include "worker/codec/json_reader.h"

enum { DIM = 2, MAX_TEXTS = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(int is_so)
{
    if (!is_so)
        abort();
}

/* JSON that we write is JSON, each key once, and every string is UTF-8. */
static void json_expect(struct bytes json)
{
    static struct arena arena;
    const struct decode_options options = {.format = INPUT_JSON,
                                           .max_texts = CODEC_TEXTS_MAX,
                                           .max_text_bytes = SIZE_MAX,
                                           .refuse_bad_utf8 = true};
    struct refusal why;
    struct decode decode = {
        .options = &options, .arena = &arena, .why = &why, .max_texts = CODEC_TEXTS_MAX};
    struct json_reading reading = {.max_depth = CODEC_DEPTH_MAX + 4, .max_values = SIZE_MAX};
    struct codec_name second;
    expect(json_reader_run(json, &reading) == JSON_FAULT_NONE);
    reading.packed = arena_alloc(&arena, reading.packed_len);
    expect(reading.packed && json_reader_run(json, &reading) == JSON_FAULT_NONE);
    struct bytes packed = {reading.packed, reading.packed_len};
    expect(msgpack_walk_check(packed, CODEC_DEPTH_MAX + 4) == WALK_OK);
    expect(codec_keys_check(&decode, packed, &second) == 0);
    expect(codec_strings_repair(&decode, &packed) == 0);
    arena_reset(&arena);
}

static void encode_try(const struct message *message, const struct request *request,
                       struct buffer *buffer)
{
    static const float vectors[MAX_TEXTS * DIM];
    static const struct embed_result results[MAX_TEXTS];
    struct encode_options options = {
        .format = OUTPUT_MSGPACK, .model = "model", .fingerprint = "fingerprint", .dim = DIM};
    buffer->len = 0;
    expect(codec_encode(&options, request, message, 0, request->n_items, "none", vectors, results,
                        buffer) == 0);
    struct bytes output = {buffer->ptr, buffer->len};
    expect(msgpack_walk_check(output, CODEC_DEPTH_MAX + 1) == WALK_OK);

    options.format = OUTPUT_JSON;
    buffer->len = 0;
    expect(codec_encode(&options, request, message, 0, request->n_items, "none", vectors, results,
                        buffer) == 0);
    expect(buffer->ptr[0] == '{' && buffer->ptr[buffer->len - 1] == '}');
    expect(!memchr(buffer->ptr, '\n', buffer->len));
    json_expect((struct bytes){buffer->ptr, buffer->len});

    options.format = OUTPUT_QDRANT;
    options.collection = "c";
    options.per_text = true;
    buffer->len = 0;
    expect(codec_encode(&options, request, message, 0, 1, "none", vectors, results, buffer) == 0);
    json_expect((struct bytes){buffer->ptr, buffer->len});
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct arena arena;
    static struct buffer buffer;
    if (size == 0)
        return 0;
    const struct decode_options options = {.format = data[0] & 3,
                                           .max_texts = MAX_TEXTS,
                                           .max_text_bytes = 1000,
                                           .refuse_bad_utf8 = data[0] & 32,
                                           .skip_unchanged = data[0] & 64,
                                           .text_field = data[0] & 128 ? "body" : NULL,
                                           .version_by =
                                               data[0] & 16 ? VERSION_FIELD : VERSION_NONE,
                                           .version_field = "source.v",
                                           .model_field = "a.who"};
    const struct header headers[] = {{{"id", 2}, {"h", 1}}, {{"title", 5}, {"T", 1}}};
    const struct message message = {
        .value = {(const char *)data + 1, size - 1},
        .key = {data[0] & 4 ? "\xff" : NULL, data[0] & 4 ? 1 : 0},
        .headers = headers,
        .n_headers = data[0] & 8 ? 2 : 0,
        .position = {"texts 1-0", 9},
        .timestamp_ms = data[0] & 16 ? 1 : -1,
    };
    struct request request;
    struct refusal why;
    int err = codec_decode(&message, &options, &arena, &request, &why);
    if (err) {
        expect(err == -EINVAL);
        expect(why.code && why.reason[0] && memchr(why.reason, 0, sizeof why.reason));
    } else if (request.is_deleted || request.is_unchanged) {
        expect(request.n_items == 0 && request.id.ptr);
    } else {
        expect(request.n_items >= 1 && request.n_items <= MAX_TEXTS);
        for (size_t i = 0; i < request.n_items; i++)
            expect(request.items[i].id.ptr && request.items[i].text.len > 0);
        encode_try(&message, &request, &buffer);
    }
    arena_reset(&arena);
    return 0;
}
