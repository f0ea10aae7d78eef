/*
 * file_utf16.h: UTF-16 to UTF-8, as a stream.
 *
 * Owns:    surrogate pairs, also where the bytes are cut between two of them.
 * Threads: one at a time.
 */
#ifndef FILE_UTF16_H
#define FILE_UTF16_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Convert units of 2 bytes from [*at, end) to `to` and move *at; what is left is part of a
 * character, unless there was no room. ended: nothing follows. room >= 4. The bytes written.
 * A surrogate without its other half is written as if it were a character, in 3 bytes that are not
 * UTF-8: what becomes of such bytes is not decided here.
 */
size_t file_utf16_read(bool big_endian, const char **at, const char *end, bool ended, char *to,
                       size_t room);

#endif
