/*
 * codec_internal.h: what the files of the codec know of each other.
 *
 * Owns:    the seams inside the codec. Included by codec_*.c only.
 * Threads: no state.
 * Why:     JSON is turned into msgpack first, so what the fields of a message mean is written once,
 *          in codec_msgpack.c.
 */
#ifndef CODEC_INTERNAL_H
#define CODEC_INTERNAL_H

#include "worker/codec/codec.h"
#include "worker/codec/msgpack_walk.h"

/* Fill *why; returns -EINVAL. format and its values never hold text of the message. */
int codec_refuse(struct refusal *why, const char *code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* What the caller asks of one message, handed from file to file. */
struct decode {
    const struct message *message;
    const struct decode_options *options;
    struct arena *arena;
    struct refusal *why;
    size_t max_texts;
    bool
        is_json; /* the map was JSON: codec_json_convert has looked for keys that are there twice */
};

struct id {
    struct bytes bytes;
    bool is_number;
};

/* A message unpacked from what is around its row. Values of msgpack, in the message. */
struct change {
    struct bytes envelope;    /* a map; absent: the message is not a map */
    struct bytes row, before; /* maps; absent: there is none */
    bool is_deleted;          /* the text is gone */
    bool is_unchanged;        /* the text is what it was, or nobody can say what it is */
};
/* A map as a change; one that is none is its own row. 0 or a refusal. */
int codec_change_read(const struct decode *decode, struct bytes value, struct change *out);
/* The version of the message into out, if there is to be one. 0 or a refusal. */
int codec_version_read(const struct decode *decode, const struct change *change,
                       struct request *out);
/* The name of a model that the message gives, if there is to be one. 0 or a refusal. */
int codec_model_read(const struct decode *decode, const struct change *change, struct request *out);
/* Does a delete name the text that is gone? A position, which every message has, names itself. row:
 * what it was; absent: not known. 0, a refusal or -ENOMEM. */
int codec_delete_check(const struct decode *decode, struct bytes row);

/* Keys of a message that mean something. */
enum codec_field {
    CODEC_FIELD_TEXT,
    CODEC_FIELD_TEXTS,
    CODEC_FIELD_ID,
    CODEC_FIELD_IDS,
    CODEC_FIELD_TITLE,
    CODEC_FIELD_TITLES,
    CODEC_FIELD_PROMPT,
    CODEC_N_FIELDS
};
const char *codec_field_name(const struct decode *decode, int field);
/* With id_field=_id, an id as MongoDB's connector writes it. Of a row, {"$oid": ...} or a number in
 * {"$numberLong": ...}: *value becomes what is in it and the walk goes on behind it; anything else
 * stays as it is. Of a key, JSON in a string: 0 or -ENOMEM. */
void codec_row_unpack(const struct decode *decode, struct walk *walk, struct walk_value *value);
int codec_key_unpack(const struct decode *decode, struct walk_value *value);
/* A string or an integer as an id. 0 or -ENOMEM. */
int codec_value_id(const struct decode *decode, const struct walk_value *value, struct id *out);

/* The last header of that name with a value, or absent. */
struct bytes codec_header(const struct message *message, const char *name);
/* The id of the message: as given in the payload, else header `id`, else key, else position. */
int codec_message_id(const struct decode *decode, struct id given, struct id *out);
/* Is this text one we embed? place names it: "text", "texts[3]". */
int codec_text_check(const struct decode *decode, struct bytes text, const char *place);
/* Is the value small enough to be read as JSON or msgpack? */
int codec_size_check(const struct decode *decode);

/* A msgpack map to a request. */
int codec_msgpack_read(const struct decode *decode, struct bytes value, struct request *out);

/* Refuses an object that was printed by a program and not serialized. 0 or -EINVAL. */
int codec_printed_check(const struct decode *decode, struct bytes value);
/* Is this meant as JSON, as far as INPUT_AUTO can tell? 0 or -ENOMEM. */
int codec_json_detect(const struct decode *decode, struct bytes value, bool *is_json);
/* A JSON object to a msgpack map in the arena, with each key once. */
int codec_json_convert(const struct decode *decode, struct bytes value, struct bytes *out);
/* Most keys and values of JSON, and most keys of one msgpack map. */
size_t codec_values_max(const struct decode *decode);

/* A key, or the id of a text. */
struct codec_name {
    struct bytes text;
    size_t number;  /* of keys: counted in the whole value, from 1; of ids: of the text, from 0 */
    const char *at; /* of keys: where it is */
};
/*
 * Has each map of a value, which was checked, each key once? 0; -EEXIST: *second is there again;
 * -EILSEQ: a key has a NUL; -E2BIG: a map has more than codec_values_max; -ENOMEM.
 */
int codec_keys_check(const struct decode *decode, struct bytes value, struct codec_name *second);
/* Has each text an id of its own? 0, a refusal or -ENOMEM. */
int codec_ids_check(const struct decode *decode, const struct item *items, size_t n);
/* Values of msgpack: strings that are not UTF-8 get U+FFFD, or are refused as the options say. */
int codec_strings_repair(const struct decode *decode, struct bytes *values);

/* The JSON inside the frame of a schema registry; absent: there is none. */
struct bytes codec_frame_skip(struct bytes value);
/* Refuses what has the form of another format: packed, UTF-16, pictures, CBOR. 0 or -EINVAL. */
int codec_named_check(const struct decode *decode, struct bytes value);
/* ... and what is mostly not UTF-8, and so perhaps text in another encoding. */
int codec_encoding_check(const struct decode *decode, struct bytes value);
/* ... and what is not text, whatever else it is: NUL bytes, the frame of a schema registry. */
int codec_foreign_check(const struct decode *decode, struct bytes value);

/* The value of an IEEE 754 binary16 that is finite. */
float codec_half_value(uint16_t half);

/* One output, everything but the format decided. */
struct output {
    const struct encode_options *options;
    const struct request *request;
    const struct message *message;
    const struct item *items; /* [n] */
    size_t n;
    bool many;
    const char *prompt;
    const float *vectors;               /* [n][dim] */
    const struct embed_result *results; /* [n] */
};
/* What an output says of pieces, in this order. */
extern const char *const codec_chunk_fields[4];
/* Is one of its texts a piece of a longer one? */
bool codec_has_chunks(const struct output *output);
/* All append one output; a failure is in to->status. */
void codec_msgpack_write(const struct output *output, struct buffer *to);
void codec_json_write(const struct output *output, struct buffer *to);
/* One row for each text; output->many does not count. */
void codec_rows_write(const struct output *output, struct buffer *to);

/* Values of msgpack that were checked, as JSON: nested CODEC_DEPTH_MAX deep at most. */
void codec_json_put_value(struct buffer *to, struct walk *walk);
void codec_json_put_key(struct buffer *to, struct walk *walk);
/* An object of `count` pairs. */
void codec_json_put_pairs(struct buffer *to, struct walk *walk, uint32_t count);

/* Pieces of JSON. Of a packed vector the numbers with commas between, without brackets: they bring
 * the values of the dtype back exactly; of bits, their bytes. */
void codec_json_put_id(struct buffer *to, struct bytes id, bool is_number);
void codec_json_put_vector(struct buffer *to, enum output_dtype dtype, size_t dim,
                           const char *packed);
/* The value of one of codec_chunk_fields; null for whole texts. */
void codec_json_put_place(struct buffer *to, const struct chunk *chunk, size_t field);
/* Four members of an object, by codec_chunk_fields; comma: also before the first. */
void codec_json_put_chunk(struct buffer *to, const struct chunk *chunk, bool comma);
/* Members of an object, but those with names of `ours`; comma: also before the first. */
void codec_json_put_fields(struct buffer *to, const struct request *request, bool comma,
                           const char *const *ours);

#endif
