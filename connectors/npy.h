/*
 * npy.h: the header of an .npy file of rows (NEP 1), always of the same length, so that the number
 * of rows can be written when it is known.
 *
 * Threads: no state.
 */
#ifndef NPY_H
#define NPY_H

#include <stddef.h>
#include <stdint.h>

enum { NPY_HEADER = 128 };

/* descr: "<f4" and the like. */
void npy_header(char out[NPY_HEADER], const char *descr, uint64_t rows, size_t columns);

#endif
