/*
 * split.c: see split.h.
 */
#include "worker/pipeline/split.h"

#include <assert.h>
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
                          .by_markdown = options->by_markdown,
                          .max_texts = max_texts < CODEC_TEXTS_MAX ? max_texts : CODEC_TEXTS_MAX,
                          .chunker = {.max_tokens = options->max_tokens,
                                      .overlap = options->overlap,
                                      .count = count_tokens,
                                      .ctx = splitter}};
}

void splitter_close(struct splitter *splitter)
{
    chunks_close(&splitter->chunker);
    markdown_close(&splitter->markdown);
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
static int lead_render(struct splitter *splitter, const struct prompt *prompt, struct bytes title,
                       struct bytes before, struct bytes *out)
{
    size_t len = prompt_render(prompt, title, before, NULL, 0);
    if (len > splitter->lead_room) {
        char *lead = realloc(splitter->lead, 2 * len);
        if (!lead)
            return -ENOMEM;
        splitter->lead = lead;
        splitter->lead_room = 2 * len;
    }
    prompt_render(prompt, title, before, splitter->lead, len);
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

/* A text that is being cut: how far its characters are counted, and its pieces. */
struct whole {
    const struct prompt *prompt;
    const struct item *item;
    size_t bytes, chars;
    size_t n_pieces;
};

/* Around the pieces of one section: the title of each, or what stands before each where the prompt
 * has no place for a title. */
struct around {
    struct bytes title, before;
};

/* Of a piece what is embedded. */
static int piece_text(struct arena *arena, const struct around *around, struct bytes piece,
                      struct bytes *out)
{
    *out = piece;
    if (around->before.len == 0)
        return 0;
    char *text = arena_alloc(arena, around->before.len + piece.len);
    if (!text)
        return -ENOMEM;
    memcpy(text, around->before.ptr, around->before.len);
    memcpy(text + around->before.len, piece.ptr, piece.len);
    *out = (struct bytes){text, around->before.len + piece.len};
    return 0;
}

static int piece_add(struct splitter *splitter, struct arena *arena, struct whole *whole,
                     const struct around *around, struct span span)
{
    const struct item *item = whole->item;
    struct chunk *chunk = arena_alloc(arena, sizeof *chunk);
    if (!chunk || items_reserve(splitter, 1))
        return -ENOMEM;
    /* Pieces come in order, so each character of the text is counted once, overlaps aside. */
    assert(span.start <= span.end && span.end <= item->text.len);
    whole->chars += count_chars(item->text, whole->bytes, span.start);
    whole->bytes = span.start;
    *chunk = (struct chunk){.parent = item->id,
                            .parent_is_number = item->id_is_number,
                            .number = (uint32_t)whole->n_pieces,
                            .start = whole->chars,
                            .end = whole->chars + count_chars(item->text, span.start, span.end)};
    struct bytes piece = {item->text.ptr + span.start, span.end - span.start};
    struct item *out = &splitter->items[splitter->n_items++];
    *out = (struct item){.title = around->title, .chunk = chunk};
    int err = piece_text(arena, around, piece, &out->text);
    return err ? err : id_print(arena, item->id, whole->n_pieces++, &out->id);
}

/* What the chunker has found in the text that begins at `from` of the whole. */
static int pieces_add(struct splitter *splitter, struct arena *arena, struct whole *whole,
                      const struct around *around, size_t from)
{
    const struct chunker *chunker = &splitter->chunker;
    int err = 0;
    for (size_t i = 0; i < chunker->n && !err; i++) {
        struct span span = chunker->spans[i];
        err = piece_add(splitter, arena, whole, around,
                        (struct span){from + span.start, from + span.end});
    }
    return err;
}

static size_t rooms_left(const struct splitter *splitter)
{
    assert(splitter->n_items <= splitter->max_texts);
    return splitter->max_texts - splitter->n_items;
}

/* The path of headings as the title, or before the text where the prompt knows no title. */
static int around_make(struct arena *arena, const struct whole *whole,
                       const struct section *section, struct around *out)
{
    const struct item *item = whole->item;
    bool has_title = whole->prompt->between != NULL;
    struct bytes title = has_title ? item->title : (struct bytes){NULL, 0};
    size_t len = markdown_path(section, item->text, title, NULL, 0), end = has_title ? 0 : 2;
    *out = (struct around){.title = item->title};
    if (len == 0)
        return 0;
    char *path = arena_alloc(arena, len + end);
    if (!path)
        return -ENOMEM;
    markdown_path(section, item->text, title, path, len);
    memcpy(path + len, "\n\n", end);
    if (has_title)
        out->title = (struct bytes){path, len};
    else
        out->before = (struct bytes){path, len + end};
    return 0;
}

/* Blocks that lie in the section, as spans of it, for the chunker. */
static void blocks_take(struct splitter *splitter, const struct section *section)
{
    struct markdown *markdown = &splitter->markdown;
    size_t n = 0;
    /* In place: what is written here never overtakes what is read. */
    struct span *first = markdown->blocks + splitter->n_blocks_taken;
    while (splitter->n_blocks_taken < markdown->n_blocks &&
           markdown->blocks[splitter->n_blocks_taken].start < section->body.end) {
        struct span *block = &markdown->blocks[splitter->n_blocks_taken++];
        /* A block that ends before the section lay in headings, and does not matter here. */
        bool is_inside = block->end > section->body.start;
        size_t start = block->start > section->body.start ? block->start - section->body.start : 0;
        if (is_inside)
            first[n++] = (struct span){start, block->end - section->body.start};
    }
    splitter->chunker.blocks = first;
    splitter->chunker.n_blocks = n;
}

/* One section in one piece or several. */
static int section_split(struct splitter *splitter, struct arena *arena, struct whole *whole,
                         const struct section *section)
{
    struct chunker *chunker = &splitter->chunker;
    struct around around;
    struct bytes lead, body = {whole->item->text.ptr + section->body.start,
                               section->body.end - section->body.start};
    struct span all = section->body;
    int err = rooms_left(splitter) > 0 ? 0 : -EOVERFLOW;
    if (!err)
        err = around_make(arena, whole, section, &around);
    if (err)
        return err;
    blocks_take(splitter, section);
    for (int tries = 0;; tries++) {
        chunker->max_spans = rooms_left(splitter);
        err = lead_render(splitter, whole->prompt, around.title, around.before, &lead);
        if (!err)
            /* -E2BIG: what stands before each piece takes more than half of the room. */
            err = chunks_find(chunker, lead, body);
        if (err != -E2BIG || tries > 0)
            break;
        around = (struct around){.title = whole->item->title}; /* headings that leave no room */
    }
    if (!err && chunker->n == 0)
        return piece_add(splitter, arena, whole, &around, all);
    return err ? err : pieces_add(splitter, arena, whole, &around, all.start);
}

/* By headings first. */
static int markdown_split(struct splitter *splitter, struct arena *arena, struct whole *whole)
{
    int err = 0;
    splitter->n_blocks_taken = 0;
    for (size_t i = 0; i < splitter->markdown.n_sections && !err; i++)
        err = section_split(splitter, arena, whole, &splitter->markdown.sections[i]);
    splitter->chunker.n_blocks = 0;
    return err;
}

/* Pieces of the text behind the items, when it is too long. *was_split: it was. */
static int long_split(struct splitter *splitter, struct arena *arena, struct whole *whole,
                      bool *was_split)
{
    struct chunker *chunker = &splitter->chunker;
    const struct around around = {.title = whole->item->title};
    struct bytes lead;
    /* First by length alone: what fits is no piece, whatever headings it has. */
    chunker->max_spans = rooms_left(splitter);
    int err = lead_render(splitter, whole->prompt, around.title, around.before, &lead);
    if (!err)
        err = chunks_find(chunker, lead, whole->item->text);
    if (err || chunker->n == 0)
        return err;
    *was_split = true;
    if (splitter->by_markdown)
        err = markdown_read(&splitter->markdown, whole->item->text);
    if (err)
        return err;
    if (splitter->by_markdown && splitter->markdown.n_sections > 0)
        return markdown_split(splitter, arena, whole);
    return pieces_add(splitter, arena, whole, &around, 0);
}

/* One text, whole or in pieces, behind the items. */
static int text_split(struct splitter *splitter, struct arena *arena, const struct prompt *prompt,
                      const struct item *item, bool *was_split)
{
    struct whole whole = {.prompt = prompt, .item = item};
    int err = splitter->n_items < splitter->max_texts ? 0 : -EOVERFLOW;
    *was_split = false;
    if (!err && may_be_long(prompt, item, splitter->chunker.max_tokens))
        err = long_split(splitter, arena, &whole, was_split);
    /* Bad UTF-8 cannot be cut. The text stays whole, and its own dead letter says why. */
    if (err == -EILSEQ) {
        splitter->n_items -= whole.n_pieces;
        *was_split = false;
        err = 0;
    }
    if (!err && !*was_split)
        err = items_reserve(splitter, 1);
    if (!err && !*was_split)
        splitter->items[splitter->n_items++] = *item;
    return err;
}

static int entry_dead_letter(struct entry *entry, int why)
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
    bool was_split = false;
    splitter->n_items = 0;
    for (size_t i = 0; i < request->n_items; i++) {
        bool was_this_split;
        int err = text_split(splitter, arena, entry->prompt, &request->items[i], &was_this_split);
        if (err)
            return err == -ENOMEM ? err : entry_dead_letter(entry, err);
        was_split |= was_this_split;
    }
    if (!was_split)
        return 0;
    /* The splitter's own are written over by the next message. */
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
