/*
 * test_tokenizer_bytes.c: canonical composition, where words end, and merging, of byte-level
 * tokenizers. Ids against the published tokenizers: test_models.c and check_tokenizer.py.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "inference/tokenizer.h"
#include "inference/tokenizer_nfc.h"
#include "inference/tokenizer_words.h"

enum { MOST = 64 };

struct codes {
    uint32_t at[MOST];
    size_t n;
};

static void put(void *ctx, uint32_t code)
{
    struct codes *codes = ctx;
    assert_true(codes->n < MOST);
    codes->at[codes->n++] = code;
}

static void check_nfc(const uint32_t *given, size_t n, const uint32_t *wanted, size_t n_wanted)
{
    struct codes got = {.n = 0};
    struct nfc nfc = {.put = put, .ctx = &got};
    for (size_t i = 0; i < n; i++)
        nfc_add(&nfc, given[i]);
    nfc_end(&nfc);
    assert_int_equal(nfc.status, 0);
    assert_int_equal(got.n, n_wanted);
    assert_memory_equal(got.at, wanted, n_wanted * sizeof *wanted);
    nfc_close(&nfc);
}

#define CHECK_NFC(given, wanted)                                                                   \
    check_nfc((const uint32_t[])given, sizeof((const uint32_t[])given) / 4,                        \
              (const uint32_t[])wanted, sizeof((const uint32_t[])wanted) / 4)
#define LIST(...)                                                                                  \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

/* Examples of Unicode Standard Annex 15, and of each way through the code. */
static void test_nfc(void **state)
{
    (void)state;
    CHECK_NFC(LIST('a', 'b'), LIST('a', 'b'));
    CHECK_NFC(LIST(0x212B), LIST(0xC5));
    CHECK_NFC(LIST('A', 0x30A), LIST(0xC5));
    CHECK_NFC(LIST(0x1E9B, 0x323), LIST(0x1E9B, 0x323));
    CHECK_NFC(LIST('s', 0x323, 0x307), LIST(0x1E69));
    CHECK_NFC(LIST('s', 0x307, 0x323), LIST(0x1E69));
    CHECK_NFC(LIST(0x1E0B, 0x323), LIST(0x1E0D, 0x307));
    CHECK_NFC(LIST(0xC0, 0x323), LIST(0x1EA0, 0x300));
    CHECK_NFC(LIST(0x958), LIST(0x915, 0x93C));         /* taken apart and never made */
    CHECK_NFC(LIST(0xFB2C), LIST(0x5E9, 0x5BC, 0x5C1)); /* likewise, in two steps */
    CHECK_NFC(LIST(0x1100, 0x1161, 0x11A8), LIST(0xAC01));
    CHECK_NFC(LIST(0xAC00, 0x11A8, 0x11A8), LIST(0xAC01, 0x11A8));
    CHECK_NFC(LIST(0xAC01, 0x1161), LIST(0xAC01, 0x1161));
    CHECK_NFC(LIST(0x9C7, 0x9BE), LIST(0x9CB)); /* of two that start */
    CHECK_NFC(LIST(0x9C7, 0x323, 0x9BE), LIST(0x9C7, 0x323, 0x9BE));
    CHECK_NFC(LIST(0x301, 'e', 0x301), LIST(0x301, 0xE9));
    CHECK_NFC(LIST(0x344), LIST(0x308, 0x301)); /* marks of a mark */
    CHECK_NFC(LIST('a', 0x301, 0x315, 0x300, 0x5AE), LIST(0xE1, 0x5AE, 0x300, 0x315));
    CHECK_NFC(LIST(0x1025, 0x102E, 'x'), LIST(0x1026, 'x'));
}

static size_t n_put;
static uint32_t last_put;

static void count(void *ctx, uint32_t code)
{
    (void)ctx;
    n_put++;
    last_put = code;
}

/* A million marks on one letter: in order, and without a square of time. */
static void test_many_marks(void **state)
{
    (void)state;
    enum { N = 1000000 };
    struct nfc nfc = {.put = count};
    clock_t began = clock();
    nfc_add(&nfc, 'q');
    for (size_t i = 0; i < N; i++)
        nfc_add(&nfc, i % 2 ? 0x323 : 0x301);
    nfc_end(&nfc);
    assert_int_equal(nfc.status, 0);
    assert_int_equal(n_put, N + 1);
    assert_int_equal(last_put, 0x301);
    assert_true(clock() - began < 20 * CLOCKS_PER_SEC);
    nfc_close(&nfc);
}

static void test_kinds(void **state)
{
    (void)state;
    static const struct {
        uint32_t code;
        enum nfc_kind_of kind;
    } cases[] = {{'a', NFC_LETTER},    {'0', NFC_NUMBER},  {' ', NFC_SPACE},
                 {'_', NFC_OTHER},     {0x301, NFC_OTHER}, {0x4E00, NFC_LETTER},
                 {0xBD, NFC_NUMBER},   {0xA0, NFC_SPACE},  {0x2028, NFC_SPACE},
                 {0x967, NFC_NUMBER},  {0, NFC_OTHER},     {0x10FFFF, NFC_OTHER},
                 {0x20000, NFC_LETTER}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(nfc_kind(cases[i].code), cases[i].kind);
}

/* words: apart by | as they should be. */
static void check_words(words_end *end_of, const char *words)
{
    uint32_t codes[MOST] = {0};
    uint8_t kinds[MOST] = {0};
    size_t ends[MOST], n = 0, n_ends = 0, at = 0;
    for (; *words; words++)
        if (*words == '|') {
            ends[n_ends++] = n;
        } else {
            assert_true(n < MOST);
            kinds[n] = (uint8_t)nfc_kind((uint8_t)*words);
            codes[n++] = (uint8_t)*words;
        }
    ends[n_ends++] = n;
    for (size_t i = 0; i < n_ends; i++) {
        at = end_of(codes, kinds, at, n);
        assert_int_equal(at, ends[i]);
    }
    assert_int_equal(at, n);
}

static void test_words(void **state)
{
    (void)state;
    check_words(words_end_gpt2, "I|'m| here|,| it|'ll| do|  | ok|\n\n|\n|x|12|!?'| '|s| '|S|  ");
    check_words(words_end_qwen2,
                "I|'m| here|,| it|'LL| do|  | ok| \n\n|\tx|1|2|!?'\n\n| '|s|  \n|  ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nfc),
        cmocka_unit_test(test_many_marks),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
