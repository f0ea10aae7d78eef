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

/* A norm with a shift: layer_norm(x) * weight + bias. */
struct layer_norm {
    const float *weight, *bias; /* [n_embd] */
};

/* What an architecture has none of is NULL. */
struct layer {
    struct matrix q, k, v, o; /* n_embd to heads * head_dim, and back */
    struct matrix gate, up, down;
    const struct attention_shape *shape;
    size_t reach; /* tokens further apart do not see each other */

    /* gemma-embedding */
    const float *attn_norm;       /* [n_embd] */
    const float *q_norm, *k_norm; /* [head_dim] */
    const float *post_attn_norm;  /* [n_embd] */
    const float *ffn_norm;        /* [n_embd] */
    const float *post_ffn_norm;   /* [n_embd] */
    const float *cos_sin;         /* [max_tokens][head_dim]: cosines, then sines */

    /* gemma-embedding2: what every layer adds of the token itself */
    struct matrix ple_model;         /* n_embd to n_ple: this layer's rows of the model's matrix */
    struct matrix ple_gate, ple_out; /* n_embd to n_ple, and back */
    const float *ple_post_norm;      /* [n_embd] */
    float scale;                     /* of all that leaves the layer */

    /* bert, nomic-bert, gte; of biases that nomic-bert has not the last two are zeros */
    struct layer_norm pre_attn_norm, pre_ffn_norm;  /* modern-bert; no weights: no norm */
    const float *q_bias, *k_bias, *v_bias, *o_bias; /* [n_embd] */
    const float *up_bias, *down_bias;               /* [n_ff], [n_embd] */
    struct layer_norm attn_output_norm, output_norm;
};

struct architecture;

struct model {
    struct model_info info;
    struct gguf *gguf;
    struct tokenizer *tokenizer;
    const struct kernels *kernels; /* in the precision asked for */
    const struct kernels *exact;   /* for what is computed once a text and costs nothing */

    const struct architecture *architecture;

    size_t n_layers, n_embd, n_ff;
    size_t n_out;  /* values of a vector */
    size_t n_wide; /* floats of a token between the two feed-forward products, or more */
    struct attention_shape attention; /* the widest; ld: q heads, then k, then v of one token */
    float eps;
    float query_scale; /* 1 / sqrt(head_dim) */
    enum glu glu;      /* of step_glu */

    struct matrix embed;  /* [n_vocab][n_embd] */
    struct layer *layers; /* [n_layers] */

    /* gemma-embedding */
    float embed_scale; /* sqrt(n_embd) */
    const float *output_norm;
    struct matrix dense_2, dense_3; /* data NULL in a file without them */
    float *cos_sin_local, *cos_sin_full;

    /* gemma-embedding2 */
    struct attention_shape sliding; /* of layers with a window; attention is that of the others */
    size_t n_ple;
    const float *ple_norm;    /* [n_ple] */
    struct matrix ple_models; /* n_embd to n_layers * n_ple */
    struct matrix projection; /* n_embd to n_out, of the mean */
    float *constants;         /* [ROW_MAX] ones, then as many zeros */

    /* bert */
    struct matrix positions;  /* [max_tokens][n_embd] */
    const float *token_types; /* [n_types][n_embd]; all tokens of a text alone are of the first */
    struct layer_norm embed_norm, final_norm; /* the latter modern-bert's */
    float *attention_bias;                    /* mpnet: what attention.bias points to */
    size_t n_types;                           /* rows of token_types */
    bool pools_first; /* the first token stands for the text, not the mean of all */

    /* a reranker: the score is cls_out . tanh(cls x + cls_bias) + cls_out_bias of the first token
     */
    struct matrix cls, cls_out; /* n_embd to n_embd, and to 1 */
    const float *cls_bias, *cls_out_bias;

    /* causal models: beginnings of texts that are computed (model_prepare_prompts) */
    struct prefix *prefixes; /* [n_prefixes], or NULL */
    size_t n_prefixes;

    struct prompt *own_prompts; /* of the file, with the bytes they point to; or NULL */

    char name[96], fingerprint[33];
    char warning[240]; /* empty: there is nothing to say */
};

#endif
