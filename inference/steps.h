/*
 * steps.h: what the passes of all architectures are made of, for forward.c and the files named
 * *_forward.c.
 *
 * Owns:    the scratch, the ways to share a pass among threads, the order of the steps, and those
 *          that more than one architecture has.
 * Refuses: the steps that make an architecture what it is.
 * Threads: a step runs one of its parts on one thread; step_run and step_run_blocks return when all
 *          are done.
 */
#ifndef STEPS_H
#define STEPS_H

#include "inference/forward.h"
#include "inference/matrix.h"

/* What every thread that takes part in a pass needs for itself. */
struct scratch {
    float *wide;     /* [TOKENS_MAX][model->n_wide] */
    float *y;        /* [TOKENS_MAX][n_embd] */
    void *packed;    /* [TOKENS_MAX][widest input] quantised activations */
    void *panel;     /* unpacked weights of MATRIX_ROWS rows */
    void *attention; /* scratch of a part of attention */
    struct matrix_scratch matrix;
};

/* A part of attention: queries of one text. */
struct queries {
    uint32_t text;
    uint32_t first, last; /* tokens of the text */
};

struct forward {
    const struct model *model;
    struct session *session;
    session_parallel *parallel; /* NULL: this thread runs all parts */
    void *parallel_ctx;
    size_t n_threads; /* that could share the last step, and so perhaps the next */
    struct scratch scratch;
    float *x;                /* [max_tokens][n_embd] the residual stream */
    float *own;              /* gemma-embedding2: [max_tokens][n_embd] rows of the token table */
    float *qkv_rows;         /* [longest_prefix + max_tokens][attention.ld] */
    float *qkv;              /* its rows behind the first longest_prefix, which only lend their
                                place: attention counts rows from the first token of a text on */
    float *whole;            /* [max_tokens][attention.ld] keys and values with those of prefixes */
    size_t longest_prefix;   /* tokens of one */
    uint32_t *positions;     /* [max_tokens] of each token in its text */
    struct queries *queries; /* [max_tokens] parts of attention */

    /* Of the pass in hand. */
    const struct pack *pack;
    const struct layer *layer;
    float *out; /* [n_texts][n_out] */
    size_t n_tokens, n_queries;
};

/* Tokens on their way through some steps; in texts_project texts. */
struct work {
    struct forward *f;
    const struct scratch *scratch; /* what is between two steps is in their wide, y and packed */
    const struct scratch *mine;    /* of the thread that runs a part, for what it needs in it */
    bool alone;  /* the steps are this thread's own: scratch and mine are the same */
    bool leads;  /* ... and the thread is that of f, not one that helps it */
    size_t t, n; /* [t, t + n) */
};

/* How many parts a step over tokens or over the rows of a matrix has, and what one of them is. */
size_t step_token_parts(const struct work *w);
struct span step_token_span(const struct work *w, size_t part);
size_t step_row_parts(const struct work *w, const struct matrix *matrix);
/* That part of the product of the packed activations of w with a matrix. out: [w->n][ld]. Exact:
 * of activations that model->exact has packed. */
void step_multiply(const struct work *w, float *out, size_t ld, const struct matrix *matrix,
                   size_t part);
void step_multiply_exact(const struct work *w, float *out, size_t ld, const struct matrix *matrix,
                         size_t part);

/* A step: part `part` of it, on one thread. */
typedef void step_part(const struct work *w, size_t part);
/* All parts of a step. */
void step_run(const struct work *w, step_part *step, size_t n_parts);
/* All tokens of the pack, to be worked on together. */
struct work step_all_tokens(struct forward *f);
/* n tokens or texts in chunks, each of which goes through all of `steps`. */
void step_run_blocks(struct forward *f, void (*steps)(const struct work *work), size_t n);

/* Steps that architectures share. Gates, where there are any, stand beside what they open: wide
 * [n][2 n_ff], else [n][n_ff]. step_rope norms queries and keys first where the layer has norms for
 * them. */
step_part step_qkv, step_rope, step_glu, step_gather, step_attention, step_attn_quantize,
    step_attn_out, step_gate_up, step_down, step_quantize, step_add, step_mean;
size_t step_gate_up_parts(const struct work *w);
size_t step_qkv_parts(const struct work *w); /* of step_qkv */
/* The mean of each text, or its first token, as the model pools. */
void steps_pool(const struct work *w);

/*
 * What an architecture puts into the order of steps that all have (forward.c). Of each layer: up to
 * attention some tokens are read (attn_norm), multiplied, and their queries, keys and values made
 * ready (heads); after it the product of its output is added (ffn_norm) and the feed-forward part
 * read, multiplied, activated, multiplied and added (ffn_add). What a product reads is packed by
 * the step before.
 */
struct pass {
    step_part *embed, *attn_norm, *heads, *ffn_norm, *activate, *ffn_add;
    void (*layer_rest)(const struct work *tokens); /* more of the layer, or NULL */
    step_part *final_norm;                         /* or NULL */
    void (*texts)(const struct work *texts);       /* the streams of tokens to f->out */
};

#endif
