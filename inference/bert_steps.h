/*
 * bert_steps.h: the steps of bert_forward.c that rotary_forward.c has, too.
 */
#ifndef BERT_STEPS_H
#define BERT_STEPS_H

#include "inference/steps.h"

step_part bert_step_attn_norm, bert_step_output_norm;
/* The vectors of texts, or of a reranker their scores. */
void bert_steps_texts(const struct work *w);

#endif
