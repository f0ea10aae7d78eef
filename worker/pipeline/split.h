/*
 * split.h: the long texts of a batch as many short ones.
 *
 * Owns:    what a piece of a text is to the rest of the worker: a text with an id of its own
 *          (PARENT#0, PARENT#1, ...), the title of the whole, and where in it it stood.
 * Refuses: where to cut: chunks.h.
 * Threads: splitter_open and splitter_close on the loop thread; the rest on a pool thread, which
 *          has the batch for itself meanwhile.
 * Why:     a text of a megabyte takes a tenth of a second and more to count: too long for the loop.
 */
#ifndef SPLIT_H
#define SPLIT_H

#include "worker/pipeline/batch.h"
#include "worker/pipeline/chunks.h"
#include "worker/pipeline/markdown.h"
#include "worker/pipeline/pipeline.h"

/* What one thread needs to split any batch. */
struct splitter {
    const struct embedder *embedder;
    struct session *session; /* borrowed */
    struct chunker chunker;
    bool by_markdown;         /* long texts are cut by their headings first */
    struct markdown markdown; /* of the text in hand ... */
    size_t n_blocks_taken;    /* ... and its blocks in sections before the one in hand */
    size_t max_texts;         /* in a message, pieces counted */

    char *lead; /* prompt and title of the text in hand */
    struct item *items;
    size_t n_items, items_room, lead_room;
};
void splitter_open(struct splitter *splitter, const struct embedder *embedder,
                   struct session *session, const struct chunk_options *options, size_t max_texts);
void splitter_close(struct splitter *splitter);

/* May one of the texts have more than max_tokens? By bytes alone, for nearly
 * every token has one. Where a unigram model's map makes several tokens of a character, a text that
 * is too long may be missed; it stays whole. */
bool split_wanted(const struct batch *batch, size_t max_tokens);
/* Put pieces in the place of long texts; a message whose texts cannot be cut becomes a dead letter.
 * What the batch counts is for the caller to count again. 0 or -ENOMEM. */
int split_batch(struct splitter *splitter, struct batch *batch);

#endif
