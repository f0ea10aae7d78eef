/*
 * buffer.h: bytes that grow as they are written.
 *
 * Owns:    one allocation, kept from use to use. A failure to grow it is remembered, so that a
 *          writer of many pieces asks once, at the end.
 * Threads: one at a time.
 */
#ifndef BUFFER_H
#define BUFFER_H

#include <stddef.h>

/* Zero-initialise to open. For another use set len to 0. */
struct buffer {
    char *ptr;
    size_t len, room;
    int status; /* 0, or -ENOMEM: from there on nothing was written */
};

void buffer_close(struct buffer *buffer);

/* Room for so many more bytes, which then do not move what is there. 0 or -ENOMEM. */
int buffer_reserve(struct buffer *buffer, size_t more);

/* Append; len may be 0 and ptr NULL then. The status, 0 or -ENOMEM. */
int buffer_put(struct buffer *buffer, const void *ptr, size_t len);
int buffer_put_text(struct buffer *buffer, const char *text);

/* Append len bytes that the caller fills in; NULL without memory. */
char *buffer_extend(struct buffer *buffer, size_t len);

/* After several writes: 0 when all succeeded; else -ENOMEM, and the length is `before` again.
 * Either way the buffer can be written to again. */
int buffer_settle(struct buffer *buffer, size_t before);

#endif
