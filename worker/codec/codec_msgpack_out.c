/*
 * codec_msgpack_out.c: vectors to msgpack.
 *
 * Owns:    the order and the types of the output map (docs/wire-format.md).
 * Threads: no state.
 */
#include "worker/codec/codec_internal.h"

#include <msgpack.h>
#include <string.h>

#include "connectors/utf8.h"

static int packer_write(void *data, const char *bytes, size_t len)
{
    buffer_put(data, bytes, len);
    return 0; /* the buffer remembers a failure */
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

/* Kafka keys may be any bytes. A str that is not UTF-8 stops many readers, so those become bin. */
static void name_pack(msgpack_packer *packer, struct bytes name)
{
    if (utf8_is_valid(name.ptr, name.len)) {
        string_pack(packer, name.ptr, name.len);
    } else {
        msgpack_pack_bin(packer, name.len);
        msgpack_pack_bin_body(packer, name.ptr, name.len);
    }
}

/* The digits are those of an integer (codec_ids.c) and end at len, not at a NUL. */
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
    struct buffer *to = packer->data;
    word_pack(packer, "dim");
    msgpack_pack_uint64(packer, dim);
    word_pack(packer, "dtype");
    word_pack(packer, codec_dtype_name(dtype));
    word_pack(packer, "embedding");
    msgpack_pack_bin(packer, output->n * row_bytes);
    for (size_t i = 0; i < output->n; i++) {
        char *row = buffer_extend(to, row_bytes);
        if (row)
            codec_dtype_pack(dtype, output->vectors + i * dim, dim, row);
    }
}

void codec_msgpack_write(const struct output *output, struct buffer *to)
{
    const struct request *request = output->request;
    bool dated = output->message->timestamp_ms >= 0, has_chunks = codec_has_chunks(output);
    msgpack_packer packer;
    msgpack_packer_init(&packer, to, packer_write);
    /* Eleven are always there; `ids` where there are many texts. */
    msgpack_pack_map(&packer, 11u + output->many + 4 * has_chunks + dated +
                                  (request->n_fields > 0) + (output->options->precision != NULL));
    word_pack(&packer, "v");
    msgpack_pack_int(&packer, CODEC_FORMAT_VERSION);
    ids_pack(&packer, output);
    word_pack(&packer, "model");
    word_pack(&packer, output->options->model);
    word_pack(&packer, "model_fingerprint");
    word_pack(&packer, output->options->fingerprint);
    if (output->options->precision) {
        word_pack(&packer, "precision");
        word_pack(&packer, output->options->precision);
    }
    word_pack(&packer, "prompt");
    word_pack(&packer, output->prompt);
    vectors_pack(&packer, output);
    counts_pack(&packer, output);
    if (has_chunks)
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
        buffer_put(to, request->fields.ptr, request->fields.len);
    }
}
