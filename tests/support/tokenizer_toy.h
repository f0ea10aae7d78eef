/*
 * tokenizer_toy.h: a vocabulary of 400 tokens with every kind of trouble in it.
 *
 * Owns:    its tokens (special, byte, added, characters, random merges), the file made of them, and
 *          ways to call the tokenizer that most tests want.
 * Refuses: to look like a language.
 * Threads: one.
 * Why:     on so few tokens a slow and obvious tokenizer can be run over thousands of texts.
 */
#ifndef TOKENIZER_TOY_H
#define TOKENIZER_TOY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "inference/tokenizer.h"
#include "tests/support/gguf_writer.h"

#define SP "\xe2\x96\x81" /* U+2581 */

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };
enum { TOY_EOS = 1, TOY_BOS = 2, TOY_BYTE_0 = 4, N_TOKENS = 400 };

struct token {
    char text[32];
    float score;
    int type;
};

struct toy {
    struct token tokens[N_TOKENS];
    struct gguf_writer file;
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    struct tokenizer_scratch *scratch;
};

uint32_t random_next(uint32_t *state); /* 24 bits */

void toy_tokens_make(struct token tokens[N_TOKENS], uint32_t seed);
/* A file of keys alone. real_spaces: runs of spaces written as converters write them. */
void toy_file_put(struct gguf_writer *out, const struct token *tokens, size_t n, bool real_spaces);

/* Fail the test with the seed when anything goes wrong. */
void toy_open(struct toy *toy, uint32_t seed, bool real_spaces);
void toy_close(struct toy *toy);

/* All ids of a text, bad UTF-8 replaced; the caller frees. */
int32_t *encode_all(const struct tokenizer *tokenizer, struct tokenizer_scratch *scratch,
                    const char *text, size_t len, size_t *n);

/* Where the real model lies: EMBEDMILL_TEST_MODEL, else the cache. False, and says so, if not. */
bool real_model_path(char *out, size_t size);

#endif
