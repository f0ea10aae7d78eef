/*
 * postgres_parts.c: see postgres_parts.h.
 */
#include "connectors/postgres/postgres_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void part_free(struct postgres_part *part)
{
    free(part->name);
    free(part);
}

void postgres_parts_close(struct postgres_parts *parts)
{
    while (parts->first) {
        struct postgres_part *part = parts->first;
        parts->first = part->next;
        part_free(part);
    }
    for (size_t i = 0; i < 3; i++)
        postgres_array_close(&parts->arrays[i]);
    free(parts->group);
    *parts = (struct postgres_parts){0};
}

struct postgres_part *postgres_parts_find(const struct postgres_parts *parts, const char *name)
{
    for (struct postgres_part *part = parts->first; part && name; part = part->next)
        if (strcmp(part->name, name) == 0)
            return part;
    return NULL;
}

void postgres_parts_claim(struct postgres_parts *parts, const char *group, const char *name)
{
    /* Given to us once more: the old entry has the old epoch. */
    postgres_parts_leave(parts, name);
    struct postgres_part *part = calloc(1, sizeof *part);
    char *copy = strdup(name);
    if (!parts->group)
        parts->group = strdup(group);
    if (!part || !copy || !parts->group) {
        free(part);
        free(copy);
        /* No event may fire inside this call: send_burst reports it. */
        parts->status = -ENOMEM;
        return;
    }
    *part = (struct postgres_part){
        .next = parts->first, .name = copy, .state = PART_WANTED, .done = -1, .moving = -1};
    parts->first = part;
}

void postgres_parts_leave(struct postgres_parts *parts, const char *name)
{
    struct postgres_part **at = &parts->first;
    while (*at && strcmp((*at)->name, name) != 0)
        at = &(*at)->next;
    struct postgres_part *part = *at;
    if (!part)
        return;
    *at = part->next;
    part_free(part);
}

void postgres_parts_rewind(struct postgres_parts *parts, const char *name, int64_t order)
{
    struct postgres_part *part = postgres_parts_find(parts, name);
    if (part)
        part->done = part->given = order;
}

void postgres_parts_doubt(struct postgres_parts *parts)
{
    for (struct postgres_part *part = parts->first; part; part = part->next)
        if (part->state == PART_OURS)
            part->state = PART_DOUBT;
}

void postgres_parts_fenced(struct postgres_parts *parts)
{
    for (struct postgres_part *part = parts->first; part; part = part->next)
        /* One of those that were to be moved is another's: all of them are asked about. */
        if (part->moving >= 0 && part->state == PART_OURS)
            part->state = PART_DOUBT;
}

/* ---- statements: the group, then a column for each */

static void begin(struct postgres_parts *parts)
{
    postgres_array_begin(&parts->arrays[0], POSTGRES_OID_TEXT_ARRAY, POSTGRES_OID_TEXT);
    for (size_t i = 1; i < 3; i++)
        postgres_array_begin(&parts->arrays[i], POSTGRES_OID_INT8_ARRAY, POSTGRES_OID_INT8);
}

static struct postgres_statement end(struct postgres_parts *parts, const char *sql, int n_arrays)
{
    parts->values[0] = parts->group;
    parts->lengths[0] = (int)strlen(parts->group);
    parts->types[0] = POSTGRES_OID_TEXT;
    for (int i = 0; i < n_arrays; i++) {
        const struct postgres_array *array = &parts->arrays[i];
        parts->values[1 + i] = array->bytes.ptr;
        parts->lengths[1 + i] = (int)array->bytes.len;
        parts->types[1 + i] = array->type;
        if (array->bytes.status)
            parts->status = -ENOMEM;
    }
    return (struct postgres_statement){sql, 1 + n_arrays, parts->types, parts->values,
                                       parts->lengths};
}

bool postgres_parts_ask(struct postgres_parts *parts, const struct postgres_table *table,
                        struct postgres_statement *out)
{
    static const enum postgres_part_state states[] = {PART_WANTED, PART_DOUBT};
    /* New parts first, for the source waits for their answer before it reads. */
    for (size_t i = 0; i < 2; i++) {
        begin(parts);
        for (const struct postgres_part *part = parts->first; part; part = part->next) {
            if (part->state != states[i])
                continue;
            postgres_array_text(&parts->arrays[0], part->name);
            postgres_array_int8(&parts->arrays[1], part->done);
        }
        if (!parts->arrays[0].n)
            continue;
        parts->asked = states[i];
        *out = end(parts, states[i] == PART_WANTED ? table->claim : table->check, 2);
        return true;
    }
    return false;
}

/* A row of an answer. */
static void take(struct postgres_part *part, enum postgres_part_state asked, const PGresult *answer,
                 int row, struct source *source)
{
    bool is_there = !PQgetisnull(answer, row, 1);
    int64_t done = is_there ? strtoll(PQgetvalue(answer, row, 1), NULL, 10) : -1;
    int64_t epoch = is_there ? strtoll(PQgetvalue(answer, row, 2), NULL, 10) : -1;
    if (asked == PART_DOUBT && !is_there) {
        part->state = PART_WANTED; /* somebody emptied the table: put it there again */
    } else if (asked == PART_DOUBT && epoch != part->epoch) {
        part->state = PART_LOST;
    } else {
        part->state = PART_OURS;
        part->epoch = epoch;
        part->done = done;
    }
    /* The source is answered once: a reconnect in between changes nothing for it. */
    if (part->state != PART_OURS || part->is_begun)
        return;
    part->is_begun = true;
    source->ops->begin(source, part->name, part->done);
}

void postgres_parts_answer(struct postgres_parts *parts, const PGresult *answer,
                           struct source *source)
{
    for (int row = 0; row < PQntuples(answer); row++) {
        struct postgres_part *part = postgres_parts_find(parts, PQgetvalue(answer, row, 0));
        if (part && part->state == parts->asked)
            take(part, parts->asked, answer, row, source);
    }
}

void postgres_parts_begin(struct postgres_parts *parts)
{
    for (struct postgres_part *part = parts->first; part; part = part->next)
        part->moving = -1;
}

bool postgres_parts_move(struct postgres_parts *parts, const struct postgres_table *table,
                         struct postgres_statement *out)
{
    begin(parts);
    for (const struct postgres_part *part = parts->first; part; part = part->next) {
        if (part->moving < 0)
            continue;
        postgres_array_text(&parts->arrays[0], part->name);
        postgres_array_int8(&parts->arrays[1], part->epoch);
        postgres_array_int8(&parts->arrays[2], part->moving);
    }
    if (!parts->arrays[0].n)
        return false;
    *out = end(parts, table->move, 3);
    return true;
}

void postgres_parts_moved(struct postgres_parts *parts)
{
    for (struct postgres_part *part = parts->first; part; part = part->next) {
        if (part->moving >= 0)
            part->done = part->moving;
        /* What is moving again is said by the next transaction. */
        part->moving = -1;
    }
}
