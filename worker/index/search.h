/*
 * search.h: the nearest vectors to a query, exactly: by a dot product with every one.
 *
 * Owns:    the threads while it is open, embedding the queries, the best of each.
 * Refuses: prompts, ids and output: its callers'.
 * Threads: the main thread; a pool does the work while search_run waits.
 * Why:     100,000 vectors are compared in milliseconds, so that up to a million or so an index
 *          structure would only add what can be missed.
 */
#ifndef SEARCH_H
#define SEARCH_H

#include <stddef.h>
#include <stdint.h>

#include "inference/embed.h"
#include "worker/index/vectors.h"

enum { SEARCH_QUERIES = 256 }; /* at once, at most */

struct search;

struct search_hit {
    float score;
    uint32_t row;
};

struct search_times {
    uint64_t embed_ns, search_ns; /* since open */
};

/* vectors and model are borrowed. top: at least 1. 0, or negative errno and a sentence. */
int search_open(struct search **out, const struct model *model, const struct vectors *vectors,
                size_t n_threads, size_t top, char *err, size_t err_size);
void search_close(struct search *search); /* accepts NULL */

/*
 * n <= SEARCH_QUERIES queries, prompted. *hits is [n][*n_hits], best first, good until the next
 * call; of a query whose results[] status is not 0 they mean nothing.
 */
void search_run(struct search *search, const struct text *queries, size_t n,
                struct embed_result *results, const struct search_hit **hits, size_t *n_hits);
struct search_times search_times(const struct search *search);

#endif
