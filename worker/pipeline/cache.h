/*
 * cache.h: vectors of texts that were embedded before, in memory and on disk.
 *
 * Owns:    what decides a vector (its key), and the order in which it is looked for: memory, disk,
 *          and only then the session.
 * Refuses: to fail a text. Whatever goes wrong after open, texts are embedded as without a cache.
 * Threads: cache_embed on pool threads, each with a lane of its own; all else on the loop thread.
 * Why:     looked up on pool threads, because a page of the disk may take milliseconds to come and
 *          the loop may not wait. A slice of hits is cut by tokens as if it were to be embedded,
 *          which costs it next to nothing; one with few misses embeds them less densely packed.
 */
#ifndef CACHE_H
#define CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "inference/embed.h"

struct cache;
struct embedder;

struct cache_options {
    size_t memory_bytes; /* at most; 0: none in memory */
    const char *folder;  /* NULL or "": none on disk */
    uint64_t disk_bytes; /* at most */
    /* That of another model, which has the folder open already and is closed after this one; NULL:
     * none. LMDB does not allow a process to open it twice. */
    const struct cache *beside;
};

struct cache_lane; /* what one thread needs */

/* Where the vectors of one call of cache_embed came from, in texts. */
struct cache_hits {
    uint32_t memory, disk, misses;
};

/*
 * *out is NULL when the options ask for neither place. The folder is made when it is not there. 0,
 * or negative errno and a sentence that says what to do: -EINVAL: the folder is not usable;
 * -ENOMEM.
 */
int cache_open(struct cache **out, const struct cache_options *options, const struct model *model,
               const struct embedder *embedder, const struct session_options *session, char *err,
               size_t err_size);
uint64_t cache_on_disk(const struct cache *cache); /* vectors there */
/* Write to disk what is kept back for the next write. */
void cache_flush(struct cache *cache); /* accepts NULL */
/* True once for each thing that went wrong since: a sentence for the log. cache may be NULL. */
bool cache_complaint(struct cache *cache, char *why, size_t size);
void cache_close(struct cache *cache); /* after its lanes; accepts NULL */

/* Without touching anything, what cache_open would find in the folder: 0 or -EINVAL, and said. */
int cache_look(const struct cache_options *options, char *said, size_t size);

/* embedder and session are borrowed. 0 or -ENOMEM. */
int cache_lane_open(struct cache_lane **out, struct cache *cache, const struct embedder *embedder,
                    struct session *session);
void cache_lane_close(struct cache_lane *lane); /* accepts NULL */

/* As embedder->embed: rows [n] and results [n] are the same bytes. */
void cache_embed(struct cache_lane *lane, const struct text *texts, size_t n, float *const *rows,
                 struct embed_result *results, struct cache_hits *hits);

#endif
