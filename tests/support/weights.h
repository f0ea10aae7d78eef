/*
 * weights.h: random blocks of every type of weights, and the values that they stand for.
 *
 * Owns:    each type's definition in double, value by value.
 * Refuses: to share code with inference/.
 * Threads: any; no state.
 */
#ifndef WEIGHTS_H
#define WEIGHTS_H

#include <stddef.h>
#include <stdint.h>

#include "inference/kernels.h"

double weights_half(uint16_t half); /* finite */

/* n values of blocks of ggml's quantised types, from random bytes whose scales are ordinary, and
 * now and then tiny. bytes: as many as matrix_layout says. random: 64 bits a call. */
void weights_fill(uint8_t *bytes, double *values, size_t n, enum matrix_type type,
                  uint64_t (*random)(void));

#endif
