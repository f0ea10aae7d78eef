/*
 * assert_between.h: a number that must lie in a range, both ends included.
 *
 * Threads: no state.
 * Why:     cmocka 2 deprecates its own assert_in_range for two others that cmocka 1 has not.
 */
#ifndef ASSERT_BETWEEN_H
#define ASSERT_BETWEEN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static inline void assert_between_at(const char *what, intmax_t value, intmax_t least,
                                     intmax_t most, const char *file, int line)
{
    if (value >= least && value <= most)
        return;
    print_error("%s is %jd, not between %jd and %jd\n", what, value, least, most);
    _fail(file, line);
}

#define assert_between(value, least, most)                                                         \
    assert_between_at(#value, (intmax_t)(value), (intmax_t)(least), (intmax_t)(most), __FILE__,    \
                      __LINE__)

#endif
