/*
 * codec_output.c: reading outputs again, for those who gather them.
 *
 * Owns:    what an output must have to be written elsewhere.
 * Threads: no state.
 */
#include "worker/codec/codec_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"
#include "worker/codec/msgpack_walk.h"

static bool is_word(const struct walk_value *value, const char *word)
{
    return value->type == WALK_STR && bytes_are(value->bytes, word);
}

/* What was found of the fields that are needed. */
struct found {
    struct walk_value v, dim, dtype, embedding, model, fingerprint, precision;
    const char *id, *ids, *fields;
    uint32_t n_ids, n_fields;
    const char *chunked[4]; /* by codec_chunk_fields, as ids are */
    uint32_t n_chunked[4];
};

static void find_chunked(struct found *found, const struct walk_value *key, const char *at,
                         const struct walk_value *value, const char *behind)
{
    bool is_array = value->type == WALK_ARRAY;
    for (size_t i = 0; i < 4; i++)
        if (is_word(key, codec_chunk_fields[i])) {
            found->chunked[i] = is_array ? behind : at;
            found->n_chunked[i] = is_array ? value->count : 1;
        }
}

static void find(struct walk *walk, uint32_t n_pairs, struct found *found)
{
    for (uint32_t i = 0; i < n_pairs; i++) {
        struct walk_value key, value;
        msgpack_walk_next(walk, &key);
        /* `walk` stays at the value, which is skipped whole below, whatever is in it. */
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
        else if (is_word(&key, "model"))
            found->model = value;
        else if (is_word(&key, "model_fingerprint"))
            found->fingerprint = value;
        else if (is_word(&key, "precision"))
            found->precision = value;
        else if (is_word(&key, "id"))
            found->id = walk->at;
        else if (is_word(&key, "ids") && value.type == WALK_ARRAY) {
            found->ids = behind.at;
            found->n_ids = value.count;
        } else if (is_word(&key, "fields") && value.type == WALK_MAP) {
            found->fields = behind.at;
            found->n_fields = value.count;
        } else {
            find_chunked(found, &key, walk->at, &value, behind.at);
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

static struct bytes text_of(const struct walk_value *value)
{
    return value->type == WALK_STR ? value->bytes : (struct bytes){NULL, 0};
}

int codec_output_read(struct bytes payload, struct codec_output *out, struct refusal *why)
{
    struct walk walk = {payload.ptr, payload.ptr + payload.len};
    struct walk_value head;
    struct found found = {.id = NULL};
    /* Deeper by two than a message: its fields stand inside `fields` of the output. */
    if (payload.len == 0 || msgpack_walk_check(payload, CODEC_DEPTH_MAX + 2) != WALK_OK ||
        msgpack_walk_next(&walk, &head) != WALK_OK || head.type != WALK_MAP)
        return codec_refuse(why, DEAD_LETTER(no_output),
                            "the payload is not a msgpack map of an embedding");
    find(&walk, head.count, &found);
    if (found.v.type != WALK_INT || found.v.integer != CODEC_FORMAT_VERSION)
        return codec_refuse(why, DEAD_LETTER(no_output),
                            "the payload is not an output of version %d", CODEC_FORMAT_VERSION);
    *out = (struct codec_output){.map = payload,
                                 .many = found.ids,
                                 .ids = found.id,
                                 .model = text_of(&found.model),
                                 .fingerprint = text_of(&found.fingerprint),
                                 .precision = text_of(&found.precision)};
    if (found.fields) {
        /* To the end of the payload, of which the first n_fields pairs are the fields. */
        out->fields = (struct bytes){found.fields, (size_t)(walk.end - found.fields)};
        out->n_fields = found.n_fields;
    }
    if (found.dim.type != WALK_INT || found.dim.integer < 1 || found.dim.integer > 65536 ||
        found.embedding.type != WALK_BIN || !found.id || dtype_find(&found.dtype, &out->dtype) != 0)
        return codec_refuse(why, DEAD_LETTER(no_output),
                            "a field of the output is missing or of a wrong type");
    out->dim = (size_t)found.dim.integer;
    size_t row = codec_dtype_bytes(out->dtype, out->dim);
    out->n = found.ids ? found.n_ids : 1;
    out->vectors = found.embedding.bytes.ptr;
    if (found.ids)
        out->ids = found.ids;
    /* Divided: n comes from the file, and n * row may overflow. */
    if (found.embedding.bytes.len / row != out->n || found.embedding.bytes.len % row != 0)
        return codec_refuse(why, DEAD_LETTER(no_output),
                            "the embedding is not as long as dim and ids say");
    out->has_chunks = true;
    for (size_t i = 0; i < 4; i++)
        out->has_chunks &= found.chunked[i] && found.n_chunked[i] == out->n;
    memcpy(out->chunked, found.chunked, sizeof out->chunked);
    return 0;
}

/* The value at `at`, which is set to the next one. */
static struct walk_value value_at(const struct codec_output *output, const char **at)
{
    struct walk walk = {*at, output->map.ptr + output->map.len}, peek = walk;
    struct walk_value value;
    msgpack_walk_next(&peek, &value);
    msgpack_walk_skip(&walk); /* with everything in it, if a stranger put an array there */
    *at = walk.at;
    return value;
}

static struct bytes id_of(const struct walk_value *value, char number[32])
{
    if (value->type == WALK_STR || value->type == WALK_BIN)
        return value->bytes;
    int len = value->type == WALK_UINT  ? snprintf(number, 32, "%" PRIu64, value->natural)
              : value->type == WALK_INT ? snprintf(number, 32, "%" PRId64, value->integer)
                                        : 0;
    return (struct bytes){number, (size_t)len};
}

struct bytes codec_output_id(const struct codec_output *output, const char **at, char number[32])
{
    struct walk_value value = value_at(output, at);
    return id_of(&value, number);
}

bool codec_output_chunk(const struct codec_output *output, const char *at[4], char number[32],
                        struct chunk *out)
{
    if (!output->has_chunks)
        return false;
    struct walk_value parent = value_at(output, &at[0]), values[3];
    bool is_piece = true;
    for (size_t i = 0; i < 3; i++) {
        values[i] = value_at(output, &at[i + 1]);
        is_piece &= values[i].type == WALK_INT && values[i].integer >= 0;
    }
    *out = (struct chunk){.parent = id_of(&parent, number),
                          .parent_is_number = parent.type == WALK_INT || parent.type == WALK_UINT,
                          .number = (uint32_t)values[0].integer,
                          .start = (size_t)values[1].integer,
                          .end = (size_t)values[2].integer};
    return is_piece && out->parent.len > 0;
}
