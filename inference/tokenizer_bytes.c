/*
 * tokenizer_bytes.c: byte-level BPE, the way of the tokenizers of ModernBERT, Qwen and RoBERTa.
 *
 * Owns:    the way through a text: added tokens, canonical composition of what is between them,
 *          words, and the bytes of each word merged by the list of merges.
 * Refuses: a pattern of words (tokenizer.ggml.pre) that it does not know.
 * Threads: pure but for the scratch, which belongs to one thread.
 * Why:     the judge is what sentence-transformers runs. Its mask token takes the white space
 *          before it along; and for Qwen3-Embedding the end of a text is <|endoftext|>, whatever
 *          the file says that the language model's end is.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inference/tokenizer_nfc.h"
#include "inference/tokenizer_internal.h"
#include "inference/tokenizer_words.h"

enum { FIRST_CHARS = 512, KEEP_CHARS = 65536 };

#define END_OF_TEXT "<|endoftext|>"

struct byte_text {
    uint32_t *codes; /* [room] between two added tokens, composed */
    uint8_t *kinds;
    size_t n, room;
    struct nfc nfc;
    struct merging *merging;
    int status; /* 0, or the first failure */
};

static int make_room(struct byte_text *b, size_t room)
{
    /* To be smaller: what counts is the smallest buffer, should a realloc fail between two. */
    b->room = room < b->room ? room : b->room;
    void *codes = realloc(b->codes, room * sizeof *b->codes);
    b->codes = codes ? codes : b->codes;
    void *kinds = realloc(b->kinds, room);
    b->kinds = kinds ? kinds : b->kinds;
    if (!codes || !kinds)
        return -ENOMEM;
    b->room = room;
    return 0;
}

static void code_put(void *ctx, uint32_t code)
{
    struct byte_text *b = ctx;
    if (b->n == b->room && !b->status)
        b->status = make_room(b, 2 * b->room);
    if (b->status)
        return;
    b->codes[b->n] = code;
    b->kinds[b->n++] = (uint8_t)nfc_kind(code);
}

int byte_text_open(struct byte_text **out)
{
    struct byte_text *b = calloc(1, sizeof *b);
    if (!b)
        return -ENOMEM;
    b->nfc.put = code_put;
    b->nfc.ctx = b;
    int rc = make_room(b, FIRST_CHARS);
    if (!rc)
        rc = merging_open(&b->merging);
    if (rc) {
        byte_text_close(b);
        return rc;
    }
    *out = b;
    return 0;
}

void byte_text_close(struct byte_text *b)
{
    if (!b)
        return;
    merging_close(b->merging);
    nfc_close(&b->nfc);
    free(b->codes);
    free(b->kinds);
    free(b);
}

/* Words of what was collected to the row. */
static void text_end(const struct tokenizer *t, struct byte_text *b, struct id_row *row)
{
    nfc_end(&b->nfc);
    if (!b->status)
        b->status = b->nfc.status;
    for (size_t at = 0; at < b->n && !b->status;) {
        size_t end = t->words_end(b->codes, b->kinds, at, b->n);
        for (; at < end && !b->status; at++) {
            uint8_t bytes[4];
            size_t len = utf8_encode(b->codes[at], bytes);
            for (size_t i = 0; i < len && !b->status; i++)
                b->status = merging_add(b->merging, t->merges.bytes[bytes[i]]);
        }
        if (!b->status)
            /* No token crosses the end of a word. */
            b->status = merging_run(b->merging, &t->merges, row);
    }
    b->n = 0;
}

/* Behind white space, where the mask token begins there; else `at`. */
static const uint8_t *mask_find(const struct tokenizer *t, const uint8_t *at, const uint8_t *end,
                                const uint8_t **looked)
{
    const uint8_t *from = at;
    size_t len;
    /* Before `looked` is white space that no mask follows: to look again would cost its square. */
    if (t->mask == NO_TOKEN || at < *looked)
        return at;
    while (at < end) {
        struct utf8_char c = utf8_decode(at, end);
        if (c.bad || nfc_kind(c.code) != NFC_SPACE)
            break;
        at += c.len;
    }
    *looked = at;
    return at > from && at < end && vocab_find_added(&t->vocab, at, end, &len) == t->mask ? at
                                                                                          : from;
}

static int encode_text(const struct tokenizer *t, struct byte_text *b, struct text text,
                       enum bad_utf8 bad_utf8, struct id_row *row)
{
    const uint8_t *at = (const uint8_t *)text.ptr, *end = at + text.len, *looked = at;
    while (at < end && !b->status) {
        size_t len = 0;
        /* Past the white space that a mask token takes along, which then is of no word. */
        at = mask_find(t, at, end, &looked);
        uint32_t id = vocab_find_added(&t->vocab, at, end, &len);
        if (id != NO_TOKEN) {
            text_end(t, b, row);
            id_row_add(row, id);
            at += len;
            continue;
        }
        struct utf8_char c = utf8_decode(at, end);
        if (c.bad && bad_utf8 == BAD_UTF8_ERROR)
            return -EILSEQ;
        if (t->composes)
            nfc_add(&b->nfc, c.code);
        else
            code_put(b, c.code);
        at += c.len;
    }
    text_end(t, b, row);
    return b->status;
}

static int bytes_encode(const struct tokenizer *t, struct scratch_parts *scratch, struct text text,
                        enum bad_utf8 bad_utf8, struct id_row *row)
{
    struct byte_text *b = scratch->bytes;
    b->n = b->nfc.n = 0;
    b->status = b->nfc.status = 0;
    int status = encode_text(t, b, text, bad_utf8, row);
    if (b->room > KEEP_CHARS)
        (void)make_room(b, KEEP_CHARS); /* smaller: a failure changes nothing */
    if (b->nfc.room > KEEP_CHARS)
        nfc_close(&b->nfc);
    return status;
}

static int find_words(struct tokenizer *t, const struct gguf *gguf, char *err, size_t err_size)
{
    static const struct {
        const char *pre;
        words_end *end;
        bool composes;
    } known[] = {{"modern-bert", words_end_gpt2, true},
                 {"gpt-2", words_end_gpt2, true},
                 {"qwen2", words_end_qwen2, true},
                 {"roberta-bpe", words_end_gpt2, false}};
    struct gguf_str pre = {"", 0};
    char shown[36];
    (void)gguf_string(gguf, "tokenizer.ggml.pre", &pre);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].pre) == pre.len && memcmp(known[i].pre, pre.ptr, pre.len) == 0)
            return t->words_end = known[i].end, t->composes = known[i].composes, 0;
    snprintf(err, err_size,
             "tokenizer.ggml.pre is '%s', which is not one of \"modern-bert\", \"gpt-2\", "
             "\"qwen2\" and \"roberta-bpe\"; use a GGUF of a model that docs/models.md lists",
             gguf_str_show(pre, shown, sizeof shown));
    return -EINVAL;
}

/* A token that stands at an end of each text; false: the file wants none. */
static int end_read(const struct tokenizer *t, const struct gguf *gguf, const char *add_key,
                    const char *id_key, uint32_t *out, char *err, size_t err_size)
{
    bool add = false;
    uint64_t id;
    *out = NO_TOKEN;
    if (gguf_bool(gguf, add_key, &add) == -EINVAL)
        return vocab_refuse(err, err_size, "%s is not a bool", add_key);
    if (!add)
        return 0;
    if (gguf_uint(gguf, id_key, &id) || id >= t->vocab.n)
        return vocab_refuse(err, err_size, "%s is missing or not one of the tokens", id_key);
    *out = (uint32_t)id;
    return 0;
}

static int read_ends(struct tokenizer *t, const struct gguf *gguf, char *err, size_t err_size)
{
    uint64_t mask;
    size_t len = 0;
    t->mask = t->bos = NO_TOKEN;
    if (t->words_end == words_end_qwen2) {
        const uint8_t *text = (const uint8_t *)END_OF_TEXT;
        /* A shorter token may be all that is found: len tells. */
        t->eos = vocab_find_added(&t->vocab, text, text + strlen(END_OF_TEXT), &len);
        return t->eos != NO_TOKEN && len == strlen(END_OF_TEXT)
                   ? 0
                   : vocab_refuse(err, err_size, "vocabulary: missing token " END_OF_TEXT);
    }
    /* Qwen's tokenizer has no mask; of the others not all files name it. */
    if (gguf_uint(gguf, "tokenizer.ggml.mask_token_id", &mask) == 0 && mask < t->vocab.n)
        t->mask = (uint32_t)mask;
    int status = end_read(t, gguf, "tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id",
                          &t->bos, err, err_size);
    if (!status)
        status = end_read(t, gguf, "tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id",
                          &t->eos, err, err_size);
    if (!status && (t->bos == NO_TOKEN || t->eos == NO_TOKEN))
        status = vocab_refuse(err, err_size,
                              "tokenizer.ggml.add_bos_token and add_eos_token are not true");
    return status;
}

static int bytes_open(struct tokenizer *t, const struct gguf *gguf, char *err, size_t err_size)
{
    int status = find_words(t, gguf, err, err_size);
    if (!status)
        status = vocab_open(&t->vocab, gguf, VOCAB_BYTES, err, err_size);
    if (!status)
        status = merges_open(&t->merges, &t->vocab, gguf, err, err_size);
    if (status == -ENOMEM)
        snprintf(err, err_size, "no memory for the tokenizer");
    return status ? status : read_ends(t, gguf, err, err_size);
}

const struct tokenizer_kind tokenizer_bytes = {"gpt2", SCRATCH_BYTES, bytes_open, bytes_encode};
