/*
 * test_arena.c: pieces do not overlap, are aligned, and the second batch allocates nothing new.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "worker/codec/arena.h"

enum { N_PIECES = 500 };

/* Pieces of all sizes, each filled with its own number and checked at the end. */
static void pieces_fill(struct arena *arena)
{
    unsigned char *pieces[N_PIECES];
    for (size_t i = 0; i < N_PIECES; i++) {
        pieces[i] = arena_alloc(arena, i * 7);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 16, 0);
        memset(pieces[i], (int)(i & 255), i * 7);
    }
    for (size_t i = 0; i < N_PIECES; i++)
        for (size_t k = 0; k < i * 7; k++)
            assert_int_equal(pieces[i][k], i & 255);
}

static void pieces_test(void **state)
{
    (void)state;
    struct arena arena = {0};
    pieces_fill(&arena);
    assert_true(arena.total >= N_PIECES * (N_PIECES - 1) / 2 * 7);
    arena_close(&arena);
}

static void reset_test(void **state)
{
    (void)state;
    struct arena arena = {0};
    arena_reset(&arena); /* of nothing */
    pieces_fill(&arena);
    arena_reset(&arena);
    assert_int_equal(arena.total, 0);
    struct arena_block *block = arena.blocks;
    assert_non_null(block);
    for (int i = 0; i < 3; i++) {
        pieces_fill(&arena);
        assert_ptr_equal(arena.blocks, block); /* it all fits in the one block now */
        arena_reset(&arena);
        assert_ptr_equal(arena.blocks, block);
    }
    arena_close(&arena);
    assert_null(arena.blocks);
    arena_close(&arena);
}

static void copy_test(void **state)
{
    (void)state;
    struct arena arena = {0};
    char *copy = arena_copy(&arena, "embedding", 9);
    assert_memory_equal(copy, "embedding", 9);
    assert_non_null(arena_copy(&arena, NULL, 0));
    arena_close(&arena);
}

static void too_large_test(void **state)
{
    (void)state;
    struct arena arena = {0};
    assert_null(arena_alloc(&arena, SIZE_MAX));
    assert_null(arena_alloc(&arena, SIZE_MAX - 15));
    assert_null(arena_alloc(&arena, SIZE_MAX - 16));
    assert_int_equal(arena.total, 0);
    assert_non_null(arena_alloc(&arena, 100)); /* and still works */
    assert_int_equal(arena.total, 112);
    arena_close(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_test),
        cmocka_unit_test(reset_test),
        cmocka_unit_test(copy_test),
        cmocka_unit_test(too_large_test),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
