/*
 * codec_fields.c: the parts of an output that its forms in JSON share.
 *
 * Owns:    ids, numbers of vectors, what a piece of a text is a piece of, passed-through fields.
 * Threads: no state.
 */
#include "worker/codec/codec_internal.h"

#include <string.h>

#include "connectors/json.h"

const char *const codec_chunk_fields[4] = {"parent", "chunk", "start", "end"};

bool codec_has_chunks(const struct output *output)
{
    for (size_t i = 0; i < output->n; i++)
        if (output->items[i].chunk)
            return true;
    return false;
}

void codec_json_put_id(struct buffer *to, struct bytes id, bool is_number)
{
    if (is_number)
        buffer_put(to, id.ptr, id.len);
    else
        json_put_string(to, id);
}

/* Numbers that bring the values of the dtype back exactly; of bits, their bytes. */
void codec_json_put_vector(struct buffer *to, enum output_dtype dtype, size_t dim,
                           const char *packed)
{
    size_t n = dtype == DTYPE_B1 ? codec_dtype_bytes(dtype, dim) : dim;
    for (size_t i = 0; i < n; i++) {
        float value = 0;
        uint16_t half = 0;
        if (i > 0)
            buffer_put_text(to, ",");
        if (dtype == DTYPE_F4) {
            memcpy(&value, packed + 4 * i, sizeof value);
            /* Nine digits bring every float32 back, five every float16. */
            json_put_real(to, value, 9);
        } else if (dtype == DTYPE_F2) {
            memcpy(&half, packed + 2 * i, sizeof half);
            json_put_real(to, codec_half_value(half), 5);
        } else {
            json_put_integer(to, dtype == DTYPE_I1 ? (int8_t)packed[i] : (uint8_t)packed[i]);
        }
    }
}

void codec_json_put_place(struct buffer *to, const struct chunk *chunk, size_t field)
{
    if (!chunk)
        buffer_put_text(to, "null");
    else if (field == 0)
        codec_json_put_id(to, chunk->parent, chunk->parent_is_number);
    else
        json_put_natural(to, field == 1 ? chunk->number : field == 2 ? chunk->start : chunk->end);
}

void codec_json_put_chunk(struct buffer *to, const struct chunk *chunk, bool comma)
{
    for (size_t field = 0; field < 4; field++) {
        buffer_put_text(to, field > 0 || comma ? ",\"" : "\"");
        buffer_put_text(to, codec_chunk_fields[field]);
        buffer_put_text(to, "\":");
        codec_json_put_place(to, chunk, field);
    }
}

static bool is_any(struct bytes name, const char *const *names)
{
    for (; *names; names++)
        if (strlen(*names) == name.len && memcmp(*names, name.ptr, name.len) == 0)
            return true;
    return false;
}

void codec_json_put_fields(struct buffer *to, const struct request *request, bool comma,
                           const char *const *ours)
{
    if (request->n_fields == 0)
        return;
    struct walk walk = {request->fields.ptr, request->fields.ptr + request->fields.len};
    for (uint32_t i = 0; i < request->n_fields; i++) {
        struct walk peek = walk;
        struct walk_value key;
        msgpack_walk_next(&peek, &key);
        if (key.type == WALK_STR && is_any(key.bytes, ours)) {
            /* Ours of that name goes before the message's: key and value are passed over. */
            msgpack_walk_skip(&walk);
            msgpack_walk_skip(&walk);
            continue;
        }
        buffer_put_text(to, comma ? "," : "");
        comma = true;
        codec_json_put_key(to, &walk);
        buffer_put_text(to, ":");
        codec_json_put_value(to, &walk);
    }
}
