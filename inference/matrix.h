/*
 * matrix.h: products with weights of any type, by kernels that know Q8_0 only.
 *
 * Owns:    the way from other types to Q8_0, a group of rows at a time.
 * Refuses: a copy of a matrix: what is made of a group of rows is forgotten after its product.
 * Threads: pure functions; scratch belongs to one thread.
 * Why:     an instruction set is written for one type of weights. A Q4_0, Q5_0 or IQ4_NL value is a
 *          Q8_0 value. Every other is taken as a float, and a float as two Q8_0 digits, the second
 *          being what the first leaves of it: 15 bits and a sign of each block's largest, as
 *          activations have them, for the price of two products. A float product would cost about
 *          as much, and a second packed form.
 */
#ifndef MATRIX_H
#define MATRIX_H

#include <stddef.h>
#include <stdint.h>

#include "inference/kernels.h"

struct matrix_scratch {
    uint8_t *widened; /* matrix_widened_size bytes: MATRIX_ROWS rows, twice */
    float *rest;      /* [TOKENS_MAX][MATRIX_ROWS] products with the second digit */
};

size_t matrix_widened_size(size_t n_in);

/* Values and bytes of a block of that type; how many Q8_0 values one of its values is. */
struct matrix_layout {
    uint16_t values, bytes, digits;
};
struct matrix_layout matrix_layout(enum matrix_type type);

size_t matrix_size(const struct matrix *w); /* bytes */
/* Rows [first, first + n) of it. */
struct matrix matrix_rows(const struct matrix *w, size_t first, size_t n);

/* As struct kernels' matmul. */
void matrix_multiply(const struct kernels *k, float *out, size_t ld, const void *packed, size_t n,
                     const struct matrix *w, struct span rows, void *panel,
                     const struct matrix_scratch *scratch);

#endif
