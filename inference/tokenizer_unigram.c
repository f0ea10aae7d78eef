/*
 * tokenizer_unigram.c: SentencePiece unigram, the way of XLM-RoBERTa's tokenizers.
 *
 * Owns:    the way through a text: added tokens, the model's normalisation map, words, and of each
 *          word the tokens whose scores add up to the most.
 * Refuses: a file without a normalisation map, whose ids would be only nearly right.
 * Threads: pure but for the scratch, which belongs to one thread.
 * Why:     the judge is what sentence-transformers runs: words end at white space, each begins with
 *          U+2581, and a U+2581 in a text begins another. Sums are made in double and in its order,
 *          so that what is equal there is equal here.
 * Source:  Kudo 2018, arXiv:1804.10959 (unigram language model).
 *
 * A word is cut where no token holds the two characters side by side: the best way through it must
 * pass there, so what is before is settled, and memory stays small in a text without spaces.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inference/tokenizer_internal.h"

enum {
    FIRST_CHARS = 512,    /* room for a part of a word at first */
    CLUSTER_BYTES = 5,    /* of a cluster that the map reads as one */
    UNKNOWN_PENALTY = 10, /* an unknown character scores so much less than the rarest token */
};

/* The best way from the beginning of the word to a place in it. */
struct way {
    double score;
    uint32_t from; /* the place before; NO_TOKEN: there is no way yet */
    uint32_t id;   /* of the token between */
};

struct unigram {
    uint32_t capacity;  /* characters */
    struct way *ways;   /* [capacity + 1] */
    uint32_t *codes;    /* [capacity] */
    uint32_t *offsets;  /* [capacity + 1] of each character in bytes */
    uint8_t *bytes;     /* [4 * capacity] */
    uint32_t n;         /* characters in hand, which begin at a place all ways pass */
    double score;       /* of the way so far in this word */
    bool after_unknown; /* the last token of it is the unknown one */
    bool in_word;
};

struct encoding {
    const struct tokenizer *t;
    struct unigram *u;
    struct id_row *row;
    int status; /* 0, or the first failure */
};

static int unigram_grow(struct unigram *u, uint32_t capacity)
{
    /* To be smaller: what counts is the smallest buffer, should a realloc fail between two. */
    u->capacity = capacity < u->capacity ? capacity : u->capacity;
    void *ways = realloc(u->ways, ((size_t)capacity + 1) * sizeof *u->ways);
    u->ways = ways ? ways : u->ways;
    void *codes = realloc(u->codes, capacity * sizeof *u->codes);
    u->codes = codes ? codes : u->codes;
    void *offsets = realloc(u->offsets, ((size_t)capacity + 1) * sizeof *u->offsets);
    u->offsets = offsets ? offsets : u->offsets;
    void *bytes = realloc(u->bytes, (size_t)capacity * 4);
    u->bytes = bytes ? bytes : u->bytes;
    /* Those that could grow are kept and the capacity stays: nothing is lost by a failure. */
    if (!ways || !codes || !offsets || !bytes)
        return -ENOMEM;
    u->capacity = capacity;
    return 0;
}

int unigram_open(struct unigram **out)
{
    struct unigram *u = calloc(1, sizeof *u);
    if (!u)
        return -ENOMEM;
    int rc = unigram_grow(u, FIRST_CHARS);
    if (rc) {
        unigram_close(u);
        return rc;
    }
    *out = u;
    return 0;
}

void unigram_close(struct unigram *u)
{
    if (!u)
        return;
    free(u->ways);
    free(u->codes);
    free(u->offsets);
    free(u->bytes);
    free(u);
}

/* Empty, and back to what most texts need. */
static void unigram_reset(struct unigram *u)
{
    u->n = 0;
    u->score = 0;
    u->after_unknown = u->in_word = false;
    if (u->capacity > FIRST_CHARS)
        (void)unigram_grow(u, FIRST_CHARS); /* smaller: a failure changes nothing */
}

static void way_offer(struct way *way, double score, uint32_t from, uint32_t id)
{
    if (way->from == NO_TOKEN || score > way->score)
        *way = (struct way){score, from, id};
}

/* Every token that begins with character `from`, in order of length, then the unknown one. */
static void ways_extend(const struct tokenizer *t, struct unigram *u, uint32_t from)
{
    const struct vocab *vocab = &t->vocab;
    double score = u->ways[from].score;
    const uint8_t *bytes = u->bytes + u->offsets[from];
    bool has_single = false;
    for (uint32_t to = from + 1; to <= u->n; to++) {
        size_t len = u->offsets[to] - u->offsets[from];
        /* No longer token can fit, either: they are tried by rising length. */
        if (len > vocab->longest ||
            (to > from + 1 && !vocab_may_join(vocab, u->codes[to - 2], u->codes[to - 1])))
            break;
        uint32_t id = vocab_find(vocab, bytes, len);
        if (id == NO_TOKEN)
            continue;
        has_single = has_single || to == from + 1;
        way_offer(&u->ways[to], score + (double)vocab_score(vocab, id), from, id);
    }
    if (!has_single)
        way_offer(&u->ways[from + 1], score + t->unknown_score, from, t->unknown);
}

/* The best tokens of what is in hand to the row. Unknown ones side by side are one. */
static void part_end(struct encoding *e)
{
    struct unigram *u = e->u;
    if (u->n == 0)
        return;
    /* From the score of the parts before: sums in another order would round to another way. */
    u->ways[0] = (struct way){u->score, 0, NO_TOKEN};
    for (uint32_t i = 1; i <= u->n; i++)
        u->ways[i].from = NO_TOKEN;
    for (uint32_t i = 0; i < u->n; i++)
        ways_extend(e->t, u, i);
    u->score = u->ways[u->n].score;
    /* Turn the way round: `from` of a place on it becomes the place behind it. */
    uint32_t at = u->n, behind = NO_TOKEN, id_behind = NO_TOKEN;
    while (behind != 0 && u->n) {
        struct way way = u->ways[at];
        u->ways[at].from = behind;
        u->ways[at].id = id_behind;
        behind = at;
        id_behind = way.id;
        if (at == 0)
            break;
        at = way.from;
    }
    for (at = 0; at != u->n; at = u->ways[at].from) {
        uint32_t id = u->ways[at].id;
        if (id != e->t->unknown || !u->after_unknown)
            id_row_add(e->row, id);
        u->after_unknown = id == e->t->unknown;
    }
    u->n = 0;
}

static void word_end(struct encoding *e)
{
    part_end(e);
    e->u->score = 0;
    e->u->after_unknown = e->u->in_word = false;
}

static void word_add(struct encoding *e, uint32_t code)
{
    struct unigram *u = e->u;
    if (u->n && !vocab_may_join(&e->t->vocab, u->codes[u->n - 1], code))
        part_end(e);
    if (u->n == u->capacity && !e->status)
        /* Offsets are 32 bits, a character 4 bytes. */
        e->status = u->capacity > UINT32_MAX / 16 ? -ENOMEM : unigram_grow(u, u->capacity * 2);
    if (e->status)
        return;
    assert(u->n < u->capacity);
    uint32_t at = u->n ? u->offsets[u->n] : 0;
    u->offsets[u->n] = at;
    u->codes[u->n++] = code;
    u->offsets[u->n] = at + (uint32_t)utf8_encode(code, u->bytes + at);
    u->in_word = true;
}

/* White space as Unicode has it. */
static bool is_space(uint32_t code)
{
    return code == ' ' || (code >= 9 && code <= 13) || code == 0x85 || code == 0xa0 ||
           code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
           code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

/* A character that is normalised. */
static void char_add(struct encoding *e, uint32_t code)
{
    if (is_space(code)) {
        word_end(e);
        return;
    }
    /* Its own mark: a U+2581 of the text is not marked once more. */
    if (code == SPACE_CODE)
        word_end(e);
    else if (!e->u->in_word)
        word_add(e, SPACE_CODE);
    word_add(e, code);
}

static void text_add(struct encoding *e, const char *text, size_t len)
{
    const uint8_t *at = (const uint8_t *)text, *end = at + len;
    while (at < end) {
        struct utf8_char c = utf8_decode(at, end);
        char_add(e, c.code);
        at += c.len;
    }
}

/* Bytes as the map reads them: all replaced by one text, or else each character by itself. */
static bool whole_add(struct encoding *e, const uint8_t *bytes, size_t len)
{
    size_t new_len = 0;
    const char *text = charsmap_find(&e->t->charsmap, bytes, len, &new_len);
    if (text)
        text_add(e, text, new_len);
    return text != NULL;
}

static void alone_add(struct encoding *e, uint32_t code)
{
    uint8_t bytes[4];
    size_t len = utf8_encode(code, bytes);
    if (!whole_add(e, bytes, len))
        char_add(e, code);
}

/* A character and those that are read with it. Returns the bytes of the text they took; -EILSEQ
 * where they are not UTF-8 and must be. */
static ptrdiff_t cluster_add(struct encoding *e, const uint8_t *at, const uint8_t *end,
                             enum bad_utf8 bad_utf8)
{
    uint8_t bytes[CLUSTER_BYTES + 4];
    uint32_t codes[CLUSTER_BYTES + 1];
    /* One character more than are looked up together may be in them before that is seen. */
    size_t len = 0, n = 0;
    const uint8_t *next = at;
    do {
        struct utf8_char c = utf8_decode(next, end);
        if (n && !charsmap_joins(c.code))
            break;
        if (c.bad && bad_utf8 == BAD_UTF8_ERROR)
            return -EILSEQ;
        codes[n++] = c.code;
        len += utf8_encode(c.code, bytes + len);
        next += c.len;
    } while (next < end && len <= CLUSTER_BYTES && charsmap_is_joined(codes[0]));
    if (len <= CLUSTER_BYTES && whole_add(e, bytes, len))
        return next - at;
    for (size_t i = 0; i < n; i++)
        alone_add(e, codes[i]);
    /* The rest of a longer one: each by itself, too, however short it is. */
    while (len > CLUSTER_BYTES && next < end) {
        struct utf8_char c = utf8_decode(next, end);
        if (!charsmap_joins(c.code))
            break;
        alone_add(e, c.code);
        next += c.len;
    }
    return next - at;
}

static int unigram_encode(const struct tokenizer *t, struct scratch_parts *scratch,
                          struct text text, enum bad_utf8 bad_utf8, struct id_row *row)
{
    const uint8_t *at = (const uint8_t *)text.ptr, *end = at + text.len;
    struct encoding e = {.t = t, .u = scratch->unigram, .row = row};
    while (at < end && !e.status) {
        size_t len = 0;
        uint32_t id = vocab_find_added(&t->vocab, at, end, &len);
        if (id != NO_TOKEN) {
            word_end(&e);
            id_row_add(row, id);
            at += len;
            continue;
        }
        ptrdiff_t taken = cluster_add(&e, at, end, bad_utf8);
        if (taken < 0)
            e.status = (int)taken;
        else
            at += taken;
    }
    if (!e.status)
        word_end(&e);
    unigram_reset(e.u);
    return e.status;
}

static int special_read(const struct gguf *gguf, const char *key, size_t n, uint32_t *out,
                        char *err, size_t err_size)
{
    uint64_t id;
    if (gguf_uint(gguf, key, &id) || id >= n) {
        snprintf(err, err_size,
                 "%s is missing or not one of the %zu tokens; convert the model again", key, n);
        return -EINVAL;
    }
    *out = (uint32_t)id;
    return 0;
}

static int unigram_open_kind(struct tokenizer *t, const struct gguf *gguf, char *err,
                             size_t err_size)
{
    struct gguf_array map;
    bool adds_space = true;
    int status = vocab_open(&t->vocab, gguf, VOCAB_UNIGRAM, err, err_size);
    if (!status)
        status =
            special_read(gguf, "tokenizer.ggml.bos_token_id", t->vocab.n, &t->bos, err, err_size);
    if (!status)
        status =
            special_read(gguf, "tokenizer.ggml.eos_token_id", t->vocab.n, &t->eos, err, err_size);
    if (!status)
        status = special_read(gguf, "tokenizer.ggml.unknown_token_id", t->vocab.n, &t->unknown, err,
                              err_size);
    if (status)
        return status;
    if (gguf_get_array(gguf, "tokenizer.ggml.precompiled_charsmap", &map) ||
        (map.type != GGUF_U8 && map.type != GGUF_I8) ||
        !charsmap_open(&t->charsmap, map.data, map.size))
        return vocab_refuse(err, err_size,
                            "tokenizer.ggml.precompiled_charsmap, the normalisation map, is "
                            "missing or damaged");
    /* Where a file does not say it the mark before a word is meant. */
    if (gguf_bool(gguf, "tokenizer.ggml.add_space_prefix", &adds_space) == -EINVAL || !adds_space)
        return vocab_refuse(err, err_size, "tokenizer.ggml.add_space_prefix is not true");
    /* As SentencePiece has it, kUnkPenalty. */
    t->unknown_score = (double)t->vocab.lowest - UNKNOWN_PENALTY;
    return 0;
}

const struct tokenizer_kind tokenizer_unigram = {"t5", SCRATCH_UNIGRAM, unigram_open_kind,
                                                 unigram_encode};
