/*
 * file_corpus.h: what the option file.path stands for: a file, standard input or a folder.
 *
 * Owns:    the list of files below a folder, in an order that does not depend on the disk.
 * Refuses: to open any of them. Hidden files, what is not a file and links back to a folder they
 *          are in are left out; what may not be looked into is listed like a file.
 * Threads: one at a time.
 */
#ifndef FILE_CORPUS_H
#define FILE_CORPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connectors/file/file_records.h"

struct file_corpus {
    char **paths; /* [n] */
    size_t n, room;
    size_t root_len; /* of a folder's path and its slash, in front of each; 0: no folder */
    uint64_t bytes;  /* sizes of all; 0: not known */
    enum file_format format;
    bool is_guessed;     /* the format, because none was asked for */
    size_t n_of_records; /* in a folder: files that have records of their own by their names */
};

/*
 * format: "auto", "jsonl", "lines", "csv" or "text". auto goes by the name, .gz and .zst left out:
 * .jsonl, .ndjson, .json and others are jsonl, .csv, .tsv and .tab csv, any other lines; a folder
 * is text. 0, or negative errno and a sentence; on failure nothing is left to close.
 */
int file_corpus_open(struct file_corpus *out, const char *path, const char *format, char *err,
                     size_t err_size);
void file_corpus_close(struct file_corpus *corpus);
/* Is this error of opening it the fault of one file (no right to it, gone since it was listed), and
 * not of the disk or of this process? */
bool file_is_unreadable(int rc);
/* What is between the columns of a file of that name: a tab in a .tsv; 0: the name does not tell.
 */
char file_corpus_delimiter(const char *path);

#endif
