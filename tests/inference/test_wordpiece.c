/*
 * test_wordpiece.c: BERT's tokenizers, on a small vocabulary: words, what is folded, and what a
 * file says of case and accents. scripts/check-models compares large vocabularies with the Hugging
 * Face tokenizer.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "inference/gguf.h"
#include "inference/tokenizer.h"
#include "tests/support/tiny_bert.h"

#define MARK "\xe2\x96\x81"

static char err[600];

static const struct tiny_bert_options plain = {.type = GGUF_TENSOR_F32, .pooling = 1, .seed = 1};

/* Another token of as many bytes in the place of the first that begins with this one. */
static void token_replace(struct tiny_bert *bert, const char *token, const char *other)
{
    uint8_t *at = memmem(bert->file.bytes, bert->file.len, token, strlen(token));
    assert_non_null(at);
    assert_int_equal(strlen(token), strlen(other));
    memcpy(at, other, strlen(other));
}

/* The tokenizer of a file, and the file it borrows. */
struct opened {
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    struct tokenizer_scratch *scratch;
};

static int open_file(struct opened *out, const struct tiny_bert *bert)
{
    *out = (struct opened){NULL, NULL, NULL};
    assert_int_equal(
        gguf_open_memory(&out->gguf, bert->file.bytes, bert->file.len, "test", err, sizeof err), 0);
    return tokenizer_open(&out->tokenizer, out->gguf, err, sizeof err);
}

static void opened_close(struct opened *opened)
{
    tokenizer_scratch_close(opened->scratch);
    tokenizer_close(opened->tokenizer);
    gguf_close(opened->gguf);
}

static void open_ok(struct opened *out, const struct tiny_bert *bert)
{
    if (open_file(out, bert))
        fail_msg("%s", err);
    assert_int_equal(tokenizer_scratch_open(&out->scratch, out->tokenizer), 0);
}

static void refused(const struct tiny_bert *bert, const char *complaint)
{
    struct opened opened;
    int rc = open_file(&opened, bert);
    if (rc != -EINVAL || !strstr(err, complaint))
        fail_msg("expected '%s', got %d '%s'", complaint, rc, err);
    opened_close(&opened);
}

/* A vocabulary it could tokenize only nearly right. */
static void test_vocabulary_is_checked(void **state)
{
    (void)state;
    static const struct {
        const char *token, *other, *complaint;
    } cases[] = {
        {"[CLS]", "[CLT]", "missing control token [CLS]"},
        {"[SEP]", "[SEQ]", "missing control token [SEP]"},
        {"[UNK]", "[UNL]", "missing control token [UNK]"},
        {"\xe2\x96\x81"
         "a",
         "\xe2\x96\x81"
         "A",
         "tells upper from lower case, but the file does not say so"},
        {"\xe2\x96\x81"
         "\xce\xb1",
         "\xe2\x96\x81"
         "\xc3\xbc",
         "keeps accents, but the file does not say so"},
        {"\xe2\x96\x81"
         "b",
         "\xe2\x96\x81"
         "c",
         "appears twice"},
        {"\xe2\x96\x81"
         "b",
         "\xe2\x96\xff"
         "b",
         "is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tiny_bert bert;
        tiny_bert_make(&bert, &plain);
        token_replace(&bert, cases[i].token, cases[i].other);
        refused(&bert, cases[i].complaint);
        tiny_bert_free(&bert);
    }
}

/* Tokens of a text as one line, without the ends; '_' for the mark of a word's beginning. */
static void tokens_write(const struct opened *opened, const char *text, size_t len, char *out,
                         size_t size)
{
    int32_t ids[300];
    size_t n_ids, n_total, at = 0;
    assert_int_equal(tokenizer_encode(opened->tokenizer, opened->scratch, (struct text){text, len},
                                      BAD_UTF8_REPLACE, ids, 300, &n_ids, &n_total),
                     0);
    assert_string_equal(tiny_bert_token((uint32_t)ids[0]), "[CLS]");
    assert_string_equal(tiny_bert_token((uint32_t)ids[n_ids - 1]), "[SEP]");
    out[0] = '\0';
    for (size_t i = 1; i + 1 < n_ids; i++) {
        const char *token = tiny_bert_token((uint32_t)ids[i]);
        bool begins = strncmp(token, MARK, 3) == 0;
        at += (size_t)snprintf(out + at, size - at, "%s%s%s", i > 1 ? " " : "", begins ? "_" : "",
                               begins ? token + 3 : token);
    }
}

static void test_tokens(void **state)
{
    (void)state;
    static const struct {
        const char *text, *tokens;
    } cases[] = {
        {"", ""},
        {"abc", "_abc"},
        {"ABC aBc", "_abc _abc"},
        {"abcab", "_abc a b"},
        {"bca", "_b ca"}, /* the longest first, from the left */
        {"cabcab", "_c a bc a b"},
        {"cabx", "[UNK]"}, /* as a whole */
        {"x cab", "[UNK] _c a b"},
        {"a.b,-", "_a _. _b _, _-"},
        {"the[MASK]the [SEP][mask]", "_the [MASK] _the [SEP] _[ [UNK] _]"},
        {"Caf\xc3\xa9 cafe\xcc\x81", "_cafe _cafe"},
        {"\xe4\xb8\x96"
         "a\xe4\xb8\x96",
         "_\xe4\xb8\x96 _a _\xe4\xb8\x96"},
        {"\xea\xb0\x80", "_\xe1\x84\x80 \xe1\x85\xa1"}, /* Hangul: U+AC00 */
        {"\xe3\x81\x8c", "_\xe3\x81\x8b"},              /* a kana without its voice mark */
        {"\xcd\xbe", "_;"},                             /* the Greek question mark */
        {"\xc4\xb0", "_i"},
        {"\xce\x91"
         "a\xce\xb1",
         "_\xce\xb1 a \xce\xb1"},
        {"\xc3\x9f", "_\xc3\x9f"}, /* lower case already */
        {"a\xe2\x80\x8b"
         "b\x01",
         "_ab"}, /* format and control characters are dropped */
        {"a\tb\n\nc\xe3\x80\x80"
         "a\xc2\xa0",
         "_a _b _c _a"},
        {"\xe2\x99\xa5\xe2\x99\xa5", "[UNK]"}, /* a symbol is not punctuation */
        {"a\xe2\x96\x81the", "[UNK]"},         /* the mark in a text marks nothing */
        {"\xe2\x96\x81the", "[UNK]"},
        {"a\xff"
         "b",
         "_ab"}, /* what is not UTF-8 is U+FFFD, and dropped */
    };
    struct tiny_bert bert;
    struct opened opened;
    char got[2000], longest[102];
    tiny_bert_make(&bert, &plain);
    open_ok(&opened, &bert);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tokens_write(&opened, cases[i].text, strlen(cases[i].text), got, sizeof got);
        if (strcmp(got, cases[i].tokens) != 0)
            fail_msg("'%s' became '%s', not '%s'", cases[i].text, got, cases[i].tokens);
    }
    tokens_write(&opened, "a\0b", 3, got, sizeof got);
    assert_string_equal(got, "_ab");
    memset(longest, 'c', sizeof longest);
    tokens_write(&opened, longest, 100, got, sizeof got);
    assert_int_equal(strlen(got), 2 + 99 * 2);
    tokens_write(&opened, longest, 101, got, sizeof got);
    assert_string_equal(got, "[UNK]");
    opened_close(&opened);
    tiny_bert_free(&bert);
}

/*
 * What a file says of case and accents, on a vocabulary with A in the place of a, and U+00FC in the
 * place of alpha: written as _a and _\xce\xb1 here, for they have the same ids.
 */
static void test_case_and_accents(void **state)
{
    (void)state;
    const enum tiny_bert_key UNSAID = TINY_BERT_UNSAID, NO = TINY_BERT_NO, YES = TINY_BERT_YES;
    static const char text[] = "A a \xc3\xbc \xc3\x9c u\xcc\x88 caf\xc3\xa9 CAFE \xea\xb0\x80";
    const struct {
        enum tiny_bert_key lowercase, strip_accents;
        const char *tokens;
    } cases[] = {
        {NO, UNSAID, "_a [UNK] _\xce\xb1 [UNK] [UNK] [UNK] [UNK] [UNK]"},
        {NO, NO, "_a [UNK] _\xce\xb1 [UNK] [UNK] [UNK] [UNK] [UNK]"},
        {NO, YES, "_a [UNK] [UNK] [UNK] [UNK] _cafe [UNK] _\xe1\x84\x80 \xe1\x85\xa1"},
        {YES, UNSAID, "[UNK] [UNK] [UNK] [UNK] [UNK] _cafe _cafe _\xe1\x84\x80 \xe1\x85\xa1"},
        {YES, NO, "[UNK] [UNK] _\xce\xb1 _\xce\xb1 [UNK] [UNK] _cafe [UNK]"},
        {YES, YES, "[UNK] [UNK] [UNK] [UNK] [UNK] _cafe _cafe _\xe1\x84\x80 \xe1\x85\xa1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tiny_bert_options options = plain;
        struct tiny_bert bert;
        struct opened opened;
        char got[300];
        options.lowercase = cases[i].lowercase;
        options.strip_accents = cases[i].strip_accents;
        tiny_bert_make(&bert, &options);
        token_replace(&bert, MARK "a", MARK "A");
        token_replace(&bert, MARK "\xce\xb1", MARK "\xc3\xbc");
        open_ok(&opened, &bert);
        tokens_write(&opened, text, strlen(text), got, sizeof got);
        if (strcmp(got, cases[i].tokens) != 0)
            fail_msg("case %zu: '%s', not '%s'", i, got, cases[i].tokens);
        opened_close(&opened);
        tiny_bert_free(&bert);
    }
}

/* strip_accents alone says nothing of case, and a number is not a bool. */
static void test_bad_keys(void **state)
{
    (void)state;
    struct tiny_bert_options options = plain;
    struct tiny_bert bert;
    struct opened opened;
    options.strip_accents = TINY_BERT_NO;
    tiny_bert_make(&bert, &options);
    open_ok(&opened, &bert);
    opened_close(&opened);
    token_replace(&bert, MARK "a", MARK "A");
    refused(&bert, "tells upper from lower case, but the file does not say so");
    tiny_bert_free(&bert);
    options.strip_accents = TINY_BERT_NUMBER;
    tiny_bert_make(&bert, &options);
    refused(&bert, "tokenizer.ggml.normalizer.strip_accents is not a bool");
    tiny_bert_free(&bert);
    options = plain;
    options.lowercase = TINY_BERT_NUMBER;
    tiny_bert_make(&bert, &options);
    refused(&bert, "tokenizer.ggml.normalizer.lowercase is not a bool");
    tiny_bert_free(&bert);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vocabulary_is_checked),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_case_and_accents),
        cmocka_unit_test(test_bad_keys),
    };
    return cmocka_run_group_tests_name("wordpiece", tests, NULL, NULL);
}
