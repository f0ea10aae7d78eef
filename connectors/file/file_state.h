/*
 * file_state.h: OUT.state, what an output file is known to hold.
 *
 * Owns:    the form of that file, and that there is always a whole one.
 * Threads: any, one at a time; it blocks.
 * Why:     outputs are appended to and nothing is ever looked for in them: what lies behind the
 *          lengths noted here was not confirmed and is cut off before going on.
 */
#ifndef FILE_STATE_H
#define FILE_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "connectors/file/file.h"

struct file_state {
    struct file_place place; /* of the corpus, behind the last record that is in the output */
    uint64_t output, ids, errors, deleted; /* lengths of the files */
    uint64_t rows;                         /* of an .npy */
};

/* 0; -ENOENT: there is none; negative errno and a sentence. */
int file_state_read(const char *path, struct file_state *out, char *err, size_t err_size);
/* All n bytes, however often the system takes fewer. 0 or negative errno. */
int file_write_all(int fd, const char *bytes, size_t n);
/* On the disk when it returns 0; else negative errno and the old one is still there. */
int file_state_write(const char *path, const struct file_state *state);

#endif
