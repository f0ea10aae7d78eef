/*
 * kernels.h: the table of coarse functions that a forward pass is made of, one table per
 * instruction set.
 *
 * Owns:    the packed form of activations, which is each table's own: only its `quantize*` write it
 *          and only its `matmul` reads it.
 * Refuses: allocation, threads, model structure.
 * Threads: pure functions of their arguments; any thread with scratch of its own.
 * Why:     an instruction set is one file and one table; the forward pass never asks which.
 *
 * Promise: what a function computes for a token depends on that token (and, in attention, on its
 *          own text) only, never on its neighbours or its place in the batch: same order of
 *          operations for each, bit for bit.
 *
 * Precision "exact": activations are quantised to 15 bits and a sign with one scale per token,
 * weights are the file's Q8_0 (32 int8 and an fp16 scale a block); products are summed exactly in
 * int32 within a block and in float32 over blocks. Precision "fast": activations of 8 bits with one
 * scale per block, and floats for the few that are too large: kernels_fast.h.
 */
#ifndef KERNELS_H
#define KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "inference/embed.h"

enum {
    Q8_BLOCK = 32,       /* values a block */
    Q8_BLOCK_BYTES = 34, /* fp16 scale, then 32 int8 */
    MATRIX_ROWS = 32,    /* n_out of every matrix is a multiple of this */
    TOKENS_MAX = 384,    /* tokens a call of quantize* or matmul takes at most */
    KEYS_MAX = 8192,     /* tokens a text in attention has at most */
    ROW_MAX = 4096,      /* values of one token in quantize* at most */
};

/* A weight matrix as it lies in the mapped file: n_out rows of n_in / 32 blocks. */
struct q8_matrix {
    const uint8_t *blocks;
    size_t n_in, n_out;
};

/* The same of any type of value; see matrix.h for its products. */
enum matrix_type {
    MATRIX_Q8_0, /* these are Q8_0 blocks, or become such as they are */
    MATRIX_Q4_0,
    MATRIX_Q5_0,
    MATRIX_IQ4_NL,
    MATRIX_F16, /* of these what Q8_0 leaves is taken as a second Q8_0 */
    MATRIX_BF16,
    MATRIX_F32,
    MATRIX_Q4_1,
    MATRIX_Q5_1,
    MATRIX_Q4_K,
    MATRIX_Q5_K,
    MATRIX_Q6_K,
    MATRIX_TYPES
};

struct matrix {
    const uint8_t *data;
    size_t n_in, n_out;
    enum matrix_type type;
};

/* Tokens or rows [first, last) of a call: one thread's share. Shares of one call may be computed by
 * several threads at once. */
struct span {
    size_t first, last;
};

struct attention_shape {
    size_t n_heads, n_kv_heads, head_dim; /* n_heads a multiple of n_kv_heads */
    size_t ld;                            /* floats from one token's row to the next */
    bool is_causal;                       /* a token sees none behind it in the text */
    /* Added to the score of query token i and key token j of a head: bias[head * bias_ld + bias_ld
     * / 2 + i - j]. [n_heads][bias_ld], with room behind for a tile of tokens; NULL: none. Each
     * head has keys of its own then. */
    const float *bias;
    size_t bias_ld;
};
enum { BIAS_ROOM = 64 }; /* bias_ld / 2 is at least this and the tokens of a text */

/* What opens a gate: GELU by the error function, or x times its logistic function (SiLU). */
enum glu { GLU_GELU, GLU_SILU };

struct kernels {
    const char *name;
    enum precision precision;
    const struct kernels *fast; /* an exact one's for precision "fast"; of such a table NULL */

    /* Bytes of packed activations for n tokens of k values, and of a weight panel for k inputs. */
    size_t (*packed_size)(size_t n, size_t k);
    size_t (*panel_size)(size_t k);

    /* x [n][ld] -> packed [n][k], of these only `tokens` */
    void (*quantize)(void *packed, const float *x, size_t ld, size_t n, size_t k,
                     struct span tokens);
    /* rms_norm(x) * weight -> packed. x [n][k], weight [k] (Zhang & Sennrich 2019) */
    void (*rms_norm_quantize)(void *packed, const float *x, const float *weight, float eps,
                              size_t n, size_t k, struct span tokens);
    /* gelu(gate) * up -> packed. gate_up [n][2 k]: gate, then up. tanh form of GELU
     * (Hendrycks & Gimpel 2016), as Gemma uses it */
    void (*geglu_quantize)(void *packed, const float *gate_up, size_t n, size_t k,
                           struct span tokens);
    /* glu(gate) * up -> packed, likewise (Shazeer 2020) */
    void (*glu_quantize)(void *packed, const float *gate_up, size_t n, size_t k, enum glu glu,
                         struct span tokens);
    /* gelu(x + bias) -> packed. x [n][k], bias [k]. GELU by the error function, as BERT uses it */
    void (*gelu_quantize)(void *packed, const float *x, const float *bias, size_t n, size_t k,
                          struct span tokens);

    /* MATRIX_ROWS rows of a matrix of any type but Q8_0 from `row` on, as Q8_0 rows: high, and of
     * types of two digits (see matrix.h) in low what high leaves of them. */
    void (*widen)(uint8_t *high, uint8_t *low, const struct matrix *w, size_t row);
    /* out[t][r] = sum over i of w[r][i] * packed[t][i], for n tokens and those rows of w: whole
     * groups of MATRIX_ROWS. out is that of row 0, its rows are ld floats apart. panel: scratch of
     * panel_size(w->n_in), 64-byte aligned. */
    void (*matmul)(float *out, size_t ld, const void *packed, size_t n, const struct q8_matrix *w,
                   struct span rows, void *panel);

    /* x += rms_norm(y) * weight. x, y [n][k] */
    void (*add_rms_norm)(float *x, const float *y, const float *weight, float eps, size_t n,
                         size_t k);
    /* x = rms_norm(x) * weight, in place. x [n][k] */
    void (*rms_norm)(float *x, const float *weight, float eps, size_t n, size_t k);

    /* x = (x + bias) * scale. x [n][ld], of each row the first k; bias [k] */
    void (*bias_scale)(float *x, size_t ld, size_t n, const float *bias, size_t k, float scale);
    /* x = layer_norm(x + y + bias) * weight + shift. x, y [n][k] (Ba, Kiros & Hinton 2016) */
    void (*add_layer_norm)(float *x, const float *y, const float *bias, const float *weight,
                           const float *shift, float eps, size_t n, size_t k);

    /* Per head: rms_norm * weight, rotate (RoPE, Su et al. 2021, halves paired), times scale.
     * weight NULL: without the norm.
     * x [n][ld] with n_heads of head_dim from each row's start; cos_sin [positions][head_dim]: the
     * cosines of a position, then its sines; positions [n]. */
    void (*norm_rope)(float *x, size_t ld, size_t n, size_t n_heads, size_t head_dim,
                      const float *weight, float eps, const float *cos_sin,
                      const uint32_t *positions, float scale);

    /* Attention over one text (Vaswani et al. 2017), in both directions unless the shape is causal.
     * q [n][n_heads][head_dim] already scaled, k and v [n][n_kv_heads][head_dim], rows shape->ld
     * apart; the result replaces q, of these only `tokens`. Tokens further apart than `reach` do
     * not see each other. scratch: attention_size bytes. */
    size_t (*attention_size)(const struct attention_shape *shape);
    void (*attention)(float *q, const float *k, const float *v, size_t n, size_t reach,
                      const struct attention_shape *shape, struct span tokens, void *scratch);

    /* out [k] = row `id` of w, dequantised, times scale */
    void (*embed_row)(float *out, const struct matrix *w, size_t id, float scale);
    /* out [k] = mean of n rows of x [n][k] */
    void (*mean_rows)(float *out, const float *x, size_t n, size_t k);
    /* out [n][DOTS_QUERIES] = dot products of n rows [n][k] with DOTS_QUERIES vectors that stand
     * side by side: queries [k][DOTS_QUERIES] */
    void (*dots)(float *out, const float *rows, size_t n, const float *queries, size_t k);
    /* x [k] to unit length (all zeros stay) */
    void (*unit)(float *x, size_t k);

    /* `rounds` turns of a loop of nothing but the multiply-adds of this table's matmul, operands in
     * registers: the ceiling matmul is measured against. Returns how many it did. */
    uint64_t (*peak)(uint64_t rounds);
};

extern const struct kernels kernels_generic, kernels_generic_fast;
extern const struct kernels kernels_avxvnni, kernels_avxvnni_fast; /* x86-64 builds only */
extern const struct kernels kernels_avxvnni_evex, kernels_avxvnni_evex_fast; /* likewise */
extern const struct kernels kernels_avx2, kernels_avx2_fast;               /* x86-64 builds only */
extern const struct kernels kernels_avx512, kernels_avx512_fast;           /* x86-64 builds only */
extern const struct kernels kernels_avx512_bf16, kernels_avx512_bf16_fast; /* likewise */
extern const struct kernels kernels_neon, kernels_neon_fast;               /* AArch64 builds only */
extern const struct kernels kernels_neon_i8mm, kernels_neon_i8mm_fast;     /* AArch64 builds only */

/* The table of that name, or the best for NULL; NULL when this CPU or build lacks it. */
const struct kernels *kernels_find(const char *name);
/* Names of the tables this CPU can run, best first, "avx512, avx2, generic"; returns buffer. */
const char *kernels_list(char *buffer, size_t size);

#endif
