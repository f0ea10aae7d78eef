/*
 * test_tokenizer_limits.c: what the tokenizer does at its edges.
 *
 * Owns:    bad UTF-8, cuts, dirty scratch, texts made to be slow, vocabularies made to do harm.
 * Refuses: clocks on the wall: other programs run on the machine, so CPU time of the thread counts.
 * Threads: one.
 * Why:     a text comes from a stranger and so may a model file; neither may cost more than itself.
 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "inference/tokenizer_internal.h"
#include "tests/support/tokenizer_toy.h"

#define MEGABYTE      1000000
#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

static int toy_setup(void **state)
{
    static struct toy toy;

    toy_open(&toy, 1, true);
    *state = &toy;
    return 0;
}

static int toy_teardown(void **state)
{
    toy_close(*state);
    return 0;
}

#define R "\xef\xbf\xbd"

/* Texts and what the replacement makes of them of them. */
static const struct {
    const char *bad, *good;
} bad_texts[] = {
    {"\x80", R},
    {"\xbf\xbf", R R},
    {"\xc0\x80", R R},              /* overlong NUL */
    {"\xc1\xbf", R R},              /* overlong DEL */
    {"\xc2", R},                    /* cut */
    {"\xc2.", R "."},               /* cut by a letter */
    {"\xc2\xc2\x80", R "\xc2\x80"}, /* cut by the next lead */
    {"\xe0\x9f\xbf", R R R},        /* overlong */
    {"\xe0\xa0", R},                /* cut */
    {"\xe0\xa0.", R "."},           /* cut */
    {"\xe2\x96", R},                /* a visible space, cut */
    {"\xe2\x96 a", R " a"},         /* the same before a space */
    {"\xe2 \xe2\x96\x81", R " " SP},
    {"\xed\xa0\x80", R R R},                   /* surrogate */
    {"\xed\xa0\xbd\xed\xb8\x80", R R R R R R}, /* CESU-8 */
    {"\xed\x9f\xbf", "\xed\x9f\xbf"},          /* last before the surrogates */
    {"\xee\x80\x80", "\xee\x80\x80"},          /* first after them */
    {"\xf0\x8f\xbf\xbf", R R R R},             /* overlong */
    {"\xf0\x90\x80", R},                       /* cut */
    {"\xf0\x90\x80\x41", R "A"},               /* cut */
    {"\xf0\x90\x80\xf0\x9f\x98\x80", R "\xf0\x9f\x98\x80"},
    {"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"}, /* U+10FFFF */
    {"\xf4\x90\x80\x80", R R R R},            /* above */
    {"\xf5\x80\x80\x80", R R R R},
    {"\xf8\x88\x80\x80\x80", R R R R R}, /* five bytes */
    {"\xfe\xff", R R},
    {"<x\xff>", "<x" R ">"}, /* not the token <x> */
    {"<x>\xff<x>", "<x>" R "<x>"},
    {"a\xe2\x82\xf0\x9f\x98 b", "a" R R " b"},
};

static void test_bad_utf8(void **state)
{
    struct toy *toy = *state;

    for (size_t i = 0; i < LENGTH(bad_texts); i++) {
        struct text bad = {bad_texts[i].bad, strlen(bad_texts[i].bad)};
        bool is_bad = strcmp(bad_texts[i].bad, bad_texts[i].good) != 0;
        size_t n, n_good, none = 77, total = 77;
        int32_t *ids = encode_all(toy->tokenizer, toy->scratch, bad.ptr, bad.len, &n);
        int32_t *good = encode_all(toy->tokenizer, toy->scratch, bad_texts[i].good,
                                   strlen(bad_texts[i].good), &n_good);
        if (n != n_good || memcmp(ids, good, n * sizeof(*ids)) != 0)
            fail_msg("bad text %zu: %zu tokens, expected %zu", i, n, n_good);
        assert_int_equal(tokenizer_encode(toy->tokenizer, toy->scratch, bad, BAD_UTF8_ERROR, NULL,
                                          0, &none, &total),
                         is_bad ? -EILSEQ : 0);
        if (is_bad) /* results only on success */
            assert_true(none == 77 && total == 77);
        free(ids);
        free(good);
    }
}

static void test_every_code_point(void **state)
{
    (void)state;
    for (uint32_t code = 0; code <= 0x10FFFF; code++) {
        uint8_t bytes[5] = {0};
        size_t len = utf8_encode(code, bytes);
        struct utf8_char c = utf8_decode(bytes, bytes + len);
        bool surrogate = code >= 0xD800 && code < 0xE000;
        if (c.bad != surrogate || c.len != (surrogate ? 1 : len) ||
            c.code != (surrogate ? REPLACE_CODE : code))
            fail_msg("U+%04X reads back as U+%04X", code, c.code);
        for (size_t cut = 1; cut < len && !surrogate; cut++) {
            c = utf8_decode(bytes, bytes + cut);
            if (!c.bad || c.len != cut)
                fail_msg("U+%04X cut to %zu bytes takes %d", code, cut, c.len);
        }
    }
}

static void test_nul(void **state)
{
    struct toy *toy = *state;
    const int32_t expected[] = {TOY_BOS, TOY_BYTE_0, TOY_BYTE_0, TOY_EOS};
    size_t n;
    int32_t *ids = encode_all(toy->tokenizer, toy->scratch, "\0\0", 2, &n);

    assert_int_equal(n, 4);
    assert_memory_equal(ids, expected, sizeof(expected));
    free(ids);
}

static void test_cut(void **state)
{
    struct toy *toy = *state;
    const char *text = "a b c <x> zz \n\n\n\n    cab";
    size_t n;
    int32_t *all = encode_all(toy->tokenizer, toy->scratch, text, strlen(text), &n);

    assert_true(n > 10);
    for (size_t max = 0; max <= n + 2; max++) {
        size_t n_ids, n_total, expected = max < n ? max : n;
        int32_t *ids = malloc((max + 1) * sizeof(*ids)); /* exact, and one to be left alone */
        ids[max] = -9;
        assert_int_equal(tokenizer_encode(toy->tokenizer, toy->scratch,
                                          (struct text){text, strlen(text)}, BAD_UTF8_ERROR,
                                          max ? ids : NULL, max, &n_ids, &n_total),
                         0);
        assert_int_equal(n_total, n);
        assert_int_equal(n_ids, expected);
        assert_int_equal(ids[max], -9);
        for (size_t i = 0; i < expected; i++)
            assert_int_equal(ids[i], max < n && i == max - 1 ? TOY_EOS : all[i]);
        free(ids);
    }
    free(all);
}

static void test_empty(void **state)
{
    struct toy *toy = *state;
    int32_t ids[4];
    size_t n, n_total;

    assert_int_equal(tokenizer_encode(toy->tokenizer, toy->scratch, (struct text){NULL, 0},
                                      BAD_UTF8_ERROR, ids, 4, &n, &n_total),
                     0);
    assert_true(n == 2 && n_total == 2 && ids[0] == TOY_BOS && ids[1] == TOY_EOS);
    tokenizer_close(NULL);
    tokenizer_scratch_close(NULL);
}

/* Ordinary, giant and refused texts leave nothing behind for the next. */
static void test_scratch_is_clean(void **state)
{
    struct toy *toy = *state;
    const char *text = "abcab <x> cabba";
    size_t n, n_again, ignored, n_bad = 20001;
    char *bad = malloc(n_bad);
    int32_t *ids = encode_all(toy->tokenizer, toy->scratch, text, strlen(text), &n);

    memset(bad, 'a', n_bad);
    bad[n_bad - 1] = '\xff';
    for (size_t len = n_bad; len > 0; len /= 2) {
        int32_t *again;
        assert_int_equal(tokenizer_encode(toy->tokenizer, toy->scratch,
                                          (struct text){bad + n_bad - len, len}, BAD_UTF8_ERROR,
                                          NULL, 0, &ignored, &ignored),
                         -EILSEQ);
        again = encode_all(toy->tokenizer, toy->scratch, text, strlen(text), &n_again);
        assert_int_equal(n, n_again);
        assert_memory_equal(ids, again, n * sizeof(*ids));
        free(again);
    }
    free(ids);
    free(bad);
}

static double encode_ms(const struct tokenizer *tokenizer, struct tokenizer_scratch *scratch,
                        const char *text, size_t len)
{
    struct timespec start, end;
    size_t n, n_total;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
    assert_int_equal(tokenizer_encode(tokenizer, scratch, (struct text){text, len},
                                      BAD_UTF8_REPLACE, NULL, 0, &n, &n_total),
                     0);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    return (double)(end.tv_sec - start.tv_sec) * 1e3 + (double)(end.tv_nsec - start.tv_nsec) / 1e6;
}

static const char *const slow_parts[] = {"a",
                                         "ab",
                                         "aab",
                                         "abcbaabcc",
                                         "<",
                                         "<x",
                                         "<<x",
                                         "<xy<xy>",
                                         "<unused1",
                                         "<start_of_tur",
                                         " ",
                                         "  a",
                                         SP,
                                         " " SP,
                                         SP SP " ",
                                         "\n",
                                         " \n",
                                         "\t",
                                         "\t\t\n",
                                         "\xff",
                                         "\xe2",
                                         "\xe2\x96",
                                         "a\x80",
                                         "\xf0\x9f\x98",
                                         "\xed\xa0\x80",
                                         "\xe5\xa5\xbd",
                                         "\xf0\x9f\x98\x80",
                                         "ha",
                                         "=",
                                         "-",
                                         "z",
                                         "word ",
                                         "</",
                                         ">"};

static void check_times(const struct tokenizer *tokenizer, struct tokenizer_scratch *scratch)
{
    char *text = malloc(MEGABYTE);
    uint32_t seed = 5;

    assert_non_null(text);
    for (size_t part = 0; part < LENGTH(slow_parts) + 2; part++) {
        double small = 1e9, large = 1e9;
        for (size_t i = 0; i < MEGABYTE; i++) /* the last two are noise */
            text[i] = part < LENGTH(slow_parts)
                          ? slow_parts[part][i % strlen(slow_parts[part])]
                          : (char)(random_next(&seed) & (part == LENGTH(slow_parts) ? 0xFF : 0x3F));
        /* The better of some runs: caches are shared with whatever else the machine does. Work that
         * grows with the square of the length takes a hundred times as long in every run. */
        for (int i = 0; i < 5 && (i == 0 || large > 20 * fmax(small, 1.0)); i++) {
            small = fmin(small, encode_ms(tokenizer, scratch, text, MEGABYTE / 10));
            large = fmin(large, encode_ms(tokenizer, scratch, text, MEGABYTE));
        }
        if (large > 2000)
            fail_msg("part %zu: a megabyte takes %.0f ms", part, large);
        /* below a millisecond the clock and cold caches say more than the tokenizer does */
        if (large > 40 * fmax(small, 1.0))
            fail_msg("part %zu: 100 kB take %.2f ms, a megabyte %.2f ms", part, small, large);
    }
    free(text);
}

static void test_time(void **state)
{
    struct toy *toy = *state;

    check_times(toy->tokenizer, toy->scratch);
}

static void test_time_real(void **state)
{
    struct gguf *gguf = NULL;
    struct tokenizer *tokenizer = NULL;
    struct tokenizer_scratch *scratch = NULL;
    char path[512], err[512] = "";

    (void)state;
    if (!real_model_path(path, sizeof(path)))
        skip();
    if (gguf_open(&gguf, path, err, sizeof(err)) ||
        tokenizer_open(&tokenizer, gguf, err, sizeof(err)))
        fail_msg("%s", err);
    assert_int_equal(tokenizer_scratch_open(&scratch, tokenizer), 0);
    check_times(tokenizer, scratch);
    tokenizer_scratch_close(scratch);
    tokenizer_close(tokenizer);
    gguf_close(gguf);
}

/* Opening must fail, and the sentence must hold `expected`. The file is the caller's to free. */
static void expect_refused(const struct gguf_writer *file, const char *expected)
{
    struct gguf *gguf;
    struct tokenizer *tokenizer = NULL;
    char err[256] = "";

    if (gguf_open_memory(&gguf, file->bytes, file->len, "hostile", err, sizeof(err)))
        fail_msg("not even a GGUF: %s", err);
    if (tokenizer_open(&tokenizer, gguf, err, sizeof(err)) != -EINVAL || !strstr(err, expected))
        fail_msg("expected '%s', got '%s'", expected, err);
    assert_null(tokenizer);
    gguf_close(gguf);
}

static void refuse_tokens(const struct token *tokens, size_t n, const char *expected)
{
    struct gguf_writer file = {0};

    toy_file_put(&file, tokens, n, false);
    expect_refused(&file, expected);
    gguf_writer_free(&file);
}

enum { ADDED_0 = TOY_BYTE_0 + 256, LAST = N_TOKENS - 1 };

static void test_hostile_tokens(void **state)
{
    static const struct {
        int id, type; /* 0: as it was */
        const char *text;
        float score;
        const char *expected;
    } cases[] = {
        {TOY_BYTE_0 + 7, 0, "<0x-1>", 0, "byte token 11 is not written"},
        {TOY_BYTE_0 + 7, 0, "<0x7>", 0, "byte token 11 is not written"},
        {TOY_BYTE_0 + 7, 0, "<0x+7>", 0, "byte token 11 is not written"},
        {TOY_BYTE_0 + 7, 0, "<0x0g>", 0, "byte token 11 is not written"},
        {TOY_BYTE_0 + 7, 0, "<0x1FF>", 0, "byte token 11 is not written"},
        {TOY_BYTE_0 + 7, 0, "<0x08>", 0, "byte token <0x08> appears twice"},
        {TOY_BYTE_0 + 7, UNUSED, "<0x07>", 0, "byte token <0x07> is missing"},
        {TOY_BYTE_0 + 7, 0, "", 0, "token 11 has no text"},
        {LAST, 0, "", 0, "token 399 has no text"},
        {LAST, 7, "q", 0, "unknown type 7"},
        {LAST, -1, "q", 0, "unknown type"},
        {LAST, 0, "q\xff", 0, "not UTF-8"},
        {LAST, 0, "q\xed\xa0\x80", 0, "not UTF-8"},
        {LAST, 0, "a", 0, "appears twice"},
        {LAST, 0, "q", NAN, "not a number"},
        {LAST, 0, "q", INFINITY, "not a number"},
        {LAST, 0, "q" SP SP, 0, "holds a run of spaces"},
        {LAST, USER_DEFINED, "q q", 0, "must be a run of 2"},
        {LAST, USER_DEFINED, SP, 0, "must be a run of 2"},
        {LAST, USER_DEFINED, "  ", 0, "must be a run of 2"}, /* U+2581 twice is there already */
        {LAST, USER_DEFINED, "<x>", 0, "have the same text"},
        {LAST, CONTROL, "<eos>", 0, "have the same text"},
        {LAST, USER_DEFINED, "      ", 0, "a run of 6 spaces is a token"},
    };
    struct token tokens[N_TOKENS];

    (void)state;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct token *token = &tokens[cases[i].id];
        toy_tokens_make(tokens, 1);
        strcpy(token->text, cases[i].text);
        token->score = cases[i].score;
        if (cases[i].type)
            token->type = cases[i].type;
        refuse_tokens(tokens, N_TOKENS, cases[i].expected);
    }
    toy_tokens_make(tokens, 1);
    refuse_tokens(tokens, 0, "there are no tokens");
    refuse_tokens(tokens, TOY_BYTE_0 + 255, "byte token <0xFF> is missing");
    refuse_tokens(tokens, 2, "missing");
}

/* Keys of a file whose tokens are the toy's; each of them may be spoiled. */
struct spoiled {
    const char *model;
    uint32_t bos, eos, texts_type, scores_type, kinds_type;
    uint64_t n_texts, n_scores, n_kinds;
    bool add_space;
};

static const struct spoiled sound = {"llama",  TOY_BOS,  TOY_EOS,  GGUF_STR, GGUF_F32,
                                     GGUF_I32, N_TOKENS, N_TOKENS, N_TOKENS, false};

static void spoiled_put(struct gguf_writer *out, const struct spoiled *s)
{
    struct token tokens[N_TOKENS];

    toy_tokens_make(tokens, 1);
    gguf_put_header(out, 3, 0, 7);
    gguf_put_key_str(out, "tokenizer.ggml.model", s->model);
    gguf_put_key_u32(out, "tokenizer.ggml.bos_token_id", s->bos);
    gguf_put_key_u32(out, "tokenizer.ggml.eos_token_id", s->eos);
    gguf_put_key_bool(out, "tokenizer.ggml.add_space_prefix", s->add_space);
    gguf_put_key_array(out, "tokenizer.ggml.tokens", s->texts_type, s->n_texts);
    for (uint64_t i = 0; i < s->n_texts; i++) {
        if (s->texts_type == GGUF_STR)
            gguf_put_str(out, tokens[i].text);
        else
            gguf_put_u32(out, 0);
    }
    gguf_put_key_array(out, "tokenizer.ggml.scores", s->scores_type, s->n_scores);
    for (uint64_t i = 0; i < s->n_scores; i++) {
        if (s->scores_type == GGUF_F64)
            gguf_put_f64(out, (double)tokens[i].score);
        else
            gguf_put_f32(out, tokens[i].score);
    }
    gguf_put_key_array(out, "tokenizer.ggml.token_type", s->kinds_type, s->n_kinds);
    for (uint64_t i = 0; i < s->n_kinds; i++) {
        if (s->kinds_type == GGUF_U8)
            gguf_put_u8(out, (uint8_t)tokens[i].type);
        else
            gguf_put_u32(out, (uint32_t)tokens[i].type);
    }
}

static void refuse_spoiled(struct spoiled s, const char *expected)
{
    struct gguf_writer file = {0};

    spoiled_put(&file, &s);
    expect_refused(&file, expected);
    gguf_writer_free(&file);
}

static void test_hostile_keys(void **state)
{
    struct gguf_writer file = {0};
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    struct spoiled s = sound;
    char err[256] = "";

    (void)state;
    spoiled_put(&file, &sound); /* sound itself opens, or the rest would prove nothing */
    assert_int_equal(gguf_open_memory(&gguf, file.bytes, file.len, "sound", err, sizeof(err)), 0);
    assert_int_equal(tokenizer_open(&tokenizer, gguf, err, sizeof(err)), 0);
    tokenizer_close(tokenizer);
    gguf_close(gguf);
    gguf_writer_free(&file);

    s.model = "rwkv", refuse_spoiled(s, "tokenizer.ggml.model"), s = sound;
    s.model = "gpt2", refuse_spoiled(s, "tokenizer.ggml.pre is ''"), s = sound;
    s.bos = N_TOKENS, refuse_spoiled(s, "bos_token_id"), s = sound;
    s.eos = UINT32_MAX, refuse_spoiled(s, "eos_token_id"), s = sound;
    s.add_space = true, refuse_spoiled(s, "add_space_prefix"), s = sound;
    s.texts_type = GGUF_U32, refuse_spoiled(s, "ggml.tokens is not"), s = sound;
    s.scores_type = GGUF_F64, refuse_spoiled(s, "ggml.scores is not"), s = sound;
    s.scores_type = GGUF_U32, refuse_spoiled(s, "ggml.scores is not"), s = sound;
    s.kinds_type = GGUF_U8, refuse_spoiled(s, "ggml.token_type is not"), s = sound;
    s.n_texts--, refuse_spoiled(s, "399 tokens, 400 scores, 400 types"), s = sound;
    s.n_scores--, refuse_spoiled(s, "400 tokens, 399 scores, 400 types"), s = sound;
    s.n_kinds--, refuse_spoiled(s, "400 tokens, 400 scores, 399 types"), s = sound;
    s.n_kinds = 0, refuse_spoiled(s, "400 tokens, 400 scores, 0 types"), s = sound;
}

static void test_missing_keys(void **state)
{
    struct gguf_writer file = {0};

    (void)state;
    gguf_put_header(&file, 3, 0, 1);
    gguf_put_key_str(&file, "tokenizer.ggml.model", "llama");
    expect_refused(&file, "tokenizer.ggml.tokens is not");
    gguf_writer_free(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_utf8),
        cmocka_unit_test(test_every_code_point),
        cmocka_unit_test(test_nul),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_scratch_is_clean),
        cmocka_unit_test(test_time),
        cmocka_unit_test(test_time_real),
        cmocka_unit_test(test_hostile_tokens),
        cmocka_unit_test(test_hostile_keys),
        cmocka_unit_test(test_missing_keys),
    };

    return cmocka_run_group_tests_name("tokenizer limits", tests, toy_setup, toy_teardown);
}
