/*
 * file_json.h: a growing buffer, and strings of JSON into it.
 *
 * Owns:    escapes, base64.
 * Threads: one at a time.
 */
#ifndef FILE_JSON_H
#define FILE_JSON_H

#include <stddef.h>

#include "connectors/connector.h"

/* Zero-initialise to open; free(ptr) to close. */
struct file_buffer {
    char *ptr;
    size_t len, room;
};

/* All return 0 or -ENOMEM; what was put before stays. */
int file_json_put(struct file_buffer *to, const char *bytes, size_t n);
int file_json_word(struct file_buffer *to, const char *word);
/* Quoted and escaped; bytes that are not UTF-8 pass as they are. */
int file_json_string(struct file_buffer *to, struct bytes string);
int file_json_base64(struct file_buffer *to, struct bytes bytes);

#endif
