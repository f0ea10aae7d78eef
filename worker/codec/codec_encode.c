/*
 * codec_encode.c: vectors to msgpack.
 *
 * Owns:    the order and the types of the output map (docs/wire-format.md), and struct buffer.
 * Refuses: JSON: codec_json_write; rows: codec_rows_write.
 * Threads: no state.
 * Why:     room for the whole payload is made first, so that a batch costs no allocation once the
 *          buffer has the size of a batch.
 */
#include "worker/codec/codec_internal.h"
#include "connectors/utf8.h"

#include <assert.h>
#include <errno.h>
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

/* The wire has little-endian float32 and takes the bytes of the vectors as they are. A big-endian
 * host would need a swap here and in the sinks that store raw vectors. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "vectors are written as they are");
_Static_assert(sizeof(float) == 4, "<f4");

enum { FIRST_ROOM = 4096, HEADS_ROOM = 512, ITEM_ROOM = 16, CHUNK_ROOM = 40 };

const char *const codec_chunk_fields[4] = {"parent", "chunk", "start", "end"};

void buffer_close(struct buffer *buffer)
{
    free(buffer->ptr);
    memset(buffer, 0, sizeof *buffer);
}

int buffer_reserve(struct buffer *buffer, size_t more)
{
    if (more <= buffer->room - buffer->len)
        return 0;
    if (more > SIZE_MAX / 2 - buffer->len)
        return -ENOMEM;
    size_t room = buffer->room ? buffer->room : FIRST_ROOM;
    while (room < buffer->len + more)
        room *= 2;
    char *ptr = realloc(buffer->ptr, room);
    if (!ptr)
        return -ENOMEM;
    buffer->ptr = ptr;
    buffer->room = room;
    return 0;
}

/* NULL when there is no memory, now or before. */
static char *writer_room(struct writer *writer, size_t len)
{
    if (!writer->status)
        writer->status = buffer_reserve(writer->out, len);
    if (writer->status)
        return NULL;
    writer->out->len += len;
    return writer->out->ptr + writer->out->len - len;
}

void writer_put(struct writer *writer, const void *ptr, size_t len)
{
    char *room = len > 0 ? writer_room(writer, len) : NULL;
    if (room)
        memcpy(room, ptr, len);
}

static int packer_write(void *data, const char *bytes, size_t len)
{
    writer_put(data, bytes, len);
    return 0; /* the writer remembers */
}

static void string_pack(msgpack_packer *packer, const char *ptr, size_t len)
{
    msgpack_pack_str(packer, len);
    msgpack_pack_str_body(packer, ptr, len);
}

static void word_pack(msgpack_packer *packer, const char *word)
{
    string_pack(packer, word, strlen(word));
}

static bool bytes_are_utf8(struct bytes bytes)
{
    for (size_t i = 0; i < bytes.len;) {
        int step = utf8_next(bytes.ptr + i, bytes.len - i);
        if (step < 0)
            return false;
        i += (size_t)step;
    }
    return true;
}

/* Kafka keys may be any bytes. A str that is not UTF-8 stops many readers, so those become bin. */
static void name_pack(msgpack_packer *packer, struct bytes name)
{
    if (bytes_are_utf8(name)) {
        string_pack(packer, name.ptr, name.len);
    } else {
        msgpack_pack_bin(packer, name.len);
        msgpack_pack_bin_body(packer, name.ptr, name.len);
    }
}

/* The digits were printed by codec_decode from an integer and end at len, not at a NUL. */
static void number_pack(msgpack_packer *packer, struct bytes digits)
{
    bool minus = digits.ptr[0] == '-';
    uint64_t value = 0;
    for (size_t i = minus; i < digits.len; i++)
        value = value * 10 + (uint64_t)(digits.ptr[i] - '0');
    if (minus)
        msgpack_pack_int64(packer, (int64_t)(0 - value));
    else
        msgpack_pack_uint64(packer, value);
}

static void id_pack(msgpack_packer *packer, struct bytes id, bool is_number)
{
    if (is_number)
        number_pack(packer, id);
    else
        name_pack(packer, id);
}

static void ids_pack(msgpack_packer *packer, const struct output *output)
{
    const struct item *items = output->items;
    word_pack(packer, "id");
    if (!output->many) {
        id_pack(packer, items[0].id, items[0].id_is_number);
        return;
    }
    id_pack(packer, output->request->id, output->request->id_is_number);
    word_pack(packer, "ids");
    msgpack_pack_array(packer, output->n);
    for (size_t i = 0; i < output->n; i++)
        id_pack(packer, items[i].id, items[i].id_is_number);
}

static void counts_pack(msgpack_packer *packer, const struct output *output)
{
    const struct embed_result *results = output->results;
    word_pack(packer, "tokens");
    if (output->many)
        msgpack_pack_array(packer, output->n);
    for (size_t i = 0; i < output->n; i++)
        msgpack_pack_uint32(packer, results[i].n_tokens);
    word_pack(packer, "truncated");
    if (output->many)
        msgpack_pack_array(packer, output->n);
    for (size_t i = 0; i < output->n; i++)
        results[i].truncated ? msgpack_pack_true(packer) : msgpack_pack_false(packer);
}

bool codec_is_cut(const struct output *output)
{
    for (size_t i = 0; i < output->n; i++)
        if (output->items[i].chunk)
            return true;
    return false;
}

static void chunk_pack(msgpack_packer *packer, const struct chunk *chunk, size_t field)
{
    if (!chunk)
        msgpack_pack_nil(packer);
    else if (field == 0)
        id_pack(packer, chunk->parent, chunk->parent_is_number);
    else
        msgpack_pack_uint64(packer, field == 1   ? chunk->number
                                    : field == 2 ? chunk->start
                                                 : chunk->end);
}

static void chunks_pack(msgpack_packer *packer, const struct output *output)
{
    for (size_t field = 0; field < 4; field++) {
        word_pack(packer, codec_chunk_fields[field]);
        if (output->many)
            msgpack_pack_array(packer, output->n);
        for (size_t i = 0; i < output->n; i++)
            chunk_pack(packer, output->items[i].chunk, field);
    }
}

static void vectors_pack(msgpack_packer *packer, const struct output *output)
{
    size_t dim = output->options->dim;
    enum output_dtype dtype = output->options->dtype;
    size_t row_bytes = codec_dtype_bytes(dtype, dim);
    struct writer *writer = packer->data;
    word_pack(packer, "dim");
    msgpack_pack_uint64(packer, dim);
    word_pack(packer, "dtype");
    word_pack(packer, codec_dtype_name(dtype));
    word_pack(packer, "embedding");
    msgpack_pack_bin(packer, output->n * row_bytes);
    for (size_t i = 0; i < output->n; i++) {
        char *row = writer_room(writer, row_bytes);
        if (row)
            codec_dtype_pack(dtype, output->vectors + i * dim, dim, row);
    }
}

static void msgpack_write(const struct output *output, struct writer *writer)
{
    const struct request *request = output->request;
    bool dated = output->message->timestamp_ms >= 0, is_cut = codec_is_cut(output);
    msgpack_packer packer;
    msgpack_packer_init(&packer, writer, packer_write);
    msgpack_pack_map(&packer, 11u + output->many + 4 * is_cut + dated + (request->n_fields > 0));
    word_pack(&packer, "v");
    msgpack_pack_int(&packer, CODEC_FORMAT_VERSION);
    ids_pack(&packer, output);
    word_pack(&packer, "model");
    word_pack(&packer, output->options->model);
    word_pack(&packer, "model_fingerprint");
    word_pack(&packer, output->options->fingerprint);
    word_pack(&packer, "prompt");
    word_pack(&packer, output->prompt);
    vectors_pack(&packer, output);
    counts_pack(&packer, output);
    if (is_cut)
        chunks_pack(&packer, output);
    word_pack(&packer, "source");
    name_pack(&packer, output->message->position);
    if (dated) {
        word_pack(&packer, "timestamp_ms");
        msgpack_pack_int64(&packer, output->message->timestamp_ms);
    }
    if (request->n_fields > 0) {
        word_pack(&packer, "fields");
        msgpack_pack_map(&packer, request->n_fields);
        writer_put(writer, request->fields.ptr, request->fields.len);
    }
}

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
    struct writer writer = {.out = out, .status = buffer_reserve(out, output_room(&output))};
    if (is_rows)
        codec_rows_write(&output, &writer);
    else if (options->format == OUTPUT_JSON)
        codec_json_write(&output, &writer);
    else
        msgpack_write(&output, &writer);
    if (writer.status)
        out->len = before;
    return writer.status;
}
