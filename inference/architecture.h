/*
 * architecture.h: the kinds of models this program knows.
 *
 * Owns:    the table: an architecture is a line in it, how its file is bound and how its pass goes.
 * Refuses: to be seen outside inference/: nothing else in the program asks what a model is made of.
 * Threads: constant.
 * Why:     adding an architecture is NAME_bind.c, NAME_forward.c and a line in architecture.c.
 */
#ifndef ARCHITECTURE_H
#define ARCHITECTURE_H

#include "inference/bind.h"
#include "inference/gguf.h"
#include "inference/model.h"

struct pass;

struct architecture {
    const char *name; /* general.architecture */
    /*
     * Fill m from the file: sizes, tensors, layers, info.max_tokens; m->gguf, m->tokenizer and
     * m->kernels are there. 0, or negative errno with a sentence in b->err.
     */
    int (*bind)(const struct binder *b, struct model *m);
    const struct pass *pass;      /* what its steps are: steps.h */
    const struct prompt *prompts; /* as in struct model_info */
};

const struct architecture *architecture_find(struct gguf_str name); /* or NULL */

int gemma_bind(const struct binder *b, struct model *m);
extern const struct pass gemma_forward;
extern const struct prompt gemma_prompts[];

int gemma2_bind(const struct binder *b, struct model *m);
extern const struct pass gemma2_forward;

int mpnet_bind(const struct binder *b, struct model *m);

int rotary_bind_nomic(const struct binder *b, struct model *m);
int rotary_bind_gte(const struct binder *b, struct model *m);
extern const struct pass rotary_forward;

int modernbert_bind(const struct binder *b, struct model *m);
extern const struct pass modernbert_forward;

int qwen3_bind(const struct binder *b, struct model *m);
extern const struct pass qwen3_forward;
extern const struct prompt qwen3_prompts[];

int bert_bind(const struct binder *b, struct model *m);
extern const struct pass bert_forward;

#endif
