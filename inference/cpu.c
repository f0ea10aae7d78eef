/*
 * cpu.c: see cpu.h.
 */
#include "inference/cpu.h"

#include <stdint.h>

#if defined(__x86_64__)
#include <cpuid.h>

static uint64_t xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t)high << 32) | low;
}

struct cpu cpu_detect(void)
{
    enum { OSXSAVE = 1 << 27, FMA = 1 << 12, F16C = 1 << 29 };       /* leaf 1 ecx */
    enum { AVX2 = 1 << 5, F = 1 << 16, DQ = 1 << 17, BW = 1 << 30 }; /* leaf 7 ebx */
    const uint32_t vl = 1u << 31;                                    /* leaf 7 ebx */
    enum { VNNI = 1 << 11 };                                         /* leaf 7 ecx */
    enum { AVX_VNNI = 1 << 4, BF16 = 1 << 5 };                       /* leaf 7.1 eax */
    enum { YMM_STATE = 0x06, ZMM_STATE = 0xe6 };                     /* XCR0 */
    struct cpu cpu = {0};
    uint32_t a, b, c, d, b7, c7;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & OSXSAVE))
        return cpu;
    uint32_t c1 = c;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d))
        return cpu;
    /* Only where OSXSAVE is set: elsewhere XGETBV is an illegal instruction. */
    uint64_t state = xcr0();
    /* YMM_STATE: the system saves SSE and AVX registers; ZMM_STATE: also masks and the rest. */
    cpu.avx2 = (state & YMM_STATE) == YMM_STATE && (b7 & AVX2) && (c1 & FMA) && (c1 & F16C);
    cpu.avx512 = cpu.avx2 && (state & ZMM_STATE) == ZMM_STATE && (b7 & F) && (b7 & DQ) &&
                 (b7 & BW) && (b7 & vl) && (c7 & VNNI);
    uint32_t n_leaves, a71;
    /* EAX of leaf 7.0 is the number of its last subleaf. */
    if (__get_cpuid_count(7, 0, &n_leaves, &b, &c, &d) && n_leaves >= 1 &&
        __get_cpuid_count(7, 1, &a71, &b, &c, &d)) {
        cpu.avx512_bf16 = cpu.avx512 && (a71 & BF16);
        cpu.avxvnni = cpu.avx2 && (a71 & AVX_VNNI);
    }
    return cpu;
}

#elif defined(__aarch64__)
#include <sys/auxv.h>

struct cpu cpu_detect(void)
{
    /* linux/arch/arm64/include/uapi/asm/hwcap.h */
    enum { ASIMD = 1 << 1, ASIMDDP = 1 << 20 }; /* AT_HWCAP */
    enum { I8MM = 1 << 13 };                    /* AT_HWCAP2 */
    unsigned long caps = getauxval(AT_HWCAP), caps2 = getauxval(AT_HWCAP2);
    struct cpu cpu = {.neon = (caps & ASIMD) && (caps & ASIMDDP)};
    cpu.neon_i8mm = cpu.neon && (caps2 & I8MM);
    return cpu;
}

#else

struct cpu cpu_detect(void)
{
    return (struct cpu){0};
}

#endif
