/*
 * kernels_avxvnni_evex.c: AVX2, FMA, F16C and vpdpbusd on 256 bits, encoded as AVX-512 VNNI and VL
 * have it: the same table on other CPUs: see kernels_avxvnni_internal.h.
 */
#define VNNI_FORM "%{evex%}" /* braces mean something to the compiler */
#include "inference/kernels_avxvnni_internal.h"

const struct kernels kernels_avxvnni_evex = VNNI_TABLE(PRECISION_EXACT, &kernels_avxvnni_evex_fast);
