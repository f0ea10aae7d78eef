/*
 * kernels_bench.c: see kernels_bench.h.
 */
#include "tests/support/kernels_bench.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void memory_check(bool there_is)
{
    if (there_is)
        return;
    fprintf(stderr, "kernels_bench: out of memory\n");
    exit(1);
}

/* Any values of ordinary size will do: no kernel's time depends on them. */
static void fill(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(i * 29 % 101) / 50.0f - 1.0f;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* "avx512", "avx512 fast"; until the next call */
static const char *label(const struct kernels *k)
{
    static char name[32];
    snprintf(name, sizeof name, "%s%s", k->name, k->precision == PRECISION_FAST ? " fast" : "");
    return name;
}

static void bench_matmul(const struct kernels *k)
{
    static const size_t counts[] = {1, 4, 16, 64, 256};
    uint8_t *blocks = malloc(768 / Q8_BLOCK * Q8_BLOCK_BYTES * 1152);
    float *x = malloc(256 * 768 * sizeof *x), *out = malloc(256 * 1152 * sizeof *out);
    void *packed = aligned_alloc(64, (k->packed_size(256, 768) + 63) / 64 * 64);
    void *panel = aligned_alloc(64, (k->panel_size(768) + 63) / 64 * 64);
    memory_check(x && out && packed && panel && blocks);
    struct q8_matrix w = {blocks, 768, 1152};
    for (size_t i = 0; i < 768 / Q8_BLOCK * 1152 * Q8_BLOCK_BYTES; i++)
        blocks[i] = (uint8_t)(i * 7 % 59); /* small scales */
    fill(x, 256 * 768);
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        size_t n = counts[c];
        double best = INFINITY;
        k->quantize(packed, x, 768, n, 768, (struct span){0, n});
        for (int i = 0; i < 30; i++) {
            double t = seconds();
            k->matmul(out, 1152, packed, n, &w, (struct span){0, 1152}, panel);
            best = fmin(best, seconds() - t);
        }
        printf("%-14s matmul 768 x 1152, %4zu tokens: %12.0f ns %6.1f GMAC/s\n", label(k), n,
               best * 1e9, (double)(n * 768 * 1152) / best * 1e-9);
    }
    free(x);
    free(out);
    free(packed);
    free(panel);
    free(blocks);
}

static void bench_attention(const struct kernels *k)
{
    static const size_t lengths[] = {16, 64, 512, 2048};
    struct attention_shape a = {3, 1, 256, 1280, false, NULL, 0};
    float *qkv = malloc(2048 * a.ld * sizeof *qkv);
    void *scratch = aligned_alloc(64, (k->attention_size(&a) + 63) / 64 * 64);
    memory_check(qkv && scratch);
    for (size_t c = 0; c < 4; c++) {
        double best = INFINITY;
        size_t n = lengths[c];
        for (int i = 0; i < (n > 512 ? 2 : 20); i++) {
            fill(qkv, n * a.ld);
            double t = seconds();
            k->attention(qkv, qkv + 768, qkv + 1024, n, n, &a, (struct span){0, n}, scratch);
            best = fmin(best, seconds() - t);
        }
        printf("%-14s attention, %4zu tokens: %21.0f ns %6.1f GMAC/s\n", label(k), n, best * 1e9,
               (double)(n * n * 768 * 2) / best * 1e-9);
    }
    free(qkv);
    free(scratch);
}

/* The kernels that work on one token after another, at the model's sizes. */
static void bench_rows(const struct kernels *k)
{
    enum { N = 64, WIDE = 2 * 1152, EMBD = 768, HEAD = 256 };
    static const char *const names[] = {"quantize", "rms_norm_quantize", "add_rms_norm",
                                        "geglu_quantize", "norm_rope"};
    static float x[N * WIDE], y[N * EMBD], weight[EMBD], cos_sin[HEAD];
    static const uint32_t positions[N];
    const struct span all = {0, N};
    void *packed = aligned_alloc(64, (k->packed_size(N, WIDE) + 63) / 64 * 64);
    memory_check(packed);
    fill(y, N * EMBD);
    fill(weight, EMBD);
    fill(cos_sin, HEAD);
    for (size_t what = 0; what < sizeof names / sizeof *names; what++) {
        double best = INFINITY;
        for (int i = 0; i < 30; i++) {
            fill(x, N * WIDE);
            double t = seconds();
            if (what == 0)
                k->quantize(packed, x, EMBD, N, EMBD, all);
            else if (what == 1)
                k->rms_norm_quantize(packed, x, weight, 1e-6f, N, EMBD, all);
            else if (what == 2)
                k->add_rms_norm(x, y, weight, 1e-6f, N, EMBD);
            else if (what == 3)
                k->geglu_quantize(packed, x, N, WIDE / 2, all);
            else
                k->norm_rope(x, EMBD, N, 3, HEAD, weight, 1e-6f, cos_sin, positions, 1);
            best = fmin(best, seconds() - t);
        }
        printf("%-14s %-17s %28.0f ns a token\n", label(k), names[what], best / N * 1e9);
    }
    free(packed);
}

/* As `search` compares: rows of an index with as many queries as stand side by side. */
static void bench_dots(const struct kernels *k)
{
    enum { N = 4096, DIM = 768 };
    float *rows = malloc(sizeof *rows * N * DIM), *out = malloc(sizeof *out * N * DOTS_QUERIES);
    float *queries = malloc(sizeof *queries * DIM * DOTS_QUERIES);
    double best = INFINITY;
    memory_check(rows && out && queries);
    fill(rows, N * DIM);
    fill(queries, DIM * DOTS_QUERIES);
    for (int i = 0; i < 10; i++) {
        double t = seconds();
        k->dots(out, rows, N, queries, DIM);
        best = fmin(best, seconds() - t);
    }
    printf("%-14s dots, %d rows x %d queries: %15.0f ns %6.1f GMAC/s\n", label(k), N, DOTS_QUERIES,
           best * 1e9, (double)N * DIM * DOTS_QUERIES / best * 1e-9);
    free(rows);
    free(out);
    free(queries);
}

void kernels_bench(const struct kernels *k)
{
    bench_dots(k);
    bench_matmul(k);
    bench_rows(k);
    bench_attention(k);
}
