/*
 * test_number.c: integers as decimal text, beside printf's.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "connectors/number.h"

static void expect(uint64_t number)
{
    char wanted[32], text[NUMBER_SIZE];
    int len = snprintf(wanted, sizeof wanted, "%" PRIu64, number);
    assert_int_equal(number_print(number, text), len);
    assert_string_equal(text, wanted);
}

static void is_what_printf_writes(void **state)
{
    (void)state;
    expect(0);
    expect(UINT64_MAX);
    for (uint64_t power = 1; power <= UINT64_MAX / 10; power *= 10) {
        expect(power - 1);
        expect(power);
        expect(power + 7);
    }
    uint64_t random = 20261130; /* xorshift */
    for (int i = 0; i < 10000; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        expect(random >> (random & 63));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(is_what_printf_writes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
