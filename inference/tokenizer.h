/*
 * tokenizer.h: text to token ids, identical to the Hugging Face tokenizer of the model.
 *
 * Owns:    the vocabulary index, special tokens, SentencePiece BPE with its merging and byte
 *          fallback, WordPiece with its folding of case and accents, unigram with its map,
 *          byte-level BPE with its canonical composition and its words, UTF-8.
 * Refuses: prompts and truncation policy beyond a cut (the session's and the worker's business).
 * Threads: the tokenizer is immutable after open; a tokenizer_scratch belongs to one thread.
 * Why:     a token off by one moves the embedding; the judge is exact equality of ids.
 * Source:  SentencePiece BPE (Kudo & Richardson 2018, arXiv:1808.06226; Sennrich et al. 2016);
 *          WordPiece as BERT has it (Devlin et al. 2019).
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

/*
 * Borrows the gguf until close: token texts and scores stay in the mapping; private are about 13
 * bytes a token. tokenizer.ggml.model says which kind it is:
 * llama   reads tokens, scores, token_type, bos_token_id, eos_token_id and, where there are any,
 *         add_bos_token, add_eos_token (else true) and add_space_prefix (must be false);
 * gemma4  the same with merges in the place of scores;
 * bert    reads tokens, token_type; its ends are [CLS] and [SEP];
 * gpt2    reads tokens, token_type, merges, pre, which says where words end, and the ends;
 * t5      reads tokens, scores, token_type, precompiled_charsmap, bos_token_id, eos_token_id and
 *         unknown_token_id.
 * 0; -EINVAL and a sentence in err: a vocabulary it could only tokenize nearly right; -ENOMEM.
 */
int tokenizer_open(struct tokenizer **out, const struct gguf *gguf, char *err, size_t err_size);
void tokenizer_close(struct tokenizer *tokenizer); /* accepts NULL */
size_t tokenizer_n_vocab(const struct tokenizer *tokenizer);
bool tokenizer_is_unigram(const struct tokenizer *tokenizer);
bool tokenizer_is_wordpiece(const struct tokenizer *tokenizer);
int32_t tokenizer_eos(const struct tokenizer *tokenizer);   /* of one that has such an end */
size_t tokenizer_n_ends(const struct tokenizer *tokenizer); /* tokens it puts around a text, 0..2 */

/*
 * About 320 kB, enough for any text whose unbroken pieces (in most scripts words) have up to 4096
 * characters. A longer one, as a word of a megabyte, must be merged as a whole to be exact: memory
 * then grows to about 80 bytes a character and is given back before tokenizer_encode returns.
 */
int tokenizer_scratch_open(struct tokenizer_scratch **out, const struct tokenizer *tokenizer);
void tokenizer_scratch_close(struct tokenizer_scratch *scratch); /* accepts NULL */

/*
 * Ids of text with bos and eos as the model asks for. *n_total: ids of the whole text, these two
 * included. *n_ids: written, min(max_ids, *n_total). When these are fewer than *n_total, ids holds
 * the first max_ids - 1 and then eos: with max_ids 1 eos alone; with max_ids 0 nothing, and ids may
 * be NULL.
 * Each part of a text that is not UTF-8, as long as it could have begun a character, is U+FFFD or,
 * under BAD_UTF8_ERROR, an error. NUL is a character. Linear in text.len up to a logarithm; what
 * was encoded before changes nothing.
 * 0; -EILSEQ: not UTF-8 and bad_utf8 is BAD_UTF8_ERROR; -ENOMEM: a giant piece. On failure *n_ids
 * and *n_total are as they were, and ids holds nothing of use.
 */
int tokenizer_encode(const struct tokenizer *tokenizer, struct tokenizer_scratch *scratch,
                     struct text text, enum bad_utf8 bad_utf8, int32_t *ids, size_t max_ids,
                     size_t *n_ids, size_t *n_total);

#endif
