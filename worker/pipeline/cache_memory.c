/*
 * cache_memory.c: see cache_internal.h. The least recently used vector makes room for a new one.
 *
 * Owns:    slots in a list by use and in chains by key, one lock over all.
 * Why:     everything is taken from the system at open, which costs nothing until it is touched:
 *          memory grows with what is kept, and never beyond the bound. One lock, because it is held
 *          for the copy of 3 KB once for each text, which took milliseconds to embed.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "worker/pipeline/cache_internal.h"

#define NONE UINT32_MAX

struct slot {
    struct cache_key key;
    uint32_t newer, older; /* by use */
    uint32_t chained;      /* next with the same bucket */
    uint32_t n_tokens;
    bool truncated;
};

struct cache_memory {
    uv_mutex_t lock;
    size_t dim, n_slots, n_used;
    size_t mask;        /* buckets - 1 */
    uint32_t *buckets;  /* [mask + 1] first slot */
    struct slot *slots; /* [n_slots] */
    float *rows;        /* [n_slots][dim] */
    uint32_t newest, oldest;
};

int cache_memory_open(struct cache_memory **out, size_t max_bytes, size_t dim)
{
    /* There are less than two buckets a slot. */
    size_t each = sizeof(struct slot) + dim * sizeof(float) + 2 * sizeof(uint32_t);
    size_t n_slots = max_bytes / each;
    *out = NULL;
    if (n_slots == 0)
        return 0;
    if (n_slots >= NONE)
        n_slots = NONE - 1;
    struct cache_memory *memory = calloc(1, sizeof *memory);
    if (!memory)
        return -ENOMEM;
    memory->dim = dim;
    memory->n_slots = n_slots;
    size_t n_buckets = 1;
    while (n_buckets < n_slots)
        n_buckets *= 2;
    memory->mask = n_buckets - 1;
    memory->newest = memory->oldest = NONE;
    memory->buckets = malloc(n_buckets * sizeof *memory->buckets);
    memory->slots = malloc(n_slots * sizeof *memory->slots);
    memory->rows = malloc(n_slots * dim * sizeof *memory->rows);
    if (!memory->buckets || !memory->slots || !memory->rows || uv_mutex_init(&memory->lock)) {
        free(memory->buckets);
        free(memory->slots);
        free(memory->rows);
        free(memory);
        return -ENOMEM;
    }
    for (size_t i = 0; i < n_buckets; i++)
        memory->buckets[i] = NONE;
    *out = memory;
    return 0;
}

void cache_memory_close(struct cache_memory *memory)
{
    if (!memory)
        return;
    uv_mutex_destroy(&memory->lock);
    free(memory->buckets);
    free(memory->slots);
    free(memory->rows);
    free(memory);
}

/* A key is a digest: any part of it is as good as a hash of it. */
static uint32_t *bucket_of(const struct cache_memory *memory, const struct cache_key *key)
{
    size_t hash;
    memcpy(&hash, key->bytes, sizeof hash);
    return &memory->buckets[hash & memory->mask];
}

static uint32_t find(const struct cache_memory *memory, const struct cache_key *key)
{
    uint32_t at = *bucket_of(memory, key);
    while (at != NONE && memcmp(&memory->slots[at].key, key, sizeof *key) != 0)
        at = memory->slots[at].chained;
    return at;
}

static void list_remove(struct cache_memory *memory, uint32_t at)
{
    const struct slot *slot = &memory->slots[at];
    if (slot->newer == NONE)
        memory->newest = slot->older;
    else
        memory->slots[slot->newer].older = slot->older;
    if (slot->older == NONE)
        memory->oldest = slot->newer;
    else
        memory->slots[slot->older].newer = slot->newer;
}

static void list_add_newest(struct cache_memory *memory, uint32_t at)
{
    struct slot *slot = &memory->slots[at];
    slot->newer = NONE;
    slot->older = memory->newest;
    if (memory->newest == NONE)
        memory->oldest = at;
    else
        memory->slots[memory->newest].newer = at;
    memory->newest = at;
}

static uint32_t take_oldest(struct cache_memory *memory)
{
    uint32_t at = memory->oldest;
    assert(memory->n_used == memory->n_slots);
    assert(at != NONE);
    uint32_t *link = bucket_of(memory, &memory->slots[at].key);
    /* Every slot in use is in the chain of its key, so this needs no end. */
    while (*link != at)
        link = &memory->slots[*link].chained;
    *link = memory->slots[at].chained;
    list_remove(memory, at);
    return at;
}

bool cache_memory_get(struct cache_memory *memory, const struct cache_key *key, float *row,
                      struct embed_result *result)
{
    uv_mutex_lock(&memory->lock);
    uint32_t at = find(memory, key);
    if (at != NONE) {
        const struct slot *slot = &memory->slots[at];
        memcpy(row, memory->rows + at * memory->dim, memory->dim * sizeof *row);
        *result = (struct embed_result){
            .n_tokens = slot->n_tokens, .truncated = slot->truncated, .cached = true};
        list_remove(memory, at);
        list_add_newest(memory, at);
    }
    uv_mutex_unlock(&memory->lock);
    return at != NONE;
}

void cache_memory_put(struct cache_memory *memory, const struct cache_key *key, const float *row,
                      const struct embed_result *result)
{
    uv_mutex_lock(&memory->lock);
    uint32_t at = find(memory, key);
    if (at != NONE) { /* two threads had the same text at the same time: the same bytes */
        list_remove(memory, at);
        list_add_newest(memory, at);
        uv_mutex_unlock(&memory->lock);
        return;
    }
    at = memory->n_used < memory->n_slots ? (uint32_t)memory->n_used++ : take_oldest(memory);
    /* Full: the slot of the text that was not asked for the longest is used again. */
    assert(at < memory->n_slots && memory->n_used <= memory->n_slots);
    uint32_t *bucket = bucket_of(memory, key);
    memory->slots[at] = (struct slot){.key = *key,
                                      .chained = *bucket,
                                      .n_tokens = result->n_tokens,
                                      .truncated = result->truncated};
    *bucket = at;
    memcpy(memory->rows + at * memory->dim, row, memory->dim * sizeof *row);
    list_add_newest(memory, at);
    uv_mutex_unlock(&memory->lock);
}
