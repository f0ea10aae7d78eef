/*
 * bind.h: keys and tensors of a file, each taken once, with a sentence when it will not do.
 *
 * Owns:    what is complained of, and how.
 * Refuses: defaults for what a file does not say; a tensor of another type or shape.
 * Threads: one, while a model is opened.
 * Why:     binding all of a model at open keeps checks out of the forward pass.
 */
#ifndef BIND_H
#define BIND_H

#include <stdbool.h>
#include <stddef.h>

#include "inference/embed.h"
#include "inference/gguf.h"
#include "inference/kernels.h"

struct binder {
    const struct gguf *gguf;
    const char *path;
    const char *architecture; /* its keys begin with this and a dot */
    char *err;
    size_t err_size;
    bool *taken; /* [gguf_n_tensors] bound so far */
};

/* -EINVAL, and "PATH: WHAT 'NAME'; what to do" in err. */
int bind_refuse(const struct binder *b, const char *what, const char *name);
int bind_no_memory(const struct binder *b); /* -ENOMEM */

/* The key "ARCHITECTURE.key". 0 or -EINVAL. */
int bind_size(const struct binder *b, const char *key, size_t low, size_t high, size_t *out);
/* What every family says: layers, context, width, feed-forward width and heads, into m. */
int bind_dims(const struct binder *b, struct model *m, size_t layers_max);
int bind_float(const struct binder *b, const char *key, double low, double high, double *out);
/* -EINVAL that complains of such a key. */
int bind_refuse_key(const struct binder *b, const char *what, const char *key);

/* A tensor that must be there: a matrix of any type we read, or else float32 values. */
struct bind_tensor {
    const char *name;
    size_t n_in, n_out; /* columns and rows; n_out 1: a vector */
    struct matrix *matrix;
    const float **floats; /* [n_out][n_in] */
};

/* All of them; layer: their names begin with "blk.LAYER.", BIND_OUTER: with nothing.
 * 0 or -EINVAL. */
enum { BIND_OUTER = -1 };
int bind_tensors(const struct binder *b, int layer, const struct bind_tensor *tensors, size_t n);

/* Prompts that the file carries: two arrays of strings, "embedmill.prompt.names" and "...texts", as
 * scripts/convert-model.py writes them of a folder that has some. *out: up to one whose name is
 * NULL, to be freed; NULL where there are none. 0, -EINVAL or -ENOMEM. */
int bind_prompts(const struct binder *b, struct prompt **out);

/* 0, or -EINVAL when the file has a tensor that nobody bound: a step this program would leave out.
 */
int bind_nothing_left(const struct binder *b);

#endif
