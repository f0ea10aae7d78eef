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

#define ARRAY_MAX   (1u << 20) /* elements; we never ask for more than some thousands */
#define BLOCK_SIZE  (64u << 10)
#define BLOCK_ALIGN 16u

#if HIREDIS_MAJOR >= 1
#define ARRAY_COUNT size_t
#else
#define ARRAY_COUNT int
#endif

/* ---- replies: parsed one after the other, so that one is all there is in the blocks */

struct redis_block {
    struct redis_block *next; /* an older one */
    size_t used, room;
    _Alignas(BLOCK_ALIGN) char bytes[];
};

static void *block_alloc(struct redis_wire *wire, size_t size)
{
    struct redis_block *block = wire->blocks;

    /* Every piece is aligned for a redisReply. */
    size = (size + BLOCK_ALIGN - 1) & ~(size_t)(BLOCK_ALIGN - 1);
    if (!block || block->room - block->used < size) {
        size_t room = size > BLOCK_SIZE ? size : BLOCK_SIZE;
        block = malloc(sizeof(*block) + room);
        if (!block)
            return NULL;
        *block = (struct redis_block){.next = wire->blocks, .room = room};
        wire->blocks = block;
    }
    assert(block->room - block->used >= size);
    block->used += size;
    return block->bytes + block->used - size;
}

/* What was first taken stays for the next reply. */
void redis_wire_release(struct redis_wire *wire)
{
    while (wire->blocks && (wire->blocks->next || wire->blocks->room > BLOCK_SIZE)) {
        struct redis_block *older = wire->blocks->next;
        free(wire->blocks);
        wire->blocks = older;
    }
    if (wire->blocks)
        wire->blocks->used = 0;
}

static redisReply *create(const redisReadTask *task, int type)
{
    redisReply *reply = block_alloc(task->privdata, sizeof(*reply));

    if (!reply)
        return NULL;
    memset(reply, 0, sizeof(*reply));
    reply->type = type;
    if (task->parent)
        /* The parent's room was taken when its own header was read. */
        ((redisReply *)task->parent->obj)->element[task->idx] = reply;
    return reply;
}

static void *create_string(const redisReadTask *task, char *text, size_t len)
{
    redisReply *reply = create(task, task->type);

    /* NULL ends the reading, and the connection is given up. */
    if (!reply || !(reply->str = block_alloc(task->privdata, len + 1)))
        return NULL;
    memcpy(reply->str, text, len);
    reply->str[len] = '\0';
    reply->len = len;
    return reply;
}

/* A header of twelve bytes must not make us reserve sixteen gigabytes. */
static void *create_array(const redisReadTask *task, ARRAY_COUNT n)
{
    redisReply *reply = (size_t)n <= ARRAY_MAX ? create(task, task->type) : NULL;

    if (!reply || n == 0)
        return reply;
    reply->element = block_alloc(task->privdata, (size_t)n * sizeof(*reply->element));
    if (!reply->element)
        return NULL;
    memset(reply->element, 0, (size_t)n * sizeof(*reply->element));
    reply->elements = (size_t)n;
    return reply;
}

static void *create_integer(const redisReadTask *task, long long value)
{
    redisReply *reply = create(task, REDIS_REPLY_INTEGER);

    if (reply)
        reply->integer = value;
    return reply;
}

static void *create_nil(const redisReadTask *task)
{
    return create(task, REDIS_REPLY_NIL);
}

#if HIREDIS_MAJOR >= 1
/* RESP3 is not asked for; an answer in it is one that nobody here reads. */
static void *create_double(const redisReadTask *task, double value, char *text, size_t len)
{
    (void)value;
    return create_string(task, text, len);
}

static void *create_bool(const redisReadTask *task, int value)
{
    return create_integer(task, value);
}
#endif

/* By the reader, of a reply that it could not finish: the blocks are released with all of it. */
static void free_reply(void *reply)
{
    (void)reply;
}

static redisReplyObjectFunctions functions = {
    .createString = create_string,
    .createArray = create_array,
    .createInteger = create_integer,
    .createNil = create_nil,
    .freeObject = free_reply,
#if HIREDIS_MAJOR >= 1
    .createDouble = create_double,
    .createBool = create_bool,
#endif
};

int redis_wire_open(struct redis_wire *wire)
{
    *wire = (struct redis_wire){.reader = redisReaderCreate()};
    if (!wire->reader)
        return -ENOMEM;
    wire->reader->fn = &functions;
    wire->reader->privdata = wire; /* the setter of hiredis 0.14 casts a pointer to int */
    return 0;
}

void redis_wire_close(struct redis_wire *wire)
{
    if (wire->reader)
        redisReaderFree(wire->reader);
    /* All blocks but the first, which `free` below takes. */
    redis_wire_release(wire);
    free(wire->blocks);
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
            /* In order from 0 on: the ring may have gone round its end. */
            ring[i] = wire->due[(wire->head + i) % wire->room];
        free(wire->due);
        wire->due = ring;
        wire->head = 0;
        wire->room = room;
    }
    assert(wire->n_due < wire->room);
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
    /* Two buffers in turn: one is written by libuv and may not move, the other fills. */
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
    assert(wire->n_due > 0);
    wire->n_due--;
    return due;
}
