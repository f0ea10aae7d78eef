/*
 * utf8.h: what is UTF-8 and what is not: Unicode 15, table 3-7.
 *
 * Owns:    one character at a time, for ids, names, JSON, log and metrics; texts are the
 *          tokenizer's.
 * Threads: no state.
 */
#ifndef UTF8_H
#define UTF8_H

#include <stdbool.h>
#include <stddef.h>

enum { UTF8_LONGEST = 4 };

/* U+FFFD, which stands for one maximal bad part. */
#define UTF8_REPLACEMENT "\xef\xbf\xbd"

/*
 * Bytes of the UTF-8 character at ptr, or minus the bytes of the maximal bad part. len >= 1; of a
 * string that ends in a zero UTF8_LONGEST will do, for nothing behind the zero is read.
 */
int utf8_next(const char *ptr, size_t len);

/* Where the character begins that the byte at `at` is in; of a maximal bad part, its first byte.
 * at <= len. */
size_t utf8_start(const char *ptr, size_t len, size_t at);

bool utf8_is_valid(const char *ptr, size_t len);

/* A copy with U+FFFD for each maximal bad part: how many bytes, at most 3 * len. */
size_t utf8_repair(const char *ptr, size_t len, char *to);

#endif
