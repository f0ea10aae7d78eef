/*
 * kernels_avxvnni_fast.c: kernels_avxvnni.c in precision fast: see kernels_avxvnni_internal.h.
 */
#define VNNI_FORM "%{vex%}" /* braces mean something to the compiler */
#define KERNELS_FAST
#include "inference/kernels_avxvnni_internal.h"

const struct kernels kernels_avxvnni_fast = VNNI_TABLE(PRECISION_FAST, NULL);
