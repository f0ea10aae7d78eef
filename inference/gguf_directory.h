/*
 * gguf_directory.h: what a GGUF file says it holds, checked. Only gguf.c includes this.
 *
 * Owns:    two small tables on the heap, of keys and of tensors, that point into the file's bytes.
 * Refuses: to know where the bytes come from; to live longer than they do.
 * Threads: immutable after gguf_directory_read.
 * Why:     everything hostile is met in one file that reads memory and nothing else.
 * Source:  the GGUF specification, version 3 (ggml/docs/gguf.md).
 */
#ifndef GGUF_DIRECTORY_H
#define GGUF_DIRECTORY_H

#include "inference/gguf.h"

struct gguf_key {
    struct gguf_str name;
    enum gguf_type type;
    struct gguf_array value; /* of a scalar: n 1, with its own type and bytes */
};

struct gguf_entry {
    struct gguf_tensor tensor;
    uint64_t offset; /* in the tensor data */
};

struct gguf_directory {
    size_t data_at; /* where tensor data begins; may be past the end when there are no tensors */
    size_t n_keys, n_tensors;
    struct gguf_key *keys;       /* [n_keys] by name */
    struct gguf_entry *entries;  /* [n_tensors] in file order */
    struct gguf_entry **by_name; /* [n_tensors] */
};

/* 0; -EINVAL or -ENOMEM, with a sentence in err that begins with file, its name. */
int gguf_directory_read(struct gguf_directory *out, const uint8_t *bytes, size_t size,
                        const char *file, char *err, size_t err_size);
void gguf_directory_free(struct gguf_directory *directory);

/* Or NULL. */
const struct gguf_key *gguf_directory_key(const struct gguf_directory *directory,
                                          struct gguf_str name);
const struct gguf_tensor *gguf_directory_tensor(const struct gguf_directory *directory,
                                                struct gguf_str name);

#endif
