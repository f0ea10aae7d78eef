/*
 * tiny_bert.h: a bert model of some kB with random weights of any type, and what it must give.
 *
 * Owns:    the file, and every weight of it in double as it was meant.
 * Refuses: to share code with inference/: the forward pass here is the definition, loop by loop.
 * Threads: one.
 *
 * Width 64, feed-forward 96, 2 heads of 32, 2 layers, 48 tokens.
 */
#ifndef TINY_BERT_H
#define TINY_BERT_H

#include <stddef.h>
#include <stdint.h>

#include "tests/support/gguf_writer.h"

enum {
    TINY_BERT_DIM = 64,
    TINY_BERT_FFN = 96,
    TINY_BERT_HEADS = 2,
    TINY_BERT_LAYERS = 2,
    TINY_BERT_CONTEXT = 48,
    TINY_BERT_TENSORS = 64, /* at most */
};

struct tiny_bert_tensor {
    char name[64];
    uint64_t columns, rows; /* rows 0: a vector */
    uint32_t type;
    double *values; /* [rows or 1][columns] */
    size_t entry;   /* where its directory entry is in the file */
};

/* A key that the file shall have: none, a bool, or one of the wrong type. */
enum tiny_bert_key { TINY_BERT_UNSAID, TINY_BERT_NO, TINY_BERT_YES, TINY_BERT_NUMBER };

struct tiny_bert_options {
    uint32_t type;    /* of matrices: F32, F16, Q4_0 or Q8_0 */
    uint32_t pooling; /* 4: a reranker, with a head; 5: one that does not say so */
    uint64_t seed;
    const char *leave_out; /* a tensor that the file shall not have, or NULL */
    const char *odd;       /* one that shall have another shape */
    const char *other;     /* one that shall be of another type */
    enum tiny_bert_key lowercase, strip_accents;
};

struct tiny_bert {
    struct gguf_writer file;
    struct tiny_bert_tensor tensors[TINY_BERT_TENSORS];
    size_t n_tensors;
    uint32_t pooling;
};

/* The vocabulary, in the form of the file. NULL past the last. */
const char *tiny_bert_token(uint32_t id);

void tiny_bert_make(struct tiny_bert *out, const struct tiny_bert_options *options);
void tiny_bert_free(struct tiny_bert *bert);

/* The unit vector of a text of n tokens, [CLS] and [SEP] among them. */
void tiny_bert_embed(const struct tiny_bert *bert, const int32_t *ids, size_t n,
                     double out[TINY_BERT_DIM]);

/* The score of a pair in one row of n tokens, by a reranker; types: 0 or 1 of each. */
double tiny_bert_score(const struct tiny_bert *bert, const int32_t *ids, const uint8_t *types,
                       size_t n);

#endif
