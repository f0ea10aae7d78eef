/*
 * tokenizer_fold.h: a character as BERT's tokenizers read it.
 *
 * Owns:    what is dropped, what is a space, what stands alone, and what becomes other characters
 *          where case or accents do not count.
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

/* Uncased models take both steps, cased ones neither; a few keep accents in lower case. */
struct fold_steps {
    bool lowercase;
    bool strip_accents; /* take characters apart and drop the accents */
};

struct folded fold_char(uint32_t code, struct fold_steps steps);

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

extern const struct fold_range fold_dropped[], fold_spaces[], fold_apart[], fold_punctuation[],
    fold_accents[];
extern const struct fold_run fold_strip_runs[], fold_lower_runs[];
/* Characters of no run, each before what it becomes; 0 where that is shorter. */
extern const uint32_t fold_strip_alone[][1 + FOLD_LONGEST], fold_lower_alone[][1 + FOLD_LONGEST];
extern const size_t fold_dropped_n, fold_spaces_n, fold_apart_n, fold_punctuation_n, fold_accents_n,
    fold_strip_runs_n, fold_strip_alone_n, fold_lower_runs_n, fold_lower_alone_n;

#endif
