/*
 * sentences.h: where sentences end, in any script.
 *
 * Owns:    Unicode's rules (UAX 29, "Sentence Boundaries"), and what is better for cutting texts:
 *          see sentence_begins.
 * Refuses: paragraphs, lines and words; dictionaries (Thai separates sentences by spaces).
 * Threads: no state.
 */
#ifndef SENTENCES_H
#define SENTENCES_H

#include <stdbool.h>
#include <stddef.h>

#include "connectors/connector.h"

/*
 * Is there a boundary before the character that begins at byte `at`, by the default rules of UAX 29
 * to the letter? 0 < at < text.len. What is not UTF-8 is a character of the class Other.
 */
bool sentence_boundary(struct bytes text, size_t at);

/*
 * Is it a good place to begin a piece of text? As above, but
 * - the end of a line is a space, for lines are broken anywhere;
 * - "." and "!" and "?" end a sentence only before a space (and so do not in URLs and in "main.c"),
 *   those of scripts without spaces anywhere;
 * - "…" is like "...";
 * - nothing ends before a small letter ("Really?" she said), but before a mark and a small letter
 *   something may ("It is done. `run` waits.");
 * - the "-" at the beginning of a line is of a list;
 * - nor behind an abbreviation, an initial or a number of one or two digits ("Dr. Who", "J. Bach",
 *   "am 3. Mai", "1. First").
 */
bool sentence_begins(struct bytes text, size_t at);

#endif
