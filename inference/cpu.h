/*
 * cpu.h: what this CPU and this kernel of the operating system let us use.
 *
 * Refuses: ISA flags and LTO: this file must run on every CPU.
 * Why:     a CPU that has AVX-512 under a system that does not save its registers crashes at the
 *          first use; CPUID alone does not tell (Intel SDM vol. 1, 13.3; XGETBV).
 */
#ifndef CPU_H
#define CPU_H

#include <stdbool.h>

struct cpu {
    bool avx2;        /* AVX2, FMA and F16C */
    bool avxvnni;     /* AVX2, FMA, F16C and AVX-VNNI */
    bool avx512;      /* AVX-512 F, BW, VL, DQ and VNNI */
    bool avx512_bf16; /* that, and AVX-512 BF16 */
    bool neon;        /* Advanced SIMD with the dot product extension */
    bool neon_i8mm;   /* that, and the int8 matrix product extension */
};

struct cpu cpu_detect(void);

#endif
