/*
 * tokenizer_merges.h: merging the bytes of a word by a list of merges.
 *
 * Owns:    the list, which pair becomes which token and when, and the scratch of one word.
 * Threads: struct merges never changes after open; a struct merging belongs to one thread.
 * Why:     tokenizer_bpe.c merges by scores, which here no token has: only pairs of the list merge.
 * Source:  Sennrich et al. 2016; bytes as GPT-2 has them (Radford et al. 2019).
 */
#ifndef TOKENIZER_MERGES_H
#define TOKENIZER_MERGES_H

#include <stddef.h>
#include <stdint.h>

struct gguf;
struct id_row;
struct vocab;

struct merge_rule {
    uint32_t left, right; /* tokens; left NO_TOKEN: an empty slot */
    uint32_t rank, id;    /* place in the list; what they become */
};

struct merges {
    struct merge_rule *slots; /* open addressing over the two */
    uint32_t slot_mask;
    uint32_t bytes[256]; /* token of each byte */
};

/* 0, -EINVAL with a sentence in err, or -ENOMEM. */
int merges_open(struct merges *merges, const struct vocab *vocab, const struct gguf *gguf,
                char *err, size_t err_size);
void merges_close(struct merges *merges);

struct merging; /* a word's tokens */

int merging_open(struct merging **out);                /* 0 or -ENOMEM */
void merging_close(struct merging *merging);           /* accepts NULL */
int merging_add(struct merging *merging, uint32_t id); /* 0 or -ENOMEM */
/* All that can merge has merged, the first of the list first, of equal ones the leftmost; the word
 * is empty again. 0 or -ENOMEM. */
int merging_run(struct merging *merging, const struct merges *merges, struct id_row *row);

#endif
