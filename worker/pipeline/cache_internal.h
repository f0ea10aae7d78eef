/*
 * cache_internal.h: the two places of cache.c, memory (cache_memory.c) and disk (cache_disk.c).
 *
 * Refuses: to know what a key is made of.
 * Threads: any number at once; open and close alone.
 * Why:     both only ever hold results of status 0: a failure is not worth remembering, and may
 *          have been one of memory.
 */
#ifndef CACHE_INTERNAL_H
#define CACHE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "inference/embed.h"

struct cache_key {
    unsigned char bytes[32];
};

struct cache_memory;

/* The vectors used last, at most max_bytes with all that belongs to them. *out is NULL when not
 * even one has room. 0 or -ENOMEM. */
int cache_memory_open(struct cache_memory **out, size_t max_bytes, size_t dim);
/* True: row [dim] and result are set. */
bool cache_memory_get(struct cache_memory *memory, const struct cache_key *key, float *row,
                      struct embed_result *result);
void cache_memory_put(struct cache_memory *memory, const struct cache_key *key, const float *row,
                      const struct embed_result *result);
void cache_memory_close(struct cache_memory *memory); /* accepts NULL */

struct cache_disk;
struct MDB_txn;

/* max_bytes of the file; vectors of dim. 0, or -EINVAL or -ENOMEM and a sentence. */
int cache_disk_open(struct cache_disk **out, const char *folder, uint64_t max_bytes, size_t dim,
                    char *err, size_t err_size);
/* For vectors of another dimension in the folder that first has open, which is closed after it. 0
 * or -ENOMEM. */
int cache_disk_join(struct cache_disk **out, const struct cache_disk *first, size_t dim);
/* What is there, without writing anything. 0 or -EINVAL, and said either way. */
int cache_disk_look(const char *folder, uint64_t max_bytes, char *said, size_t size);
uint64_t cache_disk_entries(const struct cache_disk *disk);

/* A moment to read at; NULL when the disk has failed. Short: it keeps old pages from reuse. */
struct MDB_txn *cache_disk_begin(struct cache_disk *disk);
bool cache_disk_get(struct cache_disk *disk, struct MDB_txn *moment, const struct cache_key *key,
                    float *row, struct embed_result *result);
void cache_disk_end(struct MDB_txn *moment);

/* Written with others, after a second or at the latest by flush; waits for such a write. */
void cache_disk_put(struct cache_disk *disk, const struct cache_key *key, const float *row,
                    const struct embed_result *result);
void cache_disk_flush(struct cache_disk *disk);
/* True once for each thing that went wrong: a sentence. */
bool cache_disk_complaint(struct cache_disk *disk, char *why, size_t size);
void cache_disk_close(struct cache_disk *disk); /* flushes; accepts NULL */

#endif
