/*
 * codec_change.c: messages that say what became of a row: inserted, changed, deleted.
 *
 * Owns:    the envelope of Debezium, whole or flattened (ExtractNewRecordState), with the schema
 *          of Kafka Connect's JSON around it or without; `delete`; versions; ids and their
 *          precedence.
 * Refuses: what the fields of a row mean: codec_msgpack.c.
 * Threads: no state.
 * Why:     what is in the envelope is a message like any other once it is unpacked, so that nothing
 *          behind this file knows of it. Formats: Debezium's documentation, "Data change events"
 *          of each connector and "New Record State Extraction".
 */
#include "worker/codec/codec_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"

/* What PostgreSQL's connector writes for a long value that the change did not touch: it is not in
 * the log of the database. */
#define UNAVAILABLE "__debezium_unavailable_value"

static struct walk walk_of(struct bytes bytes)
{
    return (struct walk){bytes.ptr, bytes.ptr ? bytes.ptr + bytes.len : NULL};
}

/* Value of a key of a map that was checked; absent: it has none. */
static struct bytes map_get(struct bytes map, const char *name, size_t name_len)
{
    struct walk walk = walk_of(map);
    struct walk_value head, key;
    if (!map.ptr || msgpack_walk_next(&walk, &head) || head.type != WALK_MAP)
        return (struct bytes){NULL, 0};
    for (uint32_t i = 0; i < head.count; i++) {
        msgpack_walk_next(&walk, &key);
        /* The map was checked as a whole before, so no step of the walk can fail. */
        const char *at = walk.at;
        msgpack_walk_skip(&walk);
        if (key.type == WALK_STR && bytes_equal(key.bytes, (struct bytes){name, name_len}))
            return (struct bytes){at, (size_t)(walk.at - at)};
    }
    return (struct bytes){NULL, 0};
}

static struct bytes member(struct bytes map, const char *name)
{
    return map_get(map, name, strlen(name));
}

/* Of an absent value WALK_NIL. */
static struct walk_value value_of(struct bytes value)
{
    struct walk_value out = {.type = WALK_NIL};
    struct walk walk = walk_of(value);
    if (value.ptr)
        msgpack_walk_next(&walk, &out);
    return out;
}

static bool is_map(struct bytes value)
{
    return value_of(value).type == WALK_MAP;
}

static uint32_t count_of(struct bytes map)
{
    struct walk_value head = value_of(map);
    return head.type == WALK_MAP ? head.count : 0;
}

/* {"schema": ..., "payload": ...}, as Kafka Connect's JsonConverter writes it: what is inside. */
static struct bytes schema_skip(struct bytes value)
{
    struct bytes payload = member(value, "payload");
    return count_of(value) == 2 && member(value, "schema").ptr && payload.ptr ? payload : value;
}

static bool is_yes(struct walk_value value)
{
    return (value.type == WALK_BOOL && value.is_true) ||
           (value.type == WALK_INT && value.integer == 1) ||
           (value.type == WALK_STR && bytes_are(value.bytes, "true"));
}

/* What Debezium says of a flattened row: "true", "false", and what casts make of these. Anything
 * else says nothing sure, and to guess would embed what is gone or delete what is not. */
static int flag_read(const struct decode *decode, struct bytes value, bool *out)
{
    struct walk_value flag = value_of(value);
    bool is_bit = flag.type == WALK_INT && (flag.integer == 0 || flag.integer == 1);
    *out = is_yes(flag);
    if (*out || flag.type == WALK_NIL || flag.type == WALK_BOOL || is_bit ||
        (flag.type == WALK_STR && bytes_are(flag.bytes, "false")))
        return 0;
    return codec_refuse(decode->why, DEAD_LETTER(bad_field),
                        "field '__deleted' is neither true nor false, so nobody can tell whether "
                        "the row is gone; send a boolean, or \"true\" or \"false\"");
}

static const char *text_name(const struct decode *decode)
{
    return codec_field_name(decode, CODEC_FIELD_TEXT);
}

/*
 * The text of a row was taken away: its column is null or empty, or was there before the change. A
 * row that never had the column is a mistake in the name: it would delete every row of a table.
 */
static bool is_textless(const struct decode *decode, struct bytes row, struct bytes before)
{
    struct bytes column = member(row, text_name(decode));
    struct walk_value text = value_of(column);
    if (!column.ptr)
        return member(before, text_name(decode)).ptr;
    return text.type == WALK_NIL || (text.type == WALK_STR && text.bytes.len == 0);
}

static bool is_unavailable(struct bytes row, const char *name)
{
    struct walk_value value = value_of(member(row, name));
    return value.type == WALK_STR && bytes_are(value.bytes, UNAVAILABLE);
}

static int unavailable_refuse(const struct decode *decode, const char *name, const char *what)
{
    return codec_refuse(decode->why, DEAD_LETTER(no_text),
                        "column '%.40s' has " UNAVAILABLE " in place of its value, and %s; give "
                        "the table REPLICA IDENTITY FULL, or have the connector read it again",
                        name, what);
}

/*
 * Where the connector did not know the text the vector is as it was, if there was one: not in a row
 * that is new. Of a title or prompt it does not know no vector of the new text can be made.
 */
static int unavailable_check(const struct decode *decode, bool is_new, struct change *change)
{
    const char *const names[] = {"title", "prompt", codec_field_name(decode, CODEC_FIELD_ID)};
    if (change->is_deleted)
        return 0;
    if (is_unavailable(change->row, text_name(decode))) {
        change->is_unchanged = true;
        return is_new ? unavailable_refuse(decode, text_name(decode), "the row is new") : 0;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (is_unavailable(change->row, names[i]) && strcmp(names[i], text_name(decode)) != 0)
            return unavailable_refuse(decode, names[i], "the vector is made of it, too");
    return 0;
}

/* Is all that decides the vector as it was before the change? */
static bool is_same_text(const struct decode *decode, const struct change *change)
{
    const char *const names[] = {text_name(decode), "title", "prompt"};
    if (!change->before.ptr || !member(change->row, names[0]).ptr)
        return false;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!bytes_equal(member(change->row, names[i]), member(change->before, names[i])))
            return false;
    return true;
}

static int row_refuse(const struct decode *decode, const char *name)
{
    return codec_refuse(decode->why, DEAD_LETTER(bad_field),
                        "field '%s' of the change is not a map, and its operation needs the row; "
                        "have the connector send rows as objects (of MongoDB whole ones: "
                        "capture.mode=change_streams_update_full)",
                        name);
}

static int truncated_refuse(const struct decode *decode)
{
    return codec_refuse(decode->why, DEAD_LETTER(table_truncated),
                        "the table was truncated, which names no rows; remove their vectors by "
                        "hand, or rebuild the index");
}

/* A row: a map, also as MongoDB's connector sends it, in a string of JSON. Null: absent. */
static int row_read(const struct decode *decode, const char *name, struct bytes value,
                    struct bytes *out)
{
    struct walk_value head = value_of(value);
    *out = (struct bytes){NULL, 0};
    if (head.type == WALK_NIL)
        return 0;
    if (head.type == WALK_STR && head.bytes.len > 0 && *head.bytes.ptr == '{')
        return codec_json_convert(decode, head.bytes, out);
    if (head.type != WALK_MAP)
        return row_refuse(decode, name);
    *out = value;
    return 0;
}

static int envelope_read(const struct decode *decode, struct bytes envelope, struct change *out)
{
    struct walk_value op = value_of(member(envelope, "op"));
    char code = op.bytes.len == 1 ? *op.bytes.ptr : '?';
    int err = row_read(decode, "after", member(envelope, "after"), &out->row);
    if (!err)
        err = row_read(decode, "before", member(envelope, "before"), &out->before);
    if (err)
        return err;
    switch (code) {
    case 'c':
    /* Created, read in a snapshot, updated: all carry the row as it is now. */
    case 'r':
    case 'u':
        if (!out->row.ptr)
            return row_refuse(decode, "after");
        out->is_deleted = is_textless(decode, out->row, out->before);
        out->is_unchanged = code == 'u' && decode->options->skip_unchanged && !out->is_deleted &&
                            is_same_text(decode, out);
        return unavailable_check(decode, code != 'u', out);
    case 'd':
        /* Of a deleted row only the key counts, and with REPLICA IDENTITY FULL `before` has it,
         * too. */
        out->row = out->before;
        out->is_deleted = true;
        return 0;
    case 't':
        return truncated_refuse(decode);
    case 'm':
        return codec_refuse(decode->why, DEAD_LETTER(bad_field),
                            "field 'op' is m, a message of pg_logical_emit_message, which is about "
                            "no row; leave its topic out, or have the connector skip it");
    default:
        return codec_refuse(decode->why, DEAD_LETTER(bad_field),
                            "field 'op' is not one of c, r, u, d and t; send a change as Debezium "
                            "writes it");
    }
}

/* Another's field of this name says nothing about the row. */
static bool is_operation(struct walk_value op)
{
    return op.type == WALK_STR && op.bytes.len == 1 && memchr("crud", *op.bytes.ptr, 4);
}

/* `delete` beside a text, of several ids, or "true", which is all that a row of CSV can say: what
 * is meant is not sure, and a delete is for good. */
static int delete_check(const struct decode *decode, struct bytes row, struct walk_value given)
{
    const char *const names[] = {text_name(decode), "texts", "ids"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (value_of(member(row, names[i])).type != WALK_NIL)
            return codec_refuse(decode->why, DEAD_LETTER(bad_field),
                                "the value has both 'delete' and '%.40s'; to delete send the id of "
                                "one text and no text, to write it leave out 'delete'",
                                names[i]);
    return given.type == WALK_BOOL
               ? 0
               : codec_refuse(decode->why, DEAD_LETTER(bad_field),
                              "field 'delete' is %s; send the boolean true to delete a text, or "
                              "name a field of your own otherwise",
                              walk_type_name(given.type));
}

static int flat_read(const struct decode *decode, struct bytes row, struct change *out)
{
    struct walk_value op = value_of(member(row, "__op"));
    struct bytes deleted = member(row, "__deleted");
    struct walk_value given = value_of(member(row, "delete"));
    bool is_change = is_operation(op) || deleted.ptr, is_gone;
    char code = is_operation(op) ? *op.bytes.ptr : 'u';
    int err = flag_read(decode, deleted, &is_gone);
    if (op.type == WALK_STR && bytes_are(op.bytes, "t"))
        return truncated_refuse(decode);
    out->row = row;
    out->is_deleted =
        is_gone || code == 'd' || (is_change && is_textless(decode, row, (struct bytes){NULL, 0}));
    if (!err && !out->is_deleted && is_yes(given)) {
        out->is_deleted = true;
        err = delete_check(decode, row, given);
    }
    return err ? err : unavailable_check(decode, code != 'u', out);
}

/* A truncated table and a message of the log have no rows, and some connectors leave the fields for
 * them out. */
static bool is_envelope(struct bytes map)
{
    struct walk_value op = value_of(member(map, "op"));
    if (op.type != WALK_STR)
        return false;
    return member(map, "before").ptr || member(map, "after").ptr ||
           (is_map(member(map, "source")) &&
            (bytes_are(op.bytes, "t") || bytes_are(op.bytes, "m")));
}

int codec_change_read(const struct decode *decode, struct bytes value, struct change *out)
{
    struct bytes inner = schema_skip(value);
    bool has_text = member(inner, text_name(decode)).ptr || member(inner, "texts").ptr;
    *out = (struct change){.envelope = inner};
    if (!is_map(inner)) { /* a tombstone with a schema around it */
        out->is_deleted = value_of(inner).type == WALK_NIL;
        return out->is_deleted ? 0 : row_refuse(decode, "payload");
    }
    /* A message of one's own may have fields named op, before and after: with a text it is no
     * change. */
    return !has_text && is_envelope(inner) ? envelope_read(decode, inner, out)
                                           : flat_read(decode, inner, out);
}

/* Versions. */

static bool digits_read(struct bytes text, unsigned base, uint64_t *out)
{
    uint64_t n = 0;
    if (text.len == 0)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        unsigned digit = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                         : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                         : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                                                : 99;
        /* Versions are kept as signed 64 bits by the stores, so more is no number here. */
        if (digit >= base || n > ((uint64_t)INT64_MAX - digit) / base)
            return false;
        n = n * base + digit;
    }
    *out = n;
    return true;
}

/* "16/B374D848", a log sequence number as PostgreSQL prints it. */
static bool lsn_read(struct bytes text, uint64_t *out)
{
    const char *slash = memchr(text.ptr, '/', text.len);
    uint64_t high, low;
    if (!slash)
        return false;
    size_t len = (size_t)(slash - text.ptr);
    if (!digits_read((struct bytes){text.ptr, len}, 16, &high) || high > INT32_MAX ||
        !digits_read((struct bytes){slash + 1, text.len - len - 1}, 16, &low) || low > UINT32_MAX)
        return false;
    *out = high << 32 | low;
    return true;
}

static bool number_at(struct bytes text, size_t at, size_t n, uint64_t *out)
{
    return at + n <= text.len && digits_read((struct bytes){text.ptr + at, n}, 10, out);
}

/* Days from 1970-01-01 in the Gregorian calendar, as of any year from 1970 on. */
static uint64_t days_of(uint64_t year, uint64_t month, uint64_t day)
{
    static const unsigned before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    uint64_t last = year - 1;
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    /* Leap years before this one, without those before 1970; this one's own day counts from
     * March. */
    uint64_t leaps = last / 4 - last / 100 + last / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    return (year - 1970) * 365 + leaps + before[month - 1] + (is_leap && month > 2) + day - 1;
}

/* The zone behind a time: minutes to be taken off it. */
static bool zone_read(struct bytes text, size_t at, int *minutes)
{
    uint64_t hour, minute;
    if (at + 1 == text.len && (text.ptr[at] == 'Z' || text.ptr[at] == 'z'))
        return *minutes = 0, true;
    if (at + 6 != text.len || (text.ptr[at] != '+' && text.ptr[at] != '-') ||
        text.ptr[at + 3] != ':' || !number_at(text, at + 1, 2, &hour) ||
        !number_at(text, at + 4, 2, &minute) || hour > 23 || minute > 59)
        return false;
    *minutes = (int)(hour * 60 + minute) * (text.ptr[at] == '+' ? 1 : -1);
    return true;
}

/* A time of RFC 3339 from 1970 on, in microseconds; what is finer is cut off. */
static bool time_read(struct bytes text, uint64_t *out)
{
    uint64_t year, month, day, hour, minute, second, micros = 0, digit;
    size_t at = 19;
    int zone;
    if (!number_at(text, 0, 4, &year) || !number_at(text, 5, 2, &month) ||
        !number_at(text, 8, 2, &day) || !number_at(text, 11, 2, &hour) ||
        !number_at(text, 14, 2, &minute) || !number_at(text, 17, 2, &second) ||
        text.ptr[4] != '-' || text.ptr[7] != '-' || text.ptr[13] != ':' || text.ptr[16] != ':' ||
        !memchr("Tt ", text.ptr[10], 3) || year < 1970 || month < 1 || month > 12 || day < 1 ||
        day > 31 || hour > 23 || minute > 59 || second > 60)
        return false;
    if (at < text.len && text.ptr[at] == '.') {
        uint64_t unit = 100000;
        for (at++; number_at(text, at, 1, &digit); at++, unit /= 10)
            micros += digit * unit;
    }
    if (!zone_read(text, at, &zone))
        return false;
    int64_t minutes = (int64_t)(days_of(year, month, day) * 1440 + hour * 60 + minute) - zone;
    if (minutes < 0)
        return false;
    *out = ((uint64_t)minutes * 60 + second) * 1000000 + micros;
    return true;
}

static bool text_version(struct bytes text, uint64_t *out)
{
    return digits_read(text, 10, out) || (text.len > 0 && lsn_read(text, out)) ||
           (text.len >= 20 && time_read(text, out));
}

/* The value at a path with dots in it: of the whole change, else of its row. */
static struct bytes path_get(struct bytes map, const char *path)
{
    for (;;) {
        struct bytes whole = member(map, path); /* a field may have a dot in its name */
        size_t len = strcspn(path, ".");
        if (whole.ptr || !path[len])
            return whole;
        map = map_get(map, path, len);
        if (!map.ptr)
            return map;
        path += len + 1;
    }
}

int codec_model_read(const struct decode *decode, const struct change *change, struct request *out)
{
    const char *path = decode->options->model_field;
    const struct bytes places[] = {change->envelope, change->row, change->before};
    struct walk_value value = {.type = WALK_NIL};
    for (size_t i = 0; i < 3 && value.type == WALK_NIL && path; i++)
        value = value_of(path_get(places[i], path));
    if (value.type != WALK_NIL && value.type != WALK_STR)
        return codec_refuse(decode->why, DEAD_LETTER(bad_field), "'%.60s' is %s; send a string",
                            path, walk_type_name(value.type));
    if (path)
        out->model = value.type == WALK_NIL ? codec_header(decode->message, path) : value.bytes;
    return 0;
}

static int version_refuse(const struct decode *decode, const char *what)
{
    return codec_refuse(decode->why, DEAD_LETTER(bad_field),
                        "the version in '%s' is %s; send an integer from 0 to 2^63-1, a log "
                        "sequence number like 16/B374D848, or a time like 2026-01-31T12:00:00Z",
                        decode->options->version_field, what);
}

static int field_version(const struct decode *decode, const struct change *change,
                         struct request *out)
{
    const char *path = decode->options->version_field;
    struct bytes found = path_get(change->envelope, path);
    uint64_t version = 0;
    if (!found.ptr)
        found = path_get(change->row, path);
    struct walk_value value = value_of(found);
    struct bytes header = codec_header(decode->message, path);
    if (value.type == WALK_NIL && header.ptr)
        value = (struct walk_value){.type = WALK_STR, .bytes = header};
    /* A tombstone has no fields. */
    out->lacks_version = value.type == WALK_NIL && change->is_deleted && !change->row.ptr;
    if (value.type == WALK_NIL)
        return out->lacks_version ? 0 : version_refuse(decode, "not there");
    if (value.type == WALK_INT && value.integer >= 0)
        version = (uint64_t)value.integer;
    else if (value.type != WALK_STR || !text_version(value.bytes, &version))
        return version_refuse(decode, "not a version");
    out->has_version = true;
    out->version = (int64_t)version;
    return 0;
}

int codec_version_read(const struct decode *decode, const struct change *change,
                       struct request *out)
{
    const struct message *message = decode->message;
    switch (decode->options->version_by) {
    case VERSION_NONE:
        return 0;
    case VERSION_POSITION:
        out->has_version = message->order > 0;
        out->version = message->order;
        return 0;
    case VERSION_TIMESTAMP:
        out->has_version = message->timestamp_ms >= 0;
        out->version = message->timestamp_ms;
        return 0;
    case VERSION_FIELD:
        break;
    }
    return field_version(decode, change, out);
}

/* Ids. */

/* A JSON object as it stands in the key, without the frame or the schema around it, which change
 * when the schema does, and a delete would miss its text. 0; -ENOENT: it is none; -ENOMEM. */
static int key_read(const struct decode *decode, struct bytes *out)
{
    struct bytes key = decode->message->key, framed = codec_frame_skip(key);
    struct refusal why;
    struct decode inner = *decode;
    if (framed.ptr)
        key = codec_json_lead(framed);
    if (key.len == 0 || *key.ptr != '{')
        return -ENOENT;
    inner.why = &why;
    inner.is_json = true;
    int err = codec_json_convert(&inner, key, out);
    if (err)
        return err == -ENOMEM ? err : -ENOENT;
    *out = schema_skip(*out);
    return 0;
}

/* Itself, without a frame, or the only or named field of a JSON object. 0 or -ENOMEM. */
static int key_id(const struct decode *decode, struct id *out)
{
    struct bytes map, value, framed = codec_frame_skip(decode->message->key);
    *out = (struct id){framed.ptr ? codec_json_lead(framed) : decode->message->key, false};
    int err = key_read(decode, &map);
    if (err)
        return err == -ENOMEM ? err : 0;
    value = is_map(map) ? member(map, codec_field_name(decode, CODEC_FIELD_ID)) : map;
    if (!value.ptr && count_of(map) == 1) {
        struct walk walk = walk_of(map);
        struct walk_value head;
        msgpack_walk_next(&walk, &head);
        msgpack_walk_skip(&walk);
        value = (struct bytes){walk.at, (size_t)(map.ptr + map.len - walk.at)};
    }
    struct walk_value head = value_of(value);
    err = codec_key_unpack(decode, &head);
    if (err)
        return err;
    bool is_named = head.type == WALK_INT || head.type == WALK_UINT ||
                    (head.type == WALK_STR && head.bytes.len > 0);
    return is_named ? codec_value_id(decode, &head, out) : 0;
}

/*
 * The bound is not for tidiness: `texts` of 65,536 entries under a key of a megabyte would make
 * 64 GB of derived ids.
 */
int codec_message_id(const struct decode *decode, struct id given, struct id *out)
{
    const struct message *message = decode->message;
    const char *from = "field 'id'";
    if (!given.bytes.ptr) {
        from = "header 'id'";
        given = (struct id){codec_header(message, "id"), false};
    }
    if (!given.bytes.ptr && message->key.len > 0) {
        from = "key of the message";
        if (key_id(decode, &given))
            return -ENOMEM;
    }
    if (given.bytes.len > CODEC_ID_BYTES_MAX)
        return codec_refuse(decode->why, DEAD_LETTER(bad_field),
                            "the id in the %s has %zu bytes; send one of at most %d", from,
                            given.bytes.len, CODEC_ID_BYTES_MAX);
    if (!given.bytes.ptr)
        given.bytes = message->position.ptr ? message->position : (struct bytes){"", 0};
    *out = given;
    return 0;
}

/* Does the key have a field of the name of the id? 0, -ENOENT or -ENOMEM. */
static int key_names_id(const struct decode *decode)
{
    struct bytes map;
    int err = key_read(decode, &map);
    if (err)
        return err;
    return member(map, codec_field_name(decode, CODEC_FIELD_ID)).ptr ? 0 : -ENOENT;
}

int codec_delete_check(const struct decode *decode, struct bytes row)
{
    const struct message *message = decode->message;
    const char *name = codec_field_name(decode, CODEC_FIELD_ID);
    struct bytes column = member(row, name);
    bool has_header = codec_header(message, "id").ptr && !message->key_is_place;
    if (value_of(column).type != WALK_NIL || has_header)
        return 0;
    if (message->key.len == 0 || message->key_is_place)
        return codec_refuse(decode->why, DEAD_LETTER(bad_field),
                            "a delete has to name its text: there is neither a field '%.40s' nor a "
                            "header or key with the id; send one, or name the field in id_field",
                            name);
    if (!column.ptr)
        return 0;
    int err = key_names_id(decode);
    return err != -ENOENT ? err
                          : codec_refuse(decode->why, DEAD_LETTER(bad_field),
                                         "column '%.40s' of the deleted row is null and the key "
                                         "does not have it, so nobody can tell which text is gone; "
                                         "give the table REPLICA IDENTITY FULL",
                                         name);
}
