/*
 * markdown.h: what a Markdown text is made of, as far as cutting it goes.
 *
 * Owns:    headings (# and underlined), and what stands between them; code in fences and tables,
 *          which are not to be cut; HTML and lists as far as their lines look like headings.
 * Refuses: everything else of Markdown; tokens.
 * Threads: a struct markdown belongs to one thread.
 */
#ifndef MARKDOWN_H
#define MARKDOWN_H

#include <stddef.h>

#include "worker/pipeline/chunks.h"

/* As CHUNKS_RULES, for sections. */
#define MARKDOWN_RULES "by headings of CommonMark 0.31, 2"

enum { MARKDOWN_LEVELS = 6 };

/* The text under one heading, up to the next; or a heading with nothing under it. */
struct section {
    struct span body;                      /* without white space around it; never empty */
    struct span headings[MARKDOWN_LEVELS]; /* it stands under, by level; empty: none */
};

struct markdown {
    struct section *sections; /* [n_sections] in order; those without text are left out */
    size_t n_sections, sections_room;
    struct span *blocks; /* [n_blocks] in order: fences and tables, whole lines */
    size_t n_blocks, blocks_room;
};

/* Spans are of this text. 0 or -ENOMEM. Zero-initialise before the first. */
int markdown_read(struct markdown *markdown, struct bytes text);
void markdown_close(struct markdown *markdown);

/* "Guide > Install > From source", with the title first: bytes that are wanted, of which no more
 * than size are written. A title that is the first heading is not said twice. */
size_t markdown_path(const struct section *section, struct bytes text, struct bytes title,
                     char *out, size_t size);

#endif
