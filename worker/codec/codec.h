/*
 * codec.h: payloads to texts, vectors to payloads.
 *
 * Owns:    the wire format (docs/wire-format.md): raw UTF-8, JSON and msgpack in, msgpack, JSON or
 *          rows of stores out, and every limit on hostile bytes. msgpack-c is included here only.
 * Refuses: brokers (a message is just bytes here), inference, policy for what is refused.
 * Threads: no state of any kind, so any number of threads may decode and encode at once; an arena
 *          and a buffer belong to one of them at a time.
 * Why:     what is asked for and how it is answered is one page (docs/wire-format.md), so that
 *          brokers and the pipeline can be read without it.
 */
#ifndef CODEC_H
#define CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connectors/buffer.h"
#include "connectors/connector.h"
#include "inference/embed.h"
#include "worker/codec/arena.h"

enum input_format { INPUT_AUTO, INPUT_RAW, INPUT_JSON, INPUT_MSGPACK };
/* From OUTPUT_QDRANT on: rows of stores (docs/vector-stores.md). OUTPUT_FIELDS, which no option
 * names: of a row the fields alone, as JSON, or nothing; the sink has id and vector (SINK_ROWS). */
enum output_format {
    OUTPUT_MSGPACK,
    OUTPUT_JSON,
    OUTPUT_QDRANT,
    OUTPUT_MILVUS,
    OUTPUT_PGVECTOR,
    OUTPUT_FIELDS,
};
enum output_dtype { DTYPE_F4, DTYPE_F2, DTYPE_I1, DTYPE_B1 };

enum { CODEC_FORMAT_VERSION = 1 }; /* `v` of every output */

/* Bounds that no option lifts. */
enum {
    CODEC_TEXTS_MAX = 65536,          /* a larger max_texts is taken as this */
    CODEC_DEPTH_MAX = 16,             /* maps and arrays inside each other, the outermost is 1 */
    CODEC_ID_BYTES_MAX = 1024,        /* ids are repeated per text: see codec_change.c */
    CODEC_DIM_MAX = 4096,             /* of vectors that are written as text */
    CODEC_VALUE_BYTES_MAX = 64 << 20, /* of a JSON or msgpack value */
    CODEC_JSON_VALUES_MAX = 1 << 16,  /* in a JSON value, plus 16 for each of max_texts */
};

/* What says which of two messages about a text is the later one. */
enum version_by {
    VERSION_NONE,      /* that which comes later */
    VERSION_POSITION,  /* message->order */
    VERSION_TIMESTAMP, /* message->timestamp_ms */
    VERSION_FIELD,     /* a field or header of the message */
};

struct decode_options {
    enum input_format format;
    size_t max_texts;      /* in one message */
    size_t max_text_bytes; /* of one text */
    bool refuse_bad_utf8;  /* in fields that are passed through; else they get U+FFFD. Of texts
                              the tokenizer judges. */
    bool skip_unchanged;   /* a change that leaves text, title and prompt as they were is done */
    const char *text_field, *id_field; /* their names; NULL: "text", "id" */
    enum version_by version_by;
    const char *version_field; /* VERSION_FIELD: its name, dots lead into maps */
    const char *model_field;   /* that names a model, or a header of this name; NULL: none does */
};

/* One text of a message. Absent id or title: ptr NULL. */
struct item {
    struct bytes id; /* never absent; numbers are kept as their decimal text, see id_is_number */
    struct bytes title;
    struct bytes text;
    bool id_is_number;         /* the output writes the id as an integer again */
    const struct chunk *chunk; /* the text is a piece of a longer one; NULL: it is whole */
};

/* So that texts can be counted where pieces are. */
static inline bool item_begins_text(const struct item *item)
{
    return !item->chunk || item->chunk->number == 0;
}

/* A decoded message: what is asked for. Bytes lie in the message or in the arena. */
struct request {
    struct item *items; /* [n_items], at least 1 unless is_deleted or is_unchanged */
    size_t n_items;
    bool many;       /* it had `texts`, or a text was cut: the output has ids, ... as arrays */
    struct bytes id; /* of the message; items[0].id unless many */
    bool id_is_number;
    struct bytes prompt; /* name asked for by the message; absent: the configured one */
    struct bytes fields; /* msgpack key/value pairs back to back, to pass through */
    uint32_t n_fields;
    bool is_deleted;   /* no items: the text of this id is gone */
    bool is_unchanged; /* no items: a change that leaves the vector as it is */
    bool has_version;  /* of all its texts: struct document */
    int64_t version;
    bool lacks_version;
    struct bytes model; /* that model_field names; absent: none */
};

/* Why a message cannot be served: a stable code for machines, a sentence for people. */
struct refusal {
    const char *code; /* one of the table in docs/wire-format.md: "bad_json", "no_text", ... */
    char reason[240]; /* never holds text of the message */
};

/*
 * Decode message->value. Validated before it is unpacked: counts against bytes left, depth <= 16,
 * sizes. INPUT_AUTO: a map in msgpack, a JSON object, also in the frame of a schema registry, else
 * raw UTF-8. What is not text at all (packed, UTF-16, binary) is refused in every format.
 * 0; -EINVAL: refused, *why says it; -ENOMEM. *out is set only on 0, *why only on -EINVAL.
 */
int codec_decode(const struct message *message, const struct decode_options *options,
                 struct arena *arena, struct request *out, struct refusal *why);

/* A key without a value: the text that is called by the key is gone. 0, -EINVAL (refused: *why) or
 * -ENOMEM. */
int codec_tombstone(const struct message *message, const struct decode_options *options,
                    struct arena *arena, struct request *out, struct refusal *why);

/* What is the same in every output of a worker. */
struct encode_options {
    enum output_format format;
    const char *model;       /* name */
    const char *fingerprint; /* 32 hex digits */
    const char *precision;   /* "fast"; NULL: exact, which a record does not say */
    size_t dim;
    enum output_dtype dtype;
    bool per_text; /* the sink stores texts one by one: never arrays, not even for `texts` of one */
    const char *collection; /* OUTPUT_QDRANT only: its name */
};

/* Is an output a row for each text, instead of one record for the message? */
bool codec_format_is_rows(enum output_format format);
/* "application/json" */
const char *codec_format_type(enum output_format format);

/*
 * Append one output payload for items [first, first + n) of a request to out.
 * vectors: [n][dim] float32; results: [n]; prompt: the name that was used.
 * n == request->n_items for a record per message, 1 for a record per text (then set per_text).
 * Rows of n texts stand one below the other.
 * 0 or -ENOMEM (out is then as before).
 */
int codec_encode(const struct encode_options *options, const struct request *request,
                 const struct message *message, size_t first, size_t n, const char *prompt,
                 const float *vectors, const struct embed_result *results, struct buffer *out);

/* An output payload (msgpack) as it is read again, by `pull`. Bytes lie in the payload. */
struct codec_output {
    struct bytes map;                           /* the payload itself */
    struct bytes model, fingerprint, precision; /* absent: not said; precision: exact */
    enum output_dtype dtype;
    size_t dim, n; /* n vectors, one after another */
    const char *vectors;
    bool many; /* `ids` are n values of msgpack, one after another; else `id` is one */
    const char *ids;
    bool has_chunks;        /* some vectors are of pieces of texts: */
    const char *chunked[4]; /* parent, chunk, start and end, each as ids are */
    struct bytes fields;    /* as in struct request */
    uint32_t n_fields;
};
/* 0; -EINVAL: it is not an output of this version, *why says it. */
int codec_output_read(struct bytes payload, struct codec_output *out, struct refusal *why);
/* The id of the vector at `at`, and at set to the next one; number: room for one. */
struct bytes codec_output_id(const struct codec_output *output, const char **at, char number[32]);
/* What the vector at `at` (at first: output->chunked) is a piece of, and `at` set to the next one;
 * number: room for the parent. False: of a whole text. */
bool codec_output_chunk(const struct codec_output *output, const char *at[4], char number[32],
                        struct chunk *out);
/* Append the payload as JSON, vectors as numbers. 0 or -ENOMEM (out is then as before). */
int codec_output_json(const struct codec_output *output, struct buffer *out);
/* ... or as rows for pgvector. */
int codec_output_csv(const struct codec_output *output, struct buffer *out);

/* One vector in a dtype: how many bytes, its name on the wire, the bytes (codec_dtype_bytes). */
size_t codec_dtype_bytes(enum output_dtype dtype, size_t dim);
const char *codec_dtype_name(enum output_dtype dtype);
void codec_dtype_pack(enum output_dtype dtype, const float *row, size_t dim, void *out);

/* For JSON that is not a message, read as messages are. Without what may stand before a value: a
 * byte order mark, white space, a record separator. */
struct bytes codec_json_lead(struct bytes value);
/* Has each map of a value of msgpack, valid and at most CODEC_DEPTH_MAX deep, each key once? 0;
 * -EEXIST: *second is the number of a key that is there again, counted from 1 in the whole value;
 * -EILSEQ: a key has a NUL; -E2BIG: too many keys for max_texts texts; -ENOMEM. */
int codec_find_duplicate(struct bytes value, size_t max_texts, struct arena *arena, size_t *second);

#endif
