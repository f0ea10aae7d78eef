/*
 * redis_entry.c: see redis_entry.h.
 *
 * Threads: the loop thread.
 */
#include "connectors/redis/redis_entry.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static char *put(char **at, const char *from, size_t len)
{
    char *to = *at;

    memcpy(to, from, len);
    to[len] = '\0';
    *at += len + 1;
    return to;
}

/* Index of the payload's pair, n when there is none. */
static size_t find_body(const redisReply *fields, size_t n, const char *body)
{
    const char *names[] = {body ? body : "body", body ? NULL : "text"};

    for (size_t k = 0; k < 2 && names[k]; k++)
        for (size_t i = 0; i < n; i++) {
            const redisReply *name = fields->element[2 * i];
            if (name->len == strlen(names[k]) && memcmp(name->str, names[k], name->len) == 0)
                return i;
        }
    return n;
}

static bool fields_measure(const redisReply *fields, size_t *bytes)
{
    if (!redis_reply_is_array(fields) || fields->elements % 2)
        return false;
    *bytes = 0;
    for (size_t i = 0; i < fields->elements; i++) {
        if (!redis_reply_is_text(fields->element[i]))
            return false;
        *bytes += fields->element[i]->len;
    }
    return true;
}

/* An id as one number, in the same order; 0 where it does not fit: 2^20 entries in a millisecond,
 * or ids that were made up. */
static int64_t order_of(struct redis_id id)
{
    enum { SEQ_BITS = 20 };
    if (id.ms >> (63 - SEQ_BITS) || id.seq >> SEQ_BITS)
        return 0;
    return (int64_t)(id.ms << SEQ_BITS | id.seq);
}

struct redis_entry *redis_entry_open(struct source *source, const struct redis_stream *stream,
                                     const char *body, struct redis_id id, const redisReply *fields,
                                     uint32_t deliveries)
{
    char id_text[REDIS_ID_SIZE];
    size_t id_len = redis_id_print(id, id_text), stream_len = strlen(stream->name), size;

    if (!fields_measure(fields, &size))
        return NULL;
    size_t n = fields->elements / 2;
    size_t tables = 2 * n * sizeof(struct bytes) + n * sizeof(struct header);
    struct redis_entry *entry =
        malloc(sizeof(*entry) + tables + size + 2 * n + stream_len + id_len + 3);
    if (!entry)
        return NULL;
    struct bytes *copies = (struct bytes *)(entry + 1);
    struct header *headers = (struct header *)(copies + 2 * n);
    char *at = (char *)(headers + n);
    for (size_t i = 0; i < 2 * n; i++) {
        size_t len = fields->element[i]->len;
        copies[i] = (struct bytes){put(&at, fields->element[i]->str, len), len};
    }
    size_t payload = find_body(fields, n, body), n_headers = 0;
    for (size_t i = 0; i < n; i++)
        if (i != payload)
            headers[n_headers++] = (struct header){copies[2 * i], copies[2 * i + 1]};
    char *position = put(&at, stream->name, stream_len);
    /* In place of its NUL: the position is stream and id in one piece. */
    at[-1] = ' ';
    char *id_copy = put(&at, id_text, id_len);

    *entry = (struct redis_entry){
        .taken.message = {.source = source,
                          .value = payload < n ? copies[2 * payload + 1] : (struct bytes){NULL, 0},
                          .headers = headers,
                          .n_headers = n_headers,
                          .position = {position, stream_len + 1 + id_len},
                          .timestamp_ms = id.ms <= INT64_MAX ? (int64_t)id.ms : -1,
                          .order = order_of(id),
                          .deliveries = deliveries},
        .stream = stream,
        .id = id,
        .id_text = {id_copy, id_len},
        .fields = copies,
        .n_fields = n,
        .taken.size = size,
    };
    return entry;
}

void redis_entry_close(struct redis_entry *entry)
{
    free(entry);
}

static size_t table_place(const struct redis_table *table, const struct redis_stream *stream,
                          struct redis_id id)
{
    uint64_t hash = id.ms ^ id.seq << 40 ^ id.seq ^ (uintptr_t)stream;

    hash *= UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(hash >> 32) & (table->n_slots - 1);
}

static void table_put(struct redis_table *table, struct redis_entry *entry)
{
    size_t i = table_place(table, entry->stream, entry->id);

    while (table->slots[i])
        i = (i + 1) & (table->n_slots - 1);
    table->slots[i] = entry;
}

int redis_table_add(struct redis_table *table, struct redis_entry *entry)
{
    /* At most half full, so that a search always ends at a free slot. */
    if (2 * (table->n + 1) > table->n_slots) {
        struct redis_table bigger = {.n_slots = table->n_slots ? 2 * table->n_slots : 256,
                                     .n = table->n};
        bigger.slots = calloc(bigger.n_slots, sizeof(struct redis_entry *));
        if (!bigger.slots)
            return -ENOMEM;
        for (size_t i = 0; i < table->n_slots; i++)
            if (table->slots[i])
                table_put(&bigger, table->slots[i]);
        free(table->slots);
        *table = bigger;
    }
    table_put(table, entry);
    table->n++;
    return 0;
}

struct redis_entry *redis_table_find(const struct redis_table *table,
                                     const struct redis_stream *stream, struct redis_id id)
{
    if (!table->n)
        return NULL;
    for (size_t i = table_place(table, stream, id); table->slots[i];
         i = (i + 1) & (table->n_slots - 1))
        if (table->slots[i]->stream == stream && redis_id_compare(table->slots[i]->id, id) == 0)
            return table->slots[i];
    return NULL;
}

struct redis_entry *redis_table_next(const struct redis_table *table,
                                     const struct redis_stream *stream, size_t *at)
{
    while (*at < table->n_slots) {
        struct redis_entry *entry = table->slots[(*at)++];
        if (entry && entry->stream == stream)
            return entry;
    }
    return NULL;
}

void redis_table_remove(struct redis_table *table, struct redis_entry *entry)
{
    size_t mask = table->n_slots - 1, hole = table_place(table, entry->stream, entry->id);

    while (table->slots[hole] != entry)
        hole = (hole + 1) & mask;
    table->slots[hole] = NULL;
    assert(table->n > 0);
    table->n--;
    /* Close the gap, so that a search never ends before what it looks for. */
    for (size_t i = (hole + 1) & mask; table->slots[i]; i = (i + 1) & mask) {
        size_t home = table_place(table, table->slots[i]->stream, table->slots[i]->id);
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            table->slots[hole] = table->slots[i];
            table->slots[i] = NULL;
            hole = i;
        }
    }
}

void redis_table_close(struct redis_table *table)
{
    for (size_t i = 0; i < table->n_slots; i++)
        redis_entry_close(table->slots[i]);
    free(table->slots);
    *table = (struct redis_table){0};
}
