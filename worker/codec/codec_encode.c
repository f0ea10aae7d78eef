/*
 * codec_encode.c: one output, in the format asked for.
 *
 * Owns:    which texts an output is of, and room for it.
 * Refuses: the formats: codec_msgpack_out.c, codec_json_out.c, codec_rows.c.
 * Threads: no state.
 * Why:     room for the whole payload is made first, so that a batch costs no allocation once the
 *          buffer has the size of a batch.
 */
#include "worker/codec/codec_internal.h"

#include <assert.h>
#include <string.h>

/* The wire has little-endian float32 and takes the bytes of the vectors as they are. A big-endian
 * host would need a swap here and in the sinks that store raw vectors. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "vectors are written as they are");
_Static_assert(sizeof(float) == 4, "<f4");

enum { HEADS_ROOM = 512, ITEM_ROOM = 16, CHUNK_ROOM = 40 };

/* An upper bound for msgpack; JSON grows the buffer as it goes. */
static size_t output_room(const struct output *output)
{
    size_t room = HEADS_ROOM + strlen(output->options->model) + strlen(output->prompt) +
                  strlen(output->options->fingerprint) + output->message->position.len +
                  output->request->id.len + output->request->fields.len +
                  output->n * output->options->dim * sizeof(float);
    for (size_t i = 0; i < output->n; i++)
        room += output->items[i].id.len + ITEM_ROOM +
                (output->items[i].chunk ? output->items[i].chunk->parent.len + CHUNK_ROOM : 4);
    return room;
}

int codec_encode(const struct encode_options *options, const struct request *request,
                 const struct message *message, size_t first, size_t n, const char *prompt,
                 const float *vectors, const struct embed_result *results, struct buffer *out)
{
    struct output output = {
        .options = options,
        .request = request,
        .message = message,
        .items = request->items + first,
        .n = n,
        .many = request->many && !options->per_text && n == request->n_items,
        .prompt = prompt,
        .vectors = vectors,
        .results = results,
    };
    const bool is_rows = codec_format_is_rows(options->format);
    assert(first + n <= request->n_items && (n == 1 || output.many || is_rows));
    /* CODEC_TEXTS_MAX of them times 768 is far below; msgpack's bin ends at 4 GiB */
    assert(n * options->dim <= UINT32_MAX / sizeof(float));
    const size_t before = out->len;
    /* What fails here or below stays in the buffer: buffer_settle reports it. */
    buffer_reserve(out, output_room(&output));
    if (is_rows)
        codec_rows_write(&output, out);
    else if (options->format == OUTPUT_JSON)
        codec_json_write(&output, out);
    else
        codec_msgpack_write(&output, out);
    return buffer_settle(out, before);
}
