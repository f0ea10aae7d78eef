/*
 * kernels_avxvnni.c: AVX2, FMA, F16C and vpdpbusd on 256 bits: see kernels_avxvnni_internal.h.
 */
#define VNNI_FORM "%{vex%}" /* braces mean something to the compiler */
#include "inference/kernels_avxvnni_internal.h"

const struct kernels kernels_avxvnni = VNNI_TABLE(PRECISION_EXACT, &kernels_avxvnni_fast);
