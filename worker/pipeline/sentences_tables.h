/*
 * sentences_tables.h: the property Sentence_Break of Unicode's characters (UAX 29, table 4).
 *
 * Owns:    the table. Made by scripts/make-sentence-tables.py.
 * Threads: constants.
 * Why:     ICU has these rules, too: 30 MB of it, and another Unicode in each release of Debian.
 *          Where a text is cut decides what the ids of its chunks stand for, so the same text must
 *          give the same chunks on every machine, today and after an upgrade.
 */
#ifndef SENTENCES_TABLES_H
#define SENTENCES_TABLES_H

#include <stddef.h>
#include <stdint.h>

enum sentence_class {
    OTHER,
    CR,
    LF,
    SEP,
    EXTEND,
    FORMAT,
    SP,
    LOWER,
    UPPER,
    OLETTER,
    NUMERIC,
    ATERM,
    SCONTINUE,
    STERM,
    CLOSE,
    UPPER_LOWER, /* in the table only: by turns, the first is a capital */
    LOWER_UPPER,
};

struct sentence_range {
    uint32_t first, last;
    enum sentence_class kind;
};

/* [n_sentence_ranges] in order; a character in none of them is OTHER. */
extern const struct sentence_range sentence_ranges[];
extern const size_t n_sentence_ranges;

#endif
