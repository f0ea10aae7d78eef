/*
 * file_records.c: see file_records.h.
 *
 * Why:     the same bytes must give the same records however they were cut when they were read, so
 *          the search for an end goes on where it stopped and never looks back.
 */
#include "connectors/file/file_records.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"
#include "connectors/file/file_guess.h"
#include "connectors/file/file_lines.h"

#define GUESS_BYTES ((size_t)64 * 1024) /* of a first line, at most */

/* Where in a row of CSV the search is. */
enum quoting { FIELD_START, BARE, QUOTED, CLOSED };

struct file_records {
    struct file_records_options options;
    struct file_csv *csv;             /* NULL: not CSV */
    char *buffer;                     /* [room] */
    size_t start, scanned, end, room; /* unread are [start, end); no end of record before scanned */
    enum line_ends ends;              /* not of CSV, where both do */
    enum quoting quoting;             /* at scanned */
    bool after_cr;                    /* at scanned, inside quotes */
    bool looked;                      /* at the first bytes of the file, of JSONL */
    bool guessed;                     /* from its first line, of LINES */
    bool skipping;                    /* inside a record that was too long */
    bool ended;
    uint64_t line;  /* of start, from 1 */
    uint64_t lines; /* ends of lines inside the record, between start and scanned */
    char problem[500];
};

static const char mark[] = "\xef\xbb\xbf"; /* which some editors begin a file with */

int file_records_open(struct file_records **out, const struct file_records_options *options)
{
    struct file_records *records = calloc(1, sizeof *records);
    if (!records)
        return -ENOMEM;
    records->options = *options;
    if (options->format == FILE_CSV && file_csv_open(&records->csv, &options->csv) != 0) {
        free(records);
        return -ENOMEM;
    }
    file_records_begin(records, 0);
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

void file_records_begin(struct file_records *records, char delimiter)
{
    records->start = records->scanned = records->end = 0;
    records->ends = ENDS_UNKNOWN;
    records->quoting = FIELD_START;
    records->after_cr = records->looked = records->guessed = false;
    records->skipping = records->ended = false;
    records->line = 1;
    records->lines = 0;
    if (records->csv)
        file_csv_begin(records->csv, delimiter);
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
        /* A record and a block at most: records beyond max_record are dropped while they come. */
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

/* Does it belong to the byte order marks that a record begins with? */
static bool is_mark(const struct file_records *records, const char *at)
{
    const char *begun = records->buffer + records->start;
    while (at - begun >= 3 && memcmp(begun, mark, 3) == 0)
        begun += 3;
    /* Byte by byte: a mark may be cut between two reads. */
    return at - begun < 3 && memcmp(begun, mark, (size_t)(at - begun) + 1) == 0;
}

static enum quoting quoting_next(const struct file_records *records, enum quoting now, char c)
{
    /* CLOSED, and not the end of the field: a second quote opens it again. */
    if (now == QUOTED)
        return c == '"' ? CLOSED : QUOTED;
    if (file_csv_delimits(records->csv, c))
        return FIELD_START;
    return c == '"' && now != BARE ? QUOTED : BARE; /* opens a field, or second of two inside one */
}

/*
 * The end of a row, outside of quotes: LF, CRLF, or the CR alone of old spreadsheets. NULL: not
 * there yet, or a CR comes last and an LF may follow. Leaves scanned where it stopped.
 */
static char *row_end(struct file_records *records, size_t *len)
{
    char *at = records->buffer + records->scanned, *end = records->buffer + records->end;
    char *found = NULL;
    for (; at < end; at++) {
        if (records->quoting != QUOTED && (*at == '\n' || *at == '\r')) {
            bool is_cr = *at == '\r', is_last = at + 1 == end;
            *len = is_cr && !is_last && at[1] == '\n' ? 2 : 1;
            /* Without the next byte CRLF would become two ends, and an empty row between. */
            found = is_cr && is_last && !records->ended ? NULL : at;
            break;
        }
        records->lines += *at == '\r' || (*at == '\n' && !records->after_cr);
        records->after_cr = *at == '\r';
        if (records->quoting != FIELD_START || !is_mark(records, at))
            records->quoting = quoting_next(records, records->quoting, *at);
    }
    records->scanned = (size_t)(at - records->buffer);
    return found;
}

/* The end of a line; NULL as of row_end. */
static char *line_end(struct file_records *records, size_t *len)
{
    const char *at = records->buffer + records->scanned, *end = records->buffer + records->end;
    if (records->ends == ENDS_UNKNOWN) /* nothing was cut off yet */
        records->ends =
            file_lines_ends(records->buffer + records->start, records->end - records->start,
                            records->options.max_record, records->ended);
    if (records->ends == ENDS_UNKNOWN)
        return NULL;
    const char *found = file_lines_next(records->ends, &at, end, records->ended, len);
    records->scanned = (size_t)(at - records->buffer);
    return found ? records->buffer + records->scanned : NULL;
}

static char *record_end(struct file_records *records, size_t *len)
{
    if (records->scanned == records->end)
        return NULL;
    if (records->options.format == FILE_CSV)
        return row_end(records, len);
    if (records->options.format != FILE_TEXT)
        return line_end(records, len);
    /* A whole file is one record: its end is that of the bytes. */
    records->scanned = records->end;
    return NULL;
}

/* What stands before or behind a record and is not part of it. */
static void trim(const struct file_records *records, struct bytes *value, bool is_open)
{
    if (!is_open && value->len > 0 && value->ptr[value->len - 1] == '\r')
        value->len--;
    /* Also where files were joined; and a second one, of a program that puts one before any text.
     */
    while (value->len >= 3 && memcmp(value->ptr, mark, 3) == 0)
        *value = (struct bytes){value->ptr + 3, value->len - 3};
    /* RFC 7464, as jq --seq writes. */
    if (records->options.format == FILE_JSONL && value->len > 0 && value->ptr[0] == '\x1e')
        *value = (struct bytes){value->ptr + 1, value->len - 1};
    if (is_open && value->len == 1 && value->ptr[0] == '\x1a') /* the end of a file of DOS */
        value->len = 0;
}

/*
 * Cut the next record off. 1: *value is it without its end, *too_long when it is not all there;
 * 0: needs more.
 */
static int split_off(struct file_records *records, struct bytes *value, bool *is_open,
                     bool *too_long)
{
    size_t end_len = 0;
    char *end = record_end(records, &end_len);
    if (!end) {
        if (records->scanned - records->start > records->options.max_record + 4) { /* mark, \r */
            records->skipping = true;
            /* Its bytes are dropped as they come; the search for its end goes on in their state of
             * quotes. */
            records->start = records->scanned;
        }
        bool something = records->start < records->end || records->skipping;
        if (!records->ended || !something)
            return 0;
    }
    *value = (struct bytes){records->buffer + records->start, records->scanned - records->start};
    records->start = records->scanned = records->scanned + (end ? end_len : 0);
    *is_open = !end && records->options.format != FILE_TEXT;
    trim(records, value, !end);
    *too_long = records->skipping || value->len > records->options.max_record;
    /* All that is known of the inside of a record ends with it. */
    records->skipping = records->after_cr = false;
    records->quoting = FIELD_START;
    return 1;
}

/* The first byte from at on that is not white space, or end. */
static const char *skip_space(const char *at, const char *end)
{
    while (at < end && isspace((unsigned char)*at))
        at++;
    return at;
}

/*
 * Is a file of JSON one that has an object a line? A few bytes tell it from an array and from
 * objects printed for people. In lines that need not be JSON an array is one of objects, for a text
 * may begin with [. 1; 0: needs more; -EINVAL.
 */
static int look(struct file_records *records, char *err, size_t err_size)
{
    const char *at = records->buffer + records->start, *end = records->buffer + records->end;
    bool is_jsonl = records->options.format == FILE_JSONL;
    if (records->looked || !(is_jsonl || records->options.maybe_json))
        return 1;
    /* A mark has three bytes, and a part of one would be taken for text. */
    if (end - at < 3 && !records->ended)
        return 0;
    while (end - at >= 3 && memcmp(at, mark, 3) == 0)
        at += 3;
    at = skip_space(at, end);
    while (at < end && *at == '\x1e')
        at = skip_space(at + 1, end);
    char first = at < end ? *at++ : '\0';
    bool is_array = first == '[' && is_jsonl;
    while (first == '{' && at < end && (*at == ' ' || *at == '\t'))
        at++;
    if (first == '[' && !is_jsonl)
        at = skip_space(at, end);
    if (at == end && !is_array && !records->ended)
        return 0;
    records->looked = true;
    is_array |= first == '[' && at < end && *at == '{';
    if (!is_array && !(first == '{' && at < end && (*at == '\n' || *at == '\r')))
        return 1;
    snprintf(err, err_size,
             "%s, and what is read is an object in each line; make lines of it: jq -c %s FILE",
             is_array ? "it is a JSON array" : "it is pretty-printed JSON",
             is_array ? "'.[]'" : ".");
    return -EINVAL;
}

/*
 * Do lines that nobody called lines look like something else? 1; 0: needs more; -EINVAL. It is
 * asked before anything was cut off.
 */
static int guess(struct file_records *records, char *err, size_t err_size)
{
    const struct file_records_options *options = &records->options;
    const char *at = records->buffer + records->start, *end = records->buffer + records->end;
    if (records->guessed || !options->is_guessed || options->format != FILE_LINES)
        return 1;
    while (end - at >= 3 && memcmp(at, mark, 3) == 0)
        at += 3;
    at = skip_space(at, end);
    size_t len = 0, there = (size_t)(end - at);
    /* The first line that is not blank, or 64 KiB of it. */
    while (len < there && at[len] != '\n' && at[len] != '\r')
        len++;
    if (len == there && there < GUESS_BYTES && !records->ended)
        return 0;
    records->guessed = true;
    const char *format =
        file_guess_format((struct bytes){at, len}, options->text_field, options->csv.column);
    if (!format || (options->maybe_json && strcmp(format, "jsonl") == 0))
        return 1;
    snprintf(err, err_size,
             "its first line looks like %s, and it would be embedded as lines of text; add "
             "--file-format %s, or --file-format lines if that is what you want",
             strcmp(format, "csv") == 0 ? "the header of a CSV" : "a record in JSON", format);
    return -EINVAL;
}

static void refuse_too_long(struct file_records *records, struct file_record *out, uint64_t last)
{
    int n = 0;
    out->problem = (struct problem){DEAD_LETTER(record_too_long), records->problem};
    out->value = (struct bytes){"", 0};
    if (last > out->line)
        n = snprintf(records->problem, sizeof records->problem,
                     "lines %" PRIu64 " to %" PRIu64 " are one row (was a quote lost?), ",
                     out->line, last);
    snprintf(records->problem + n, sizeof records->problem - (size_t)n,
             "longer than file.max_record, %zu bytes", records->options.max_record);
}

/* A row that is none: its lines, for a quote that was lost takes those up to the next with it. */
static void refuse_row(struct file_records *records, struct file_record *out, uint64_t last,
                       struct bytes row, const struct problem *problem)
{
    char lines[100] = "";
    if (last > out->line)
        snprintf(lines, sizeof lines,
                 "lines %" PRIu64 " to %" PRIu64 " are one row (was a quote lost?): ", out->line,
                 last);
    snprintf(records->problem, sizeof records->problem, "%s%s", lines, problem->reason);
    out->problem = (struct problem){problem->code, records->problem};
    out->value = row;
}

int file_records_next(struct file_records *records, struct file_record *out, char *err,
                      size_t err_size)
{
    struct bytes row;
    bool is_open, too_long;
    int rc = look(records, err, err_size);
    if (rc > 0)
        rc = guess(records, err, err_size);
    if (rc <= 0)
        return rc;
    if (split_off(records, &row, &is_open, &too_long) == 0)
        return 0;
    *out = (struct file_record){.line = records->line, .is_open = is_open};
    uint64_t last = records->line + records->lines;
    /* Also behind one that is refused: numbers are those that an editor shows. */
    records->line = last + 1;
    records->lines = 0;
    if (too_long) {
        refuse_too_long(records, out, last);
        return 1;
    }
    if (row.len == 0 || (records->options.format == FILE_JSONL &&
                         skip_space(row.ptr, row.ptr + row.len) == row.ptr + row.len))
        return 1; /* blank */
    out->value = row;
    if (!records->csv)
        return 1;
    struct problem problem;
    rc = file_csv_row(records->csv, row, &out->value, &problem, err, err_size);
    if (rc == 0 && problem.code)
        refuse_row(records, out, last, row, &problem);
    return rc == 0 ? 1 : rc;
}
