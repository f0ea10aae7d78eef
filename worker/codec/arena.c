/*
 * arena.c: see arena.h. Blocks double up to a megabyte: a batch costs a handful of mallocs, once,
 * and a large message does not reserve twice its size for what comes after it.
 */
#include "worker/codec/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 16, FIRST_BLOCK = 16 * 1024, DOUBLE_UP_TO = 1 << 20 };

struct arena_block {
    struct arena_block *older;
    size_t size; /* bytes of data */
    _Alignas(ALIGNMENT) unsigned char data[];
};

static struct arena_block *block_add(struct arena *arena, size_t at_least)
{
    size_t size = arena->blocks ? arena->blocks->size * 2 : FIRST_BLOCK;
    if (size > DOUBLE_UP_TO)
        size = DOUBLE_UP_TO;
    if (size < at_least)
        size = at_least;
    if (size > SIZE_MAX - sizeof(struct arena_block))
        return NULL;
    struct arena_block *block = malloc(sizeof *block + size);
    if (!block)
        return NULL;
    block->older = arena->blocks;
    block->size = size;
    arena->blocks = block;
    arena->used = 0;
    return block;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    if (size > SIZE_MAX - ALIGNMENT)
        return NULL;
    size = (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    struct arena_block *block = arena->blocks;
    if (!block || size > block->size - arena->used) {
        block = block_add(arena, size);
        if (!block)
            return NULL;
    }
    void *out = block->data + arena->used;
    arena->used += size;
    arena->total += size;
    return out;
}

void *arena_copy(struct arena *arena, const void *from, size_t size)
{
    void *out = arena_alloc(arena, size);
    if (out && size)
        memcpy(out, from, size);
    return out;
}

static void blocks_free(struct arena_block *block)
{
    while (block) {
        struct arena_block *older = block->older;
        free(block);
        block = older;
    }
}

void arena_reset(struct arena *arena)
{
    if (!arena->blocks)
        return;
    size_t total = arena->total;
    if (arena->blocks->older) { /* several blocks: next time one that holds all */
        blocks_free(arena->blocks);
        arena->blocks = NULL;
        block_add(arena, total); /* failing is fine: the next alloc tries again */
    }
    arena->used = 0;
    arena->total = 0;
}

void arena_close(struct arena *arena)
{
    blocks_free(arena->blocks);
    memset(arena, 0, sizeof *arena);
}
