/*
 * kernels_avx2.c: AVX2 with FMA and F16C: see kernels_avx2_internal.h.
 */
#include "inference/kernels_avx2_internal.h"

const struct kernels kernels_avx2 = {
    .name = "avx2",
    .fast = &kernels_avx2_fast,
    .packed_size = packed_size,
    .panel_size = panel_size,
    .matmul = matmul,
    .peak = peak,
    KERNELS_SHARED,
    KERNELS_ATTENTION,
};
