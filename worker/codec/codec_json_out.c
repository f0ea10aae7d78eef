/*
 * codec_json_out.c: vectors to JSON.
 *
 * Owns:    the order of the output object (docs/wire-format.md).
 * Threads: no state.
 */
#include "worker/codec/codec_internal.h"

#include <assert.h>
#include <string.h>

#include "connectors/json.h"

static void ids_put(struct buffer *to, const struct output *output)
{
    buffer_put_text(to, "\"id\":");
    if (!output->many) {
        codec_json_put_id(to, output->items[0].id, output->items[0].id_is_number);
        return;
    }
    codec_json_put_id(to, output->request->id, output->request->id_is_number);
    buffer_put_text(to, ",\"ids\":[");
    for (size_t i = 0; i < output->n; i++) {
        if (i > 0)
            buffer_put_text(to, ",");
        codec_json_put_id(to, output->items[i].id, output->items[i].id_is_number);
    }
    buffer_put_text(to, "]");
}

static void row_put(struct buffer *to, const struct encode_options *options, const float *row)
{
    char packed[4 * CODEC_DIM_MAX];
    assert(options->dim <= CODEC_DIM_MAX);
    codec_dtype_pack(options->dtype, row, options->dim, packed);
    codec_json_put_vector(to, options->dtype, options->dim, packed);
}

static void vectors_put(struct buffer *to, const struct output *output)
{
    buffer_put_text(to, output->many ? "[[" : "[");
    for (size_t i = 0; i < output->n; i++) {
        if (i > 0)
            buffer_put_text(to, "],[");
        row_put(to, output->options, output->vectors + i * output->options->dim);
    }
    buffer_put_text(to, output->many ? "]]" : "]");
}

static void counts_put(struct buffer *to, const struct output *output)
{
    const struct embed_result *results = output->results;
    buffer_put_text(to, output->many ? ",\"tokens\":[" : ",\"tokens\":");
    for (size_t i = 0; i < output->n; i++) {
        if (i > 0)
            buffer_put_text(to, ",");
        json_put_natural(to, results[i].n_tokens);
    }
    buffer_put_text(to, output->many ? "],\"truncated\":[" : ",\"truncated\":");
    for (size_t i = 0; i < output->n; i++) {
        if (i > 0)
            buffer_put_text(to, ",");
        buffer_put_text(to, results[i].truncated ? "true" : "false");
    }
    if (output->many)
        buffer_put_text(to, "]");
}

static void chunks_put(struct buffer *to, const struct output *output)
{
    for (size_t field = 0; field < 4; field++) {
        buffer_put_text(to, ",\"");
        buffer_put_text(to, codec_chunk_fields[field]);
        buffer_put_text(to, output->many ? "\":[" : "\":");
        for (size_t i = 0; i < output->n; i++) {
            if (i > 0)
                buffer_put_text(to, ",");
            codec_json_put_place(to, output->items[i].chunk, field);
        }
        if (output->many)
            buffer_put_text(to, "]");
    }
}

void codec_json_write(const struct output *output, struct buffer *to)
{
    const struct request *request = output->request;
    buffer_put_text(to, "{\"v\":");
    json_put_natural(to, CODEC_FORMAT_VERSION);
    buffer_put_text(to, ",");
    ids_put(to, output);
    buffer_put_text(to, ",\"model\":");
    json_put_text(to, output->options->model);
    buffer_put_text(to, ",\"model_fingerprint\":");
    json_put_text(to, output->options->fingerprint);
    if (output->options->precision) {
        buffer_put_text(to, ",\"precision\":");
        json_put_text(to, output->options->precision);
    }
    buffer_put_text(to, ",\"prompt\":");
    json_put_text(to, output->prompt);
    buffer_put_text(to, ",\"dim\":");
    json_put_natural(to, output->options->dim);
    buffer_put_text(to, ",\"dtype\":");
    json_put_text(to, codec_dtype_name(output->options->dtype));
    buffer_put_text(to, ",\"embedding\":");
    vectors_put(to, output);
    counts_put(to, output);
    if (codec_has_chunks(output))
        chunks_put(to, output);
    buffer_put_text(to, ",\"source\":");
    json_put_string(to, output->message->position);
    if (output->message->timestamp_ms >= 0) {
        buffer_put_text(to, ",\"timestamp_ms\":");
        json_put_integer(to, output->message->timestamp_ms);
    }
    if (request->n_fields > 0) {
        struct walk walk = {request->fields.ptr, request->fields.ptr + request->fields.len};
        buffer_put_text(to, ",\"fields\":");
        codec_json_put_pairs(to, &walk, request->n_fields);
    }
    buffer_put_text(to, "}");
}

int codec_output_json(const struct codec_output *output, struct buffer *out)
{
    const size_t before = out->len, row_bytes = codec_dtype_bytes(output->dtype, output->dim);
    struct walk walk = {output->map.ptr, output->map.ptr + output->map.len};
    struct walk_value head, key;
    msgpack_walk_next(&walk, &head);
    buffer_put_text(out, "{");
    for (uint32_t i = 0; i < head.count; i++) {
        struct walk peek = walk;
        msgpack_walk_next(&peek, &key);
        buffer_put_text(out, i ? "," : "");
        codec_json_put_key(out, &walk);
        buffer_put_text(out, ":");
        /* The one member that is not bytes here: numbers instead. */
        if (key.bytes.len != 9 || memcmp(key.bytes.ptr, "embedding", 9) != 0) {
            codec_json_put_value(out, &walk);
            continue;
        }
        msgpack_walk_skip(&walk);
        buffer_put_text(out, output->many ? "[[" : "[");
        for (size_t row = 0; row < output->n; row++) {
            buffer_put_text(out, row ? "],[" : "");
            codec_json_put_vector(out, output->dtype, output->dim,
                                  output->vectors + row * row_bytes);
        }
        buffer_put_text(out, output->many ? "]]" : "]");
    }
    buffer_put_text(out, "}");
    return buffer_settle(out, before);
}
