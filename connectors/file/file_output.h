/*
 * file_output.h: records at the end of files: OUT and, beside it, OUT.state, OUT.errors.jsonl,
 * OUT.deleted.jsonl and, for an .npy, OUT.ids.jsonl.
 *
 * Owns:    the files, their forms, and that after any death they can be cut to what was confirmed.
 * Refuses: how a record was encoded: JSON gets a newline behind it, anything else is put as it is.
 * Threads: one at a time; everything blocks, so it belongs on libuv's threads.
 */
#ifndef FILE_OUTPUT_H
#define FILE_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "connectors/file/file.h"

struct file_output;

/*
 * Open or make OUT and cut everything to what its state says. dtype: "f4", "f2", "i1" or "b1", of
 * the vectors in an .npy. 0, or negative errno and a sentence: another process has it open, or it
 * is a file that was not made here.
 */
int file_output_open(struct file_output **out, const char *path, const char *dtype, char *err,
                     size_t err_size);
void file_output_close(struct file_output *output); /* accepts NULL */
/* Before that: an .npy that has got no row yet holds an array of none, row_bytes wide. */
void file_output_close_empty(struct file_output *output, size_t row_bytes);

/* Its records are .npy rows, not payloads. */
bool file_output_is_npy(const char *path);
/* What is confirmed. */
struct file_place file_output_place(const struct file_output *output);

/* Append records and put all of it on the disk. 0; or negative errno and a sentence, and only
 * opening it anew brings it back to what is confirmed. */
int file_output_write(struct file_output *output, struct record *const *records, size_t n,
                      char *err, size_t err_size);

#endif
