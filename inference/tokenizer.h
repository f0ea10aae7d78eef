/*
 * tokenizer.h: text to token ids, identical to the Hugging Face tokenizer of the model.
 *
 * Owns:    the vocabulary index, special tokens, SentencePiece BPE merging, byte fallback, UTF-8.
 * Refuses: prompts and truncation policy beyond a cut (the session's and the worker's business).
 * Threads: the tokenizer is immutable after open; a tokenizer_scratch belongs to one thread.
 * Why:     a token off by one moves the embedding; the judge is exact equality of ids.
 * Source:  SentencePiece BPE (Kudo & Richardson 2018, arXiv:1808.06226; Sennrich et al. 2016).
 */
#ifndef TOKENIZER_H
#define TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "inference/embed.h"
#include "inference/gguf.h"

struct tokenizer;
struct tokenizer_scratch;

/* Borrows the gguf until close: token texts stay in the mapping. 0, -EINVAL + err, -ENOMEM. */
int tokenizer_open(struct tokenizer **out, const struct gguf *gguf, char *err, size_t err_size);
void tokenizer_close(struct tokenizer *tokenizer); /* accepts NULL */
size_t tokenizer_n_vocab(const struct tokenizer *tokenizer);

/* Fixed size, enough for any text: what is longer is worked on in parts. */
int tokenizer_scratch_open(struct tokenizer_scratch **out, const struct tokenizer *tokenizer);
void tokenizer_scratch_close(struct tokenizer_scratch *scratch); /* accepts NULL */

/*
 * Ids of text with bos and eos as the model asks for. At most max_ids are written to ids; when the
 * text has more, the first ones are, and eos is kept as the last. *n_ids: written. *n_total: the
 * text had, bos and eos included. Linear in text.len up to a logarithm.
 * 0; -EILSEQ: not UTF-8 and bad_utf8 is BAD_UTF8_ERROR; -ENOMEM.
 */
int tokenizer_encode(const struct tokenizer *tokenizer, struct tokenizer_scratch *scratch,
                     struct text text, enum bad_utf8 bad_utf8, int32_t *ids, size_t max_ids,
                     size_t *n_ids, size_t *n_total);

#endif
