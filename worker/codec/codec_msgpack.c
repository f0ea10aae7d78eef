/*
 * codec_msgpack.c: the fields of a message.
 *
 * Owns:    which keys mean something, their types, and what may stand together. The map has been
 *          checked whole by msgpack_walk_check, so reading it here cannot run out of bytes.
 * Refuses: to copy: texts stay where they are. Only passed-through pairs and ids made here lie in
 *          the arena.
 * Threads: no state.
 */
#include "worker/codec/codec_internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"
#include "worker/codec/msgpack_walk.h"

/* Where the values of the known keys begin; at NULL: not given, or null. */
struct fields {
    struct walk at[CODEC_N_FIELDS];
};

enum { PLACE_BYTES = 48 };

static int field_find(const struct decode *decode, struct bytes key)
{
    for (int i = 0; i < CODEC_N_FIELDS; i++) {
        const char *name = codec_field_name(decode, i);
        if (strlen(name) == key.len && memcmp(name, key.ptr, key.len) == 0)
            return i;
    }
    return -1;
}

static int type_refuse(const struct decode *decode, const char *place, const char *expected,
                       enum walk_type found)
{
    return codec_refuse(decode->why, DEAD_LETTER(bad_field), "field '%s' is %s; send %s", place,
                        walk_type_name(found), expected);
}

static int duplicate_refuse(const struct decode *decode, const char *place)
{
    return codec_refuse(decode->why, DEAD_LETTER(duplicate_field),
                        "field '%s' appears twice; send each key once", place);
}

/* A known key: remember where its value is. seen: a bit for each key met so far. */
static int field_note(const struct decode *decode, struct fields *fields, int field,
                      struct walk value, unsigned *seen)
{
    struct walk_value head;
    assert(field >= 0 && field < CODEC_N_FIELDS);
    if (*seen & 1u << field)
        return duplicate_refuse(decode, codec_field_name(decode, field));
    /* Noted even when it is null: {"text": null, "text": "a"} names the field twice all the
     * same. */
    *seen |= 1u << field;
    fields->at[field] = value;
    msgpack_walk_next(&value, &head);
    if (head.type == WALK_NIL)
        fields->at[field].at = NULL;
    return 0;
}

/* Copy the pairs that are not ours, back to back. len: their bytes, known from fields_find. */
static int others_copy(const struct decode *decode, struct walk walk, size_t len,
                       struct request *out)
{
    struct walk_value map, key;
    /* A second pass over the same pairs: only the first could say how much room they need. */
    char *to = arena_alloc(decode->arena, len);
    if (!to)
        return -ENOMEM;
    out->fields = (struct bytes){to, len};
    msgpack_walk_next(&walk, &map);
    for (uint32_t i = 0; i < map.count; i++) {
        const char *pair = walk.at;
        msgpack_walk_next(&walk, &key);
        msgpack_walk_skip(&walk);
        if (field_find(decode, key.bytes) >= 0)
            continue;
        assert((size_t)(to - out->fields.ptr) + (size_t)(walk.at - pair) <= len);
        memcpy(to, pair, (size_t)(walk.at - pair));
        to += walk.at - pair;
    }
    return 0;
}

static int fields_find(const struct decode *decode, struct walk walk, struct fields *fields,
                       struct request *out)
{
    const struct walk whole = walk;
    struct walk_value map, key;
    unsigned seen = 0;
    size_t others_len = 0;
    msgpack_walk_next(&walk, &map);
    for (uint32_t i = 0; i < map.count; i++) {
        const char *pair = walk.at;
        msgpack_walk_next(&walk, &key);
        /* A walk is two pointers: a copy of it is a place to come back to. */
        struct walk value = walk;
        msgpack_walk_skip(&walk);
        int field = field_find(decode, key.bytes);
        /* A field of the sender's own: its bytes are copied to the output as they are. */
        if (field < 0) {
            out->n_fields++;
            others_len += (size_t)(walk.at - pair);
            continue;
        }
        int err = field_note(decode, fields, field, value, &seen);
        if (err)
            return err;
    }
    int err = others_len > 0 ? others_copy(decode, whole, others_len, out) : 0;
    return err ? err : codec_strings_repair(decode, &out->fields);
}

/* A string or null (then absent). */
static int string_read(const struct decode *decode, struct walk *walk, const char *place,
                       struct bytes *out)
{
    struct walk_value value;
    msgpack_walk_next(walk, &value);
    if (value.type == WALK_NIL)
        return 0;
    if (value.type != WALK_STR)
        return type_refuse(decode, place, "a string", value.type);
    *out = value.bytes;
    return 0;
}

/* A string or an integer, or null (then absent). */
static int id_read(const struct decode *decode, struct walk *walk, const char *place,
                   struct id *out)
{
    struct walk_value value;
    msgpack_walk_next(walk, &value);
    codec_row_unpack(decode, walk, &value);
    if (value.type == WALK_NIL)
        return 0;
    bool is_number = value.type == WALK_INT || value.type == WALK_UINT;
    if (!is_number && value.type != WALK_STR)
        return type_refuse(decode, place, "a string or an integer", value.type);
    if (!is_number && (value.bytes.len == 0 || value.bytes.len > CODEC_ID_BYTES_MAX))
        return codec_refuse(decode->why, DEAD_LETTER(bad_field),
                            "field '%s' has %zu bytes; send an id of 1 to %d", place,
                            value.bytes.len, CODEC_ID_BYTES_MAX);
    return codec_value_id(decode, &value, out);
}

static int text_read(const struct decode *decode, struct bytes text, const char *place,
                     struct bytes *out)
{
    char quoted[PLACE_BYTES + 16];
    snprintf(quoted, sizeof quoted, "field '%s'", place);
    *out = text;
    return codec_text_check(decode, text, quoted);
}

/* One {id, text, title} of `texts`; other keys in it mean nothing. */
static int item_map_read(const struct decode *decode, struct walk *walk, uint32_t count,
                         size_t index, struct item *item)
{
    unsigned seen = 0;
    struct id id = {{NULL, 0}, false};
    struct bytes text = {NULL, 0};
    char place[PLACE_BYTES];
    for (uint32_t i = 0; i < count; i++) {
        struct walk_value key;
        msgpack_walk_next(walk, &key);
        int field = key.type == WALK_STR ? field_find(decode, key.bytes) : -1;
        if (field != CODEC_FIELD_ID && field != CODEC_FIELD_TEXT && field != CODEC_FIELD_TITLE) {
            /* Only the head of such a key was read: what is inside would be taken for its value. */
            if (key.type == WALK_ARRAY || key.type == WALK_MAP)
                return codec_refuse(decode->why, DEAD_LETTER(bad_field),
                                    "a key in field 'texts[%zu]' is %s; send strings as keys",
                                    index, walk_type_name(key.type));
            msgpack_walk_skip(walk);
            continue;
        }
        snprintf(place, sizeof place, "texts[%zu].%s", index, codec_field_name(decode, field));
        if (seen & 1u << field)
            return duplicate_refuse(decode, place);
        seen |= 1u << field;
        int err = field == CODEC_FIELD_ID
                      ? id_read(decode, walk, place, &id)
                      : string_read(decode, walk, place,
                                    field == CODEC_FIELD_TEXT ? &text : &item->title);
        if (err)
            return err;
    }
    item->id = id.bytes;
    item->id_is_number = id.is_number;
    if (!text.ptr)
        return codec_refuse(decode->why, DEAD_LETTER(no_text),
                            "field 'texts[%zu]' has no 'text'; every entry needs one", index);
    snprintf(place, sizeof place, "texts[%zu].text", index);
    return text_read(decode, text, place, &item->text);
}

static int item_read(const struct decode *decode, struct walk *walk, size_t index,
                     struct item *item)
{
    struct walk_value value;
    char place[PLACE_BYTES];
    msgpack_walk_next(walk, &value);
    if (value.type == WALK_MAP)
        return item_map_read(decode, walk, value.count, index, item);
    snprintf(place, sizeof place, "texts[%zu]", index);
    if (value.type != WALK_STR)
        return type_refuse(decode, place, "a string or a map with 'text'", value.type);
    return text_read(decode, value.bytes, place, &item->text);
}

/* Open `ids` or `titles`: an array as long as `texts`. */
static int parallel_open(const struct decode *decode, struct walk *walk, enum codec_field field,
                         size_t n_texts)
{
    struct walk_value value;
    msgpack_walk_next(walk, &value);
    if (value.type != WALK_ARRAY)
        return type_refuse(decode, codec_field_name(decode, field), "an array", value.type);
    if (value.count != n_texts)
        return codec_refuse(decode->why, DEAD_LETTER(ids_mismatch),
                            "field '%s' has %" PRIu32 " entries and 'texts' has %zu; send one for "
                            "each text",
                            codec_field_name(decode, field), value.count, n_texts);
    return 0;
}

static int ids_read(const struct decode *decode, struct walk walk, struct item *items, size_t n)
{
    int err = parallel_open(decode, &walk, CODEC_FIELD_IDS, n);
    for (size_t i = 0; !err && i < n; i++) {
        struct id id = {{NULL, 0}, false};
        char place[PLACE_BYTES];
        snprintf(place, sizeof place, "ids[%zu]", i);
        err = id_read(decode, &walk, place, &id);
        /* An id inside an entry of `texts` counts before one in `ids`. */
        if (!err && !items[i].id.ptr) {
            items[i].id = id.bytes;
            items[i].id_is_number = id.is_number;
        }
    }
    return err;
}

static int titles_read(const struct decode *decode, struct walk walk, struct item *items, size_t n)
{
    int err = parallel_open(decode, &walk, CODEC_FIELD_TITLES, n);
    for (size_t i = 0; !err && i < n; i++) {
        struct bytes title = {NULL, 0};
        char place[PLACE_BYTES];
        snprintf(place, sizeof place, "titles[%zu]", i);
        err = string_read(decode, &walk, place, &title);
        if (!items[i].title.ptr)
            items[i].title = title;
    }
    return err;
}

/* "<id of the message>/<index>" for texts that have none of their own. */
static int ids_derive(const struct decode *decode, struct request *out)
{
    for (size_t i = 0; i < out->n_items; i++) {
        if (out->items[i].id.ptr)
            continue;
        char suffix[24];
        size_t suffix_len = (size_t)snprintf(suffix, sizeof suffix, "/%zu", i);
        char *id = arena_alloc(decode->arena, out->id.len + suffix_len);
        if (!id)
            return -ENOMEM;
        memcpy(id, out->id.ptr, out->id.len);
        memcpy(id + out->id.len, suffix, suffix_len);
        out->items[i].id = (struct bytes){id, out->id.len + suffix_len};
    }
    return 0;
}

static int texts_open(const struct decode *decode, struct walk *walk, struct request *out)
{
    struct walk_value value;
    msgpack_walk_next(walk, &value);
    if (value.type != WALK_ARRAY)
        return type_refuse(decode, "texts", "an array", value.type);
    if (value.count == 0)
        return codec_refuse(decode->why, DEAD_LETTER(no_text),
                            "field 'texts' is an empty array; send at least one text");
    if (value.count > decode->max_texts)
        return codec_refuse(decode->why, DEAD_LETTER(too_many_texts),
                            "field 'texts' has %" PRIu32 " entries and the limit is %zu; send "
                            "fewer in one message",
                            value.count, decode->max_texts);
    out->n_items = value.count;
    out->items = arena_alloc(decode->arena, out->n_items * sizeof *out->items);
    if (!out->items)
        return -ENOMEM;
    /* An id or title that nobody gives is known by its NULL. */
    memset(out->items, 0, out->n_items * sizeof *out->items);
    return 0;
}

static int many_read(const struct decode *decode, const struct fields *fields, struct request *out)
{
    struct walk texts = fields->at[CODEC_FIELD_TEXTS];
    int err = texts_open(decode, &texts, out);
    for (size_t i = 0; !err && i < out->n_items; i++)
        err = item_read(decode, &texts, i, &out->items[i]);
    if (!err && fields->at[CODEC_FIELD_IDS].at)
        err = ids_read(decode, fields->at[CODEC_FIELD_IDS], out->items, out->n_items);
    if (!err && fields->at[CODEC_FIELD_TITLES].at)
        err = titles_read(decode, fields->at[CODEC_FIELD_TITLES], out->items, out->n_items);
    /* Also of a single entry: what came as a list goes out as one. */
    out->many = true;
    if (!err)
        err = ids_derive(decode, out);
    /* Last: an id that is given may be the one that is derived for another text. */
    return err ? err : codec_ids_check(decode, out->items, out->n_items);
}

static int one_read(const struct decode *decode, const struct fields *fields, struct request *out)
{
    /* The two plurals, whose singular is the name without its last letter. */
    for (int i = CODEC_FIELD_IDS; i <= CODEC_FIELD_TITLES;
         i += CODEC_FIELD_TITLES - CODEC_FIELD_IDS)
        if (fields->at[i].at)
            return codec_refuse(decode->why, DEAD_LETTER(bad_field),
                                "field '%s' belongs to 'texts', and there is 'text'; send '%.*s'",
                                codec_field_name(decode, i),
                                (int)strlen(codec_field_name(decode, i)) - 1,
                                codec_field_name(decode, i));
    struct bytes text = {NULL, 0};
    struct walk walk = fields->at[CODEC_FIELD_TEXT];
    const char *name = codec_field_name(decode, CODEC_FIELD_TEXT);
    int err = string_read(decode, &walk, name, &text);
    if (!err)
        err = text_read(decode, text, name, &text);
    if (err)
        return err;
    out->n_items = 1;
    out->items = arena_alloc(decode->arena, sizeof *out->items);
    if (!out->items)
        return -ENOMEM;
    *out->items = (struct item){.id = out->id, .text = text, .id_is_number = out->id_is_number};
    return 0;
}

/* The fields that are of the message, not of a text. */
static int message_read(const struct decode *decode, const struct fields *fields,
                        struct request *out, struct bytes *title)
{
    struct id id = {{NULL, 0}, false};
    struct walk at;
    int err = 0;
    /* Headers first: fields of the message go before them. */
    *title = codec_header(decode->message, "title");
    out->prompt = codec_header(decode->message, "prompt");
    if ((at = fields->at[CODEC_FIELD_ID]).at)
        err = id_read(decode, &at, codec_field_name(decode, CODEC_FIELD_ID), &id);
    if (!err && (at = fields->at[CODEC_FIELD_TITLE]).at)
        err = string_read(decode, &at, "title", title);
    if (!err && (at = fields->at[CODEC_FIELD_PROMPT]).at)
        err = string_read(decode, &at, "prompt", &out->prompt);
    if (!err)
        err = codec_message_id(decode, id, &id);
    out->id = id.bytes;
    out->id_is_number = id.is_number;
    return err;
}

/* JSON was looked through before, where a place can be named. */
static int keys_check(const struct decode *decode, struct bytes value)
{
    struct codec_name second;
    int err = decode->is_json ? 0 : codec_keys_check(decode, value, &second);
    if (err == -EEXIST)
        return codec_refuse(decode->why, DEAD_LETTER(duplicate_field),
                            "a msgpack map has the same key twice (at byte %zu); send each key "
                            "once",
                            (size_t)(second.at - value.ptr));
    if (err == -EILSEQ)
        return codec_refuse(
            decode->why, DEAD_LETTER(bad_msgpack),
            "a key of a msgpack map has a NUL character; name the field without it");
    if (err == -E2BIG)
        return codec_refuse(decode->why, DEAD_LETTER(too_many_values),
                            "a msgpack map has more keys than the limit is, %zu; send less beside "
                            "a text",
                            codec_values_max(decode));
    return err;
}

/* Whose text is gone or unchanged: a message without texts. */
static int gone_read(const struct decode *decode, const struct change *change, struct request *out)
{
    const struct bytes row = change->row;
    struct fields fields = {0};
    struct request unused = {0};
    struct bytes title;
    /* Types are checked as of any message, but its other fields go nowhere. */
    int err = row.ptr
                  ? fields_find(decode, (struct walk){row.ptr, row.ptr + row.len}, &fields, &unused)
                  : 0;
    /* A delete that names no text would delete nothing, and nobody would see it. */
    if (!err && change->is_deleted)
        err = codec_delete_check(decode, row);
    if (!err)
        err = message_read(decode, &fields, out, &title);
    out->is_deleted = change->is_deleted;
    out->is_unchanged = change->is_unchanged;
    return err;
}

static int texts_read(const struct decode *decode, struct bytes row, struct request *out)
{
    const char *name = codec_field_name(decode, CODEC_FIELD_TEXT);
    struct fields fields = {0};
    struct bytes title;
    int err = fields_find(decode, (struct walk){row.ptr, row.ptr + row.len}, &fields, out);
    if (err)
        return err;
    bool one = fields.at[CODEC_FIELD_TEXT].at, many = fields.at[CODEC_FIELD_TEXTS].at;
    if (!one && !many)
        return codec_refuse(decode->why, DEAD_LETTER(no_text),
                            "the value has neither '%.40s' nor 'texts'; send one of them, name the "
                            "field of your texts in text_field, or set input_format to raw to "
                            "have values embedded as they are",
                            name);
    if (one && many)
        return codec_refuse(decode->why, DEAD_LETTER(bad_field),
                            "the value has both '%.40s' and 'texts'; send one of them", name);
    err = message_read(decode, &fields, out, &title);
    if (!err)
        err = many ? many_read(decode, &fields, out) : one_read(decode, &fields, out);
    for (size_t i = 0; !err && i < out->n_items; i++)
        if (!out->items[i].title.ptr)
            out->items[i].title = title;
    return err;
}

int codec_msgpack_read(const struct decode *decode, struct bytes value, struct request *out)
{
    struct request request = {0};
    struct change change;
    int err = codec_change_read(decode, value, &change);
    if (!err)
        err = change.is_deleted || change.is_unchanged ? gone_read(decode, &change, &request)
                                                       : texts_read(decode, change.row, &request);
    if (!err)
        err = codec_version_read(decode, &change, &request);
    if (!err)
        err = codec_model_read(decode, &change, &request);
    if (!err)
        /* Of the whole value: also a key that nobody asks for must not be there twice. */
        err = keys_check(decode, value);
    if (!err)
        *out = request;
    return err;
}
