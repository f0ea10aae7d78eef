/*
 * number.h: an integer as decimal text, without the cost of printf.
 *
 * Threads: no state.
 */
#ifndef NUMBER_H
#define NUMBER_H

#include <stddef.h>
#include <stdint.h>

#define NUMBER_SIZE 21 /* the longest, and NUL */

/* Writes the digits and a NUL; returns how many digits. */
size_t number_print(uint64_t number, char out[NUMBER_SIZE]);

#endif
