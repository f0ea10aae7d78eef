/*
 * file_guess.h: what the first line of a file says about its format, where its name says nothing.
 *
 * Owns:    telling an object of JSON with a text, and the header of a CSV with the column of the
 *          texts, from a line of text.
 * Refuses: to decide. A file that looks so is refused until its format is given, for embedded as
 *          lines it would make vectors of braces and commas, and nobody would see it.
 * Threads: no state.
 */
#ifndef FILE_GUESS_H
#define FILE_GUESS_H

#include "connectors/connector.h"

/* "jsonl" or "csv"; NULL: it looks like text. text_field: of objects; column: of CSV. */
const char *file_guess_format(struct bytes line, const char *text_field, const char *column);

#endif
