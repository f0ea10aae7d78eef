/*
 * gemma_steps.h: the steps of gemma_forward.c that gemma2_forward.c has, too.
 */
#ifndef GEMMA_STEPS_H
#define GEMMA_STEPS_H

#include "inference/steps.h"

step_part gemma_step_embed, gemma_step_attn_norm, gemma_step_attn_add_ffn_norm, gemma_step_geglu,
    gemma_step_ffn_add, gemma_step_final_norm;

#endif
