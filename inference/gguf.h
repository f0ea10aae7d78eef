/*
 * gguf.h: a GGUF file, or the files a large one was split into, mapped read-only and checked once.
 *
 * Owns:    the mapping, the directory of keys and tensors, every bound on them.
 * Refuses: to believe any count, length, type, offset or alignment of the file before it is checked
 *          against the bytes there are; to know what the keys mean.
 * Threads: immutable after gguf_open, any thread.
 * Why:     after gguf_open succeeded, no reader of keys or tensors can step outside the mapping.
 *          One thing is outside our power: a file made shorter, or written to, while it is mapped.
 *          Reading what is gone is SIGBUS. We accept that, for the only cure is a private copy of
 *          333 MB in every worker: a model file is replaced by rename (the old one then lives on
 *          until it is unmapped), never written in place.
 * Source:  the GGUF specification, version 3 (ggml/docs/gguf.md).
 */
#ifndef GGUF_H
#define GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gguf;

/* Bytes in the mapping; not NUL-terminated. */
struct gguf_str {
    const char *ptr;
    size_t len;
};

enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STR,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64 /* the numbers of the file format */
};

/* An array in the mapping, every element of it inside. Numbers lie unaligned: read by memcpy. */
struct gguf_array {
    enum gguf_type type; /* of the elements */
    uint64_t n;
    const uint8_t *data; /* numbers back to back, or strings of {u64 len; bytes} back to back */
    size_t size;         /* bytes of data */
};

/* Tensor types this program reads; others are listed in the directory with their number. */
enum gguf_tensor_type {
    GGUF_TENSOR_F32 = 0,
    GGUF_TENSOR_F16 = 1,
    GGUF_TENSOR_Q4_0 = 2,
    GGUF_TENSOR_Q4_1 = 3,
    GGUF_TENSOR_Q5_0 = 6,
    GGUF_TENSOR_Q5_1 = 7,
    GGUF_TENSOR_Q8_0 = 8,
    GGUF_TENSOR_Q4_K = 12,
    GGUF_TENSOR_Q5_K = 13,
    GGUF_TENSOR_Q6_K = 14,
    GGUF_TENSOR_IQ4_NL = 20,
    GGUF_TENSOR_BF16 = 30
};

/* Its printable ASCII, '?' for every other byte, "..." where the rest is cut. For messages: what a
 * file says must not reach a terminal raw. size > 4. Returns out. */

const char *gguf_str_show(struct gguf_str text, char *out, size_t size);

/* "Q8_0", also of types that are not read; NULL for a number that is none of ggml's. */
const char *gguf_type_name(uint32_t type);

struct gguf_tensor {
    struct gguf_str name;
    uint32_t type;     /* enum gguf_tensor_type, or a number this program cannot read */
    uint32_t n_dims;   /* 1..4 */
    uint64_t shape[4]; /* shape[0] is contiguous (columns), 1 where unused */
    const void *data;  /* inside the mapping, at general.alignment (a power of two, 8 or more; 32
                          where the file does not say); NULL for a type whose size is not known */
    size_t size;       /* bytes; no two tensors overlap */
};

/*
 * Map and check; of a model in parts, path is the first's, and the others lie beside it. 0, or
 * negative errno with a sentence in err that names the file, what is wrong with it and what to do
 * (-EINVAL: not a sound GGUF; -ENOMEM; else from open/fstat/mmap).
 */
int gguf_open(struct gguf **out, const char *path, char *err, size_t err_size);

/*
 * The same for a file that is already in memory: bytes are borrowed until close and begin at the
 * alignment the tensors need. name stands for the path in messages. For tests and fuzzers, which
 * put the last byte before a page that traps.
 */
int gguf_open_memory(struct gguf **out, const void *bytes, size_t size, const char *name, char *err,
                     size_t err_size);
void gguf_close(struct gguf *gguf); /* accepts NULL */

size_t gguf_file_size(const struct gguf *gguf);
/* The mapping up to where tensor data begins: keys, vocabulary, directory (for a fingerprint). */
struct gguf_str gguf_metadata(const struct gguf *gguf);

/* Readers by key: 0; -ENOENT: no such key; -EINVAL: it has another type. *out only set on 0.
 * gguf_uint takes any integer type whose value is not negative (negative: -EINVAL); gguf_float
 * takes f32 and f64, and gives what the file says, NaN included. */
int gguf_uint(const struct gguf *gguf, const char *key, uint64_t *out);
int gguf_float(const struct gguf *gguf, const char *key, double *out);
int gguf_bool(const struct gguf *gguf, const char *key, bool *out);
int gguf_string(const struct gguf *gguf, const char *key, struct gguf_str *out);
int gguf_get_array(const struct gguf *gguf, const char *key, struct gguf_array *out);

/* Walk an array of strings: *at starts at 0 and is moved on; false after the last. */
bool gguf_array_next(const struct gguf_array *array, size_t *at, struct gguf_str *out);

size_t gguf_n_tensors(const struct gguf *gguf);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *gguf, size_t i);
const struct gguf_tensor *gguf_tensor_find(const struct gguf *gguf, const char *name); /* or NULL */

#endif
