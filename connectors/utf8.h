/*
 * utf8.h: telling UTF-8 from what is not.
 *
 * Owns:    RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
 * Threads: no state.
 */
#ifndef UTF8_H
#define UTF8_H

#include <stdbool.h>
#include <stddef.h>

bool utf8_is_valid(const char *ptr, size_t len);

#endif
