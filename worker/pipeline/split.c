/*
 * split.c: see split.h.
 */
#include "worker/pipeline/split.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/dead_letter_codes.h"
#include "connectors/utf8.h"

enum { END_TOKENS = 2 }; /* bos and eos */

/* A session says -E2BIG of a text that is too long, and counts it all the same. */
static int count_tokens(void *ctx, struct bytes text, size_t *n_tokens)
{
    struct splitter *splitter = ctx;
    struct embed_result result;
    size_t n_ids;
    int err = splitter->embedder->tokenize(splitter->session, (struct text){text.ptr, text.len},
                                           NULL, 0, &n_ids, &result);
    *n_tokens = result.n_tokens;
    return err == -E2BIG ? 0 : err;
}

void splitter_open(struct splitter *splitter, const struct embedder *embedder,
                   struct session *session, const struct chunk_options *options, size_t max_texts)
{
    *splitter =
        (struct splitter){.embedder = embedder,
                          .session = session,
                          .max_texts = max_texts < CODEC_TEXTS_MAX ? max_texts : CODEC_TEXTS_MAX,
                          .chunker = {.max_tokens = options->max_tokens,
                                      .overlap = options->overlap,
                                      .count = count_tokens,
                                      .ctx = splitter}};
}

void splitter_close(struct splitter *splitter)
{
    chunks_close(&splitter->chunker);
    free(splitter->lead);
    free(splitter->items);
    memset(splitter, 0, sizeof *splitter);
}

static bool may_be_long(const struct prompt *prompt, const struct item *item, size_t max_tokens)
{
    return prompt_render(prompt, item->title, item->text, NULL, 0) + END_TOKENS > max_tokens;
}

bool split_wanted(const struct batch *batch, size_t max_tokens)
{
    for (size_t e = 0; e < batch->n_entries; e++) {
        const struct entry *entry = &batch->entries[e];
        for (size_t i = 0; i < entry->request.n_items; i++)
            if (may_be_long(entry->prompt, &entry->request.items[i], max_tokens))
                return true;
    }
    return false;
}

static int items_reserve(struct splitter *splitter, size_t more)
{
    size_t need = splitter->n_items + more;
    if (need <= splitter->items_room)
        return 0;
    struct item *items = realloc(splitter->items, 2 * need * sizeof *items);
    if (!items)
        return -ENOMEM;
    splitter->items = items;
    splitter->items_room = 2 * need;
    return 0;
}

/* Everything around the text, all of which stands before it. */
static int lead_render(struct splitter *splitter, const struct prompt *prompt,
                       const struct item *item, struct bytes *out)
{
    struct bytes nothing = {NULL, 0};
    size_t len = prompt_render(prompt, item->title, nothing, NULL, 0);
    if (len > splitter->lead_room) {
        char *lead = realloc(splitter->lead, 2 * len);
        if (!lead)
            return -ENOMEM;
        splitter->lead = lead;
        splitter->lead_room = 2 * len;
    }
    prompt_render(prompt, item->title, nothing, splitter->lead, len);
    *out = (struct bytes){splitter->lead, len};
    return 0;
}

/* Characters of [from, to); a bad part is one, as it is when it is replaced. */
static size_t count_chars(struct bytes text, size_t from, size_t to)
{
    size_t n = 0;
    for (; from < to; n++)
        from += (size_t)abs(utf8_next(text.ptr + from, text.len - from));
    return n;
}

static int id_print(struct arena *arena, struct bytes parent, size_t number, struct bytes *out)
{
    char digits[24];
    int n = snprintf(digits, sizeof digits, "#%zu", number);
    char *id = arena_alloc(arena, parent.len + (size_t)n);
    if (!id)
        return -ENOMEM;
    memcpy(id, parent.ptr, parent.len);
    memcpy(id + parent.len, digits, (size_t)n);
    *out = (struct bytes){id, parent.len + (size_t)n};
    return 0;
}

/* The pieces that the chunker has found, as texts. */
static int pieces_add(struct splitter *splitter, struct arena *arena, const struct item *whole)
{
    const struct chunker *chunker = &splitter->chunker;
    struct chunk *chunks = arena_alloc(arena, chunker->n * sizeof *chunks);
    size_t bytes = 0, chars = 0; /* how far it is counted */
    if (!chunks || items_reserve(splitter, chunker->n))
        return -ENOMEM;
    for (size_t i = 0; i < chunker->n; i++) {
        struct span span = chunker->spans[i];
        size_t start = chars + count_chars(whole->text, bytes, span.start);
        bytes = span.start;
        chars = start;
        chunks[i] = (struct chunk){.parent = whole->id,
                                   .parent_is_number = whole->id_is_number,
                                   .number = (uint32_t)i,
                                   .start = start,
                                   .end = start + count_chars(whole->text, span.start, span.end)};
        struct item *item = &splitter->items[splitter->n_items++];
        *item = (struct item){.title = whole->title,
                              .text = {whole->text.ptr + span.start, span.end - span.start},
                              .chunk = &chunks[i]};
        if (id_print(arena, whole->id, i, &item->id))
            return -ENOMEM;
    }
    return 0;
}

/* One text, whole or in pieces, behind the items. */
static int text_split(struct splitter *splitter, struct arena *arena, const struct prompt *prompt,
                      const struct item *item)
{
    struct chunker *chunker = &splitter->chunker;
    struct bytes lead;
    int err = splitter->n_items < splitter->max_texts ? 0 : -EOVERFLOW;
    chunker->n = 0;
    if (!err && may_be_long(prompt, item, chunker->max_tokens)) {
        chunker->max_spans = splitter->max_texts - splitter->n_items;
        err = lead_render(splitter, prompt, item, &lead);
        if (!err)
            err = chunks_find(chunker, lead, item->text);
        if (err == -EILSEQ) { /* of which the session tells when it comes to it */
            chunker->n = 0;
            err = 0;
        }
    }
    if (!err && chunker->n > 0)
        return pieces_add(splitter, arena, item);
    if (!err)
        err = items_reserve(splitter, 1);
    if (!err)
        splitter->items[splitter->n_items++] = *item;
    return err;
}

static int entry_bury(struct entry *entry, int why)
{
    bool many = why == -EOVERFLOW;
    entry->dead_code = many ? DEAD_LETTER(too_many_texts) : DEAD_LETTER(text_too_long);
    entry->dead_reason = many ? "cut into chunks the message has more texts than max_texts allows; "
                                "raise it or chunk_tokens, or send less in one message"
                              : "title and prompt take more than half of chunk_tokens; shorten the "
                                "title, or raise the option";
    entry->request.n_items = 0;
    return 0;
}

static int entry_split(struct splitter *splitter, struct entry *entry)
{
    struct request *request = &entry->request;
    struct arena *arena = &entry->batch->arena;
    bool is_cut = false;
    splitter->n_items = 0;
    for (size_t i = 0; i < request->n_items; i++) {
        int err = text_split(splitter, arena, entry->prompt, &request->items[i]);
        if (err)
            return err == -ENOMEM ? err : entry_bury(entry, err);
        is_cut |= splitter->chunker.n > 0;
    }
    if (!is_cut)
        return 0;
    request->items = arena_copy(arena, splitter->items, splitter->n_items * sizeof(struct item));
    request->n_items = splitter->n_items;
    request->many = true;
    return request->items ? 0 : -ENOMEM;
}

int split_batch(struct splitter *splitter, struct batch *batch)
{
    int err = 0;
    for (size_t e = 0; e < batch->n_entries && !err; e++)
        err = entry_split(splitter, &batch->entries[e]);
    return err;
}
