/*
 * test_charsmap.c: normalisation maps that are not what they should be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "inference/tokenizer_charsmap.h"

enum { SEED = 77, TURNS = 20000 };

static uint64_t random_state = SEED;

static uint64_t random_next(void) /* xorshift64*, Vigna 2016 */
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 2685821657736338717ull;
}

static void test_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        bool sound;
    } cases[] = {
        {"", 0, false},
        {"\4\0\0", 3, false},
        {"\4\0\0\0", 4, false},
        {"\0\0\0\0x\0", 6, false},
        {"\4\0\0\0\0\0\0\0", 8, false},  /* no text */
        {"\4\0\0\0\0\0\0\0x", 9, false}, /* a text without an end */
        {"\3\0\0\0\0\0\0\0", 8, false},  /* a part of a unit */
        {"\xff\xff\xff\xff\0\0\0\0\0", 9, false},
        {"\4\0\0\0\0\0\0\0\0", 9, true},
    };
    struct charsmap map;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (charsmap_open(&map, (const uint8_t *)cases[i].bytes, cases[i].size) != cases[i].sound)
            fail_msg("case %zu", i);
}

/* Any units: never a read outside (the sanitizers look), never a text outside the map. */
static void test_random_units(void **state)
{
    (void)state;
    for (size_t turn = 0; turn < TURNS; turn++) {
        uint32_t n_units = 1 + (uint32_t)(random_next() % 300);
        size_t n_texts = 1 + random_next() % 20, size = 4 + n_units * 4 + n_texts;
        uint8_t *bytes = malloc(size), key[4];
        struct charsmap map;
        uint32_t trie_size = n_units * 4;
        assert_non_null(bytes);
        for (size_t i = 0; i < size; i++)
            bytes[i] = (uint8_t)random_next();
        memcpy(bytes, &trie_size, 4);
        bytes[size - 1] = 0;
        for (uint32_t i = 0; i < n_units; i++) { /* labels that are met, small offsets */
            uint32_t unit = (uint32_t)(random_next() % 4) | (uint32_t)(random_next() % 512) << 10 |
                            (uint32_t)(random_next() % 2) << 8;
            memcpy(bytes + 4 + i * 4, &unit, 4);
        }
        assert_true(charsmap_open(&map, bytes, size));
        for (size_t i = 0; i < 20; i++) {
            size_t len = 0;
            for (size_t k = 0; k < sizeof key; k++)
                key[k] = (uint8_t)(random_next() % 4);
            const char *text = charsmap_find(&map, key, sizeof key, &len);
            if (text)
                assert_true(text >= map.texts && text + len < map.texts + map.n_texts);
        }
        free(bytes);
    }
}

static void test_joiners(void **state)
{
    (void)state;
    static const uint32_t join[] = {0x300, 0x36f, 0x200d, 0x94d, 0xfe0f, 0xff9f};
    static const uint32_t stay[] = {0, 'a', 0x2ff, 0x370, 0x1100, 0x4e00, 0xffff, 0x1f600};
    for (size_t i = 0; i < sizeof join / sizeof *join; i++)
        assert_true(charsmap_joins(join[i]));
    for (size_t i = 0; i < sizeof stay / sizeof *stay; i++)
        assert_false(charsmap_joins(stay[i]));
    for (size_t i = 0; i < joiner_ranges_n; i++) {
        assert_true(joiner_ranges[i].first <= joiner_ranges[i].last);
        assert_true(i == 0 || joiner_ranges[i - 1].last < joiner_ranges[i].first);
    }
    assert_true(charsmap_is_joined('a'));
    assert_false(charsmap_is_joined('\n'));
    assert_false(charsmap_is_joined(0x200b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_random_units),
        cmocka_unit_test(test_joiners),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
