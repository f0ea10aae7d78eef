/*
 * prefix.h: what many texts begin with, computed once.
 *
 * Owns:    the keys and values that the tokens of a prompt have in each layer.
 * Threads: never changes once the model is prepared.
 * Why:     in a causal model a token sees only those before it, so the keys and values of a prompt
 *          do not depend on the text behind it. They are the same bits as if computed again.
 */
#ifndef PREFIX_H
#define PREFIX_H

#include <stddef.h>
#include <stdint.h>

enum {
    PREFIX_LEAST = 4,        /* tokens: less is not worth the copying */
    PREFIX_TOKENS_MAX = 256, /* of all prompts of a model together, for the time and the memory */
};

struct prefix {
    size_t n, width; /* tokens; floats of the keys and values of one in a layer */
    int32_t *ids;    /* [n] */
    float *rows;     /* [n_layers][n][width] */
};

/* The first n tokens of a text of a pack, which are not in the pack. */
struct prefix_use {
    const struct prefix *prefix; /* n 0: none */
    uint32_t n;
    uint32_t row; /* of its first token, among all tokens of all texts, those left out included */
};

/* 0 or -ENOMEM; rows are not set. */
int prefix_open(struct prefix *prefix, const int32_t *ids, size_t n, size_t n_layers, size_t width);
void prefix_close(struct prefix *prefix); /* accepts one that is all zero */

/* The one of n prefixes that has most tokens in common with the beginning of a text, but never all
 * of the text. */
struct prefix_use prefix_find(const struct prefix *prefixes, size_t n, const int32_t *ids,
                              size_t n_ids);

/* Rows of layer `layer`: [prefix->n][prefix->width] */
float *prefix_rows(const struct prefix *prefix, size_t layer);

#endif
