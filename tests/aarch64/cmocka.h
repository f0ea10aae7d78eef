/*
 * cmocka.h: as much of cmocka as test_kernels.c uses, for a cross build without the library.
 *
 * Refuses: to go on after a failure; the program ends.
 * Threads: one.
 */
#ifndef CMOCKA_H
#define CMOCKA_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

#define cmocka_unit_test(function)                                                                 \
    {                                                                                              \
#function, function                                                                        \
    }
#define print_message(...) printf(__VA_ARGS__)
#define fail_msg(...)                                                                              \
    (fprintf(stderr, "%s:%d: ", __FILE__, __LINE__), fprintf(stderr, __VA_ARGS__),                 \
     fputc('\n', stderr), exit(1))
/* The condition's text is an argument, not a format: it may hold a %. */
#define assert_true(condition)                                                                     \
    ((condition) ? (void)0 : fail_msg("%s", "not true: " #condition))
#define assert_non_null(pointer)        assert_true((pointer) != NULL)
#define assert_null(pointer)            assert_true((pointer) == NULL)
#define assert_int_equal(a, b)          assert_true((intmax_t)(a) == (intmax_t)(b))
#define assert_ptr_equal(a, b)          assert_true((const void *)(a) == (const void *)(b))
#define assert_string_equal(a, b)       assert_true(strcmp(a, b) == 0)
#define assert_in_range(n, low, high)   assert_true((n) >= (low) && (n) <= (high))
#define assert_memory_equal(a, b, size) assert_true(memcmp(a, b, size) == 0)

static inline int tests_run(const struct CMUnitTest *tests, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        tests[i].run(NULL);
        printf("%s: ok\n", tests[i].name);
    }
    return 0;
}

#define cmocka_run_group_tests(tests, setup, teardown)                                             \
    tests_run(tests, sizeof(tests) / sizeof *(tests))

#endif
