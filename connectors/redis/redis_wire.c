/*
 * redis_wire.c: see redis_wire.h.
 *
 * Threads: the loop thread.
 */
#include "connectors/redis/redis_wire.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/number.h"

#define KEEP_SIZE (1u << 20) /* a buffer larger than this is not kept for reuse */

#define ARRAY_MAX (1u << 20) /* elements; we never ask for more than some thousands */

#if HIREDIS_MAJOR >= 1
#define ARRAY_COUNT size_t
#else
#define ARRAY_COUNT int
#endif

/* A header of twelve bytes must not make us reserve sixteen gigabytes. */
static void *create_array(const redisReadTask *task, ARRAY_COUNT n)
{
    const struct redis_wire *wire = task->privdata;

    return (size_t)n <= ARRAY_MAX ? wire->plain->createArray(task, n) : NULL;
}

int redis_wire_open(struct redis_wire *wire)
{
    *wire = (struct redis_wire){.reader = redisReaderCreate()};
    if (!wire->reader)
        return -ENOMEM;
    wire->plain = wire->reader->fn;
    wire->functions = *wire->plain;
    wire->functions.createArray = create_array;
    wire->reader->fn = &wire->functions;
    wire->reader->privdata = wire; /* the setter of hiredis 0.14 casts a pointer to int */
    return 0;
}

void redis_wire_close(struct redis_wire *wire)
{
    if (wire->reader)
        redisReaderFree(wire->reader);
    buffer_close(&wire->out);
    buffer_close(&wire->away);
    free(wire->due);
    *wire = (struct redis_wire){0};
}

static int due_add(struct redis_wire *wire, struct redis_due due)
{
    if (wire->n_due == wire->room) {
        size_t room = wire->room ? wire->room * 2 : 64;
        struct redis_due *ring = malloc(room * sizeof(*ring));
        if (!ring)
            return -ENOMEM;
        for (size_t i = 0; i < wire->n_due; i++)
            ring[i] = wire->due[(wire->head + i) % wire->room];
        free(wire->due);
        wire->due = ring;
        wire->head = 0;
        wire->room = room;
    }
    wire->due[(wire->head + wire->n_due++) % wire->room] = due;
    return 0;
}

static char *put_count(char *at, char mark, size_t count)
{
    *at++ = mark;
    at += number_print(count, at);
    *at++ = '\r';
    *at++ = '\n';
    return at;
}

int redis_wire_command(struct redis_wire *wire, const struct bytes *args, size_t n,
                       struct redis_due due)
{
    struct buffer *out = &wire->out;
    size_t size = 32;

    for (size_t i = 0; i < n; i++)
        size += args[i].len + 34;
    buffer_reserve(out, size); /* so that nothing below fails half way */
    if (buffer_settle(out, out->len) || due_add(wire, due))
        return -ENOMEM;
    char *begin = out->ptr + out->len, *at = put_count(begin, '*', n);
    for (size_t i = 0; i < n; i++) {
        at = put_count(at, '$', args[i].len);
        if (args[i].len)
            memcpy(at, args[i].ptr, args[i].len);
        at += args[i].len;
        *at++ = '\r';
        *at++ = '\n';
    }
    assert((size_t)(at - begin) <= size);
    out->len += (size_t)(at - begin);
    return 0;
}

void redis_wire_turn(struct redis_wire *wire)
{
    struct buffer spare = wire->away;

    wire->away = wire->out;
    spare.len = 0;
    if (spare.room > KEEP_SIZE)
        buffer_close(&spare);
    wire->out = spare;
}

const struct redis_due *redis_wire_oldest(const struct redis_wire *wire)
{
    return wire->n_due ? &wire->due[wire->head] : NULL;
}

struct redis_due redis_wire_take(struct redis_wire *wire)
{
    struct redis_due due = wire->due[wire->head];

    wire->head = (wire->head + 1) % wire->room;
    wire->n_due--;
    return due;
}
