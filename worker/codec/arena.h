/*
 * arena.h: memory that is given out piece by piece and taken back all at once.
 *
 * Owns:    one growing block per batch. After the first few batches it has the size a batch needs
 *          and the steady state allocates nothing.
 * Threads: one at a time, like the batch it belongs to.
 */
#ifndef ARENA_H
#define ARENA_H

#include <stddef.h>

struct arena {
    struct arena_block *blocks; /* newest first */
    size_t used;                /* bytes of the newest block */
    size_t total;               /* bytes given out since the last reset */
};

/* Aligned to 16. NULL when there is no memory. Zero-initialise a struct arena to open it. */
void *arena_alloc(struct arena *arena, size_t size);
void *arena_copy(struct arena *arena, const void *from, size_t size);
/* Forget everything given out; keeps one block big enough for as much again. */
void arena_reset(struct arena *arena);
void arena_close(struct arena *arena);

#endif
