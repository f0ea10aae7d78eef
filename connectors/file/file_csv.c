/*
 * file_csv.c: see file_csv.h.
 *
 * Why:     a quote in the middle of a bare field is a quote, as every spreadsheet reads it; text
 *          behind a closing quote and a row of another length than the header are refused, for they
 *          mean that quotes were lost and cells have moved.
 */
#include "connectors/file/file_csv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/buffer.h"
#include "connectors/json.h"

struct column {
    char *key; /* as a JSON string with its colon; NULL: left out */
    bool is_text;
};

struct file_csv {
    const char *column, *id;
    struct column *columns; /* [n_columns]; NULL before the header */
    size_t n_columns;
    struct buffer cells;  /* of one row, unquoted, one after another */
    struct bytes *fields; /* [fields_room] */
    size_t n_fields, fields_room;
    struct buffer json;
    char problem[120];
};

int file_csv_open(struct file_csv **out, const char *column, const char *id)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return -ENOMEM;
    (*out)->column = column;
    (*out)->id = id;
    return 0;
}

void file_csv_begin(struct file_csv *csv)
{
    for (size_t i = 0; csv->columns && i < csv->n_columns; i++)
        free(csv->columns[i].key);
    free(csv->columns);
    csv->columns = NULL;
    csv->n_columns = 0;
}

void file_csv_close(struct file_csv *csv)
{
    if (!csv)
        return;
    file_csv_begin(csv);
    buffer_close(&csv->cells);
    free(csv->fields);
    buffer_close(&csv->json);
    free(csv);
}

bool file_csv_has_header(const struct file_csv *csv)
{
    return csv->columns;
}

static int field_add(struct file_csv *csv, size_t begun)
{
    if (csv->n_fields == csv->fields_room) {
        size_t room = csv->fields_room ? csv->fields_room * 2 : 16;
        struct bytes *fields = realloc(csv->fields, room * sizeof *fields);
        if (!fields)
            return -ENOMEM;
        csv->fields = fields;
        csv->fields_room = room;
    }
    csv->fields[csv->n_fields++] = (struct bytes){NULL, csv->cells.len - begun};
    return 0;
}

/* Behind an opening quote at row.ptr[*at]: the field, and *at behind its closing quote. */
static int unquote(struct file_csv *csv, struct bytes row, size_t *at, const char **problem)
{
    size_t i = *at + 1;
    for (;;) {
        const char *quote = memchr(row.ptr + i, '"', row.len - i);
        if (!quote) {
            *problem = "bad_csv: a quote is opened and never closed";
            return 0;
        }
        size_t end = (size_t)(quote - row.ptr);
        bool twice = end + 1 < row.len && quote[1] == '"';
        int rc = buffer_put(&csv->cells, row.ptr + i, end - i + twice);
        if (rc != 0)
            return rc;
        i = end + 1 + twice;
        if (!twice)
            break;
    }
    *at = i;
    return 0;
}

static int take_bare(struct file_csv *csv, struct bytes row, size_t *at)
{
    const char *comma = *at < row.len ? memchr(row.ptr + *at, ',', row.len - *at) : NULL;
    size_t begun = *at;
    *at = comma ? (size_t)(comma - row.ptr) : row.len;
    return buffer_put(&csv->cells, row.ptr + begun, *at - begun);
}

static int split(struct file_csv *csv, struct bytes row, const char **problem)
{
    csv->cells.len = csv->n_fields = 0;
    for (size_t at = 0;; at++) { /* at: the beginning of a field */
        size_t begun = csv->cells.len;
        int rc;
        if (at < row.len && row.ptr[at] == '"')
            rc = unquote(csv, row, &at, problem);
        else
            rc = take_bare(csv, row, &at);
        if (rc == 0)
            rc = field_add(csv, begun);
        if (rc != 0 || *problem)
            return rc;
        if (at >= row.len)
            break;
        if (row.ptr[at] != ',') {
            *problem = "bad_csv: text follows a closing quote";
            return 0;
        }
    }
    for (size_t i = 0, start = 0; i < csv->n_fields; start += csv->fields[i++].len)
        csv->fields[i].ptr = csv->cells.ptr + start;
    return 0;
}

static bool is_named(struct bytes field, const char *name)
{
    return field.len == strlen(name) && memcmp(field.ptr, name, field.len) == 0;
}

/* The key of a column in JSON, which must be there once, or absent when it is left out. */
static struct bytes key_of(const struct file_csv *csv, size_t i)
{
    static const char *const taken[] = {"", "text", "texts", "id", "ids", "titles"};
    struct bytes name = csv->fields[i];
    for (size_t earlier = 0; earlier < i; earlier++)
        if (csv->fields[earlier].len == name.len &&
            memcmp(csv->fields[earlier].ptr, name.ptr, name.len) == 0)
            return (struct bytes){NULL, 0};
    if (is_named(name, csv->column))
        return (struct bytes){"text", 4};
    if (is_named(name, csv->id))
        return (struct bytes){"id", 2};
    for (size_t t = 0; t < sizeof taken / sizeof taken[0]; t++)
        if (is_named(name, taken[t]))
            return (struct bytes){NULL, 0};
    return name;
}

static int refuse_columns(const struct file_csv *csv, char *err, size_t err_size)
{
    int n = snprintf(
        err, err_size,
        "the CSV has no column '%s'; name one with --file-column. Its columns:", csv->column);
    for (size_t i = 0; i < csv->n_fields && n > 0 && (size_t)n < err_size; i++)
        n += snprintf(err + n, err_size - (size_t)n, "%s %.*s", i ? "," : "",
                      (int)csv->fields[i].len, csv->fields[i].ptr);
    return -EINVAL;
}

int file_csv_header(struct file_csv *csv, struct bytes row, char *err, size_t err_size)
{
    const char *problem = NULL;
    bool has_text = false;
    int rc = split(csv, row, &problem);
    if (rc == 0 && problem) {
        snprintf(err, err_size, "the header of the CSV: %s", problem);
        return -EINVAL;
    }
    csv->n_columns = csv->n_fields;
    csv->columns = rc == 0 ? calloc(csv->n_fields, sizeof *csv->columns) : NULL;
    if (!csv->columns)
        return -ENOMEM;
    for (size_t i = 0; i < csv->n_columns; i++) {
        struct bytes name = key_of(csv, i);
        if (!name.ptr)
            continue;
        csv->columns[i].is_text = is_named(csv->fields[i], csv->column);
        has_text |= csv->columns[i].is_text;
        csv->json.len = 0;
        json_put_bytes(&csv->json, name);
        if (buffer_put(&csv->json, ":", 2))
            return -ENOMEM;
        csv->columns[i].key = strdup(csv->json.ptr);
        if (!csv->columns[i].key)
            return -ENOMEM;
    }
    return has_text ? 0 : refuse_columns(csv, err, err_size);
}

int file_csv_row(struct file_csv *csv, struct bytes row, struct bytes *out, const char **problem)
{
    *problem = NULL;
    int rc = split(csv, row, problem);
    if (rc != 0 || *problem)
        return rc;
    if (csv->n_fields != csv->n_columns) {
        snprintf(csv->problem, sizeof csv->problem,
                 "bad_csv: the row has %zu fields and the header has %zu", csv->n_fields,
                 csv->n_columns);
        *problem = csv->problem;
        return 0;
    }
    csv->json.len = 0;
    buffer_put_text(&csv->json, "{");
    for (size_t i = 0; i < csv->n_columns; i++) {
        const struct column *column = &csv->columns[i];
        if (!column->key || (csv->fields[i].len == 0 && !column->is_text))
            continue;
        if (csv->json.len > 1)
            buffer_put_text(&csv->json, ",");
        buffer_put_text(&csv->json, column->key);
        json_put_bytes(&csv->json, csv->fields[i]);
    }
    buffer_put_text(&csv->json, "}");
    *out = (struct bytes){csv->json.ptr, csv->json.len};
    return csv->json.status;
}
