/*
 * file_records.h: bytes into records: lines, rows of CSV, or a whole file each.
 *
 * Owns:    where a record begins and ends, at any cut of the bytes; line numbers.
 * Refuses: files, threads, what a record means. A row of CSV becomes a JSON object, its columns the
 *          keys, so that what reads JSON reads CSV.
 * Threads: one at a time.
 */
#ifndef FILE_RECORDS_H
#define FILE_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connectors/connector.h"
#include "connectors/file/file_csv.h"

/* JSONL and LINES are cut alike: what is in a line is not looked at here. */
enum file_format { FILE_JSONL, FILE_LINES, FILE_CSV, FILE_TEXT };

struct file_records_options {
    enum file_format format;
    size_t max_record;           /* bytes */
    struct file_csv_options csv; /* of FILE_CSV */
    bool maybe_json;             /* of FILE_LINES: a line may be an object */
    bool is_guessed;             /* of FILE_LINES: nobody said that they are */
    const char *text_field;      /* of is_guessed: of objects */
};

/* All good until the next call. */
struct file_record {
    struct bytes value;
    uint64_t line;          /* it begins in, from 1 */
    struct problem problem; /* with one, value is what was read of it, if any */
    bool is_open;           /* the file ends in it, without an end of line: more of it may come */
};

struct file_records;

/* The strings of options are borrowed. 0 or -ENOMEM. */
int file_records_open(struct file_records **out, const struct file_records_options *options);
void file_records_close(struct file_records *records); /* accepts NULL */
/* A new file begins; line numbers and the header of CSV are its own. delimiter: as file_csv_begin.
 */
void file_records_begin(struct file_records *records, char delimiter);
/* More bytes of it; 0 or -ENOMEM. */
int file_records_feed(struct file_records *records, const char *bytes, size_t n);
/* No more bytes of it. */
void file_records_end(struct file_records *records);
/*
 * 1: *out is the next record, or has value.ptr NULL for a blank line, an empty file or a header;
 * 0: needs more, or there is no more; -ENOMEM; -EINVAL: nothing in this file can be read, and err
 * says why (CSV without the column, JSON that is not an object a line).
 */
int file_records_next(struct file_records *records, struct file_record *out, char *err,
                      size_t err_size);

#endif
