/*
 * credit.h: how much is asked of the source.
 *
 * Owns:    the measure of a message, learnt from the last batch; what was asked for and not given.
 * Refuses: to ask: pipeline.c does.
 * Threads: the loop thread.
 * Why:     what one worker has read ahead, another worker of the group cannot have. Two slices for
 *          each thread, one being embedded and one waiting, keep the threads as busy as any more
 *          would: a slice takes tenths of a second, a read a millisecond.
 */
#ifndef CREDIT_H
#define CREDIT_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/pipeline/batch.h"

struct credit {
    size_t texts_per_message, tokens_per_message; /* of the last batch, each at least 1 */
    size_t granted, granted_bytes;                /* asked for and not yet given */
};

/* What there is room for. All 0: ask for nothing. */
struct room {
    size_t n_texts, n_bytes; /* in the batch in hand, or the next one */
    size_t n_slices;         /* at the threads */
};

/* Before anything is known a message is taken to be large: the first grant is small. */
void credit_open(struct credit *credit);
void credit_learn(struct credit *credit, const struct batch *batch);
void credit_given(struct credit *credit, size_t n);
/* Expected in a batch whose messages are not decoded; max_tokens: of one text. */
size_t credit_tokens(const struct credit *credit, const struct batch *batch, size_t max_tokens);
/* Slices waiting or being embedded that these jobs are and these tokens will be. */
size_t credit_slices(size_t n_jobs, size_t n_tokens);
/* Sets granted and granted_bytes for the room. True when that is news to the source. */
bool credit_reckon(struct credit *credit, const struct room *room);

#endif
