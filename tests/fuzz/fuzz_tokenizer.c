/*
 * fuzz_tokenizer.c: any bytes as a text. Run by scripts/fuzz.
 *
 * The first byte chooses where the text is cut, the rest is the text. The vocabulary is the toy of
 * tokenizer_toy.h, whose few tokens make every kind of merge likely.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tokenizer_toy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(int is_so)
{
    if (!is_so)
        abort();
}

static void check_ids(const int32_t *ids, size_t n)
{
    expect(n >= 2 && ids[0] == TOY_BOS && ids[n - 1] == TOY_EOS);
    for (size_t i = 0; i < n; i++)
        expect(ids[i] >= 0 && ids[i] < N_TOKENS);
}

/* The first ids of the same text, eos kept. */
static void check_cut(const struct toy *toy, struct text text, const int32_t *ids, size_t n,
                      size_t max)
{
    int32_t cut[256];
    size_t n_cut, n_total;
    expect(tokenizer_encode(toy->tokenizer, toy->scratch, text, BAD_UTF8_REPLACE, cut, max, &n_cut,
                            &n_total) == 0);
    expect(n_total == n && n_cut == (n < max ? n : max));
    if (n_cut == 0)
        return;
    expect(memcmp(cut, ids, (n_cut - 1) * sizeof *cut) == 0);
    expect(cut[n_cut - 1] == TOY_EOS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct toy toy;
    if (!toy.tokenizer)
        toy_open(&toy, 1, true);
    if (size == 0)
        return 0;
    struct text text = {(const char *)data + 1, size - 1};
    size_t n, again, n_total;
    int32_t *ids = encode_all(toy.tokenizer, toy.scratch, text.ptr, text.len, &n);
    check_ids(ids, n);
    check_cut(&toy, text, ids, n, data[0]);

    int32_t *strict = malloc(n * sizeof *strict);
    expect(strict != NULL);
    int rc = tokenizer_encode(toy.tokenizer, toy.scratch, text, BAD_UTF8_ERROR, strict, n, &again,
                              &n_total);
    expect(rc == 0 || rc == -EILSEQ);
    if (rc == 0) /* sound UTF-8 is the same under both policies */
        expect(again == n && n_total == n && memcmp(strict, ids, n * sizeof *ids) == 0);
    free(strict);
    free(ids);
    return 0;
}
