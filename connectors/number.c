/*
 * number.c: see number.h.
 */
#include "connectors/number.h"

#include <string.h>

size_t number_print(uint64_t number, char out[NUMBER_SIZE])
{
    char digits[NUMBER_SIZE - 1];
    size_t at = sizeof digits;
    /* Once at least: 0 has a digit, too. */
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    size_t n = sizeof digits - at;
    memcpy(out, digits + at, n);
    out[n] = '\0';
    return n;
}
