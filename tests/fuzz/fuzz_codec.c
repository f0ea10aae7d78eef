/*
 * fuzz_codec.c: any bytes to codec_decode in every format, and what it accepts through
 * codec_encode. Run by scripts/fuzz.
 *
 * The first byte chooses the format and what comes beside the value; the rest is the value.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "worker/codec/codec.h"
#include "worker/codec/msgpack_walk.h"

enum { DIM = 2, MAX_TEXTS = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(int is_so)
{
    if (!is_so)
        abort();
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
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct arena arena;
    static struct buffer buffer;
    if (size == 0)
        return 0;
    const struct decode_options options = {data[0] & 3, MAX_TEXTS, 1000, data[0] & 32};
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
    } else {
        expect(request.n_items >= 1 && request.n_items <= MAX_TEXTS);
        for (size_t i = 0; i < request.n_items; i++)
            expect(request.items[i].id.ptr && request.items[i].text.len > 0);
        encode_try(&message, &request, &buffer);
    }
    arena_reset(&arena);
    return 0;
}
