/*
 * verify.h: is one index the same texts as another, made anew?
 *
 * Owns:    comparing which texts are in both, vectors with those of a second embedding, and
 *          neighbours in the one with neighbours in the other.
 * Refuses: what follows from it.
 * Threads: the main thread.
 */
#ifndef VERIFY_H
#define VERIFY_H

#include <stddef.h>

#include "inference/embed.h"

enum { VERIFY_QUERIES = 64, VERIFY_NEIGHBOURS = 10 };

struct verified {
    size_t texts_before, texts_after; /* that count, not vectors */
    size_t missing, added;            /* texts of the old one alone, of the new one alone */
    char missing_id[80];              /* one of them */
    size_t vectors;                   /* of the new one that count */
    size_t sampled, not_found;        /* vectors that were made twice; without a first */
    double least_cosine;              /* of those; 1 if there are none */
    size_t n_queries;                 /* texts whose neighbours were looked for */
    double overlap; /* of the VERIFY_NEIGHBOURS nearest other texts of each, the share in both */
};

/* Paths of three indexes; sample: some of the texts of `fresh`, embedded a second time. 0, or
 * negative errno and a sentence. */
int verify_index(const struct model *model, const char *old, const char *fresh, const char *sample,
                 struct verified *out, char *err, size_t err_size);

#endif
