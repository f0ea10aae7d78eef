/*
 * bytes.h: bytes of somebody else's, and what they are compared with.
 */
#ifndef BYTES_H
#define BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Borrowed bytes. ptr NULL means absent, which is not the same as empty. */
struct bytes {
    const char *ptr;
    size_t len;
};

static inline struct bytes bytes_of(const char *text)
{
    return (struct bytes){text, strlen(text)};
}

/* What is absent is equal to what is empty. */
static inline bool bytes_equal(struct bytes a, struct bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline bool bytes_are(struct bytes bytes, const char *text)
{
    return bytes_equal(bytes, bytes_of(text));
}

/* Are they one of n names? */
static inline bool bytes_in(struct bytes bytes, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (bytes_are(bytes, names[i]))
            return true;
    return false;
}

#endif
