/*
 * kernels_rig.h: tables, rows and matrices for the tests of kernels.
 *
 * Values are random but the same each time. Outputs stand between guard bytes.
 * Threads: one.
 */
#ifndef KERNELS_RIG_H
#define KERNELS_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "inference/kernels.h"

enum { KERNELS_RIG_SEED = 20261, KERNELS_RIG_TABLES = 16 };

/* A buffer between guard bytes. */
struct guarded {
    unsigned char *base, *data;
    size_t size;
};

struct guarded kernels_rig_open(size_t size);
void kernels_rig_shut(struct guarded g); /* fails the test where a guard byte has changed */

enum shape { TINY, ORDINARY, HUGE_VALUES, UNIFORM, OUTLIER, ZERO, N_SHAPES };
extern const char *const kernels_rig_shapes[N_SHAPES]; /* their names */

float kernels_rig_unit(void); /* [-1, 1) */
void kernels_rig_fill(float *x, size_t n, enum shape shape);

/* A matrix of random blocks, or of extreme ones; returns its bytes, to be freed. */
uint8_t *kernels_rig_matrix(struct q8_matrix *w, size_t n_in, size_t n_out, bool extreme);

/* The exact tables this CPU has, but for the generic one; says which it lacks. */
size_t kernels_rig_tables(const struct kernels *tables[KERNELS_RIG_TABLES]);
/* Every table, generic and fast ones with them. */
size_t kernels_rig_every(const struct kernels *tables[KERNELS_RIG_TABLES]);

/* |a - b| within `relative` of the largest value there is, or the test fails. */
void kernels_rig_close(const float *a, const float *b, size_t n, double relative, const char *table,
                       const char *what);

/* x [n][w->n_in] quantised and multiplied, in shares as of several threads: [n][ld], to be freed.
 */
float *kernels_rig_multiply(const struct kernels *k, const float *x, size_t n,
                            const struct q8_matrix *w, size_t ld);

#endif
