/*
 * rope.h: the angles of rotary positions (RoPE, Su et al. 2021).
 */
#ifndef ROPE_H
#define ROPE_H

#include <stddef.h>

/* [n_positions][head_dim]: the cosines of a position, then its sines, of position * base^(-2 i /
 * head_dim) / stretch. NULL: no memory. */
float *rope_table(size_t n_positions, size_t head_dim, double base, double stretch);

#endif
