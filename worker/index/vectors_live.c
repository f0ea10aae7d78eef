/*
 * vectors_live.c: which rows of an index are what it has of their texts.
 *
 * Owns:    what is replaced: of the rows of one text all but those of its last writing; what is
 *          deleted: those before the place that OUT.deleted.jsonl tells.
 * Why:     files of an index are appended to and nothing in them is changed, so that they can be
 *          cut to what was confirmed after any death. What became of a text is found on reading.
 *
 * A writing of a text is a whole row, or the rows of its chunks from number 0 on. An id "page#2" is
 * a chunk only where the record says so: who cuts texts by himself may give such ids to whole ones.
 * 7 and "7" are one id, as in every place where ids become names.
 */
#define _GNU_SOURCE /* memmem */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <unistd.h>

#include "worker/index/vectors_internal.h"

/* The text of a row, as a key that compares equal for all its rows. */
struct name {
    struct bytes id; /* as it stands in JSON, without quotes */
    bool begins;     /* a writing of it begins with this row */
};

/* Ids by what they are: rows, and what was deleted. Slots hold numbers of entries and one. */
struct entry {
    struct bytes id;
    size_t deleted; /* rows of it before this are deleted: a row, or a byte of a .jsonl */
    bool is_closed; /* its last writing was met whole: all rows before it are replaced */
};

struct table {
    struct entry *entries; /* [n] */
    uint32_t *slots;       /* [n_slots], a power of two */
    size_t n, room, n_slots;
};

static struct bytes unquoted(struct bytes id)
{
    bool has_quotes = id.len >= 2 && id.ptr[0] == '"';
    return has_quotes ? (struct bytes){id.ptr + 1, id.len - 2} : id;
}

/* The JSON string or number behind a key of a line of ours, in quotes or not. */
static struct bytes value_behind(struct bytes line, const char *key)
{
    size_t len = strlen(key);
    const char *at = memmem(line.ptr, line.len, key, len), *end = line.ptr + line.len;
    if (!at)
        return (struct bytes){NULL, 0};
    const char *from = at + len;
    at = from;
    if (at < end && *at == '"')
        for (at++; at < end && *at != '"'; at++)
            at += *at == '\\';
    /* Behind the string: in a value without quotes this is its end. */
    while (at < end && *at != ',' && *at != '}')
        at++;
    return at <= end ? (struct bytes){from, (size_t)(at - from)} : (struct bytes){NULL, 0};
}

/* "ID#N" is chunk N of ID. */
static struct name name_by_id(struct bytes id)
{
    size_t at = id.len;
    while (at > 0 && id.ptr[at - 1] >= '0' && id.ptr[at - 1] <= '9')
        at--;
    /* No digits, nothing before the '#', or no '#': a whole text whose id merely looks like
     * that. */
    if (at == id.len || at < 2 || id.ptr[at - 1] != '#')
        return (struct name){id, true};
    return (struct name){{id.ptr, at - 1}, id.len == at + 1 && id.ptr[at] == '0'};
}

static struct name name_of(const struct vectors *vectors, size_t row)
{
    struct bytes id = vectors->ids[row];
    if (vectors->lines)
        return vectors->pieces[row] ? name_by_id(unquoted(id)) : (struct name){unquoted(id), true};
    if (id.len == 0 || id.ptr[0] != '{')
        return (struct name){unquoted(id), true};
    /* An .npy: the id of a piece is an object, that of a whole text a plain value. */
    struct bytes number = value_behind(id, "\"chunk\":");
    return (struct name){unquoted(value_behind(id, "\"parent\":")),
                         number.len == 1 && number.ptr[0] == '0'};
}

struct bytes vectors_text_id(const struct vectors *vectors, size_t row)
{
    return name_of(vectors, row).id;
}

static uint64_t hash_of(struct bytes bytes)
{
    return XXH3_64bits(bytes.ptr, bytes.len);
}

static int table_grow(struct table *table)
{
    size_t n_slots = table->n_slots ? 2 * table->n_slots : 1024;
    struct entry *entries = realloc(table->entries, n_slots / 2 * sizeof *entries);
    if (entries)
        table->entries = entries;
    /* Entries that have moved are kept even if the slots fail: the old ones name them by number. */
    uint32_t *slots = entries && n_slots <= UINT32_MAX ? calloc(n_slots, sizeof *slots) : NULL;
    if (!slots)
        return -ENOMEM;
    for (size_t i = 0; i < table->n; i++) {
        size_t at = hash_of(table->entries[i].id) & (n_slots - 1);
        while (slots[at])
            at = (at + 1) & (n_slots - 1);
        slots[at] = (uint32_t)i + 1;
    }
    free(table->slots);
    table->slots = slots;
    table->n_slots = n_slots;
    table->room = n_slots / 2;
    return 0;
}

/* The entry of an id, made when there is none; NULL without memory. */
static struct entry *table_find(struct table *table, struct bytes id)
{
    /* At most half of the slots are taken, so the probe below always meets an empty one. */
    if (table->n == table->room && table_grow(table) != 0)
        return NULL;
    size_t at = hash_of(id) & (table->n_slots - 1);
    for (; table->slots[at]; at = (at + 1) & (table->n_slots - 1)) {
        struct entry *entry = &table->entries[table->slots[at] - 1];
        if (bytes_equal(entry->id, id))
            return entry;
    }
    table->slots[at] = (uint32_t)table->n + 1;
    table->entries[table->n] = (struct entry){.id = id};
    return &table->entries[table->n++];
}

/* Lines {"id":"7","before":12}. */
static int read_deleted(struct table *table, struct bytes file)
{
    const char *at = file.ptr, *end = file.ptr ? file.ptr + file.len : NULL;
    while (at && at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        if (!newline)
            break; /* torn; it was not confirmed */
        struct bytes line = {at, (size_t)(newline - at)};
        struct bytes id = unquoted(value_behind(line, "\"id\":"));
        const char *before = memmem(line.ptr, line.len, "\"before\":", 9);
        for (const char *next; before && (next = memmem(before + 9, (size_t)(newline - before - 9),
                                                        "\"before\":", 9));)
            before = next; /* an id may hold the words, and stands first */
        struct entry *entry = id.ptr && before ? table_find(table, id) : NULL;
        if (!entry)
            return id.ptr && before ? -ENOMEM : -EBADMSG;
        size_t n = strtoull(before + 9, NULL, 10);
        entry->deleted = n > entry->deleted ? n : entry->deleted;
        at = newline + 1;
    }
    return 0;
}

static int mark(struct vectors *vectors, size_t row)
{
    if (!vectors->dead)
        vectors->dead = calloc(vectors->n, 1);
    if (!vectors->dead)
        return -ENOMEM;
    vectors->dead[row] = 1;
    vectors->n_dead++;
    return 0;
}

/* From the last row to the first: the first writing that is met is the one that counts. */
static int find_dead(struct vectors *vectors, struct table *table)
{
    int rc = 0;
    for (size_t row = vectors->n; row-- > 0 && rc == 0;) {
        struct name name = name_of(vectors, row);
        struct entry *entry = table_find(table, name.id);
        if (!entry)
            return -ENOMEM;
        /* Deletes count rows of an .npy, and bytes of a .jsonl, whose records may hold several
         * rows. */
        size_t place = vectors->lines ? vectors->lines[row] : row;
        if (entry->is_closed || place < entry->deleted)
            rc = mark(vectors, row);
        /* Chunks come in order, so chunk 0 is the last of its writing to be met on the way back. */
        entry->is_closed |= name.begins;
    }
    return rc;
}

int vectors_find_dead(struct vectors *vectors, const char *path, char *err, size_t err_size)
{
    struct table table = {.n = 0};
    struct bytes file = {NULL, 0};
    char name[4200];
    snprintf(name, sizeof name, "%s.deleted.jsonl", path);
    int rc = access(name, F_OK) == 0 ? vectors_map(&file, name, err, err_size) : 0;
    if (rc != 0)
        return rc;
    rc = read_deleted(&table, file);
    if (rc == -EBADMSG)
        snprintf(err, err_size, "%s is damaged; index the corpus again", name);
    if (rc == 0)
        rc = find_dead(vectors, &table);
    if (rc == -ENOMEM)
        snprintf(err, err_size, "out of memory for %zu ids", vectors->n);
    vectors_unmap(&file);
    free(table.entries);
    free(table.slots);
    return rc;
}
