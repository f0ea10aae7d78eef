/*
 * credit.c: see credit.h.
 */
#include "worker/pipeline/credit.h"

#include <assert.h>

void credit_open(struct credit *credit)
{
    *credit = (struct credit){.texts_per_message = 1, .tokens_per_message = BATCH_SLICE_TOKENS};
}

void credit_learn(struct credit *credit, const struct batch *batch)
{
    /* The last batch says what messages hold: of one queue they are much alike, and a mistake
     * lasts for one batch. */
    assert(batch->n_entries > 0);
    size_t n_texts = batch->n_texts / batch->n_entries;
    size_t n_tokens = batch->n_tokens / batch->n_entries;
    credit->texts_per_message = n_texts ? n_texts : 1;
    credit->tokens_per_message = n_tokens ? n_tokens : 1;
}

void credit_given(struct credit *credit, size_t n)
{
    credit->granted_bytes = 0; /* what a source counts beside the payload is not known here */
    credit->granted -= n < credit->granted ? n : credit->granted;
}

size_t credit_tokens(const struct credit *credit, const struct batch *batch, size_t max_tokens)
{
    size_t by_bytes = batch_tokens(batch->n_bytes, batch->n_entries);
    size_t most = batch->n_entries * credit->texts_per_message * max_tokens;
    /* Texts beyond max_tokens are cut, so a message is never more than its texts times that. */
    return by_bytes < most ? by_bytes : most;
}

size_t credit_slices(size_t n_jobs, size_t n_tokens)
{
    /* to the nearest: to ask for crumbs would cost more than it brings */
    return n_jobs + (n_tokens + BATCH_SLICE_TOKENS / 2) / BATCH_SLICE_TOKENS;
}

bool credit_reckon(struct credit *credit, const struct room *room)
{
    assert(credit->texts_per_message > 0 && credit->tokens_per_message > 0);
    size_t n = (room->n_texts + credit->texts_per_message - 1) / credit->texts_per_message;
    size_t by_tokens = room->n_slices * BATCH_SLICE_TOKENS / credit->tokens_per_message;
    /* Whatever a message holds, a free thread is worth one. */
    if (room->n_slices && by_tokens == 0)
        by_tokens = 1;
    if (by_tokens < n)
        n = by_tokens;
    size_t n_bytes = n ? room->n_bytes : 0;
    /* The source knows that already. */
    if (n == credit->granted && n_bytes == credit->granted_bytes)
        return false;
    credit->granted = n;
    credit->granted_bytes = n_bytes;
    return true;
}
