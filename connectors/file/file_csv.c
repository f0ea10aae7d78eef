/*
 * file_csv.c: see file_csv.h.
 *
 * Why:     a quote in the middle of a bare field is a quote, as every spreadsheet reads it; text
 *          behind a closing quote and a row of another length than the header are refused, for they
 *          mean that quotes were lost and cells have moved. A delimiter is never guessed from the
 *          rows: it is the one with which the header has the column that was asked for.
 *          libcsv 3.0.3 reads otherwise: it takes spaces off cells, takes a mark for text, and puts
 *          what a lost quote took with it into one cell, or strictly, stops for good at that row.
 */
#include "connectors/dead_letter_codes.h"
#include "connectors/file/file_csv.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "connectors/buffer.h"
#include "connectors/json.h"
#include "connectors/utf8.h"

/* In this order; spreadsheets of most of Europe write semicolons. */
static const char delimiters[] = ",;\t|";

struct column {
    char *key; /* as a JSON string with its colon; NULL: left out */
    bool is_text;
    char *name; /* [name_len], as in the header */
    size_t name_len;
};

struct file_csv {
    struct file_csv_options options;
    char delimiter;         /* 0: not known yet */
    bool past_first;        /* the first row was read: no sep= comes any more */
    struct column *columns; /* [n_columns]; NULL before the header */
    size_t n_columns;
    struct buffer cells;  /* of one row, unquoted, one after another */
    struct bytes *fields; /* [fields_room] */
    size_t n_fields, fields_room;
    struct buffer json;
    char sentence[300];
};

int file_csv_open(struct file_csv **out, const struct file_csv_options *options)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return -ENOMEM;
    (*out)->options = *options;
    return 0;
}

void file_csv_begin(struct file_csv *csv, char delimiter)
{
    for (size_t i = 0; csv->columns && i < csv->n_columns; i++) {
        free(csv->columns[i].key);
        free(csv->columns[i].name);
    }
    free(csv->columns);
    /* The next row is a header again: files of a folder may have other columns. */
    csv->columns = NULL;
    csv->n_columns = 0;
    csv->delimiter = delimiter;
    csv->past_first = false;
}

void file_csv_close(struct file_csv *csv)
{
    if (!csv)
        return;
    file_csv_begin(csv, 0);
    buffer_close(&csv->cells);
    free(csv->fields);
    buffer_close(&csv->json);
    free(csv);
}

bool file_csv_delimits(const struct file_csv *csv, char c)
{
    return csv->delimiter ? c == csv->delimiter : c != '\0' && strchr(delimiters, c);
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
    /* Its address comes when all of the row is unquoted (split). */
    csv->fields[csv->n_fields++] = (struct bytes){NULL, csv->cells.len - begun};
    return 0;
}

/* Behind an opening quote at row.ptr[*at]: the field, and *at behind its closing quote. */
static int unquote(struct file_csv *csv, struct bytes row, size_t *at, const char **why)
{
    size_t i = *at + 1;
    for (;;) {
        const char *quote = memchr(row.ptr + i, '"', row.len - i);
        if (!quote) {
            *why = "a quote is opened and never closed";
            return 0;
        }
        size_t end = (size_t)(quote - row.ptr);
        bool twice = end + 1 < row.len && quote[1] == '"';
        /* Of a quote written twice one is kept. */
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

static int take_bare(struct file_csv *csv, struct bytes row, char delimiter, size_t *at)
{
    const char *end = *at < row.len ? memchr(row.ptr + *at, delimiter, row.len - *at) : NULL;
    size_t begun = *at;
    *at = end ? (size_t)(end - row.ptr) : row.len;
    return buffer_put(&csv->cells, row.ptr + begun, *at - begun);
}

/* The fields of a row; *why when it has none. 0 or -ENOMEM. */
static int split(struct file_csv *csv, struct bytes row, char delimiter, const char **why)
{
    csv->cells.len = csv->n_fields = 0;
    for (size_t at = 0;; at++) { /* at: the beginning of a field */
        size_t begun = csv->cells.len;
        int rc;
        if (at < row.len && row.ptr[at] == '"')
            rc = unquote(csv, row, &at, why);
        else
            rc = take_bare(csv, row, delimiter, &at);
        if (rc == 0)
            rc = field_add(csv, begun);
        if (rc != 0 || *why)
            return rc;
        if (at >= row.len)
            break;
        if (row.ptr[at] != delimiter) {
            /* Only behind a closing quote: a bare field ends at a delimiter or with the row. */
            assert(at >= 2);
            bool escaped = row.ptr[at - 2] == '\\';
            *why = escaped ? "text follows a closing quote; a quote inside a quoted cell is "
                             "written twice (\"\"), not behind a backslash"
                           : "text follows a closing quote";
            return 0;
        }
    }
    for (size_t i = 0, start = 0; i < csv->n_fields; start += csv->fields[i++].len)
        /* Only now: the buffer moves while it grows. */
        csv->fields[i].ptr = csv->cells.ptr + start;
    return 0;
}

/* How many bytes of blank are at one end of a field: white space, and what nobody sees: U+00A0,
 * U+200B and U+FEFF, which come with tables from web pages and with joined files. */
static size_t blank_at(struct bytes field, bool at_end)
{
    static const char *const blanks[] = {"\xc2\xa0", "\xe2\x80\x8b", "\xef\xbb\xbf"};
    if (field.len > 0 && isspace((unsigned char)field.ptr[at_end ? field.len - 1 : 0]))
        return 1;
    for (size_t i = 0; i < sizeof blanks / sizeof blanks[0]; i++) {
        size_t len = strlen(blanks[i]);
        if (field.len >= len &&
            memcmp(field.ptr + (at_end ? field.len - len : 0), blanks[i], len) == 0)
            return len;
    }
    return 0;
}

/* ... whatever its case, and blanks around it. */
static bool is_nearly_named(struct bytes field, const char *name)
{
    size_t n;
    while ((n = blank_at(field, false)) > 0)
        field = (struct bytes){field.ptr + n, field.len - n};
    while ((n = blank_at(field, true)) > 0)
        field.len -= n;
    return field.len == strlen(name) && strncasecmp(field.ptr, name, field.len) == 0;
}

/* The column of that name; n_columns: there is no such column; SIZE_MAX: there are several. */
static size_t find_column(const struct file_csv *csv, const char *name)
{
    for (int nearly = 0; nearly < 2; nearly++) {
        size_t found = csv->n_fields, n = 0;
        /* From the last to the first, so that `found` is the first. */
        for (size_t i = csv->n_fields; i-- > 0;) {
            if (nearly ? !is_nearly_named(csv->fields[i], name) : !bytes_are(csv->fields[i], name))
                continue;
            found = i;
            n++;
        }
        if (n > 0)
            return n > 1 ? SIZE_MAX : found;
    }
    return csv->n_fields;
}

/* May this column keep its name as a field of the output? Of equal names only the first. */
static bool is_field(const struct file_csv *csv, size_t i)
{
    static const char *const taken[] = {"", "text", "texts", "id", "ids", "titles"};
    struct bytes name = csv->fields[i];
    for (size_t earlier = 0; earlier < i; earlier++)
        if (bytes_equal(csv->fields[earlier], name))
            return false;
    for (size_t t = 0; t < sizeof taken / sizeof taken[0]; t++)
        if (bytes_are(name, taken[t]))
            return false;
    return true;
}

static int refuse_columns(const struct file_csv *csv, char *err, size_t err_size)
{
    int n = snprintf(err, err_size,
                     "the CSV has no column '%s'; name one with --file-column, or what is between "
                     "columns with --file-delimiter. Its columns:",
                     csv->options.column);
    for (size_t i = 0; i < csv->n_fields && n > 0 && (size_t)n < err_size; i++)
        n += snprintf(err + n, err_size - (size_t)n, "%s %.*s", i ? "," : "",
                      (int)(csv->fields[i].len < 200 ? csv->fields[i].len : 200),
                      csv->fields[i].ptr);
    return -EINVAL;
}

/* A line sep=; at the top says what is between columns. */
static bool take_sep(struct file_csv *csv, struct bytes row)
{
    bool quoted = row.len > 2 && row.ptr[0] == '"' && row.ptr[row.len - 1] == '"';
    if (quoted)
        row = (struct bytes){row.ptr + 1, row.len - 2};
    if (row.len != 5 || strncasecmp(row.ptr, "sep=", 4) != 0 || row.ptr[4] == '"')
        return false;
    /* An option of the user's counts more than the file's own line. */
    if (!csv->delimiter)
        csv->delimiter = row.ptr[4];
    return true;
}

/* Split the header by what is between its columns, as far as it is not known the first with which
 * it has the column of the texts. */
static int split_header(struct file_csv *csv, struct bytes row, const char **why)
{
    if (csv->delimiter)
        return split(csv, row, csv->delimiter, why);
    for (const char *at = delimiters; *at; at++) {
        const char *unused = NULL;
        int rc = split(csv, row, *at, &unused);
        if (rc != 0)
            return rc;
        /* Several columns of that name are a find, too: take_header says what
         * is wrong with them. */
        if (!unused && find_column(csv, csv->options.column) != csv->n_fields) {
            csv->delimiter = *at;
            return 0;
        }
    }
    /* None has the column: refuse_columns shows the names as commas divide them. */
    csv->delimiter = delimiters[0];
    return split(csv, row, csv->delimiter, why);
}

static int keep_column(struct file_csv *csv, size_t i, struct bytes key)
{
    struct column *column = &csv->columns[i];
    struct bytes name = csv->fields[i];
    column->name = malloc(name.len + 1);
    if (!column->name)
        return -ENOMEM;
    memcpy(column->name, name.ptr, name.len);
    column->name_len = name.len;
    if (!key.ptr)
        return 0;
    csv->json.len = 0;
    json_put_string(&csv->json, key);
    /* Two bytes: the colon and the NUL that strdup looks for. */
    if (buffer_put(&csv->json, ":", 2))
        return -ENOMEM;
    column->key = strdup(csv->json.ptr);
    return column->key ? 0 : -ENOMEM;
}

static int take_header(struct file_csv *csv, struct bytes row, char *err, size_t err_size)
{
    const char *why = NULL;
    int rc = split_header(csv, row, &why);
    if (rc == 0 && why) {
        snprintf(err, err_size, "the header of the CSV: %s", why);
        return -EINVAL;
    }
    size_t text = rc ? 0 : find_column(csv, csv->options.column);
    size_t id = rc ? 0 : find_column(csv, csv->options.id);
    if (rc == 0 && (text == SIZE_MAX || id == SIZE_MAX)) {
        snprintf(err, err_size,
                 "the CSV has several columns '%s'; give each another name, or name another with "
                 "--file-%s",
                 text == SIZE_MAX ? csv->options.column : csv->options.id,
                 text == SIZE_MAX ? "column" : "id");
        return -EINVAL;
    }
    if (rc == 0 && text == csv->n_fields)
        return refuse_columns(csv, err, err_size);
    csv->n_columns = csv->n_fields;
    csv->columns = rc == 0 ? calloc(csv->n_fields, sizeof *csv->columns) : NULL;
    if (!csv->columns)
        return -ENOMEM;
    csv->columns[text].is_text = true;
    for (size_t i = 0; i < csv->n_columns && rc == 0; i++) {
        struct bytes key = is_field(csv, i) ? csv->fields[i] : (struct bytes){NULL, 0};
        /* When one column is both, it is the text. */
        if (i == id)
            key = (struct bytes){"id", 2};
        if (i == text)
            key = (struct bytes){"text", 4};
        rc = keep_column(csv, i, key);
    }
    return rc;
}

/* Where files were joined the header of the second stands among the rows of the first. Of one
 * column it may be a row as well. */
static bool is_header(const struct file_csv *csv)
{
    if (csv->n_columns < 2)
        return false;
    for (size_t i = 0; i < csv->n_columns; i++)
        if (csv->fields[i].len != csv->columns[i].name_len ||
            memcmp(csv->fields[i].ptr, csv->columns[i].name, csv->fields[i].len) != 0)
            return false;
    return true;
}

/* The first cell that is not UTF-8, as a problem. */
static bool refuse_bad_utf8(struct file_csv *csv, struct problem *problem)
{
    for (size_t i = 0; i < csv->n_columns; i++) {
        struct bytes cell = csv->fields[i];
        if (!csv->columns[i].key || utf8_is_valid(cell.ptr, cell.len))
            continue;
        snprintf(csv->sentence, sizeof csv->sentence,
                 "column '%.*s' is not UTF-8; convert the file first, from Windows-1252 for "
                 "example: iconv -f WINDOWS-1252 -t UTF-8",
                 (int)(csv->columns[i].name_len < 80 ? csv->columns[i].name_len : 80),
                 csv->columns[i].name);
        *problem = (struct problem){DEAD_LETTER(bad_utf8), csv->sentence};
        return true;
    }
    return false;
}

static int put_object(struct file_csv *csv)
{
    csv->json.len = 0;
    buffer_put_text(&csv->json, "{");
    for (size_t i = 0; i < csv->n_columns; i++) {
        const struct column *column = &csv->columns[i];
        /* An empty cell is no value; an empty text stays, for the codec to refuse by name. */
        if (!column->key || (csv->fields[i].len == 0 && !column->is_text))
            continue;
        if (csv->json.len > 1)
            buffer_put_text(&csv->json, ",");
        buffer_put_text(&csv->json, column->key);
        json_put_bytes(&csv->json, csv->fields[i]); /* bad_utf8 judges them */
    }
    buffer_put_text(&csv->json, "}");
    return csv->json.status;
}

int file_csv_row(struct file_csv *csv, struct bytes row, struct bytes *out, struct problem *problem,
                 char *err, size_t err_size)
{
    bool is_first = !csv->past_first;
    /* Also when the row is a header or damaged: sep= counts at the very top only. */
    csv->past_first = true;
    *out = (struct bytes){NULL, 0};
    *problem = (struct problem){NULL, NULL};
    if (is_first && take_sep(csv, row))
        return 0;
    if (!csv->columns)
        return take_header(csv, row, err, err_size);

    const char *why = NULL;
    int rc = split(csv, row, csv->delimiter, &why);
    if (rc != 0)
        return rc;
    if (!why && csv->n_fields != csv->n_columns) {
        snprintf(csv->sentence, sizeof csv->sentence,
                 "the row has %zu field%s and the header has %zu", csv->n_fields,
                 csv->n_fields == 1 ? "" : "s", csv->n_columns);
        why = csv->sentence;
    }
    if (why)
        *problem = (struct problem){DEAD_LETTER(bad_csv), why};
    if (why || is_header(csv) || (csv->options.refuse_bad_utf8 && refuse_bad_utf8(csv, problem)))
        return 0;
    rc = put_object(csv);
    *out = (struct bytes){csv->json.ptr, csv->json.len};
    return rc;
}
