/*
 * test_cache_memory.c: the vectors in memory: the least recently used one goes, the bound holds,
 * and threads never see one that is not of their key.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>
#include <cmocka.h>

#include "worker/pipeline/cache_internal.h"
#include "tests/support/assert_between.h"

enum { DIM = 24, N_KEYS = 60, N_STEPS = 20000, N_THREADS = 4 };

/* Many share what the cache takes for a hash. */
static struct cache_key key_of(unsigned n)
{
    struct cache_key key = {{(unsigned char)(n % 7)}};
    memcpy(key.bytes + 16, &n, sizeof n);
    return key;
}

static void put(struct cache_memory *memory, unsigned n)
{
    float row[DIM];
    struct cache_key key = key_of(n);
    struct embed_result result = {.n_tokens = n, .truncated = n % 2};
    for (size_t i = 0; i < DIM; i++)
        row[i] = (float)n + (float)i / DIM;
    cache_memory_put(memory, &key, row, &result);
}

/* 1: there and its own; 0: not there; -1: wrong. */
static int get(struct cache_memory *memory, unsigned n)
{
    float row[DIM];
    struct cache_key key = key_of(n);
    struct embed_result result;
    if (!cache_memory_get(memory, &key, row, &result))
        return 0;
    for (size_t i = 0; i < DIM; i++)
        if (row[i] != (float)n + (float)i / DIM)
            return -1;
    return result.status == 0 && result.n_tokens == n && result.truncated == (n % 2) ? 1 : -1;
}

static unsigned random_below(unsigned *random, unsigned n)
{
    *random = *random * 1103515245 + 12345;
    return *random / 65536 % n;
}

static struct cache_memory *memory_make(size_t bytes)
{
    struct cache_memory *memory;
    assert_int_equal(cache_memory_open(&memory, bytes, DIM), 0);
    return memory;
}

static void test_bound(void **state)
{
    (void)state;
    for (size_t bytes = 0; bytes < 20000; bytes += 777) {
        struct cache_memory *memory = memory_make(bytes);
        size_t n = 0;
        for (unsigned i = 0; memory && i < 300; i++)
            put(memory, i);
        for (unsigned i = 0; memory && i < 300; i++)
            n += get(memory, i) == 1;
        /* A vector with its key at least; beside them not more than another 48 bytes each. */
        assert_true(n * (DIM * sizeof(float) + 32) <= bytes);
        assert_true((n + 1) * (DIM * sizeof(float) + 32 + 48) > bytes);
        cache_memory_close(memory);
    }
}

/* Against a list that is kept in order. */
static void test_least_recently_used_goes(void **state)
{
    (void)state;
    struct cache_memory *memory = memory_make(3000);
    unsigned order[N_KEYS], n = 0, room = 0, random = 5;
    for (unsigned i = 0; i < N_KEYS; i++)
        put(memory, i);
    for (unsigned i = N_KEYS; i-- > 0 && get(memory, i) == 1;)
        order[room++] = i; /* got one after another: the last is the newest */
    assert_between(room, 5, N_KEYS - 5);
    n = room;
    for (unsigned step = 0; step < N_STEPS; step++) {
        unsigned key = random_below(&random, N_KEYS), at = 0;
        while (at < n && order[at] != key)
            at++;
        bool is_there = at < n;
        if (random_below(&random, 2)) {
            if (get(memory, key) != (int)is_there)
                fail_msg("step %u: key %u should %sbe there", step, key, is_there ? "" : "not ");
            if (!is_there)
                continue;
        } else {
            put(memory, key);
            if (!is_there && n == room)
                at = 0; /* the oldest goes */
            else if (!is_there)
                at = n++;
        }
        memmove(order + at, order + at + 1, (n - at - 1) * sizeof *order);
        order[n - 1] = key;
    }
    cache_memory_close(memory);
}

static atomic_size_t n_wrong, n_found;

static void hammer(void *arg)
{
    struct cache_memory *memory = arg;
    unsigned random = (unsigned)(uintptr_t)&random;
    for (unsigned step = 0; step < N_STEPS / 2; step++) {
        unsigned key = random_below(&random, N_KEYS);
        int got = get(memory, key);
        atomic_fetch_add(&n_wrong, got < 0);
        atomic_fetch_add(&n_found, got > 0);
        if (got == 0)
            put(memory, key);
    }
}

static void test_threads(void **state)
{
    (void)state;
    struct cache_memory *memory = memory_make(3000);
    uv_thread_t threads[N_THREADS];
    for (size_t i = 0; i < N_THREADS; i++)
        assert_int_equal(uv_thread_create(&threads[i], hammer, memory), 0);
    for (size_t i = 0; i < N_THREADS; i++)
        uv_thread_join(&threads[i]);
    assert_int_equal(n_wrong, 0);
    assert_true(n_found > 0);
    cache_memory_close(memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_least_recently_used_goes),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
