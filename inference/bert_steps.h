/*
 * bert_steps.h: the steps of bert_forward.c that nomic_forward.c has, too.
 */
#ifndef BERT_STEPS_H
#define BERT_STEPS_H

#include "inference/steps.h"

step_part bert_step_attn_norm, bert_step_output_norm;

#endif
