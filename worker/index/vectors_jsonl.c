/*
 * vectors_jsonl.c: vectors and ids out of records as this program writes them (`embedding` as
 * numbers), one a line.
 *
 * Why:     by hand and not by a parser: of each line three keys are wanted and a thousand numbers.
 *          A key is found as it stands, in quotes: inside a string those quotes are escaped.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/index/vectors_internal.h"

/* What stands behind `"key":`, or NULL. line ends in a NUL. */
static const char *value_of(const char *line, const char *key)
{
    const char *at = strstr(line, key);
    return at ? at + strlen(key) : NULL;
}

/* The end of a JSON string or number. */
static const char *scalar_end(const char *at)
{
    if (*at != '"')
        return at + strcspn(at, ",]}");
    for (at++; *at && *at != '"'; at++)
        /* An escaped quote does not end it; a backslash before the NUL must not step over that. */
        at += *at == '\\' && at[1];
    return *at ? at + 1 : at;
}

static int add_id(struct vectors *vectors, const char *at)
{
    size_t len = (size_t)(scalar_end(at) - at);
    if (vectors->id_memory_room - vectors->id_memory_len < len) {
        size_t room = 2 * (vectors->id_memory_room + len);
        char *memory = realloc(vectors->id_memory, room);
        if (!memory)
            return -ENOMEM;
        vectors->id_memory = memory;
        vectors->id_memory_room = room;
    }
    if (vectors_grow_ids(vectors) != 0)
        return -ENOMEM;
    memcpy(vectors->id_memory + vectors->id_memory_len, at, len);
    if (vectors->lines_room < vectors->ids_room) {
        /* Kept as soon as it has moved, whether the other one grows or not: close frees both. */
        size_t *lines = realloc(vectors->lines, vectors->ids_room * sizeof *lines);
        vectors->lines = lines ? lines : vectors->lines;
        unsigned char *pieces = realloc(vectors->pieces, vectors->ids_room);
        vectors->pieces = pieces ? pieces : vectors->pieces;
        if (!lines || !pieces)
            return -ENOMEM;
        vectors->lines_room = vectors->ids_room;
    }
    vectors->ids[vectors->n] = (struct bytes){NULL, len}; /* where: known when all are read */
    vectors->id_memory_len += len;
    return 0;
}

/* One row of numbers in brackets, made a unit vector. Behind it, or NULL when it is none. */
static const char *read_row(struct vectors *vectors, const char *at, float *row, size_t room)
{
    size_t n = 0;
    /* In double: a sum of 65,536 squares in float would lose the last digits of the norm. */
    double sum = 0;
    if (*at++ != '[')
        return NULL;
    for (;; at++) {
        char *end;
        float value = strtof(at, &end);
        if (end == at || n == room)
            return NULL;
        row[n++] = value;
        sum += (double)value * (double)value;
        at = end;
        if (*at != ',')
            break;
    }
    if (*at != ']' || (vectors->n > 0 && n != vectors->dim))
        return NULL;
    vectors->dim = n;
    float scale = sum > 0 ? (float)(1 / sqrt(sum)) : 0;
    for (size_t i = 0; i < n; i++)
        row[i] *= scale;
    return at + 1;
}

static int grow_rows(struct vectors *vectors, size_t at_least)
{
    if (vectors->memory_room >= at_least)
        return 0;
    size_t room = 2 * at_least;
    float *memory = realloc(vectors->memory, room * sizeof *memory);
    if (!memory)
        return -ENOMEM;
    vectors->memory = memory;
    vectors->memory_room = room;
    return 0;
}

enum { DIM_MAX = 65536 };

/* Vectors of two models in one file cannot be searched together. */
static bool is_same_model(struct vectors *vectors, const char *line, const char *row)
{
    char model[sizeof vectors->model] = "";
    const char *at = value_of(line, "\"model_fingerprint\":\"");
    if (at && at < row)
        snprintf(model, sizeof model, "%.*s", (int)strcspn(at, "\""), at);
    if (vectors->n == 0)
        memcpy(vectors->model, model, sizeof model);
    return strcmp(vectors->model, model) == 0;
}

/* 0; -ENOMEM; -EBADMSG: it is not such a record; -EXDEV: it is one of another model. */
static int read_line(struct vectors *vectors, const char *line, size_t begins)
{
    const char *row = value_of(line, "\"embedding\":");
    const char *ids = value_of(line, "\"ids\":["), *id = value_of(line, "\"id\":");
    const char *bits = strstr(line, "\"dtype\":\"bits\"");
    if (!row || !id || *row != '[' || (bits && bits < row)) /* behind it are the user's fields */
        return -EBADMSG;
    if (!is_same_model(vectors, line, row))
        return -EXDEV;
    /* Of which texts the rows are pieces; null: of none. The user's fields stand behind `source`.
     */
    const char *parents = strstr(row, "\"parent\":["), *source = strstr(row, "\"source\":");
    parents = parents && (!source || parents < source) ? parents + strlen("\"parent\":[") : NULL;
    bool many = row[1] == '[';
    if (many && (!ids || ids > row))
        return -EBADMSG;
    row += many;
    id = many ? ids : id;
    for (;; row++) {
        size_t before = vectors->n * vectors->dim;
        /* The first row says how long all are; until then there is room for the longest that is
         * taken. */
        size_t room = vectors->n ? vectors->dim : DIM_MAX;
        if (grow_rows(vectors, before + room) != 0 || add_id(vectors, id) != 0)
            return -ENOMEM;
        row = read_row(vectors, row, vectors->memory + before, room);
        if (!row)
            return -EBADMSG;
        vectors->pieces[vectors->n] = parents && *parents != 'n';
        vectors->lines[vectors->n++] = begins;
        parents = parents ? scalar_end(parents) : NULL;
        parents = parents && *parents == ',' ? parents + 1 : NULL;
        if (!many || *row != ',')
            return 0;
        id = scalar_end(id);
        if (*id++ != ',')
            return -EBADMSG;
    }
}

int vectors_read_jsonl(struct vectors *vectors, const char *path, char *err, size_t err_size)
{
    FILE *file = fopen(path, "re");
    char *line = NULL;
    size_t room = 0, n_lines = 0, at_byte = 0;
    int rc = file ? 0 : -errno;
    if (rc != 0)
        snprintf(err, err_size, "%s cannot be read: %s", path, strerror(errno));
    for (ssize_t len; rc == 0 && (len = getline(&line, &room, file)) > 0;) {
        size_t begins = at_byte;
        n_lines++;
        at_byte += (size_t)len;
        /* An empty line is what an editor leaves at the end, and counts as a line all the same. */
        if (len == 1)
            continue;
        rc = read_line(vectors, line, begins);
        if (rc == -EBADMSG && n_lines == 1 && line[0] != '{')
            snprintf(err, err_size,
                     "%s is neither .npy nor .jsonl, which are what is searched: name the output "
                     "of `embedmill index` OUT.npy or OUT.jsonl",
                     path);
        else if (rc == -EXDEV)
            snprintf(err, err_size,
                     "%s: line %zu is of another model than those before (model_fingerprint), and "
                     "their vectors do not compare: part the lines by it into a file each",
                     path, n_lines);
        else if (rc == -EBADMSG)
            snprintf(
                err, err_size,
                "%s: line %zu is not a record with `id` and `embedding` (bits are searched in .npy "
                "only), or has another number of values than those before",
                path, n_lines);
        else if (rc != 0)
            snprintf(err, err_size, "out of memory for %zu vectors", vectors->n);
    }
    if (rc == 0 && ferror(file)) {
        rc = -EIO;
        snprintf(err, err_size, "reading %s failed", path);
    }
    free(line);
    if (file)
        fclose(file);
    for (size_t i = 0, at = 0; rc == 0 && i < vectors->n; at += vectors->ids[i++].len)
        vectors->ids[i].ptr = vectors->id_memory + at;
    vectors->kind = KIND_F4;
    vectors->row_bytes = vectors->dim * sizeof(float);
    vectors->rows = (const char *)vectors->memory;
    return rc;
}
