/*
 * kernels_avx2_fast.c: kernels_avx2.c in precision fast: see kernels_avx2_internal.h.
 */
#define KERNELS_FAST
#include "inference/kernels_avx2_internal.h"

const struct kernels kernels_avx2_fast = {
    .name = "avx2",
    .precision = PRECISION_FAST,
    .packed_size = packed_size,
    .panel_size = panel_size,
    .matmul = matmul,
    .peak = peak,
    KERNELS_SHARED,
    KERNELS_ATTENTION,
};
