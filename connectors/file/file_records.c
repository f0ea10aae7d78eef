/*
 * file_records.c: see file_records.h.
 *
 * Why:     the same bytes must give the same records however they were cut when they were read, so
 *          the search for an end goes on where it stopped and never looks back.
 */
#include "connectors/file/file_records.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/file/file_csv.h"

/* Where in a row of CSV the search is. */
enum quoting { FIELD_START, BARE, QUOTED, CLOSED };

struct file_records {
    struct file_records_options options;
    struct file_csv *csv;             /* NULL: not CSV */
    char *buffer;                     /* [room] */
    size_t start, scanned, end, room; /* unread are [start, end); no end of record before scanned */
    enum quoting quoting;             /* at scanned */
    bool first;                       /* nothing of the file was taken yet: a BOM may come */
    bool skipping;                    /* inside a record that was too long */
    bool ended;
    uint64_t line;  /* of start, from 1 */
    uint64_t lines; /* ends of lines inside the record, between start and scanned */
    char problem[80];
};

int file_records_open(struct file_records **out, const struct file_records_options *options)
{
    struct file_records *records = calloc(1, sizeof *records);
    if (!records)
        return -ENOMEM;
    records->options = *options;
    snprintf(records->problem, sizeof records->problem,
             "record_too_long: longer than file.max_record, %zu bytes", options->max_record);
    if (options->format == FILE_CSV &&
        file_csv_open(&records->csv, options->column, options->id) != 0) {
        free(records);
        return -ENOMEM;
    }
    file_records_begin(records);
    *out = records;
    return 0;
}

void file_records_close(struct file_records *records)
{
    if (!records)
        return;
    file_csv_close(records->csv);
    free(records->buffer);
    free(records);
}

void file_records_begin(struct file_records *records)
{
    records->start = records->scanned = records->end = 0;
    records->quoting = FIELD_START;
    records->first = true;
    records->skipping = records->ended = false;
    records->line = 1;
    records->lines = 0;
    if (records->csv)
        file_csv_begin(records->csv);
}

int file_records_feed(struct file_records *records, const char *bytes, size_t n)
{
    if (records->start > 0) {
        memmove(records->buffer, records->buffer + records->start, records->end - records->start);
        records->scanned -= records->start;
        records->end -= records->start;
        records->start = 0;
    }
    if (records->room - records->end < n) {
        size_t room = records->room ? records->room : 128 * 1024;
        while (room - records->end < n)
            room *= 2;
        char *buffer = realloc(records->buffer, room);
        if (!buffer)
            return -ENOMEM;
        records->buffer = buffer;
        records->room = room;
    }
    if (n > 0)
        memcpy(records->buffer + records->end, bytes, n);
    records->end += n;
    return 0;
}

void file_records_end(struct file_records *records)
{
    records->ended = true;
}

/* The end of a row, outside of quotes; NULL: not there yet. Leaves scanned where it stopped. */
static char *row_end(struct file_records *records)
{
    char *at = records->buffer + records->scanned, *end = records->buffer + records->end;
    enum quoting quoting = records->quoting;
    for (; at < end; at++) {
        char c = *at;
        if (c == '\n' && quoting != QUOTED)
            break;
        records->lines += c == '\n';
        if (quoting == QUOTED)
            quoting = c == '"' ? CLOSED : QUOTED;
        else if (c == ',')
            quoting = FIELD_START;
        else if (c == '"' && quoting != BARE)
            quoting = QUOTED; /* opens a field, or the second of two inside one */
        else
            quoting = BARE;
    }
    records->quoting = quoting;
    records->scanned = (size_t)(at - records->buffer);
    return at < end ? at : NULL;
}

static char *record_end(struct file_records *records)
{
    if (records->scanned == records->end)
        return NULL;
    if (records->options.format == FILE_CSV)
        return row_end(records);
    char *found = NULL;
    if (records->options.format != FILE_TEXT)
        found = memchr(records->buffer + records->scanned, '\n', records->end - records->scanned);
    records->scanned = found ? (size_t)(found - records->buffer) : records->end;
    return found;
}

/*
 * Cut the next record off. 1: [*at, + *len) without its end, *too_long when it is not all there;
 * 0: needs more.
 */
static int cut(struct file_records *records, char **at, size_t *len, bool *too_long)
{
    char *end = record_end(records);
    if (!end) {
        if (records->end - records->start > records->options.max_record + 1) { /* a \r may come */
            records->skipping = true;
            records->start = records->scanned = records->end;
        }
        bool something = records->start < records->end || records->skipping;
        if (!records->ended || !something)
            return 0;
    }
    *at = records->buffer + records->start;
    *len = records->scanned - records->start;
    records->start = records->scanned = records->scanned + (end != NULL);
    if (*len > 0 && (*at)[*len - 1] == '\r' && end)
        --*len;
    if (records->first && *len >= 3 && memcmp(*at, "\xef\xbb\xbf", 3) == 0) {
        *at += 3; /* the byte order mark some editors begin a file with */
        *len -= 3;
    }
    records->first = false;
    *too_long = records->skipping || *len > records->options.max_record;
    records->skipping = false;
    records->quoting = FIELD_START;
    return 1;
}

int file_records_next(struct file_records *records, struct file_record *out, char *err,
                      size_t err_size)
{
    char *at;
    size_t len;
    bool too_long;
    if (cut(records, &at, &len, &too_long) == 0)
        return 0;
    *out = (struct file_record){.line = records->line};
    records->line += records->lines + 1;
    records->lines = 0;
    if (too_long) {
        out->value = (struct bytes){"", 0};
        out->problem = records->problem;
        return 1;
    }
    struct bytes value = {len > 0 ? at : NULL, len};
    if (!records->csv || !value.ptr) {
        out->value = value;
        return 1;
    }
    int rc;
    if (!file_csv_has_header(records->csv))
        rc = file_csv_header(records->csv, value, err, err_size);
    else
        rc = file_csv_row(records->csv, value, &out->value, &out->problem);
    if (out->problem)
        out->value = (struct bytes){"", 0};
    return rc == 0 ? 1 : rc;
}
