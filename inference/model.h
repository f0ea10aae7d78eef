/*
 * model.h: the bound model, for the files of this room only.
 *
 * Owns:    pointers into the mapping, one per tensor, checked at open; the RoPE tables.
 * Threads: immutable after model_open.
 */
#ifndef MODEL_H
#define MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "inference/embed.h"
#include "inference/gguf.h"
#include "inference/kernels.h"
#include "inference/tokenizer.h"

struct layer {
    const float *attn_norm;       /* [n_embd] */
    struct q8_matrix q, k, v, o;  /* n_embd to heads * head_dim, and back */
    const float *q_norm, *k_norm; /* [head_dim] */
    const float *post_attn_norm;  /* [n_embd] */
    const float *ffn_norm;        /* [n_embd] */
    struct q8_matrix gate, up, down;
    const float *post_ffn_norm; /* [n_embd] */
    size_t reach;               /* tokens further apart do not see each other */
    const float *cos_sin;       /* [max_tokens][head_dim]: cosines, then sines */
};

struct model {
    struct model_info info;
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    const struct kernels *kernels;

    size_t n_layers, n_embd, n_ff;
    struct attention_shape attention; /* ld: q heads, then k, then v of one token */
    float eps;
    float query_scale; /* 1 / sqrt(head_dim) */
    float embed_scale; /* sqrt(n_embd) */

    struct q8_matrix embed; /* [n_vocab][n_embd] */
    struct layer *layers;   /* [n_layers] */
    const float *output_norm;
    struct q8_matrix dense_2, dense_3; /* blocks NULL in a file without them */
    float *cos_sin_local, *cos_sin_full;

    char name[96], architecture[32], fingerprint[33];
};

#endif
