/*
 * fuzz_tokenizer.c: any bytes as a text. Run by scripts/fuzz.
 *
 * The first byte chooses where the text is cut, the rest is the text. Both kinds of tokenizer take
 * each: SentencePiece with the toy of tokenizer_toy.h, whose few tokens make every kind of merge
 * likely, and WordPiece with the vocabulary of tiny_bert.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/tiny_bert.h"
#include "tests/support/tokenizer_toy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct subject {
    struct tokenizer *tokenizer;
    struct tokenizer_scratch *scratch;
    int32_t first, last; /* of every text */
    int32_t n_vocab;
};

static void expect(int is_so)
{
    if (!is_so)
        abort();
}

static void open_toy(struct subject *subject)
{
    static struct toy toy;
    toy_open(&toy, 1, true);
    *subject = (struct subject){toy.tokenizer, toy.scratch, TOY_BOS, TOY_EOS, N_TOKENS};
}

static void open_wordpiece(struct subject *subject)
{
    static struct tiny_bert bert;
    const struct tiny_bert_options options = {.type = GGUF_TENSOR_Q8_0, .pooling = 1, .seed = 1};
    static struct gguf *gguf; /* the tokenizer reads in it */
    char err[512] = "";
    void *bytes = NULL;
    tiny_bert_make(&bert, &options);
    expect(posix_memalign(&bytes, 64, bert.file.len) == 0);
    memcpy(bytes, bert.file.bytes, bert.file.len);
    expect(gguf_open_memory(&gguf, bytes, bert.file.len, "bert", err, sizeof err) == 0);
    expect(tokenizer_open(&subject->tokenizer, gguf, err, sizeof err) == 0);
    expect(tokenizer_scratch_open(&subject->scratch, subject->tokenizer) == 0);
    subject->n_vocab = (int32_t)tokenizer_n_vocab(subject->tokenizer);
    subject->first = 2; /* [CLS] and [SEP] of that vocabulary */
    subject->last = 3;
}

static void check_ids(const struct subject *subject, const int32_t *ids, size_t n)
{
    expect(n >= 2 && ids[0] == subject->first && ids[n - 1] == subject->last);
    for (size_t i = 0; i < n; i++)
        expect(ids[i] >= 0 && ids[i] < subject->n_vocab);
}

/* The first ids of the same text, the last one kept. */
static void check_cut(const struct subject *subject, struct text text, const int32_t *ids, size_t n,
                      size_t max)
{
    int32_t cut[256];
    size_t n_cut, n_total;
    expect(tokenizer_encode(subject->tokenizer, subject->scratch, text, BAD_UTF8_REPLACE, cut, max,
                            &n_cut, &n_total) == 0);
    expect(n_total == n && n_cut == (n < max ? n : max));
    if (n_cut == 0)
        return;
    expect(memcmp(cut, ids, (n_cut - 1) * sizeof *cut) == 0);
    expect(cut[n_cut - 1] == subject->last);
}

static void check_text(const struct subject *subject, struct text text, size_t max)
{
    size_t n, again, n_total;
    int32_t *ids = encode_all(subject->tokenizer, subject->scratch, text.ptr, text.len, &n);
    check_ids(subject, ids, n);
    check_cut(subject, text, ids, n, max);

    int32_t *strict = malloc(n * sizeof *strict);
    expect(strict != NULL);
    int rc = tokenizer_encode(subject->tokenizer, subject->scratch, text, BAD_UTF8_ERROR, strict, n,
                              &again, &n_total);
    expect(rc == 0 || rc == -EILSEQ);
    if (rc == 0) /* sound UTF-8 is the same under both policies */
        expect(again == n && n_total == n && memcmp(strict, ids, n * sizeof *ids) == 0);
    free(strict);
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct subject toy, wordpiece;
    if (!toy.tokenizer) {
        open_toy(&toy);
        open_wordpiece(&wordpiece);
    }
    if (size == 0)
        return 0;
    struct text text = {(const char *)data + 1, size - 1};
    check_text(&toy, text, data[0]);
    check_text(&wordpiece, text, data[0]);
    return 0;
}
