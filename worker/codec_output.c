/*
 * codec_output.c: reading outputs again, for those who gather them.
 *
 * Owns:    what an output must have to be written elsewhere.
 * Threads: no state.
 */
#include "worker/codec_parts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "worker/msgpack_walk.h"

static bool is_word(const struct walk_value *value, const char *word)
{
    return value->type == WALK_STR && value->bytes.len == strlen(word) &&
           memcmp(value->bytes.ptr, word, value->bytes.len) == 0;
}

/* What was found of the fields that are needed. */
struct found {
    struct walk_value v, dim, dtype, embedding;
    const char *id, *ids, *fields;
    uint32_t n_ids, n_fields;
};

static void find(struct walk *walk, uint32_t n_pairs, struct found *found)
{
    for (uint32_t i = 0; i < n_pairs; i++) {
        struct walk_value key, value;
        msgpack_walk_next(walk, &key);
        struct walk behind = *walk;
        msgpack_walk_next(&behind, &value);
        if (is_word(&key, "v"))
            found->v = value;
        else if (is_word(&key, "dim"))
            found->dim = value;
        else if (is_word(&key, "dtype"))
            found->dtype = value;
        else if (is_word(&key, "embedding"))
            found->embedding = value;
        else if (is_word(&key, "id"))
            found->id = walk->at;
        else if (is_word(&key, "ids") && value.type == WALK_ARRAY) {
            found->ids = behind.at;
            found->n_ids = value.count;
        } else if (is_word(&key, "fields") && value.type == WALK_MAP) {
            found->fields = behind.at;
            found->n_fields = value.count;
        }
        msgpack_walk_skip(walk);
    }
}

static int dtype_find(const struct walk_value *name, enum output_dtype *out)
{
    for (int dtype = DTYPE_F4; dtype <= DTYPE_B1; dtype++)
        if (is_word(name, codec_dtype_name((enum output_dtype)dtype))) {
            *out = (enum output_dtype)dtype;
            return 0;
        }
    return -EINVAL;
}

int codec_output_read(struct bytes payload, struct codec_output *out, struct refusal *why)
{
    struct walk walk = {payload.ptr, payload.ptr + payload.len};
    struct walk_value head;
    struct found found = {.id = NULL};
    if (payload.len == 0 || msgpack_walk_check(payload, CODEC_DEPTH_MAX + 2) != WALK_OK ||
        msgpack_walk_next(&walk, &head) != WALK_OK || head.type != WALK_MAP)
        return codec_refuse(why, "no_output", "the payload is no msgpack map of an embedding");
    find(&walk, head.count, &found);
    if (found.v.type != WALK_INT || found.v.integer != CODEC_FORMAT_VERSION)
        return codec_refuse(why, "no_output", "the payload is no output of version %d",
                            CODEC_FORMAT_VERSION);
    *out = (struct codec_output){.map = payload, .many = found.ids, .ids = found.id};
    if (found.fields) {
        out->fields = (struct bytes){found.fields, (size_t)(walk.end - found.fields)};
        out->n_fields = found.n_fields;
    }
    if (found.dim.type != WALK_INT || found.dim.integer < 1 || found.dim.integer > 65536 ||
        found.embedding.type != WALK_BIN || !found.id || dtype_find(&found.dtype, &out->dtype) != 0)
        return codec_refuse(why, "no_output",
                            "a field of the output is missing or of a wrong type");
    out->dim = (size_t)found.dim.integer;
    size_t row = codec_dtype_bytes(out->dtype, out->dim);
    out->n = found.ids ? found.n_ids : 1;
    out->vectors = found.embedding.bytes.ptr;
    if (found.ids)
        out->ids = found.ids;
    if (found.embedding.bytes.len / row != out->n || found.embedding.bytes.len % row != 0)
        return codec_refuse(why, "no_output", "the embedding is not as long as dim and ids say");
    return 0;
}

struct bytes codec_output_id(const struct codec_output *output, const char **at, char number[32])
{
    struct walk walk = {*at, output->map.ptr + output->map.len};
    struct walk_value value;
    msgpack_walk_next(&walk, &value);
    *at = walk.at;
    if (value.type == WALK_STR || value.type == WALK_BIN)
        return value.bytes;
    int len = value.type == WALK_UINT  ? snprintf(number, 32, "%" PRIu64, value.natural)
              : value.type == WALK_INT ? snprintf(number, 32, "%" PRId64, value.integer)
                                       : 0;
    return (struct bytes){number, (size_t)len};
}
