/*
 * tiny_model.h: a gemma-embedding model of 100 kB that is sound in every respect but sense.
 *
 * Owns:    its keys, vocabulary and random weights; the same seed gives the same bytes.
 * Refuses: to mean anything: its embeddings are noise, but neither zero nor NaN.
 * Threads: one.
 * Why:     tests of the loader, the tokenizer, the engine and the worker must not need a download.
 *
 * Width 64, feed-forward 96, 2 heads and 1 key/value head of 32, sliding window 16, dense layers
 * 64 > 128 > 64. Layers 5, 11, ... (every 6th) are full attention, as in the real model.
 */
#ifndef TINY_MODEL_H
#define TINY_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "inference/embed.h"
#include "tests/support/gguf_writer.h"

struct tiny_model_options {
    uint32_t n_layers; /* 7 has a full attention layer */
    uint32_t n_ctx;    /* longest text in tokens */
    bool with_dense;   /* dense_2 and dense_3; the width of the result is 64 either way */
    uint64_t seed;
};

#define TINY_MODEL_DEFAULTS                                                                        \
    {                                                                                              \
        .n_layers = 2, .n_ctx = 64, .with_dense = true, .seed = 1                                  \
    }

enum {
    TINY_MODEL_DIM = 64,
    TINY_MODEL_FFN = 96,
    TINY_MODEL_HEADS = 2,
    TINY_MODEL_HEAD_DIM = 32,
    TINY_MODEL_WINDOW = 16,
    TINY_MODEL_DENSE = 128,
    TINY_MODEL_PAD = 0,
    TINY_MODEL_EOS = 1,
    TINY_MODEL_BOS = 2,
    TINY_MODEL_UNK = 3,
    TINY_MODEL_BYTE_0 = 4 /* token of <0x00>; 255 more follow */
};

/*
 * The vocabulary: <pad> <eos> <bos> <unk>, 256 byte tokens, <start_of_turn> <end_of_turn>
 * (control), <table> (user defined), then merges by rank ("\xe2\x96\x81t", "he", ... score -rank),
 * then single characters: U+2581, newline, printable ASCII. Text of token id, or NULL past the
 * last.
 */
uint32_t tiny_model_n_vocab(void);
const char *tiny_model_token(uint32_t id);
int32_t tiny_model_token_id(const char *text); /* or -1 */

/* Append the file to an empty writer. options NULL: TINY_MODEL_DEFAULTS. */
void tiny_model_build(struct gguf_writer *out, const struct tiny_model_options *options);
/* The same into a file. 0 or negative errno. */
int tiny_model_write(const char *path, const struct tiny_model_options *options);
/* And opened, from a file that is gone again. 0, or negative errno and said on stderr. */
int tiny_model_open(struct model **out, const struct tiny_model_options *options);

#endif
