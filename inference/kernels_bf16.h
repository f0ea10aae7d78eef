/*
 * kernels_bf16.h: attention by dot products of bfloat16, for the AVX-512 tables of CPUs that have
 * them.
 *
 * Refuses: a table of its own: products and norms are those of kernels_avx512*.c.
 * Threads: pure functions; scratch belongs to one thread.
 * Why:     vdpbf16ps adds two products to each of 16 float sums where a float's multiply-add adds
 *          one. Queries, keys, values and weights are rounded to 8 bits before; sums are floats.
 */
#ifndef KERNELS_BF16_H
#define KERNELS_BF16_H

#include <stddef.h>

#include "inference/kernels.h"

/* As in struct kernels; head_dim a multiple of 32. */
size_t kernels_bf16_attention_size(const struct attention_shape *shape);
void kernels_bf16_attention(float *q, const float *k, const float *v, size_t n, size_t reach,
                            const struct attention_shape *shape, struct span tokens, void *scratch);

#endif
