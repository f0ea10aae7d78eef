/*
 * tokenizer_spm.c: SentencePiece BPE, the way of Gemma's tokenizer.
 *
 * Owns:    the way through a text: added tokens first, then runs of spaces, then pieces to merge.
 * Refuses: to change a text beyond ' ' to U+2581 and bad UTF-8 to U+FFFD, as the model's own
 *          tokenizer does; a vocabulary that asks for anything else is an error at open.
 * Threads: pure but for the scratch, which belongs to one thread.
 * Why:     names of added tokens are looked for in the raw text, before spaces are replaced: two
 *          U+2581 in a text are an added token and part what stands around them, two spaces are
 *          not, although both end as the same id.
 *
 * A piece ends where no token holds the two characters side by side: merges on both sides cannot
 * know of each other. In most scripts that is nearly every word, so that pieces stay short.
 */
#include <errno.h>
#include <stdio.h>

#include "inference/tokenizer_internal.h"

/* The ends of a row: wanted unless the file says no, because the published tokenizer adds both. */
static int read_end(const struct gguf *gguf, const char *add_key, const char *id_key, size_t n,
                    uint32_t *out, char *err, size_t err_size)
{
    bool add = true;
    uint64_t id;
    int status = gguf_bool(gguf, add_key, &add);

    /* A missing key leaves the default; one of another type is no answer. */
    if (status && status != -ENOENT) {
        snprintf(err, err_size, "%s is not a bool; convert the model again", add_key);
        return -EINVAL;
    }
    *out = NO_TOKEN;
    if (!add)
        return 0;
    if (gguf_uint(gguf, id_key, &id) || id >= n) {
        snprintf(err, err_size,
                 "%s is missing or not one of the %zu tokens; convert the model again", id_key, n);
        return -EINVAL;
    }
    *out = (uint32_t)id;
    return 0;
}

/* Only what the published tokenizer does is implemented; a file that asks for more is not it. */
static int open_as(struct tokenizer *t, const struct gguf *gguf, enum vocab_kind kind, char *err,
                   size_t err_size)
{
    bool add_space = false;
    int status;

    if (gguf_bool(gguf, "tokenizer.ggml.add_space_prefix", &add_space) == -EINVAL || add_space) {
        snprintf(err, err_size,
                 "tokenizer.ggml.add_space_prefix is not false; use a GGUF of EmbeddingGemma");
        return -EINVAL;
    }
    status = vocab_open(&t->vocab, gguf, kind, err, err_size);
    if (!status)
        status = read_end(gguf, "tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id",
                          t->vocab.n, &t->bos, err, err_size);
    if (!status)
        status = read_end(gguf, "tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id",
                          t->vocab.n, &t->eos, err, err_size);
    return status;
}

static int spm_open(struct tokenizer *t, const struct gguf *gguf, char *err, size_t err_size)
{
    return open_as(t, gguf, VOCAB_SPM, err, err_size);
}

static int gemma4_open(struct tokenizer *t, const struct gguf *gguf, char *err, size_t err_size)
{
    return open_as(t, gguf, VOCAB_MERGES, err, err_size);
}

/* Bytes of a visible space in the raw text, or 0. */
static size_t visible_space(const uint8_t *at, const uint8_t *end)
{
    return end - at >= 3 && at[0] == 0xE2 && at[1] == 0x96 && at[2] == 0x81 ? 3 : 0;
}

/*
 * Added token in the raw text. Runs of visible spaces are added tokens too, but the vocabulary may
 * hold them as runs of real spaces, so they are counted here.
 */
static uint32_t match_added(const struct vocab *vocab, const uint8_t *at, const uint8_t *end,
                            size_t *len)
{
    uint32_t n = 0;

    if (vocab->longest_run > 1)
        while (n < vocab->longest_run && visible_space(at + 3 * n, end))
            n++;
    /* One by itself is an ordinary character, unless an added token begins with it. */
    if (n < 2)
        return vocab_find_added(vocab, at, end, len);
    *len = 3 * n;
    return vocab->runs[n];
}

/* A run of spaces of both kinds up to the next added token; 1 is not a token of its own. */
static uint32_t match_run(const struct vocab *vocab, const uint8_t *at, const uint8_t *end,
                          size_t *len)
{
    const uint8_t *start = at;
    uint32_t n = 0;

    while (at < end && n < vocab->longest_run) {
        size_t step = *at == ' ' ? 1 : visible_space(at, end), ignored;
        /* An added token inside the run goes first, as it is looked for in the raw text. */
        if (step == 0 || (n > 0 && match_added(vocab, at, end, &ignored) != NO_TOKEN))
            break;
        at += step;
        n++;
    }
    *len = (size_t)(at - start);
    return n < 2 ? NO_TOKEN : vocab->runs[n];
}

struct encoding {
    const struct vocab *vocab;
    struct piece *piece;
    struct id_row *row;
    uint32_t last; /* last character of the piece */
};

/* A character no token stands for becomes its bytes, and nothing merges with those. */
static int add_char(struct encoding *e, uint32_t code)
{
    uint8_t bytes[4];
    size_t len = utf8_encode(code, bytes);
    uint32_t id = len == 1 ? e->vocab->ascii[code] : vocab_find(e->vocab, bytes, len);

    /* Here the piece ends, and merging it alone is exact. */
    if (!piece_is_empty(e->piece) && (id == NO_TOKEN || !vocab_may_join(e->vocab, e->last, code)))
        piece_merge(e->piece, e->vocab, e->row);
    e->last = code;
    if (id != NO_TOKEN)
        return piece_add(e->piece, bytes, len, id);
    for (size_t i = 0; i < len; i++)
        id_row_add(e->row, e->vocab->bytes[bytes[i]]);
    return 0;
}

static int encode_text(struct encoding *e, struct text text, enum bad_utf8 bad_utf8)
{
    const uint8_t *at = (const uint8_t *)text.ptr, *end = at + text.len;

    while (at < end) {
        size_t len = 0;
        uint32_t id = match_added(e->vocab, at, end, &len);
        struct utf8_char c;
        int status;

        /* 0xE2: perhaps the first byte of U+2581. */
        if (id == NO_TOKEN && e->vocab->longest_run > 1 && (*at == ' ' || *at == 0xE2))
            id = match_run(e->vocab, at, end, &len);
        if (id != NO_TOKEN) {
            piece_merge(e->piece, e->vocab, e->row);
            id_row_add(e->row, id);
            at += len;
            continue;
        }
        c = utf8_decode(at, end);
        if (c.bad && bad_utf8 == BAD_UTF8_ERROR)
            return -EILSEQ;
        status = add_char(e, c.code == ' ' ? SPACE_CODE : c.code);
        if (status)
            return status;
        at += c.len;
    }
    piece_merge(e->piece, e->vocab, e->row);
    return 0;
}

static int spm_encode(const struct tokenizer *t, struct scratch_parts *scratch, struct text text,
                      enum bad_utf8 bad_utf8, struct id_row *row)
{
    struct piece *piece = scratch->piece;
    struct encoding e = {.vocab = &t->vocab, .piece = piece, .row = row};
    int status = encode_text(&e, text, bad_utf8);

    piece_reset(piece);
    return status;
}

const struct tokenizer_kind tokenizer_spm = {"llama", SCRATCH_PIECE, spm_open, spm_encode};
const struct tokenizer_kind tokenizer_gemma4 = {"gemma4", SCRATCH_PIECE, gemma4_open, spm_encode};
