/*
 * tokenizer_fold.h: a character as BERT's uncased tokenizers read it.
 *
 * Owns:    what is dropped, what is a space, what stands alone, what becomes other characters:
 *          lower case, and canonical parts without their accents.
 * Threads: any; constant tables.
 * Why:     the judge is the published tokenizer, whose parts know different versions of Unicode, so
 *          the tables are made by asking it, and no Unicode library is needed.
 */
#ifndef TOKENIZER_FOLD_H
#define TOKENIZER_FOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FOLD_LONGEST = 3 };

struct folded {
    uint32_t codes[FOLD_LONGEST];
    uint8_t n;     /* 0: dropped, or a space */
    bool is_space; /* ends a word */
    bool is_apart; /* a word of its own */
};

struct folded fold_char(uint32_t code);

/* The tables, each in order. */
struct fold_range {
    uint32_t first, last;
};

/* Character first + i * step becomes to + i * step * slope, for n of them. */
struct fold_run {
    uint32_t first;
    uint16_t n;
    uint8_t step, slope;
    uint32_t to;
};

/* A character of no run. */
struct fold_alone {
    uint32_t code, to[FOLD_LONGEST]; /* 0 where there are fewer */
};

extern const struct fold_range fold_dropped[], fold_spaces[], fold_apart[], fold_punctuation[];
extern const struct fold_run fold_runs[];
extern const struct fold_alone fold_alone[];
extern const size_t fold_dropped_n, fold_spaces_n, fold_apart_n, fold_punctuation_n, fold_runs_n,
    fold_alone_n;

#endif
