/*
 * tokenizer_vocab.c: the vocabulary of a GGUF file, checked and indexed.
 *
 * Owns:    the index of ordinary tokens, the order of added ones, runs of spaces, byte tokens.
 * Refuses: vocabularies it could only tokenize nearly right: an error at open, never a wrong id.
 * Threads: vocab_open runs once; after it the vocabulary never changes.
 * Why:     262,144 tokens are ready in some ten milliseconds because no text is copied or sorted;
 *          only the few thousand added tokens are.
 *
 * Two forms of one file exist. Converters write runs of spaces, which are added tokens, as real
 * spaces, and give every added token the score -1000. So nothing here reads the score of an added
 * token: in the published merges every run of spaces goes before every ordinary token, which comes
 * to taking the longest run from the left, and that is what `runs` is for.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* qsort_r */
#endif
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "inference/tokenizer_internal.h"

#define PAIR_BITS 20     /* 1 M bits; the 0.2 M pairs of EmbeddingGemma set a sixth of them */
#define LEN_LIMIT 0xFFFF /* of one text: piece_merge keeps lengths in 16 bits */
#define ADVICE    "; convert the model again or download it again"

enum token_kind {
    KIND_NORMAL = 1,
    KIND_UNKNOWN,
    KIND_CONTROL,
    KIND_USER_DEFINED,
    KIND_UNUSED,
    KIND_BYTE
};

struct token_text {
    const uint8_t *ptr;
    uint32_t len;
};

int vocab_refuse(char *err, size_t err_size, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(err, err_size, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < err_size)
        snprintf(err + n, err_size - (size_t)n, ADVICE);
    return -EINVAL;
}

/* Byte tokens, and runs of spaces that are tokens. */
static bool has_runs(const struct vocab *vocab)
{
    return vocab->kind == VOCAB_SPM || vocab->kind == VOCAB_MERGES;
}

static uint32_t kind_of(const uint8_t *kinds, uint32_t id)
{
    uint32_t kind;

    memcpy(&kind, kinds + (size_t)id * sizeof(kind), sizeof(kind));
    return kind;
}

static struct token_text text_of(const struct vocab *vocab, uint32_t id)
{
    return (struct token_text){vocab->texts + vocab->offsets[id],
                               vocab->offsets[id + 1] - 8 - vocab->offsets[id]};
}

float vocab_score(const struct vocab *vocab, uint32_t id)
{
    float score;

    memcpy(&score, vocab->scores + (size_t)id * sizeof(score), sizeof(score));
    return score;
}

uint32_t vocab_find(const struct vocab *vocab, const uint8_t *text, size_t len)
{
    uint64_t hash = XXH3_64bits(text, len);
    uint32_t tag = (uint32_t)(hash >> 32) & ~vocab->id_mask;

    /* It ends: half of the slots are free (vocab_alloc). */
    for (uint32_t i = (uint32_t)hash & vocab->slot_mask;; i = (i + 1) & vocab->slot_mask) {
        uint32_t slot = vocab->slots[i];
        if (slot == 0)
            return NO_TOKEN;
        if ((slot & ~vocab->id_mask) == tag) {
            /* A slot has an id, plus 1 so that 0 is free, and in the bits above it the end of
             * the hash: most texts that differ are told apart without a look at the token. */
            uint32_t id = (slot & vocab->id_mask) - 1;
            struct token_text t = text_of(vocab, id);
            if (t.len == len && memcmp(t.ptr, text, len) == 0)
                return id;
        }
    }
}

/* False when another token has the text already. */
static bool slot_fill(struct vocab *vocab, uint32_t id, uint64_t hash, struct token_text text)
{
    uint32_t tag = (uint32_t)(hash >> 32) & ~vocab->id_mask;
    uint32_t i = (uint32_t)hash & vocab->slot_mask;

    for (; vocab->slots[i]; i = (i + 1) & vocab->slot_mask) {
        if ((vocab->slots[i] & ~vocab->id_mask) == tag) {
            struct token_text t = text_of(vocab, (vocab->slots[i] & vocab->id_mask) - 1);
            if (t.len == text.len && memcmp(t.ptr, text.ptr, text.len) == 0)
                return false;
        }
    }
    assert(id + 1 <= vocab->id_mask);
    vocab->slots[i] = tag | (id + 1);
    return true;
}

static uint32_t pair_bit(uint32_t left, uint32_t right)
{
    return ((left * 0x9E3779B1u) ^ right) * 0x85EBCA77u >> (32 - PAIR_BITS);
}

bool vocab_may_join(const struct vocab *vocab, uint32_t left, uint32_t right)
{
    uint32_t bit = pair_bit(left, right);

    return vocab->pairs[bit / 64] >> (bit % 64) & 1;
}

uint32_t vocab_find_added(const struct vocab *vocab, const uint8_t *at, const uint8_t *end,
                          size_t *len)
{
    uint32_t low = vocab->added_first[*at], high = vocab->added_first[*at + 1];
    uint32_t found = NO_TOKEN;

    /* low..high share their first k bytes with the text; the one of exactly k bytes stands first */
    for (size_t k = 1; low < high; k++) {
        struct token_text t = text_of(vocab, vocab->added[low]);
        uint32_t from, to;

        if (t.len == k) {
            found = vocab->added[low++];
            *len = k;
        }
        if (at + k >= end)
            break;
        for (from = low, to = high; from < to;) {
            uint32_t mid = from + (to - from) / 2;
            if (text_of(vocab, vocab->added[mid]).ptr[k] < at[k])
                from = mid + 1;
            else
                to = mid;
        }
        low = from;
        for (to = high; from < to;) {
            uint32_t mid = from + (to - from) / 2;
            if (text_of(vocab, vocab->added[mid]).ptr[k] <= at[k])
                from = mid + 1;
            else
                to = mid;
        }
        high = from;
    }
    return found;
}

static int compare_added(const void *a, const void *b, void *context)
{
    struct token_text x = text_of(context, *(const uint32_t *)a);
    struct token_text y = text_of(context, *(const uint32_t *)b);
    int order = memcmp(x.ptr, y.ptr, x.len < y.len ? x.len : y.len);

    return order ? order : (x.len > y.len) - (x.len < y.len);
}

static int sort_added(struct vocab *vocab, char *err, size_t err_size)
{
    uint32_t i = 0;

    qsort_r(vocab->added, vocab->n_added, sizeof(*vocab->added), compare_added, vocab);
    for (uint32_t k = 1; k < vocab->n_added; k++)
        if (compare_added(&vocab->added[k - 1], &vocab->added[k], vocab) == 0)
            return vocab_refuse(err, err_size, "vocabulary: tokens %u and %u have the same text",
                                vocab->added[k - 1], vocab->added[k]);
    for (uint32_t byte = 0; byte < 256; byte++) {
        while (i < vocab->n_added && text_of(vocab, vocab->added[i]).ptr[0] < byte)
            i++;
        /* Where a text may begin is the first byte of nearly every search, and of nearly all bytes
         * none begins. */
        vocab->added_first[byte] = i;
    }
    vocab->added_first[256] = vocab->n_added;
    return 0;
}

static int add_normal(struct vocab *vocab, uint32_t id, uint64_t hash, char *err, size_t err_size)
{
    struct token_text text = text_of(vocab, id);
    const uint8_t *at = text.ptr, *end = text.ptr + text.len;
    uint32_t left = 0;

    if (vocab->scores && !isfinite(vocab_score(vocab, id)))
        return vocab_refuse(err, err_size, "vocabulary: the score of token %u is not a number", id);
    if (vocab->scores && vocab_score(vocab, id) < vocab->lowest)
        vocab->lowest = vocab_score(vocab, id);
    while (at < end) {
        struct utf8_char c = utf8_decode(at, end);
        if (c.bad)
            return vocab_refuse(err, err_size, "vocabulary: the text of token %u is not UTF-8", id);
        if (at != text.ptr && vocab->pairs) {
            uint32_t bit = pair_bit(left, c.code);
            /* Characters that stand together in no token never merge: where that is so a text is
             * cut into pieces (vocab_may_join). */
            vocab->pairs[bit / 64] |= 1ull << (bit % 64);
            if (left == SPACE_CODE && c.code == SPACE_CODE && vocab->longest_run > 1)
                return vocab_refuse(err, err_size,
                                    "vocabulary: token %u holds a run of spaces, and such runs are "
                                    "tokens of their own here",
                                    id);
        }
        left = c.code;
        at += c.len;
    }
    if (text.len > vocab->longest)
        /* In bytes: no search needs to look for a longer one. */
        vocab->longest = text.len;
    if (!slot_fill(vocab, id, hash, text))
        return vocab_refuse(err, err_size, "vocabulary: the text of token %u appears twice", id);
    return 0;
}

/* Hashes go a block ahead, so that the slots are on their way to the cache: half the time of open.
 */
static int read_normals(struct vocab *vocab, const uint8_t *kinds, char *err, size_t err_size)
{
    uint64_t hashes[64];
    int status = 0;

    for (uint32_t first = 0; first < vocab->n; first += 64) {
        uint32_t end = vocab->n - first < 64 ? vocab->n : first + 64;
        for (uint32_t id = first; id < end; id++) {
            struct token_text text = text_of(vocab, id);
            hashes[id - first] = XXH3_64bits(text.ptr, text.len);
            __builtin_prefetch(&vocab->slots[(uint32_t)hashes[id - first] & vocab->slot_mask], 1);
        }
        for (uint32_t id = first; id < end && !status; id++)
            if (kind_of(kinds, id) == KIND_NORMAL)
                status = add_normal(vocab, id, hashes[id - first], err, err_size);
        if (status)
            return status;
    }
    /* Most characters of most texts: looked up once, here. */
    for (uint8_t c = 0; c < 128; c++)
        vocab->ascii[c] = vocab_find(vocab, &c, 1);
    return 0;
}

/* A run of spaces goes to `runs`; 0 when the text holds no space at all. */
static int add_run(struct vocab *vocab, uint32_t id, bool *is_run, char *err, size_t err_size)
{
    struct token_text text = text_of(vocab, id);
    size_t n_spaces = 0, n_others = 0;

    for (const uint8_t *at = text.ptr; at < text.ptr + text.len;) {
        struct utf8_char c = utf8_decode(at, text.ptr + text.len);
        if (c.code == ' ' || c.code == SPACE_CODE)
            n_spaces++;
        else
            n_others++;
        at += c.len;
    }
    *is_run = n_spaces > 0;
    if (n_spaces == 0)
        return 0;
    if (n_others > 0 || n_spaces < 2 || n_spaces >= SPACE_RUN || vocab->runs[n_spaces] != NO_TOKEN)
        return vocab_refuse(
            err, err_size,
            "vocabulary: user-defined token %u must be a run of 2 to %d spaces, or hold "
            "none; each run only once",
            id, SPACE_RUN - 1);
    /* With real spaces or visible ones: both forms of a file end here. */
    vocab->runs[n_spaces] = id;
    return 0;
}

static int hex_digit(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int add_byte(struct vocab *vocab, uint32_t id, char *err, size_t err_size)
{
    struct token_text t = text_of(vocab, id);
    int high = -1, low = -1;

    if (t.len == 6 && memcmp(t.ptr, "<0x", 3) == 0 && t.ptr[5] == '>') {
        /* Capitals alone: <0x0A>, as SentencePiece writes it. */
        high = hex_digit(t.ptr[3]);
        low = hex_digit(t.ptr[4]);
    }
    if (high < 0 || low < 0)
        return vocab_refuse(err, err_size, "vocabulary: byte token %u is not written <0xHH>", id);
    if (vocab->bytes[high * 16 + low] != NO_TOKEN)
        return vocab_refuse(err, err_size, "vocabulary: byte token <0x%02X> appears twice",
                            high * 16 + low);
    vocab->bytes[high * 16 + low] = id;
    return 0;
}

static int read_texts(struct vocab *vocab, const struct gguf_array *texts, char *err,
                      size_t err_size)
{
    struct gguf_str text;
    size_t at = 0;
    uint32_t id = 0;

    while (id < vocab->n && gguf_array_next(texts, &at, &text)) {
        if (text.len > LEN_LIMIT)
            return vocab_refuse(err, err_size, "vocabulary: token %u has a text of %zu bytes", id,
                                text.len);
        vocab->offsets[id++] = (uint32_t)((const uint8_t *)text.ptr - texts->data);
    }
    if (id != vocab->n)
        return vocab_refuse(err, err_size, "vocabulary: %u of %u texts are present", id, vocab->n);
    /* As if another text followed: text_of() takes the 8 bytes of a length off the next one's
     * place. */
    vocab->offsets[vocab->n] = (uint32_t)texts->size + 8;
    return 0;
}

/* Everything but ordinary tokens, which can only be judged once the runs of spaces are known. */
static int read_others(struct vocab *vocab, const uint8_t *kinds, char *err, size_t err_size)
{
    for (uint32_t id = 0; id < vocab->n; id++) {
        uint32_t kind = kind_of(kinds, id);
        bool is_run = false;
        int status = 0;

        if (kind < KIND_NORMAL || kind > KIND_BYTE)
            return vocab_refuse(err, err_size, "vocabulary: token %u is of unknown type %u", id,
                                kind);
        /* Unused ones keep their number and are never found. */
        if (kind == KIND_NORMAL || kind == KIND_UNUSED) {
            if (kind == KIND_NORMAL && text_of(vocab, id).len == 0)
                return vocab_refuse(err, err_size, "vocabulary: token %u has no text", id);
            continue;
        }
        if (text_of(vocab, id).len == 0)
            return vocab_refuse(err, err_size, "vocabulary: token %u has no text", id);
        if (kind == KIND_BYTE)
            status = add_byte(vocab, id, err, err_size);
        else if (kind == KIND_USER_DEFINED && has_runs(vocab))
            status = add_run(vocab, id, &is_run, err, err_size);
        if (status)
            return status;
        if (kind != KIND_BYTE && !is_run)
            vocab->added[vocab->n_added++] = id;
    }
    for (int byte = 0; byte < 256 && has_runs(vocab); byte++)
        if (vocab->bytes[byte] == NO_TOKEN)
            return vocab_refuse(err, err_size, "vocabulary: byte token <0x%02X> is missing", byte);
    while (vocab->longest_run + 1 < SPACE_RUN && vocab->runs[vocab->longest_run + 1] != NO_TOKEN)
        vocab->longest_run++;
    for (uint32_t n = vocab->longest_run + 1; n < SPACE_RUN; n++)
        if (vocab->runs[n] != NO_TOKEN)
            return vocab_refuse(err, err_size,
                                "vocabulary: a run of %u spaces is a token, and one of %u is not",
                                n, vocab->longest_run + 1);
    return 0;
}

/* A merge of ordinary tokens: "left right". False for others, as of runs of spaces. */
static bool merge_read(const struct vocab *vocab, struct gguf_str text, uint32_t *id,
                       size_t *left_len)
{
    const uint8_t *bytes = (const uint8_t *)text.ptr, *space = memchr(bytes, ' ', text.len);
    uint8_t whole[1024];
    size_t left = space ? (size_t)(space - bytes) : 0;
    /* Inside a token a space is written as U+2581: a real one stands between the two. */
    if (left == 0 || left + 1 >= text.len || text.len > sizeof whole)
        return false;
    memcpy(whole, bytes, left);
    memcpy(whole + left, space + 1, text.len - left - 1);
    *id = vocab_find(vocab, whole, text.len - 1);
    *left_len = left;
    return *id != NO_TOKEN && vocab_find(vocab, bytes, left) != NO_TOKEN &&
           vocab_find(vocab, space + 1, text.len - left - 1) != NO_TOKEN;
}

/*
 * Merging by scores gives what the list of merges gives when the list is in their order: token
 * after token, of each first the split with the longest left part. Gemma's lists are; another is
 * refused.
 */
static int read_merges(struct vocab *vocab, const struct gguf *gguf, char *err, size_t err_size)
{
    struct gguf_array merges;
    struct gguf_str text;
    uint32_t last = NO_TOKEN, rank = 0, id;
    size_t at = 0, last_left = 0, left;
    if (gguf_get_array(gguf, "tokenizer.ggml.merges", &merges) || merges.type != GGUF_STR)
        return vocab_refuse(err, err_size, "tokenizer.ggml.merges is not an array of strings");
    while (gguf_array_next(&merges, &at, &text)) {
        if (!merge_read(vocab, text, &id, &left))
            continue;
        bool is_new = id != last;
        /* A token that comes a second time, or splits in a rising order. */
        if (is_new ? vocab->own_scores[id] != 0 : left >= last_left)
            return vocab_refuse(err, err_size,
                                "tokenizer.ggml.merges is not in the order that scores would give");
        if (is_new)
            vocab->own_scores[id] = -(float)++rank;
        last = id;
        last_left = left;
    }
    /* A token that the list does not make is never made, whatever stands side by side. */
    for (id = 0; id < vocab->n; id++)
        if (vocab->own_scores[id] == 0)
            vocab->own_scores[id] = -INFINITY;
    return 0;
}

/* scores NULL: they are not needed. */
static int read_arrays(const struct gguf *gguf, struct gguf_array *texts, struct gguf_array *scores,
                       struct gguf_array *kinds, char *err, size_t err_size)
{
    if (gguf_get_array(gguf, "tokenizer.ggml.tokens", texts) || texts->type != GGUF_STR)
        return vocab_refuse(err, err_size, "tokenizer.ggml.tokens is not an array of strings");
    if (scores &&
        (gguf_get_array(gguf, "tokenizer.ggml.scores", scores) || scores->type != GGUF_F32))
        return vocab_refuse(err, err_size, "tokenizer.ggml.scores is not an array of float32");
    if (gguf_get_array(gguf, "tokenizer.ggml.token_type", kinds) ||
        (kinds->type != GGUF_I32 && kinds->type != GGUF_U32))
        return vocab_refuse(err, err_size, "tokenizer.ggml.token_type is not an array of int32");
    if (texts->n == 0)
        return vocab_refuse(err, err_size, "vocabulary: there are no tokens");
    if ((scores && texts->n != scores->n) || texts->n != kinds->n)
        return vocab_refuse(err, err_size, "vocabulary: %llu tokens, %llu scores, %llu types",
                            (unsigned long long)texts->n,
                            (unsigned long long)(scores ? scores->n : 0),
                            (unsigned long long)kinds->n);
    /* Slots are at least twice as many, and offsets are 32 bits. */
    if (texts->n > INT32_MAX / 2 || texts->size > UINT32_MAX - 8)
        return vocab_refuse(err, err_size, "vocabulary: %llu tokens are more than can be indexed",
                            (unsigned long long)texts->n);
    return 0;
}

static int vocab_alloc(struct vocab *vocab, uint32_t n, enum vocab_kind kind)
{
    uint32_t n_slots = 16;

    while (n_slots < 2 * n)
        n_slots *= 2;
    memset(vocab, 0, sizeof(*vocab));
    vocab->kind = kind;
    vocab->n = n;
    vocab->slot_mask = n_slots - 1;
    vocab->id_mask = vocab->slot_mask; /* 2n slots, so an id + 1 fits */
    vocab->longest_run = 1;
    memset(vocab->runs, 0xFF, sizeof(vocab->runs));
    memset(vocab->bytes, 0xFF, sizeof(vocab->bytes));
    vocab->offsets = malloc(((size_t)n + 1) * sizeof(*vocab->offsets));
    vocab->slots = calloc(n_slots, sizeof(*vocab->slots));
    if (kind == VOCAB_MERGES)
        vocab->own_scores = calloc(n, sizeof(*vocab->own_scores));
    bool has_pairs = kind != VOCAB_WORDPIECE && kind != VOCAB_BYTES;
    if (has_pairs)
        vocab->pairs = calloc((1u << PAIR_BITS) / 64, sizeof(*vocab->pairs));
    vocab->added = malloc((size_t)n * sizeof(*vocab->added));
    bool whole = vocab->offsets && vocab->slots && vocab->added &&
                 (vocab->own_scores || kind != VOCAB_MERGES);
    return whole && (vocab->pairs || !has_pairs) ? 0 : -ENOMEM;
}

int vocab_open(struct vocab *vocab, const struct gguf *gguf, enum vocab_kind kind, char *err,
               size_t err_size)
{
    bool has_scores = kind == VOCAB_SPM || kind == VOCAB_UNIGRAM;
    struct gguf_array texts, scores, kinds;
    uint32_t *added;
    int status = read_arrays(gguf, &texts, has_scores ? &scores : NULL, &kinds, err, err_size);

    if (status)
        return status;
    status = vocab_alloc(vocab, (uint32_t)texts.n, kind);
    if (status) {
        snprintf(err, err_size, "no memory for the index of %u tokens", vocab->n);
        goto fail;
    }
    vocab->texts = texts.data;
    /* NULL where a kind needs none; of a list of merges they are filled in last. */
    vocab->scores = has_scores ? scores.data : (const uint8_t *)vocab->own_scores;
    status = read_texts(vocab, &texts, err, err_size);
    if (!status)
        status = read_others(vocab, kinds.data, err, err_size);
    if (!status)
        status = sort_added(vocab, err, err_size);
    if (!status)
        status = read_normals(vocab, kinds.data, err, err_size);
    if (!status && kind == VOCAB_MERGES)
        status = read_merges(vocab, gguf, err, err_size);
    if (status)
        goto fail;
    /* Smaller: most tokens are not added ones. A failure changes nothing. */
    added = realloc(vocab->added, (vocab->n_added + 1) * sizeof(*added));
    if (added)
        vocab->added = added;
    return 0;

fail:
    vocab_close(vocab);
    return status;
}

void vocab_close(struct vocab *vocab)
{
    free(vocab->offsets);
    free(vocab->slots);
    free(vocab->pairs);
    free(vocab->own_scores);
    free(vocab->added);
    memset(vocab, 0, sizeof(*vocab));
}
