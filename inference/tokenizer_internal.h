/*
 * tokenizer_internal.h: what the files of the tokenizer share with each other and with nobody else.
 *
 * Owns:    the shape of the kinds of tokenizers, of the vocabulary index, of a piece and of the row
 *          of ids being written.
 * Refuses: to be included outside inference/tokenizer*.c and its test.
 * Threads: struct vocab never changes after vocab_open; the others belong to one call.
 * Why:     a piece is the unit of exactness: no token crosses its ends, so it is merged alone.
 */
#ifndef TOKENIZER_INTERNAL_H
#define TOKENIZER_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "inference/embed.h"
#include "inference/gguf.h"
#include "inference/tokenizer_charsmap.h"
#include "inference/tokenizer_fold.h"
#include "inference/tokenizer_merges.h"
#include "inference/tokenizer_words.h"

struct tokenizer;

#define SPACE_CODE   0x2581 /* the visible space that stands for ' ' in token texts */
#define SPACE_RUN    128    /* longest run of spaces that may be one token, plus one */
#define NO_TOKEN     UINT32_MAX
#define REPLACE_CODE 0xFFFD

/* One character of a text. A bad one is the longest part that could have begun a character. */
struct utf8_char {
    uint32_t code; /* U+FFFD when bad */
    uint8_t len;   /* bytes of the text it took, at least 1 */
    bool bad;
};

struct utf8_char utf8_decode(const uint8_t *at, const uint8_t *end); /* at < end */
size_t utf8_encode(uint32_t code, uint8_t out[4]);                   /* bytes written, 1..4 */

/* SPM: with scores, byte tokens and runs of spaces. Merges: the same, but for scores, which a list
 * of merges stands for. Unigram: with scores. WordPiece and bytes: none of these is needed or
 * read. */
enum vocab_kind { VOCAB_SPM, VOCAB_MERGES, VOCAB_UNIGRAM, VOCAB_WORDPIECE, VOCAB_BYTES };

/*
 * The vocabulary. Texts, scores and types stay in the mapping; in private memory lie an offset and
 * two slots a token and a bitmap: about 3.2 MB for 262,144 tokens.
 */
struct vocab {
    enum vocab_kind kind;
    uint32_t n;
    const uint8_t *texts;  /* strings of {u64 len; bytes} back to back */
    const uint8_t *scores; /* [n] f32, unaligned; NULL: none are needed */
    float *own_scores;     /* where a list of merges gives them */
    uint32_t *offsets;     /* [n + 1] of the bytes of a text from `texts` */

    /* Open addressing over the texts of ordinary tokens: low bits id + 1, the rest hash bits;
     * 0 is empty. */
    uint32_t *slots;
    uint32_t slot_mask;
    uint32_t id_mask;
    uint32_t longest; /* bytes of the longest ordinary token */
    float lowest;     /* score of one; 0 without scores */

    uint64_t *pairs; /* bitmap over hashed pairs of characters that stand side by side in a token;
                        NULL as scores */

    uint32_t *added; /* [n_added] tokens matched in the raw text, in order of their bytes */
    uint32_t n_added;
    uint32_t
        added_first[257]; /* those that begin with byte b: added_first[b] .. added_first[b+1] */

    uint32_t runs[SPACE_RUN]; /* token of a run of so many spaces, 2..longest_run */
    uint32_t longest_run;     /* 1 when runs of spaces are not tokens of their own */

    uint32_t ascii[128]; /* ordinary tokens of one ASCII character, or NO_TOKEN */
    uint32_t bytes[256]; /* tokens <0x00> .. <0xFF> */
};

/* 0, -EINVAL with a sentence in err, -ENOMEM. On failure nothing is held. */
int vocab_open(struct vocab *vocab, const struct gguf *gguf, enum vocab_kind kind, char *err,
               size_t err_size);
/* -EINVAL, with the sentence and what to do in err. */
__attribute__((format(printf, 3, 4))) int vocab_refuse(char *err, size_t err_size,
                                                       const char *format, ...);
void vocab_close(struct vocab *vocab);

uint32_t vocab_find(const struct vocab *vocab, const uint8_t *text, size_t len); /* or NO_TOKEN */
float vocab_score(const struct vocab *vocab, uint32_t id);

/* Longest token of those matched in raw text that begins here, or NO_TOKEN; *len its bytes. */
uint32_t vocab_find_added(const struct vocab *vocab, const uint8_t *at, const uint8_t *end,
                          size_t *len);

/* False: no ordinary token holds these two characters side by side. True: perhaps one does. */
bool vocab_may_join(const struct vocab *vocab, uint32_t left, uint32_t right);

/* The row of ids being written: counts on where the caller's memory ends. */
struct id_row {
    int32_t *ids;
    size_t max;
    size_t n; /* of the whole text */
};

static inline void id_row_add(struct id_row *row, uint32_t id)
{
    if (row->n < row->max)
        row->ids[row->n] = (int32_t)id;
    row->n++;
}

/* Characters between two places no token can cross, each one an ordinary token by itself. */
struct piece;

int piece_open(struct piece **out);    /* 0 or -ENOMEM */
void piece_close(struct piece *piece); /* accepts NULL */
void piece_reset(struct piece *piece); /* empty, and back to its fixed memory */
bool piece_is_empty(const struct piece *piece);
int piece_add(struct piece *piece, const uint8_t *bytes, size_t len, uint32_t id); /* or -ENOMEM */
void piece_merge(struct piece *piece, const struct vocab *vocab, struct id_row *row); /* empties */

/* The part of a word whose best tokens are looked for. */
struct unigram;

int unigram_open(struct unigram **out);      /* 0 or -ENOMEM */
void unigram_close(struct unigram *unigram); /* accepts NULL */

/* What stands between two added tokens of a byte-level tokenizer. */
struct byte_text;

int byte_text_open(struct byte_text **out);   /* 0 or -ENOMEM */
void byte_text_close(struct byte_text *text); /* accepts NULL */

/* What a kind of tokenizer needs as scratch; the others are NULL. */
enum scratch_kind { SCRATCH_NONE, SCRATCH_PIECE, SCRATCH_UNIGRAM, SCRATCH_BYTES };
struct scratch_parts {
    struct piece *piece;
    struct unigram *unigram;
    struct byte_text *bytes;
};

/* What tokenizer.ggml.model of the file chooses. */
struct tokenizer_kind {
    const char *model;
    enum scratch_kind scratch;
    /* Fill t: its vocabulary, ends and unknown token. 0; -EINVAL with a sentence in err; -ENOMEM.
     */
    int (*open)(struct tokenizer *t, const struct gguf *gguf, char *err, size_t err_size);
    /* Ids of a text that is not empty, without its ends. 0, -EILSEQ or -ENOMEM. */
    int (*encode)(const struct tokenizer *t, struct scratch_parts *scratch, struct text text,
                  enum bad_utf8 bad_utf8, struct id_row *row);
};

struct tokenizer {
    const struct tokenizer_kind *kind;
    struct vocab vocab;
    uint32_t bos, eos; /* NO_TOKEN: the model wants none */
    uint32_t unknown;  /* WordPiece and unigram only */

    /* WordPiece */
    struct fold_steps fold;

    /* unigram */
    struct charsmap charsmap; /* in the mapping */
    double unknown_score;

    /* byte-level BPE */
    struct merges merges;
    words_end *words_end;
    bool composes; /* canonically (NFC), before words are cut */
    uint32_t mask; /* which takes white space before it along; NO_TOKEN: there is none */
};

extern const struct tokenizer_kind tokenizer_spm, tokenizer_gemma4, tokenizer_wordpiece,
    tokenizer_unigram, tokenizer_bytes;

#endif
