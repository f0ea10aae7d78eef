/*
 * chunks.h: where a long text is cut.
 *
 * Owns:    the borders: each piece is at most so many tokens long with all that goes around it, and
 *          ends at a paragraph, else a sentence, a line, a word, in its last quarter where it can.
 * Refuses: to know the tokenizer (it is asked how many tokens a text has), and what a piece is for.
 * Threads: a chunker belongs to one thread.
 * Why:     the tokens of a piece are not those of the same bytes in the whole text: merges differ
 *          at its ends. So every piece is counted as it will be embedded, and the limit is exact.
 */
#ifndef CHUNKS_H
#define CHUNKS_H

#include <stddef.h>

#include "connectors/connector.h"

/* Which rules say where a text is cut, for what keeps how its vectors were made. To change when
 * other places are found for the same text. */
#define CHUNKS_RULES "sentences by Unicode 15"

struct span {
    size_t start, end; /* bytes of the text */
};

struct chunker {
    size_t max_tokens; /* of a piece, the lead included */
    size_t overlap;    /* most tokens that are repeated in the next piece, at most half of it */
    size_t max_spans;
    /* Tokens of a whole text, bos and eos included. 0 or negative errno, which ends chunks_find. */
    int (*count)(void *ctx, struct bytes text, size_t *n_tokens);
    void *ctx;

    const struct span *blocks; /* [n_blocks] of the text, in order: not to be cut if they fit */
    size_t n_blocks;

    struct span *spans; /* [n] the result */
    size_t n;
    char *window; /* the lead and, behind it, a piece */
    size_t spans_room, window_room;
};

/*
 * Cut the text, which stands behind `lead` when it is embedded, into chunker->spans. None: all of
 * it fits, or it is nothing but white space. Spans begin and end behind one another, hold
 * everything but white space at their ends, and depend on nothing but lead, text and limits.
 * 0; -E2BIG: the lead takes more than half of max_tokens; -EOVERFLOW: more than max_spans; -ENOMEM;
 * what count says.
 */
int chunks_find(struct chunker *chunker, struct bytes lead, struct bytes text);
void chunks_close(struct chunker *chunker); /* its memory */

#endif
