/*
 * bert_bind.h: what rotary_bind.c has of bert_bind.c: keys and tensors that BERTs share, and what
 * they give.
 */
#ifndef BERT_BIND_H
#define BERT_BIND_H

#include "inference/bind.h"

struct model;

/* Sizes, epsilon, heads and pooling, into m. 0 or -EINVAL. */
int bert_bind_keys(const struct binder *b, struct model *m);
/* The head of a reranker, else the prompts that the file names; what m->info says of the output.
 * After bert_bind_keys. 0, -EINVAL or -ENOMEM. */
int bert_bind_output(const struct binder *b, struct model *m);
/* Tensors of layer i that BERT and GTE have alike: attention, feed-forward products, norms; not the
 * bias of the first product, nor the gate. 0 or -EINVAL. */

int bert_bind_layer(const struct binder *b, const struct model *m, size_t i);

#endif
