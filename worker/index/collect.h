/*
 * collect.h: the vectors of an output in a store, as a file that verify.h can compare.
 *
 * Owns:    an .npy with its ids beside it; of outputs in JSON a .jsonl.
 * Refuses: reading the store.
 * Threads: the main thread.
 */
#ifndef COLLECT_H
#define COLLECT_H

#include "connectors/migration.h"
#include "worker/codec/codec.h"

struct collect;

/* name: without an ending; files of it that are there are overwritten. dtype: of raw vectors. 0, or
 * negative errno and a sentence. */
int collect_open(struct collect **out, const char *name, enum output_dtype dtype, char *err,
                 size_t err_size);
/* A migration_reader, of a struct collect. */
int collect_add(void *collect, const struct migration_vector *vector, char *err, size_t err_size);
/* The file is whole: its path. 0; -ENOENT: there was no vector, and no file is left; negative errno
 * and a sentence. Takes collect either way. */
int collect_end(struct collect *collect, char *path, size_t size, char *err, size_t err_size);
/* Take it without an end; accepts NULL. */
void collect_close(struct collect *collect);

#endif
