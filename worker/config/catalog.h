/*
 * catalog.h: the models that have a short name, for --model and `embedmill models`.
 *
 * Owns:    names, what their publishers say of them, and the file of each in the cache.
 * Refuses: to fetch: scripts do that, and people.
 * Threads: constant.
 */
#ifndef CATALOG_H
#define CATALOG_H

#include <stdbool.h>
#include <stddef.h>

struct catalog_model {
    const char *name; /* "multilingual-e5-small" */
    const char *file; /* in the cache */
    bool is_reranker;
    unsigned dim, max_tokens; /* as embedmill takes it */
    unsigned megabytes;       /* of Q8_0, about */
    const char *licence, *languages;
    const char *script;     /* that fetches it, with its arguments; NULL: there is none */
    const char *repository; /* at huggingface.co */
};

/* Ended by name NULL. */
extern const struct catalog_model catalog[];

/* By short name, in any case; NULL: none of that name. */
const struct catalog_model *catalog_find(const char *name);
/* By the path of a file of that name; NULL likewise. */
const struct catalog_model *catalog_of_file(const char *path);
/* What to do to have the file `path`, as half a sentence. */
void catalog_advise(const struct catalog_model *model, const char *path, char *out, size_t size);

#endif
