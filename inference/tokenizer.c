/*
 * tokenizer.c: one text to one row of ids.
 *
 * Owns:    the table of the kinds of tokenizers, and the ends of a row.
 * Threads: the tokenizer is immutable after open; a scratch belongs to one thread.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inference/tokenizer.h"
#include "inference/tokenizer_internal.h"

static const struct tokenizer_kind *const kinds[] = {
    &tokenizer_spm, &tokenizer_gemma4, &tokenizer_wordpiece, &tokenizer_unigram, &tokenizer_bytes};

struct tokenizer_scratch {
    struct scratch_parts parts;
};

static int find_kind(const struct gguf *gguf, const struct tokenizer_kind **out, char *err,
                     size_t err_size)
{
    struct gguf_str model = {"", 0};
    char shown[36];

    if (gguf_string(gguf, "tokenizer.ggml.model", &model) == 0)
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
            if (strlen(kinds[i]->model) == model.len &&
                memcmp(kinds[i]->model, model.ptr, model.len) == 0)
                return *out = kinds[i], 0;
    snprintf(err, err_size,
             "tokenizer.ggml.model is '%s', which is not one of \"llama\" and \"gemma4\" "
             "(SentencePiece BPE), \"bert\" (WordPiece), \"t5\" (SentencePiece unigram) and "
             "\"gpt2\" (byte-level BPE); use a GGUF of a model that docs/models.md lists",
             gguf_str_show(model, shown, sizeof shown));
    return -EINVAL;
}

int tokenizer_open(struct tokenizer **out, const struct gguf *gguf, char *err, size_t err_size)
{
    const struct tokenizer_kind *kind = NULL;
    struct tokenizer *tokenizer = NULL;
    int status = find_kind(gguf, &kind, err, err_size);

    if (status)
        return status;
    tokenizer = calloc(1, sizeof(*tokenizer));
    if (!tokenizer) {
        snprintf(err, err_size, "no memory for the tokenizer");
        return -ENOMEM;
    }
    tokenizer->kind = kind;
    status = kind->open(tokenizer, gguf, err, err_size);
    /* Half open is no harm: what a kind did not come to is zero, and closes as such. */
    if (status) {
        tokenizer_close(tokenizer);
        return status;
    }
    *out = tokenizer;
    return 0;
}

void tokenizer_close(struct tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    vocab_close(&tokenizer->vocab);
    merges_close(&tokenizer->merges);
    free(tokenizer);
}

size_t tokenizer_n_vocab(const struct tokenizer *tokenizer)
{
    return tokenizer->vocab.n;
}

bool tokenizer_is_unigram(const struct tokenizer *tokenizer)
{
    return tokenizer->kind == &tokenizer_unigram;
}

bool tokenizer_is_wordpiece(const struct tokenizer *tokenizer)
{
    return tokenizer->kind == &tokenizer_wordpiece;
}

int32_t tokenizer_eos(const struct tokenizer *tokenizer)
{
    return (int32_t)tokenizer->eos;
}

size_t tokenizer_n_ends(const struct tokenizer *tokenizer)
{
    return (size_t)(tokenizer->bos != NO_TOKEN) + (size_t)(tokenizer->eos != NO_TOKEN);
}

int tokenizer_scratch_open(struct tokenizer_scratch **out, const struct tokenizer *tokenizer)
{
    struct tokenizer_scratch *scratch = calloc(1, sizeof(*scratch));
    int status = 0;

    if (!scratch)
        return -ENOMEM;
    if (tokenizer->kind->scratch == SCRATCH_PIECE)
        status = piece_open(&scratch->parts.piece);
    if (tokenizer->kind->scratch == SCRATCH_UNIGRAM)
        status = unigram_open(&scratch->parts.unigram);
    if (tokenizer->kind->scratch == SCRATCH_BYTES)
        status = byte_text_open(&scratch->parts.bytes);
    if (status) {
        free(scratch);
        return status;
    }
    *out = scratch;
    return 0;
}

void tokenizer_scratch_close(struct tokenizer_scratch *scratch)
{
    if (!scratch)
        return;
    piece_close(scratch->parts.piece);
    unigram_close(scratch->parts.unigram);
    byte_text_close(scratch->parts.bytes);
    free(scratch);
}

int tokenizer_encode(const struct tokenizer *tokenizer, struct tokenizer_scratch *scratch,
                     struct text text, enum bad_utf8 bad_utf8, int32_t *ids, size_t max_ids,
                     size_t *n_ids, size_t *n_total)
{
    struct id_row row = {.ids = ids, .max = max_ids};
    int status = 0;

    if (tokenizer->bos != NO_TOKEN)
        id_row_add(&row, tokenizer->bos);
    /* ptr may be NULL where there is nothing: no kind has to look. */
    if (text.len)
        status = tokenizer->kind->encode(tokenizer, &scratch->parts, text, bad_utf8, &row);
    if (status)
        return status;
    if (tokenizer->eos != NO_TOKEN)
        id_row_add(&row, tokenizer->eos);
    if (row.n > max_ids && max_ids > 0 && tokenizer->eos != NO_TOKEN)
        /* A text that is cut keeps its end, as truncation in the published tokenizers does. */
        ids[max_ids - 1] = (int32_t)tokenizer->eos;
    *n_ids = row.n < max_ids ? row.n : max_ids;
    *n_total = row.n;
    return 0;
}
