/*
 * vectors_internal.h: what the files of vectors know of each other: one reader for each form.
 */
#ifndef VECTORS_INTERNAL_H
#define VECTORS_INTERNAL_H

#include <stdint.h>

#include "worker/index/vectors.h"

enum vectors_kind { KIND_F4, KIND_F2, KIND_I1, KIND_BITS };

struct vectors {
    enum vectors_kind kind;
    size_t n, dim, row_bytes;
    const char *rows;         /* in map, or in memory */
    struct bytes map, id_map; /* mapped files; absent: none */
    float *memory;
    struct bytes *ids; /* [n], in id_map or in id_memory */
    char *id_memory;
    uint8_t *dead; /* [n] 1: replaced or deleted; NULL: none is */
    size_t n_dead;
    size_t *lines;         /* of a .jsonl: [n] where in the file the row's record begins */
    unsigned char *pieces; /* of a .jsonl: [n] whether the row is a piece of a longer text */
    char model[40];        /* of a .jsonl: the fingerprint that all records have; "": none has */
    size_t lines_room;
    size_t ids_room, memory_room, id_memory_len, id_memory_room;
};

/* A file mapped read-only; an empty one is absent bytes. 0, or negative errno and a sentence. */
int vectors_map(struct bytes *out, const char *path, char *err, size_t err_size);
void vectors_unmap(struct bytes *map);
/* Room for one id more. 0 or -ENOMEM. */
int vectors_grow_ids(struct vectors *vectors);
/* Find out which rows are dead; OUT.deleted.jsonl is read if there is one. 0, or negative errno and
 * a sentence. */
int vectors_find_dead(struct vectors *vectors, const char *path, char *err, size_t err_size);
int vectors_read_jsonl(struct vectors *vectors, const char *path, char *err, size_t err_size);

#endif
