/*
 * prompt.h: what is put around a text before it is embedded.
 *
 * Owns:    the prompts of EmbeddingGemma's model card and their names.
 * Refuses: to guess; a name it does not know is refused by whoever asked.
 * Threads: constant tables, any thread.
 * Why:     the model was trained with these words around every text; leaving them out, or putting
 *          a query's around a document, costs retrieval quality without any error to see.
 */
#ifndef PROMPT_H
#define PROMPT_H

#include <stddef.h>

#include "connectors/connector.h"

struct prompt {
    const char *name;
    const char *lead;    /* before the text, or before the title where there is one */
    const char *between; /* title and text; NULL: this prompt has no place for a title */
};

/*
 * By name or alias, upper and lower case the same, '-' and '_' the same. NULL when unknown.
 * The aliases are the names in the model's own sentence-transformers configuration.
 */
const struct prompt *prompt_find(struct bytes name);
/* "document, query, ...": for help and errors. */
const char *prompt_names(void);

/*
 * Write the prompted text, at most size bytes and without a NUL, and return its whole length:
 * a first call with size 0 tells how much room it needs. An absent or empty title is "none".
 */
size_t prompt_render(const struct prompt *prompt, struct bytes title, struct bytes text, char *out,
                     size_t size);

#endif
