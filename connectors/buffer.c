/*
 * buffer.c: see buffer.h.
 */
#include "connectors/buffer.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_ROOM = 4096 };

void buffer_close(struct buffer *buffer)
{
    free(buffer->ptr);
    memset(buffer, 0, sizeof *buffer);
}

int buffer_reserve(struct buffer *buffer, size_t more)
{
    assert(buffer->len <= buffer->room);
    if (buffer->status || more <= buffer->room - buffer->len)
        return buffer->status;
    /* Half the address space: then len + more, and the doubling below, cannot wrap. */
    if (more > SIZE_MAX / 2 - buffer->len)
        return buffer->status = -ENOMEM;
    size_t room = buffer->room ? buffer->room : FIRST_ROOM;
    while (room < buffer->len + more)
        room *= 2;
    /* The old bytes stay on failure: ptr, len and room still belong together. */
    char *ptr = realloc(buffer->ptr, room);
    if (!ptr)
        return buffer->status = -ENOMEM;
    assert(room >= buffer->len + more);
    buffer->ptr = ptr;
    buffer->room = room;
    return 0;
}

char *buffer_extend(struct buffer *buffer, size_t len)
{
    if (buffer_reserve(buffer, len))
        return NULL;
    buffer->len += len;
    return buffer->ptr + buffer->len - len;
}

int buffer_put(struct buffer *buffer, const void *ptr, size_t len)
{
    char *room = len > 0 ? buffer_extend(buffer, len) : NULL;
    if (room)
        memcpy(room, ptr, len);
    return buffer->status;
}

int buffer_put_text(struct buffer *buffer, const char *text)
{
    return buffer_put(buffer, text, strlen(text));
}

int buffer_settle(struct buffer *buffer, size_t before)
{
    int status = buffer->status;
    assert(before <= buffer->len);
    if (status)
        /* A piece that lacks its middle must not go out: all of it is taken back. */
        buffer->len = before;
    buffer->status = 0;
    return status;
}
