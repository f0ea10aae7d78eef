/*
 * codec_rows.c: vectors as the rows that stores take in: Qdrant, Milvus, PostgreSQL with pgvector.
 *
 * Owns:    what a row looks like (docs/vector-stores.md): a JSON object each for what the Kafka
 *          connectors of Qdrant and Milvus read, a line of CSV for COPY.
 * Refuses: anything but the id, the vector and the fields of a message: a row is the user's.
 * Threads: no state.
 * Why:     a store has rows and a message may have many texts, so a row is a text, never a message.
 */
#include "worker/codec/codec_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/json.h"
#include "connectors/utf8.h"
#include "worker/codec/uuid.h"

bool codec_format_is_rows(enum output_format format)
{
    return format >= OUTPUT_QDRANT;
}

const char *codec_format_type(enum output_format format)
{
    static const char *const types[] = {
        [OUTPUT_MSGPACK] = "application/msgpack", [OUTPUT_JSON] = "application/json",
        [OUTPUT_QDRANT] = "application/json",     [OUTPUT_MILVUS] = "application/json",
        [OUTPUT_PGVECTOR] = "text/csv",           [OUTPUT_FIELDS] = "application/json",
    };
    return types[format];
}

/* Up to 2^53: the connector reads numbers as doubles. */
static bool is_point_number(const struct item *item)
{
    char digits[24] = "";
    if (!item->id_is_number || item->id.ptr[0] == '-' || item->id.len >= sizeof digits)
        return false;
    memcpy(digits, item->id.ptr, item->id.len);
    return strtoull(digits, NULL, 10) <= UINT64_C(1) << 53;
}

/* Qdrant takes unsigned integers and UUIDs and nothing else. */
static void point_id_put(struct buffer *to, const struct item *item)
{
    char uuid[UUID_TEXT + 1];
    if (is_point_number(item) || (!item->id_is_number && uuid_is(item->id))) {
        codec_json_put_id(to, item->id, item->id_is_number);
        return;
    }
    if (uuid_of_name(item->id, uuid))
        to->status = -ENOMEM;
    else
        json_put_text(to, uuid);
}

/* One text of an output, whether it is to be encoded or was read again. */
struct row {
    const struct item *item;       /* its id, and what it is a piece of */
    const struct request *request; /* its fields */
    enum output_dtype dtype;
    size_t dim;
    const char *packed;
};

static void put_vector(struct buffer *to, const struct row *row)
{
    buffer_put_text(to, "[");
    codec_json_put_vector(to, row->dtype, row->dim, row->packed);
    buffer_put_text(to, "]");
}

/* What it is a piece of, then the fields but those with names of `ours` (at most two). */
static void put_fields(struct buffer *to, const struct row *row, bool comma,
                       const char *const *ours)
{
    const char *names[8] = {NULL};
    size_t n = 0;
    while (*ours)
        names[n++] = *ours++;
    assert(n <= 2); /* the four of a piece and the NULL fit behind them */
    if (row->item->chunk) {
        codec_json_put_chunk(to, row->item->chunk, comma);
        memcpy(names + n, codec_chunk_fields, sizeof codec_chunk_fields);
        comma = true;
    }
    codec_json_put_fields(to, row->request, comma, names);
}

static void qdrant_put(struct buffer *to, const struct row *row, const char *collection)
{
    static const char *const ours[] = {"id", NULL};
    buffer_put_text(to, "{\"collection_name\":");
    json_put_text(to, collection);
    buffer_put_text(to, ",\"id\":");
    point_id_put(to, row->item);
    buffer_put_text(to, ",\"vector\":");
    put_vector(to, row);
    buffer_put_text(to, ",\"payload\":{\"id\":");
    codec_json_put_id(to, row->item->id, row->item->id_is_number);
    put_fields(to, row, true, ours);
    buffer_put_text(to, "}}");
}

static void milvus_put(struct buffer *to, const struct row *row)
{
    static const char *const ours[] = {"id", "vector", NULL};
    buffer_put_text(to, "{\"id\":");
    codec_json_put_id(to, row->item->id, row->item->id_is_number);
    buffer_put_text(to, ",\"vector\":");
    put_vector(to, row);
    put_fields(to, row, true, ours);
    buffer_put_text(to, "}");
}

/* One character of CSV at `at`, and how many bytes it has. PostgreSQL refuses what is not UTF-8 and
 * a NUL, in JSON also one that is escaped, and with one of them the whole file. */
static size_t csv_put_character(struct buffer *to, const char *at, size_t left, bool is_json)
{
    int step = utf8_next(at, left);
    if (is_json && *at == '\\') { /* two characters at least: our own JSON */
        bool is_nul = left >= 6 && memcmp(at, "\\u0000", 6) == 0;
        buffer_put(to, is_nul ? UTF8_REPLACEMENT : at, is_nul ? 3 : 1);
        return is_nul ? 6 : 1 + csv_put_character(to, at + 1, left - 1, false);
    }
    if (step < 0 || *at == '\0')
        buffer_put_text(to, UTF8_REPLACEMENT);
    else if (*at == '"')
        buffer_put_text(to, "\"\"");
    else
        buffer_put(to, at, (size_t)step);
    return (size_t)abs(step);
}

/* RFC 4180. */
static void csv_put(struct buffer *to, struct bytes text, bool is_json)
{
    buffer_put_text(to, "\"");
    for (size_t i = 0; i < text.len;)
        i += csv_put_character(to, text.ptr + i, text.len - i, is_json);
    buffer_put_text(to, "\"");
}

/* All there are as an object, or nothing. */
static void put_fields_alone(struct buffer *to, const struct row *row)
{
    static const char *const none[] = {NULL};
    if (row->request->n_fields == 0 && !row->item->chunk)
        return;
    buffer_put_text(to, "{");
    put_fields(to, row, false, none);
    buffer_put_text(to, "}");
}

/* Written as JSON, and that again as a field of CSV in its place. */
static void csv_put_fields(struct buffer *to, const struct row *row)
{
    size_t start = to->len;
    put_fields_alone(to, row);
    size_t len = to->len - start;
    if (len == 0)
        return;                          /* an empty field without quotes is NULL */
    if (buffer_reserve(to, 2 * len + 2)) /* so that nothing moves while it is read */
        return;
    csv_put(to, (struct bytes){to->ptr + start, len}, true);
    /* The JSON before it goes, and what it was made into moves to its place. */
    to->len -= len;
    memmove(to->ptr + start, to->ptr + start + len, to->len - start);
}

/* The text of a `bit`, or of a `vector` or `halfvec`. */
static void csv_put_vector(struct buffer *to, const struct row *row)
{
    if (row->dtype != DTYPE_B1) {
        buffer_put_text(to, "\"");
        put_vector(to, row);
        buffer_put_text(to, "\"");
        return;
    }
    for (size_t i = 0; i < row->dim; i++)
        buffer_put_text(to, (unsigned char)row->packed[i / 8] >> (7 - i % 8) & 1 ? "1" : "0");
}

static void pgvector_put(struct buffer *to, const struct row *row)
{
    if (row->item->id_is_number)
        buffer_put(to, row->item->id.ptr, row->item->id.len);
    else
        csv_put(to, row->item->id, false);
    buffer_put_text(to, ",");
    csv_put_vector(to, row);
    buffer_put_text(to, ",");
    csv_put_fields(to, row);
    buffer_put_text(to, "\n");
}

/* Who writes JSON to a file ends it with a newline; between rows it is ours. */
void codec_rows_write(const struct output *output, struct buffer *to)
{
    const struct encode_options *options = output->options;
    char packed[4 * CODEC_DIM_MAX];
    assert(options->dim <= CODEC_DIM_MAX);
    for (size_t i = 0; i < output->n; i++) {
        struct row row = {&output->items[i], output->request, options->dtype, options->dim, packed};
        if (options->format == OUTPUT_FIELDS) {
            put_fields_alone(to, &row);
            continue;
        }
        codec_dtype_pack(options->dtype, output->vectors + i * options->dim, options->dim, packed);
        if (options->format == OUTPUT_PGVECTOR) {
            pgvector_put(to, &row);
            continue;
        }
        buffer_put_text(to, i > 0 ? "\n" : "");
        if (options->format == OUTPUT_QDRANT)
            qdrant_put(to, &row, options->collection);
        else
            milvus_put(to, &row);
    }
}

int codec_output_csv(const struct codec_output *output, struct buffer *out)
{
    const struct request request = {.fields = output->fields, .n_fields = output->n_fields};
    const size_t before = out->len, row_bytes = codec_dtype_bytes(output->dtype, output->dim);
    const char *at = output->ids, *at_chunk[4];
    memcpy(at_chunk, output->chunked, sizeof at_chunk);
    for (size_t i = 0; i < output->n; i++) {
        char number[32], parent[32];
        struct chunk chunk;
        struct item item = {.id = codec_output_id(output, &at, number)};
        /* A number was printed into the buffer; a string is borrowed from the payload. */
        item.id_is_number = item.id.ptr == number;
        item.chunk = codec_output_chunk(output, at_chunk, parent, &chunk) ? &chunk : NULL;
        pgvector_put(out, &(struct row){&item, &request, output->dtype, output->dim,
                                        output->vectors + i * row_bytes});
    }
    return buffer_settle(out, before);
}
