/*
 * vectors.h: the vectors of an index and their ids, to be read by number.
 *
 * Owns:    an .npy mapped read-only, or the vectors of a .jsonl in memory; turning every dtype back
 *          into unit float32 vectors.
 * Refuses: what the index was made with: manifest.h.
 * Threads: read-only after open, any thread.
 */
#ifndef VECTORS_H
#define VECTORS_H

#include <stdbool.h>
#include <stddef.h>

#include "connectors/connector.h"

struct vectors;

/*
 * path: an .npy with its .ids.jsonl beside it, or a .jsonl of records. The |u1 of an .npy are bits
 * (dtype b1). 0, or negative errno and a sentence.
 */
int vectors_open(struct vectors **out, const char *path, char *err, size_t err_size);
void vectors_close(struct vectors *vectors); /* accepts NULL */

size_t vectors_count(const struct vectors *vectors);
/* The fingerprint that the records of a .jsonl name; "": they name none, or it is an .npy. */
const char *vectors_model(const struct vectors *vectors);
size_t vectors_dim(const struct vectors *vectors);
/* Is it what the index has of its text? Not when that was written anew behind it, or deleted. */
bool vectors_is_live(const struct vectors *vectors, size_t i);
size_t vectors_count_live(const struct vectors *vectors);
/* Id of row i as JSON: a string with its quotes, or a number; in an .npy of a piece of a text an
 * object with `id` and what it is a piece of. */
struct bytes vectors_id(const struct vectors *vectors, size_t i);
/* Id of the text that row i is of, or of a piece of, as it stands in JSON, without quotes: 7 and
 * "7" are one. Borrowed. */
struct bytes vectors_text_id(const struct vectors *vectors, size_t i);
/* Rows [first, first + n) as float32 [n][dim]: those of the file, or made in scratch [n][dim]. */
const float *vectors_rows(const struct vectors *vectors, size_t first, size_t n, float *scratch);

#endif
