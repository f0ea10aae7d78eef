/*
 * tokenizer_wordpiece.c: WordPiece, the way of BERT's tokenizers.
 *
 * Owns:    words: where they end, and the longest tokens they are made of, from the left.
 * Refuses: in a file that does not say whether case and accents count, a vocabulary that tells
 *          upper from lower case or letters with accents from those without: ids would be only
 *          nearly right.
 * Threads: pure; the word in hand is on the stack.
 * Source:  BERT (Devlin et al. 2019); the vocabulary as llama.cpp's converter writes it: a token
 *          that begins a word begins with U+2581, and one that goes on with it has no mark.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "inference/tokenizer_fold.h"
#include "inference/tokenizer_internal.h"

#define MARK              "\xe2\x96\x81" /* U+2581 */
#define LOWERCASE_KEY     "tokenizer.ggml.normalizer.lowercase"
#define STRIP_ACCENTS_KEY "tokenizer.ggml.normalizer.strip_accents"

enum { MARK_LEN = 3, WORD_MAX = 100 /* characters; a longer word is unknown as a whole */ };

struct word {
    const struct tokenizer *t;
    struct id_row *row;
    size_t n_chars, len;                    /* of the word in hand; len without the mark */
    uint8_t bytes[MARK_LEN + WORD_MAX * 4]; /* the mark, then the word */
};

static int special_find(const struct vocab *vocab, const char *name, uint32_t *out, char *err,
                        size_t err_size)
{
    const uint8_t *text = (const uint8_t *)name;
    size_t len = 0, name_len = strlen(name);

    *out = vocab_find_added(vocab, text, text + name_len, &len);
    if (*out == NO_TOKEN || len != name_len)
        return vocab_refuse(err, err_size, "vocabulary: missing control token %s", name);
    return 0;
}

/* Does an uncased tokenizer leave the characters of this token as they are? Else no text has it. */
static bool is_reachable(const uint8_t *at, const uint8_t *end)
{
    static const struct fold_steps uncased = {.lowercase = true, .strip_accents = true};
    while (at < end) {
        struct utf8_char c = utf8_decode(at, end);
        struct folded folded = fold_char(c.code, uncased);
        if (folded.n != 1 || folded.codes[0] != c.code)
            return false;
        at += c.len;
    }
    return true;
}

/*
 * Published uncased vocabularies hold a few tokens that no text has (Chinese ones their kana with
 * marks); one made for texts that keep their accents holds many.
 */
static bool is_folded(const struct vocab *vocab)
{
    uint32_t n_lost = 0;

    for (uint32_t id = 0; id < vocab->n; id++) {
        const uint8_t *text = vocab->texts + vocab->offsets[id];
        /* 8: the length before the next text, as in text_of of tokenizer_vocab.c. */
        const uint8_t *end = vocab->texts + vocab->offsets[id + 1] - 8;
        if (vocab_find(vocab, text, (size_t)(end - text)) != id)
            continue; /* not an ordinary token */
        if (end - text > MARK_LEN && memcmp(text, MARK, MARK_LEN) == 0)
            text += MARK_LEN;
        n_lost += !is_reachable(text, end);
    }
    return n_lost <= vocab->n / 50;
}

/* What the file does not say is read as of an uncased model, so the vocabulary must be one. */
static int unsaid_check(const struct vocab *vocab, struct fold_steps steps, bool is_case_said,
                        char *err, size_t err_size)
{
    const char *what = NULL;
    if (!is_case_said && vocab_find(vocab, (const uint8_t *)MARK "A", MARK_LEN + 1) != NO_TOKEN)
        what = "tells upper from lower case";
    else if (!is_case_said && steps.strip_accents && !is_folded(vocab))
        what = "keeps accents";
    if (!what)
        return 0;
    snprintf(err, err_size,
             "the vocabulary %s, but the file does not say so (" LOWERCASE_KEY
             ", " STRIP_ACCENTS_KEY "); make it with scripts/convert-model.py or a newer llama.cpp",
             what);
    return -EINVAL;
}

/* As in the published tokenizers accents are taken off with lower case, unless the file says more.
 */
static int steps_read(struct tokenizer *t, const struct gguf *gguf, char *err, size_t err_size)
{
    int rc = gguf_bool(gguf, LOWERCASE_KEY, &t->fold.lowercase);
    bool is_case_said = rc == 0;
    if (rc && rc != -ENOENT)
        return vocab_refuse(err, err_size, "key %s is not a bool", LOWERCASE_KEY);
    if (!is_case_said)
        t->fold.lowercase = true;
    rc = gguf_bool(gguf, STRIP_ACCENTS_KEY, &t->fold.strip_accents);
    if (rc && rc != -ENOENT)
        return vocab_refuse(err, err_size, "key %s is not a bool", STRIP_ACCENTS_KEY);
    if (rc)
        t->fold.strip_accents = t->fold.lowercase;
    return unsaid_check(&t->vocab, t->fold, is_case_said, err, err_size);
}

/* MPNet's are those of RoBERTa; to it [CLS] and [SEP] are ordinary tokens that no text has. */
static int ends_find(struct tokenizer *t, char *err, size_t err_size)
{
    if (special_find(&t->vocab, "[CLS]", &t->bos, err, err_size) &&
        special_find(&t->vocab, "<s>", &t->bos, err, err_size) == 0)
        return special_find(&t->vocab, "</s>", &t->eos, err, err_size);
    /* [CLS] is there; or neither pair is, and this says so. */
    int status = special_find(&t->vocab, "[CLS]", &t->bos, err, err_size);
    return status ? status : special_find(&t->vocab, "[SEP]", &t->eos, err, err_size);
}

static int wordpiece_open(struct tokenizer *t, const struct gguf *gguf, char *err, size_t err_size)
{
    int status = vocab_open(&t->vocab, gguf, VOCAB_WORDPIECE, err, err_size);

    if (!status)
        status = ends_find(t, err, err_size);
    if (!status)
        status = special_find(&t->vocab, "[UNK]", &t->unknown, err, err_size);
    if (!status)
        status = steps_read(t, gguf, err, err_size);
    return status;
}

/* The longest token that the bytes begin with, or NO_TOKEN. */
static uint32_t longest_find(const struct vocab *vocab, const uint8_t *bytes, size_t *len)
{
    if (*len > vocab->longest)
        *len = vocab->longest;
    for (; *len > 0; --*len) {
        uint32_t id = vocab_find(vocab, bytes, *len);
        if (id != NO_TOKEN)
            return id;
    }
    return NO_TOKEN;
}

/* All of the word or, where a part of it is not a token, [UNK] once. */
static void word_end(struct word *word)
{
    const struct vocab *vocab = &word->t->vocab;
    const uint8_t *at = word->bytes, *end = at + MARK_LEN + word->len;
    /* A copy of the count: if a part is no token, the ids before it are forgotten with this. */
    struct id_row row = *word->row;
    uint32_t id = NO_TOKEN;

    if (word->n_chars == 0)
        return;
    if (word->n_chars <= WORD_MAX)
        do {
            size_t len = (size_t)(end - at);
            /* A U+2581 of the text itself must not be taken for the mark of a word's beginning. */
            if (at != word->bytes && len > MARK_LEN && memcmp(at, MARK, MARK_LEN) == 0)
                len = MARK_LEN;
            id = longest_find(vocab, at, &len);
            /* The mark by itself does not begin a word. */
            if (at == word->bytes && id != NO_TOKEN && len <= MARK_LEN)
                id = NO_TOKEN;
            if (id != NO_TOKEN)
                id_row_add(&row, id);
            at += len;
        } while (id != NO_TOKEN && at < end);
    if (id != NO_TOKEN)
        *word->row = row;
    else
        id_row_add(word->row, word->t->unknown);
    word->n_chars = word->len = 0;
}

static void word_add(struct word *word, uint32_t code)
{
    /* The bytes of a longer word need not be kept: it is unknown whatever they are. */
    if (++word->n_chars <= WORD_MAX)
        word->len += utf8_encode(code, word->bytes + MARK_LEN + word->len);
}

static void char_add(struct word *word, uint32_t code)
{
    struct folded folded = fold_char(code, word->t->fold);

    /* One that is dropped (n 0) ends nothing: the word goes on behind it. */
    if (folded.is_space || folded.is_apart)
        word_end(word);
    for (size_t i = 0; i < folded.n; i++)
        word_add(word, folded.codes[i]);
    if (folded.is_apart)
        word_end(word);
}

static int wordpiece_encode(const struct tokenizer *t, struct scratch_parts *scratch,
                            struct text text, enum bad_utf8 bad_utf8, struct id_row *row)
{
    const uint8_t *at = (const uint8_t *)text.ptr, *end = at + text.len;
    /* The mark stands there once for all words: they are written behind it. */
    struct word word = {.t = t, .row = row, .bytes = MARK};

    (void)scratch;
    while (at < end) {
        size_t len = 0;
        uint32_t id = vocab_find_added(&t->vocab, at, end, &len);
        if (id != NO_TOKEN) {
            word_end(&word);
            id_row_add(row, id);
            at += len;
            continue;
        }
        struct utf8_char c = utf8_decode(at, end);
        if (c.bad && bad_utf8 == BAD_UTF8_ERROR)
            return -EILSEQ;
        char_add(&word, c.code);
        at += c.len;
    }
    word_end(&word);
    return 0;
}

const struct tokenizer_kind tokenizer_wordpiece = {"bert", SCRATCH_NONE, wordpiece_open,
                                                   wordpiece_encode};
