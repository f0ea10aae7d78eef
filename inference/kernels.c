/*
 * kernels.c: which kernel table this CPU gets.
 */
#include "inference/kernels.h"

#include <string.h>

#include "inference/cpu.h"

enum { TABLES_MAX = 6 };

/* Tables this CPU can run, best first. */
static size_t tables_list(const struct kernels *tables[TABLES_MAX])
{
    struct cpu cpu = cpu_detect();
    size_t n = 0;
    (void)cpu;
#if defined(__x86_64__)
    if (cpu.avx512_bf16)
        tables[n++] = &kernels_avx512_bf16;
    if (cpu.avx512)
        tables[n++] = &kernels_avx512;
    /* One table, by its name: each kind of CPU needs its own encoding of vpdpbusd. */
    if (cpu.avxvnni)
        tables[n++] = &kernels_avxvnni;
    else if (cpu.avx512)
        tables[n++] = &kernels_avxvnni_evex;
    if (cpu.avx2)
        tables[n++] = &kernels_avx2;
#elif defined(__aarch64__)
    if (cpu.neon_i8mm)
        tables[n++] = &kernels_neon_i8mm;
    if (cpu.neon)
        tables[n++] = &kernels_neon;
#endif
    tables[n++] = &kernels_generic;
    return n;
}

const struct kernels *kernels_find(const char *name)
{
    const struct kernels *tables[TABLES_MAX];
    size_t n = tables_list(tables);
    if (!name)
        return tables[0];
    for (size_t i = 0; i < n; i++)
        if (strcmp(tables[i]->name, name) == 0)
            return tables[i];
    return NULL;
}

const char *kernels_list(char *buffer, size_t size)
{
    const struct kernels *tables[TABLES_MAX];
    size_t n = tables_list(tables);
    buffer[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        size_t used = strlen(buffer);
        /* 3: a comma, a space, the NUL. */
        if (used + strlen(tables[i]->name) + 3 > size)
            break;
        strcat(buffer, i ? ", " : "");
        strcat(buffer, tables[i]->name);
    }
    return buffer;
}
