/*
 * tokenizer_words.h: where words end for byte-level tokenizers.
 *
 * Owns:    the two published patterns, as plain code.
 * Threads: pure functions.
 */
#ifndef TOKENIZER_WORDS_H
#define TOKENIZER_WORDS_H

#include <stddef.h>
#include <stdint.h>

/* codes [n], kinds [n] (enum nfc_kind_of) of a text between two added tokens: where the word that
 * begins at `at`, at < n, ends. */
typedef size_t words_end(const uint32_t *codes, const uint8_t *kinds, size_t at, size_t n);

words_end words_end_gpt2, words_end_qwen2;

#endif
