/*
 * prompt.h: what is put around a text before it is embedded.
 *
 * Owns:    the names of what a text may be for; the words are the model's (struct model_info).
 * Refuses: to guess; a name it does not know is refused by whoever asked.
 * Threads: constant tables, any thread.
 * Why:     a model was trained with its own words around every text; leaving them out, or putting
 *          a query's around a document, costs retrieval quality without any error to see.
 */
#ifndef PROMPT_H
#define PROMPT_H

#include <stdbool.h>
#include <stddef.h>

#include "connectors/connector.h"
#include "inference/embed.h"

/*
 * By name or alias, upper and lower case the same, '-' and '_' the same. NULL when unknown.
 * The aliases are the names in sentence-transformers configurations. A name that is known and that
 * the model has no words for is "none": the text as it is.
 */
const struct prompt *prompt_find(const struct model_info *info, struct bytes name);
bool prompt_is_known(struct bytes name); /* whatever the model */
/* What is asked for by that name, when it is a known prompt and the model has no words for it; NULL
 * otherwise, and for "none" and "document", which is the default. */
const char *prompt_missing(const struct model_info *info, struct bytes name);
/* "document, query, ...": for help and errors. */
const char *prompt_names(void);

/*
 * Write the prompted text, at most size bytes and without a NUL, and return its whole length:
 * a first call with size 0 tells how much room it needs. An absent or empty title is "none".
 */
size_t prompt_render(const struct prompt *prompt, struct bytes title, struct bytes text, char *out,
                     size_t size);

/*
 * The prompt of the model whose words a text has already, when `prompt` would put words of its own
 * before them: whoever sent it did what the worker does. Else NULL. Of a prompt with a place for a
 * title both parts must be there.
 */
const struct prompt *prompt_doubled(const struct model_info *info, const struct prompt *prompt,
                                    struct bytes text);

#endif
