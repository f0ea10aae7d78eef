/*
 * kernels_bench.h: how long each kernel of a table takes at the model's sizes.
 *
 * Refuses: to judge; it prints the best of some runs.
 * Threads: one.
 */
#ifndef KERNELS_BENCH_H
#define KERNELS_BENCH_H

#include "inference/kernels.h"

void kernels_bench(const struct kernels *kernels);

#endif
