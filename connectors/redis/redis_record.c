/*
 * redis_record.c: see redis_record.h.
 *
 * Threads: the loop thread.
 */
#include "connectors/redis/redis_record.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/number.h"
#include "connectors/redis/redis_script.h"

void redis_scratch_close(struct redis_scratch *scratch)
{
    redis_args_close(&scratch->command);
    free(scratch->text);
    *scratch = (struct redis_scratch){0};
}

/* Room for n bytes more than once, given out below; earlier pieces must not move. */
static int scratch_reserve(struct redis_scratch *scratch, size_t n)
{
    /* The pieces of the record before are not used any more. */
    scratch->len = 0;
    if (n <= scratch->room)
        return 0;
    char *text = realloc(scratch->text, n);
    if (!text)
        return -ENOMEM;
    scratch->text = text;
    scratch->room = n;
    return 0;
}

/* a and b, one after the other, as one piece of scratch. */
static struct bytes scratch_join(struct redis_scratch *scratch, struct bytes a, struct bytes b)
{
    char *at = scratch->text + scratch->len;

    assert(scratch->len + a.len + b.len <= scratch->room);
    if (a.len)
        memcpy(at, a.ptr, a.len);
    if (b.len)
        memcpy(at + a.len, b.ptr, b.len);
    scratch->len += a.len + b.len;
    return (struct bytes){at, a.len + b.len};
}

/* NUL-terminated, because counts are read back. */
static struct bytes scratch_number(struct redis_scratch *scratch, uint64_t number)
{
    char *at = scratch->text + scratch->len;
    size_t len = number_print(number, at);

    assert(scratch->len + len + 1 <= scratch->room);
    scratch->len += len + 1;
    return (struct bytes){at, len};
}

/* As wide as the greatest one, so that they compare as text, too. */
static struct bytes scratch_version(struct redis_scratch *scratch, int64_t version)
{
    char *at = scratch->text + scratch->len;
    int len = snprintf(at, NUMBER_SIZE, "%019" PRId64, version);

    assert(len < NUMBER_SIZE && scratch->len + (size_t)len + 1 <= scratch->room);
    scratch->len += (size_t)len + 1;
    return (struct bytes){at, (size_t)len};
}

size_t redis_record_largest(const struct record *record)
{
    size_t largest = 0;

    for (size_t i = 0; i < record->n_parts; i++) {
        const struct part *part = &record->parts[i];
        largest = part->value.len > largest ? part->value.len : largest;
        largest = part->vector.len > largest ? part->vector.len : largest;
        largest = part->id.len > largest ? part->id.len : largest;
    }
    for (size_t i = 0; i < record->n_headers; i++) {
        const struct header *header = &record->headers[i];
        largest = header->name.len > largest ? header->name.len : largest;
        largest = header->value.len > largest ? header->value.len : largest;
    }
    return largest;
}

/* Is it the key that prefix and id make? */
static bool is_key_of(const char *stream, struct bytes prefix, struct bytes id)
{
    size_t len = strlen(stream);

    return len == prefix.len + id.len && memcmp(stream, prefix.ptr, prefix.len) == 0 &&
           (id.len == 0 || memcmp(stream + prefix.len, id.ptr, id.len) == 0);
}

static struct bytes part_id(const struct record *record, const struct part *part)
{
    return part->id.len ? part->id : record->origin->position;
}

const char *redis_record_overwrites(const struct redis_config *config, const struct record *record,
                                    bool is_input)
{
    struct bytes prefix = bytes_of(config->output_prefix);

    if (record->dead_code || config->output == REDIS_OUTPUT_STREAM)
        return NULL;
    for (size_t i = 0; i < config->streams.n; i++) {
        const struct redis_stream *stream = &config->streams.items[i];
        for (size_t j = 0; j < record->n_parts; j++) {
            struct bytes id = part_id(record, &record->parts[j]);
            if (is_key_of(stream->dead_letters, prefix, id))
                return stream->dead_letters;
            if (is_input && is_key_of(stream->name, prefix, id))
                return stream->name;
        }
        for (size_t j = 0; j < record->n_documents; j++) {
            struct bytes id = record->documents[j].id;
            if (is_key_of(stream->dead_letters, prefix, id))
                return stream->dead_letters;
            if (is_input && is_key_of(stream->name, prefix, id))
                return stream->name;
        }
    }
    return NULL;
}

bool redis_record_hides_head(const struct redis_config *config, const struct record *record)
{
    if (record->dead_code || config->output == REDIS_OUTPUT_STREAM)
        return false;
    for (size_t i = 0; i < record->n_documents; i++) {
        struct bytes id = record->documents[i].id;
        /* The head of a text `a` stands where a text `a#` would. */
        if (id.len && id.ptr[id.len - 1] == '#')
            return true;
    }
    return false;
}

/* Behind "embedmill:" in the name of a key that workers and `migrate` keep notes in. */
static const char *const notes[] = {
    "made-with:", "next:", "next-dlq:", "next-none:", "moving:", "migrating:"};

/* Does the key that prefix and id make begin with start? Some of it comes from the id. */
static bool key_begins(struct bytes prefix, struct bytes id, const char *start)
{
    size_t len = strlen(start), of_prefix = prefix.len < len ? prefix.len : len;

    return prefix.len + id.len >= len && memcmp(prefix.ptr, start, of_prefix) == 0 &&
           memcmp(id.ptr, start + of_prefix, len - of_prefix) == 0;
}

static bool is_note(struct bytes prefix, struct bytes id)
{
    char name[32];

    for (size_t i = 0; i < sizeof(notes) / sizeof(notes[0]); i++) {
        int len = snprintf(name, sizeof(name), "embedmill:%s", notes[i]);
        /* A prefix that has all of it is the choice of a user, or of `migrate`. */
        if (prefix.len < (size_t)len && key_begins(prefix, id, name))
            return true;
    }
    return false;
}

bool redis_record_hides_note(const struct redis_config *config, const struct record *record)
{
    struct bytes prefix = bytes_of(config->output_prefix);

    if (record->dead_code || config->output == REDIS_OUTPUT_STREAM)
        return false;
    for (size_t i = 0; i < record->n_parts; i++)
        if (is_note(prefix, part_id(record, &record->parts[i])))
            return true;
    for (size_t i = 0; i < record->n_documents; i++)
        if (is_note(prefix, record->documents[i].id))
            return true;
    return false;
}

static bool is_from_redis(const struct message *origin)
{
    return origin->source && origin->source->ops == &redis_source_ops;
}

/* By the sink's own settings: of several sinks of one source each writes elsewhere. */
const struct redis_stream *redis_record_stream(const struct redis_config *config,
                                               const struct record *record)
{
    const struct redis_stream *first = &config->streams.items[0], *found = NULL;

    if (is_from_redis(record->origin))
        found = redis_streams_find(
            &config->streams, bytes_of(((const struct redis_entry *)record->origin)->stream->name));
    return found ? found : first;
}

static void add_pair(struct redis_args *args, struct bytes name, struct bytes value)
{
    redis_args_add(args, name);
    redis_args_add(args, value);
}

/* A command in the list: its number of words (filled in by command_end), then the words. */
static size_t command_begin(struct redis_args *list, const char *verb, struct bytes key)
{
    size_t at = list->n;

    /* The number of words is known when all are there. */
    redis_args_add(list, (struct bytes){NULL, 0});
    redis_args_text(list, verb);
    redis_args_add(list, key);
    return at;
}

static void command_end(struct redis_scratch *scratch, size_t at)
{
    struct redis_args *list = &scratch->command;

    if (!list->failed)
        list->items[at] = scratch_number(scratch, list->n - at - 1);
}

/* Headers as fields. ours: a field of ours that a header may not look like; it gets a _ before. */
static void add_headers(struct redis_scratch *scratch, const struct record *record,
                        const char *ours)
{
    size_t n = record->n_headers < REDIS_FIELDS_MAX ? record->n_headers : REDIS_FIELDS_MAX;

    for (size_t i = 0; i < n; i++) {
        struct bytes name = record->headers[i].name;
        if (bytes_are(name, ours))
            name = scratch_join(scratch, bytes_of("_"), name);
        add_pair(&scratch->command, name, record->headers[i].value);
    }
}

/* A tombstone has no body: the entry says so and names what is gone. */
static void build_entry(const struct redis_record_form *form, const struct record *record,
                        struct redis_scratch *scratch)
{
    struct redis_args *list = &scratch->command;
    const struct part *part = &record->parts[0];
    size_t at =
        command_begin(list, "XADD", bytes_of(redis_record_stream(form->config, record)->output));

    if (form->config->maxlen) {
        redis_args_text(list, "MAXLEN");
        redis_args_text(list, "~");
        redis_args_add(list, scratch_number(scratch, form->config->maxlen));
    }
    redis_args_text(list, "*");
    if (part->value.ptr) {
        add_pair(list, bytes_of("body"), part->value);
    } else {
        add_pair(list, bytes_of("deleted"), bytes_of("1"));
        add_pair(list, bytes_of("id"), part->id);
    }
    add_headers(scratch, record, "body");
    command_end(scratch, at);
}

static bool is_dead_field(struct bytes name)
{
    static const char *const ours[] = {"_code",       "_error",    "_stream", "_id",
                                       "_deliveries", "_position", "_key"};

    return bytes_in(name, ours, sizeof(ours) / sizeof(ours[0]));
}

/* The fields as they stand in the stream, in their order. What the record was cut by is missing:
 * its headers are some of the fields, in the same order. */
static void add_fields(struct redis_args *list, const struct record *record,
                       const struct redis_entry *entry)
{
    size_t next = 0;

    for (size_t i = 0; i < entry->n_fields && i < REDIS_FIELDS_MAX; i++) {
        struct bytes name = entry->fields[2 * i], value = entry->fields[2 * i + 1];
        /* By its place in memory: a second field may have the same name. */
        bool is_body = value.ptr == entry->taken.message.value.ptr;
        bool is_kept = next < record->n_headers && record->headers[next].name.ptr == name.ptr;
        next += is_kept;
        if (is_body)
            add_pair(list, name, record->parts[0].value);
        else if (is_kept && !is_dead_field(name))
            add_pair(list, name, value);
    }
}

/* A letter that was dead before and came back has our fields already: only the new ones count. */
static void add_origin(struct redis_args *list, const struct record *record, bool is_redis)
{
    const struct message *origin = record->origin;

    if (is_redis) {
        add_fields(list, record, (const struct redis_entry *)origin);
        return;
    }
    if (record->parts[0].value.ptr)
        add_pair(list, bytes_of("body"), record->parts[0].value);
    for (size_t i = 0; i < record->n_headers && i < REDIS_FIELDS_MAX; i++)
        if (!is_dead_field(record->headers[i].name) && !bytes_are(record->headers[i].name, "body"))
            add_pair(list, record->headers[i].name, record->headers[i].value);
    if (origin->key.ptr)
        add_pair(list, bytes_of("_key"), record->parts[0].id);
}

static void build_dead(const struct redis_record_form *form, const struct record *record,
                       struct redis_scratch *scratch)
{
    struct redis_args *list = &scratch->command;
    const struct message *origin = record->origin;
    const struct redis_stream *stream = redis_record_stream(form->config, record);
    bool is_redis = is_from_redis(origin);
    size_t at = command_begin(list, "XADD", bytes_of(stream->dead_letters));

    redis_args_text(list, "*");
    add_origin(list, record, is_redis);
    add_pair(list, bytes_of("_code"), bytes_of(record->dead_code));
    add_pair(list, bytes_of("_error"), bytes_of(record->dead_reason ? record->dead_reason : ""));
    if (is_redis) {
        const struct redis_entry *entry = (const struct redis_entry *)origin;
        add_pair(list, bytes_of("_stream"), bytes_of(stream->name));
        add_pair(list, bytes_of("_id"), entry->id_text);
    } else {
        add_pair(list, bytes_of("_position"), origin->position);
    }
    add_pair(list, bytes_of("_deliveries"), scratch_number(scratch, origin->deliveries));
    command_end(scratch, at);
}

/* Behind the headers: of two fields with a name the last one stays. */
static void add_chunk(struct redis_scratch *scratch, const struct chunk *chunk)
{
    struct redis_args *list = &scratch->command;

    if (!chunk)
        return;
    add_pair(list, bytes_of("parent"), chunk->parent);
    add_pair(list, bytes_of("chunk"), scratch_number(scratch, chunk->number));
    add_pair(list, bytes_of("start"), scratch_number(scratch, chunk->start));
    add_pair(list, bytes_of("end"), scratch_number(scratch, chunk->end));
}

/* As long as the head of a text with a version is kept when the text is deleted: so long a late,
 * older message about it is known as one. */
#define GONE_MS (7 * 24 * 3600 * UINT64_C(1000))

/* How many commands follow for the parts from `part` on that are of its text, see redis_script.c:
 * its own n_parts, one more for the key of the whole text, and the times after which keys go. */
static size_t count_commands(const struct redis_record_form *form, const struct document *text)
{
    bool is_hash = form->config->output == REDIS_OUTPUT_HASH;
    size_t each = is_hash && form->config->expire_ms ? 2 : 1;

    /* Its tombstone, which build_part makes a DEL of. */
    if (text->is_deleted)
        return 1;
    return text->n_chunks ? text->n_chunks * each + 1 : each;
}

/* What follows is all there is of this text. */
static void build_text(const struct redis_record_form *form, const struct record *record,
                       const struct document *text, struct redis_scratch *scratch)
{
    struct redis_args *list = &scratch->command;
    struct bytes id = text->id.len ? text->id : record->origin->position;
    struct bytes base = scratch_join(scratch, bytes_of(form->config->output_prefix), id);
    uint64_t keep_ms = text->is_deleted ? GONE_MS : form->config->expire_ms;
    struct bytes nothing = bytes_of("");
    /* No command of Redis: the script reads what stands behind it. */
    size_t at = command_begin(list, "@", scratch_join(scratch, base, bytes_of("#")));

    redis_args_add(list, base);
    redis_args_add(list, scratch_number(scratch, text->n_chunks));
    redis_args_add(list, text->has_version ? scratch_version(scratch, text->version) : nothing);
    redis_args_add(list, keep_ms ? scratch_number(scratch, keep_ms) : nothing);
    redis_args_add(list, scratch_number(scratch, count_commands(form, text)));
    command_end(scratch, at);
    if (!text->n_chunks)
        return;
    /* It was whole before, perhaps: of a hash, which others may have fields in, ours go. */
    if (form->config->output != REDIS_OUTPUT_HASH) {
        at = command_begin(list, "DEL", base);
    } else {
        at = command_begin(list, "HDEL", base);
        redis_args_text(list, "embedding");
        for (size_t i = 0; i < record->n_headers && i < REDIS_FIELDS_MAX; i++) {
            struct bytes name = record->headers[i].name;
            redis_args_add(list, bytes_are(name, "embedding") ? bytes_of("_embedding") : name);
        }
    }
    command_end(scratch, at);
}

/* SET, HSET or DEL of one text. */
static void build_part(const struct redis_record_form *form, const struct record *record,
                       const struct part *part, struct redis_scratch *scratch)
{
    struct redis_args *list = &scratch->command;
    struct bytes key =
        scratch_join(scratch, bytes_of(form->config->output_prefix), part_id(record, part));
    bool is_hash = form->config->output == REDIS_OUTPUT_HASH;
    uint64_t expire_ms = form->config->expire_ms;
    size_t at;

    if (!part->value.ptr && !part->vector.ptr) { /* a tombstone */
        at = command_begin(list, "DEL", key);
        command_end(scratch, at);
        return;
    }
    at = command_begin(list, is_hash ? "HSET" : "SET", key);
    if (is_hash) {
        add_pair(list, bytes_of("embedding"), part->vector);
        add_headers(scratch, record, "embedding");
        add_chunk(scratch, part->chunk);
    } else {
        redis_args_add(list, part->value);
        if (expire_ms) {
            redis_args_text(list, "PX");
            redis_args_add(list, scratch_number(scratch, expire_ms));
        }
    }
    command_end(scratch, at);
    if (is_hash && expire_ms) {
        at = command_begin(list, "PEXPIRE", key);
        redis_args_add(list, scratch_number(scratch, expire_ms));
        command_end(scratch, at);
    }
}

static void build_parts(const struct redis_record_form *form, const struct record *record,
                        struct redis_scratch *scratch)
{
    const struct document *text = NULL;

    if (form->guard && form->guard->guard[0]) {
        /* The script writes nothing of what follows when the note is another one by now. */
        size_t at = command_begin(&scratch->command, "=", bytes_of(form->guard->key));
        redis_args_text(&scratch->command, form->guard->guard);
        command_end(scratch, at);
    }
    for (size_t i = 0; i < record->n_parts; i++) {
        const struct part *part = &record->parts[i];
        /* Parts of one text stand together; what is said of the text goes before the first. */
        if (part->document && part->document != text)
            build_text(form, record, part->document, scratch);
        text = part->document;
        build_part(form, record, part, scratch);
    }
}

/* Scratch for all names and numbers of the record, so that no piece moves once it is given out. */
static size_t scratch_need(const struct redis_record_form *form, const struct record *record)
{
    /* 256 for numbers that are of no part: the command of the guard has one. */
    size_t prefix = strlen(form->config->output_prefix), need = 256;

    for (size_t i = 0; i < record->n_parts; i++)
        /* A part has at most three keys: its own, its text's, and that with the '#'. */
        need += 3 * (prefix + record->parts[i].id.len + record->origin->position.len) +
                12 * NUMBER_SIZE + record->n_headers * sizeof("_embedding");
    return need;
}

/* EVALSHA or EVAL, the keys, what to ack, the commands. */
static void build_script(const struct redis_record_form *form, const struct record *record,
                         struct redis_scratch *scratch, struct redis_args *args)
{
    const struct redis_args *list = &scratch->command;
    const struct redis_entry *entry = (const struct redis_entry *)record->origin;
    size_t n_keys = form->peer ? 1 : 0;

    for (size_t at = 0; at < list->n; at += strtoul(list->items[at].ptr, NULL, 10) + 1)
        n_keys++;
    redis_args_text(args, form->script_sha ? "EVALSHA" : "EVAL");
    redis_args_text(args, form->script_sha ? form->script_sha : redis_script_publish);
    /* Every key is named, so that a cluster can refuse a script whose keys are in two slots. */
    redis_args_number(args, n_keys);
    if (form->peer)
        redis_args_text(args, entry->stream->name);
    for (size_t at = 0; at < list->n; at += strtoul(list->items[at].ptr, NULL, 10) + 1)
        redis_args_add(args, list->items[at + 2]);
    /* Empty: nothing is acked. */
    redis_args_text(args, form->peer ? form->peer->config.group : "");
    redis_args_text(args, form->peer ? form->peer->consumer : "");
    redis_args_add(args, form->peer ? entry->id_text : bytes_of(""));
    for (size_t i = 0; i < list->n; i++)
        redis_args_add(args, list->items[i]);
}

int redis_record_build(const struct redis_record_form *form, const struct record *record,
                       struct redis_scratch *scratch, struct redis_args *args)
{
    struct redis_args *list = &scratch->command;

    redis_args_reset(args);
    redis_args_reset(list);
    if (scratch_reserve(scratch, scratch_need(form, record)))
        return -ENOMEM;
    if (record->dead_code)
        build_dead(form, record, scratch);
    else if (form->config->output == REDIS_OUTPUT_STREAM)
        build_entry(form, record, scratch);
    else
        build_parts(form, record, scratch);
    if (list->failed)
        return -ENOMEM;
    /* One command and nothing to ack: it is sent as it is, and needs no script. (The list begins
     * with the number of words of its first command.) */
    size_t first = (size_t)strtoul(list->items[0].ptr, NULL, 10);
    if (form->peer || first + 1 != list->n)
        build_script(form, record, scratch, args);
    else
        for (size_t i = 1; i < list->n; i++)
            redis_args_add(args, list->items[i]);
    return args->failed ? -ENOMEM : 0;
}
