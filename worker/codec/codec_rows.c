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
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/utf8.h"
#include "worker/codec/uuid.h"

static void word_put(struct writer *writer, const char *word)
{
    writer_put(writer, word, strlen(word));
}

bool codec_format_is_rows(enum output_format format)
{
    return format >= OUTPUT_QDRANT;
}

const char *codec_format_type(enum output_format format)
{
    static const char *const types[] = {
        [OUTPUT_MSGPACK] = "application/msgpack", [OUTPUT_JSON] = "application/json",
        [OUTPUT_QDRANT] = "application/json",     [OUTPUT_MILVUS] = "application/json",
        [OUTPUT_PGVECTOR] = "text/csv",
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
static void point_id_put(struct writer *writer, const struct item *item)
{
    char uuid[UUID_TEXT + 1];
    if (is_point_number(item) || (!item->id_is_number && uuid_is(item->id))) {
        codec_json_put_id(writer, item);
        return;
    }
    uuid_of_name(item->id, uuid);
    codec_json_put_string(writer, (struct bytes){uuid, UUID_TEXT});
}

/* One text of an output, whether it is to be encoded or was read again. */
struct row {
    const struct item *item;       /* its id, and what it is a piece of */
    const struct request *request; /* its fields */
    enum output_dtype dtype;
    size_t dim;
    const char *packed;
};

static void json_put_vector(struct writer *writer, const struct row *row)
{
    word_put(writer, "[");
    codec_json_put_vector(writer, row->dtype, row->dim, row->packed);
    word_put(writer, "]");
}

/* What it is a piece of, then the fields but those with names of `ours` (at most two). */
static void json_put_fields(struct writer *writer, const struct row *row, bool comma,
                            const char *const *ours)
{
    const char *names[8] = {NULL};
    size_t n = 0;
    while (*ours)
        names[n++] = *ours++;
    if (row->item->chunk) {
        codec_json_put_chunk(writer, row->item->chunk, comma);
        memcpy(names + n, codec_chunk_fields, sizeof codec_chunk_fields);
        comma = true;
    }
    codec_json_put_fields(writer, row->request, comma, names);
}

static void qdrant_put(struct writer *writer, const struct row *row, const char *collection)
{
    static const char *const ours[] = {"id", NULL};
    word_put(writer, "{\"collection_name\":");
    codec_json_put_string(writer, (struct bytes){collection, strlen(collection)});
    word_put(writer, ",\"id\":");
    point_id_put(writer, row->item);
    word_put(writer, ",\"vector\":");
    json_put_vector(writer, row);
    word_put(writer, ",\"payload\":{\"id\":");
    codec_json_put_id(writer, row->item);
    json_put_fields(writer, row, true, ours);
    word_put(writer, "}}");
}

static void milvus_put(struct writer *writer, const struct row *row)
{
    static const char *const ours[] = {"id", "vector", NULL};
    word_put(writer, "{\"id\":");
    codec_json_put_id(writer, row->item);
    word_put(writer, ",\"vector\":");
    json_put_vector(writer, row);
    json_put_fields(writer, row, true, ours);
    word_put(writer, "}");
}

/* RFC 4180. PostgreSQL refuses what is not UTF-8 and a NUL, and with one of them the whole file. */
static void csv_put(struct writer *writer, struct bytes text)
{
    word_put(writer, "\"");
    for (size_t i = 0; i < text.len;) {
        const char *at = text.ptr + i;
        int step = utf8_next(at, text.len - i);
        if (step < 0 || *at == '\0')
            word_put(writer, "\xef\xbf\xbd");
        else if (*at == '"')
            word_put(writer, "\"\"");
        else
            writer_put(writer, at, (size_t)step);
        i += (size_t)(step < 0 ? -step : step);
    }
    word_put(writer, "\"");
}

/* Written as JSON, and that again as a field of CSV in its place. */
static void csv_put_fields(struct writer *writer, const struct row *row)
{
    static const char *const none[] = {NULL};
    size_t start = writer->out->len;
    if (row->request->n_fields == 0 && !row->item->chunk)
        return; /* an empty field without quotes is NULL */
    writer->no_nul = true;
    word_put(writer, "{");
    json_put_fields(writer, row, false, none);
    word_put(writer, "}");
    writer->no_nul = false;
    if (writer->status)
        return;
    size_t len = writer->out->len - start;
    writer->status = buffer_reserve(writer->out, 2 * len + 2); /* so that nothing moves */
    csv_put(writer, (struct bytes){writer->out->ptr + start, len});
    if (writer->status)
        return;
    writer->out->len -= len;
    memmove(writer->out->ptr + start, writer->out->ptr + start + len, writer->out->len - start);
}

/* The text of a `bit`, or of a `vector` or `halfvec`. */
static void csv_put_vector(struct writer *writer, const struct row *row)
{
    if (row->dtype != DTYPE_B1) {
        word_put(writer, "\"");
        json_put_vector(writer, row);
        word_put(writer, "\"");
        return;
    }
    for (size_t i = 0; i < row->dim; i++)
        word_put(writer, (unsigned char)row->packed[i / 8] >> (7 - i % 8) & 1 ? "1" : "0");
}

static void pgvector_put(struct writer *writer, const struct row *row)
{
    if (row->item->id_is_number)
        writer_put(writer, row->item->id.ptr, row->item->id.len);
    else
        csv_put(writer, row->item->id);
    word_put(writer, ",");
    csv_put_vector(writer, row);
    word_put(writer, ",");
    csv_put_fields(writer, row);
    word_put(writer, "\n");
}

/* Who writes JSON to a file ends it with a newline; between rows it is ours. */
void codec_rows_write(const struct output *output, struct writer *writer)
{
    const struct encode_options *options = output->options;
    char packed[4 * CODEC_DIM_MAX];
    assert(options->dim <= CODEC_DIM_MAX);
    for (size_t i = 0; i < output->n; i++) {
        struct row row = {&output->items[i], output->request, options->dtype, options->dim, packed};
        codec_dtype_pack(options->dtype, output->vectors + i * options->dim, options->dim, packed);
        if (options->format == OUTPUT_PGVECTOR) {
            pgvector_put(writer, &row);
            continue;
        }
        word_put(writer, i > 0 ? "\n" : "");
        if (options->format == OUTPUT_QDRANT)
            qdrant_put(writer, &row, options->collection);
        else
            milvus_put(writer, &row);
    }
}

int codec_output_csv(const struct codec_output *output, struct buffer *out)
{
    struct writer writer = {.out = out};
    const struct request request = {.fields = output->fields, .n_fields = output->n_fields};
    const size_t before = out->len, row_bytes = codec_dtype_bytes(output->dtype, output->dim);
    const char *at = output->ids, *at_chunk[4];
    memcpy(at_chunk, output->chunked, sizeof at_chunk);
    for (size_t i = 0; i < output->n; i++) {
        char number[32], parent[32];
        struct chunk chunk;
        struct item item = {.id = codec_output_id(output, &at, number)};
        item.id_is_number = item.id.ptr == number;
        item.chunk = codec_output_chunk(output, at_chunk, parent, &chunk) ? &chunk : NULL;
        pgvector_put(&writer, &(struct row){&item, &request, output->dtype, output->dim,
                                            output->vectors + i * row_bytes});
    }
    if (writer.status)
        out->len = before;
    return writer.status;
}
