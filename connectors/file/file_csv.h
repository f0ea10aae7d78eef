/*
 * file_csv.h: one row of CSV (RFC 4180) as a JSON object.
 *
 * Owns:    quotes, delimiters, the header row, which columns become `text` and `id`.
 * Refuses: to find the end of a row: file_records.c.
 * Threads: one at a time.
 */
#ifndef FILE_CSV_H
#define FILE_CSV_H

#include <stdbool.h>
#include <stddef.h>

#include "connectors/connector.h"

struct file_csv;

struct file_csv_options {
    const char *column, *id; /* borrowed: the columns that become `text` and `id` */
    bool
        refuse_bad_utf8; /* cells that are not UTF-8; else they pass as they are, in JSON as well */
};

/* 0 or -ENOMEM. */
int file_csv_open(struct file_csv **out, const struct file_csv_options *options);
void file_csv_close(struct file_csv *csv); /* accepts NULL */

/* The next row is the first of a file. delimiter: 0 where the file itself has to tell. */
void file_csv_begin(struct file_csv *csv, char delimiter);
/* May a cell begin behind c? As long as the delimiter is not known, behind any that it could be. */
bool file_csv_delimits(const struct file_csv *csv, char c);

/*
 * *out is the row as an object, good until the next call, or absent: it was a header, also one that
 * comes again where files were joined, or a line sep=; as spreadsheets write it.
 * 0; -EINVAL: nothing in this file can be read, err says why (no such column, and names those there
 * are); -ENOMEM.
 */
int file_csv_row(struct file_csv *csv, struct bytes row, struct bytes *out, struct problem *problem,
                 char *err, size_t err_size);

#endif
