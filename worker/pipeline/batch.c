/*
 * batch.c: see batch.h.
 *
 * Texts are sorted by length, longest first, and cut where about a slice's worth of tokens is
 * together: texts of like length are cheapest side by side, and short jobs at the end of the
 * pool's FIFO let all threads finish at about the same time.
 */
#include "worker/pipeline/batch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "worker/pipeline/embedder.h"

/*
 * Estimated tokens: four bytes of text each, and about a dozen for prompt, bos and eos. A slice
 * under SLICE_MIN would unpack the weights for too few tokens; over SLICE_MAX gains nothing more
 * and makes the last thread late.
 */
enum { TOKEN_BYTES = 4, PROMPT_TOKENS = 12, SLICE_MIN = 128, SLICE_MAX = BATCH_SLICE_TOKENS };

static int grow(void *array, size_t *room, size_t need, size_t size)
{
    if (need <= *room)
        return 0;
    size_t n = *room ? *room : 16;
    /* Doubling: a batch is reused, and soon has the room that its texts need. */
    while (n < need) {
        if (n > SIZE_MAX / 2 / size)
            return -ENOMEM;
        n *= 2;
    }
    void *old;
    memcpy(&old, array, sizeof old); /* array is a pointer to a pointer to anything */
    void *grown = realloc(old, n * size);
    if (!grown)
        return -ENOMEM;
    memcpy(array, &grown, sizeof grown);
    *room = n;
    return 0;
}

void batch_open(struct batch *batch, size_t dim, size_t max_tokens)
{
    memset(batch, 0, sizeof *batch);
    batch->dim = dim;
    batch->max_tokens = max_tokens;
}

void batch_list_add(struct batch_list *list, struct batch *batch)
{
    batch->next = NULL;
    if (list->first)
        list->last->next = batch;
    else
        list->first = batch;
    list->last = batch;
    list->n++;
}

struct batch *batch_list_take(struct batch_list *list)
{
    struct batch *batch = list->first;
    if (batch) {
        list->first = batch->next;
        assert(list->n > 0);
        list->n--;
    }
    return batch;
}

void batch_reset(struct batch *batch)
{
    /* Nobody points into the arena or the payloads: all records are confirmed, or none was made. */
    arena_reset(&batch->arena);
    batch->payloads.len = 0;
    batch->n_entries = batch->n_undecoded = batch->n_bytes = 0;
    batch->n_texts = batch->text_bytes = batch->n_tokens = 0;
    batch->n_uniques = batch->n_slices = batch->slices_left = batch->records_left = 0;
    batch->is_split = batch->is_encoded = false;
    batch->records = NULL;
    batch->doubled = batch->doubled_by = NULL;
    batch->missing_prompt = NULL;
}

void batch_close(struct batch *batch)
{
    arena_close(&batch->arena);
    buffer_close(&batch->payloads);
    free(batch->entries);
    free(batch->slots);
    free(batch->uniques);
    free(batch->slices);
    free(batch->table);
    free(batch->vectors);
    free(batch->results);
    memset(batch, 0, sizeof *batch);
}

struct entry *batch_add(struct batch *batch, struct message *message)
{
    if (grow(&batch->entries, &batch->entries_room, batch->n_entries + 1, sizeof *batch->entries))
        return NULL;
    struct entry *entry = &batch->entries[batch->n_entries++];
    memset(entry, 0, sizeof *entry);
    entry->batch = batch;
    entry->message = message;
    /* The bench has requests without a message (bench_rig.c). */
    batch->n_bytes += message ? message->value.len : 0;
    return entry;
}

size_t batch_tokens(size_t n_bytes, size_t n)
{
    return n_bytes / TOKEN_BYTES + n * PROMPT_TOKENS;
}

static uint32_t item_tokens(const struct batch *batch, const struct item *item)
{
    size_t n = batch_tokens(item->title.len + item->text.len, 1);
    /* As the model cuts it: what is longer costs no more. */
    return (uint32_t)(n < batch->max_tokens ? n : batch->max_tokens);
}

void batch_count(struct batch *batch, const struct entry *entry)
{
    const struct request *request = &entry->request;
    batch->n_texts += request->n_items;
    for (size_t i = 0; i < request->n_items; i++) {
        batch->text_bytes += request->items[i].title.len + request->items[i].text.len;
        batch->n_tokens += item_tokens(batch, &request->items[i]);
    }
}

void batch_recount(struct batch *batch)
{
    batch->n_texts = batch->text_bytes = batch->n_tokens = 0;
    for (size_t i = 0; i < batch->n_entries; i++)
        batch_count(batch, &batch->entries[i]);
}

static bool slot_equal(const struct text_slot *a, const struct text_slot *b)
{
    return a->hash == b->hash && a->prompt == b->prompt &&
           bytes_equal(a->item->title, b->item->title) && bytes_equal(a->item->text, b->item->text);
}

/* Find the first slot equal to slots[at] in the table, or put it there itself. */
static uint32_t table_enter(struct batch *batch, size_t mask, uint32_t at)
{
    /* Open addressing, at most half full (batch_slice): a free place is always found. */
    const struct text_slot *slot = &batch->slots[at];
    for (size_t i = slot->hash & mask;; i = (i + 1) & mask) {
        if (batch->table[i] == NO_SLOT)
            return batch->table[i] = at;
        if (slot_equal(&batch->slots[batch->table[i]], slot))
            return batch->table[i];
    }
}

static void slot_place(struct batch *batch, size_t mask, uint32_t at, const struct entry *entry,
                       const struct item *item)
{
    struct text_slot *slot = &batch->slots[at];
    slot->item = item;
    slot->prompt = entry->prompt;
    /* A fast hash will do: slot_equal compares the bytes of what has the same. */
    slot->hash = XXH3_64bits_withSeed(item->text.ptr, item->text.len,
                                      XXH3_64bits(item->title.ptr, item->title.len));
    slot->duplicate = NO_SLOT;

    struct text_slot *same = &batch->slots[table_enter(batch, mask, at)];
    if (same == slot) {
        batch->uniques[batch->n_uniques++] = (struct unique_text){item_tokens(batch, item), at};
    } else {
        /* Into the list behind the first slot of that text: the order in it does not matter. */
        slot->duplicate = same->duplicate;
        same->duplicate = at;
    }
}

static int unique_compare(const void *a, const void *b)
{
    const struct unique_text *x = a, *y = b;
    if (x->n_tokens != y->n_tokens)
        return x->n_tokens > y->n_tokens ? -1 : 1;
    /* A total order, so that the same batch is cut the same way every time. */
    return x->slot < y->slot ? -1 : 1;
}

/* uniques must be sorted; there is room for as many slices as uniques. */
static void slices_make(struct batch *batch, size_t n_threads)
{
    size_t n_tokens = 0;
    for (size_t i = 0; i < batch->n_uniques; i++)
        n_tokens += batch->uniques[i].n_tokens;
    size_t target = n_tokens / (n_threads ? n_threads : 1);
    target = target < SLICE_MIN ? SLICE_MIN : target > SLICE_MAX ? SLICE_MAX : target;

    struct slice *slice = NULL;
    for (size_t i = 0, filled = 0; i < batch->n_uniques; i++) {
        /* A text that would lie more than half beyond the target begins the next slice. */
        if (!slice || filled + batch->uniques[i].n_tokens / 2 >= target) {
            assert(batch->n_slices < batch->n_uniques);
            slice = &batch->slices[batch->n_slices++];
            *slice = (struct slice){.job = {.batch = batch, .stage = STAGE_EMBED}, .first = i};
            filled = 0;
        }
        slice->n++;
        filled += batch->uniques[i].n_tokens;
    }
}

int batch_slice(struct batch *batch, size_t n_threads)
{
    size_t n = batch->n_texts;
    size_t table_size = 16;
    while (table_size < 2 * n)
        table_size *= 2;
    /* NO_SLOT marks a free place and the end of a list, so it is no index. */
    if (n >= NO_SLOT || grow(&batch->slots, &batch->slots_room, n, sizeof *batch->slots) ||
        grow(&batch->uniques, &batch->uniques_room, n, sizeof *batch->uniques) ||
        grow(&batch->slices, &batch->slices_room, n, sizeof *batch->slices) ||
        grow(&batch->table, &batch->table_room, table_size, sizeof *batch->table) ||
        grow(&batch->results, &batch->results_room, n, sizeof *batch->results) ||
        grow(&batch->vectors, &batch->vectors_room, n, batch->dim * sizeof *batch->vectors))
        return -ENOMEM;

    for (size_t i = 0; i < table_size; i++)
        batch->table[i] = NO_SLOT;
    uint32_t at = 0;
    for (size_t e = 0; e < batch->n_entries; e++) {
        struct entry *entry = &batch->entries[e];
        /* A dead letter has n_items 0 and takes no slot. */
        entry->first_item = at;
        for (size_t i = 0; i < entry->request.n_items; i++)
            slot_place(batch, table_size - 1, at++, entry, &entry->request.items[i]);
    }
    if (batch->n_uniques)
        qsort(batch->uniques, batch->n_uniques, sizeof *batch->uniques, unique_compare);
    slices_make(batch, n_threads);
    assert(at == batch->n_texts);
    batch->slices_left = batch->n_slices;
    atomic_store(&batch->slices_unfinished, batch->n_slices);
    return 0;
}

void scratch_close(struct scratch *scratch)
{
    free(scratch->bytes);
    free(scratch->texts);
    free(scratch->rows);
    free(scratch->results);
    memset(scratch, 0, sizeof *scratch);
}

static const struct text_slot *slice_slot(const struct slice *slice, size_t i)
{
    return &slice->job.batch->slots[slice->job.batch->uniques[slice->first + i].slot];
}

int slice_load(const struct slice *slice, struct scratch *scratch)
{
    const struct batch *batch = slice->job.batch;
    /* Measured first, rendered then: texts point into bytes, which must not move any more. */
    size_t n = slice->n, n_bytes = 0;
    for (size_t i = 0; i < n; i++) {
        const struct text_slot *slot = slice_slot(slice, i);
        n_bytes += prompt_render(slot->prompt, slot->item->title, slot->item->text, NULL, 0);
    }
    if (grow(&scratch->bytes, &scratch->bytes_room, n_bytes, 1) ||
        grow(&scratch->texts, &scratch->texts_room, n, sizeof *scratch->texts) ||
        grow(&scratch->results, &scratch->results_room, n, sizeof *scratch->results) ||
        grow(&scratch->rows, &scratch->rows_room, n, sizeof *scratch->rows))
        return -ENOMEM;

    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        const struct text_slot *slot = slice_slot(slice, i);
        char *to = scratch->bytes + at;
        size_t len =
            prompt_render(slot->prompt, slot->item->title, slot->item->text, to, n_bytes - at);
        scratch->texts[i] = (struct text){to, len};
        assert(at + len <= n_bytes);
        scratch->rows[i] = batch->vectors + batch->uniques[slice->first + i].slot * batch->dim;
        at += len;
    }
    return 0;
}

void slice_store(const struct slice *slice, const struct scratch *scratch, int status)
{
    const struct batch *batch = slice->job.batch;
    size_t dim = batch->dim;
    for (size_t i = 0; i < slice->n; i++) {
        struct embed_result result = {.status = status};
        const float *row = NULL;
        if (status == 0) {
            result = scratch->results[i];
            row = scratch->rows[i];
            /* A vector of another length or with a NaN would be stored like any other: -EDOM makes
             * a dead letter. */
            if (result.status == 0 && !embedder_is_unit(row, dim))
                result.status = -EDOM;
        }
        uint32_t at = batch->uniques[slice->first + i].slot;
        for (; at != NO_SLOT; at = batch->slots[at].duplicate) {
            batch->results[at] = result;
            /* The first of its equals has its row in place already. */
            if (row && row != batch->vectors + at * dim)
                memcpy(batch->vectors + at * dim, row, dim * sizeof *row);
        }
    }
}

struct slice_counts slice_count(const struct slice *slice, size_t max_tokens)
{
    const struct batch *batch = slice->job.batch;
    struct slice_counts counts = {0};
    for (size_t i = 0; i < slice->n; i++) {
        uint32_t first = batch->uniques[slice->first + i].slot;
        for (uint32_t at = first; at != NO_SLOT; at = batch->slots[at].duplicate) {
            const struct embed_result *result = &batch->results[at];
            if (result->status)
                continue;
            size_t n_tokens = result->n_tokens < max_tokens ? result->n_tokens : max_tokens;
            counts.n_texts += item_begins_text(batch->slots[at].item);
            counts.n_tokens += n_tokens;
            if (at == first && !result->cached) {
                counts.computed_texts++;
                counts.computed_tokens += n_tokens;
            }
        }
    }
    return counts;
}
