/*
 * file_csv.h: one row of CSV (RFC 4180) as a JSON object.
 *
 * Owns:    quotes, the header row, which columns become `text` and `id`.
 * Refuses: to find the end of a row: file_records.c.
 * Threads: one at a time.
 */
#ifndef FILE_CSV_H
#define FILE_CSV_H

#include <stdbool.h>
#include <stddef.h>

#include "connectors/connector.h"

struct file_csv;

/* column and id are borrowed. 0 or -ENOMEM. */
int file_csv_open(struct file_csv **out, const char *column, const char *id);
void file_csv_close(struct file_csv *csv); /* accepts NULL */

/* The next row is a header. */
void file_csv_begin(struct file_csv *csv);
bool file_csv_has_header(const struct file_csv *csv);
/* 0; -EINVAL: no such column, err names those there are; -ENOMEM. */
int file_csv_header(struct file_csv *csv, struct bytes row, char *err, size_t err_size);
/* *out is good until the next call; *problem is NULL or "bad_csv: sentence". 0 or -ENOMEM. */
int file_csv_row(struct file_csv *csv, struct bytes row, struct bytes *out, const char **problem);

#endif
