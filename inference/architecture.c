/*
 * architecture.c: see architecture.h.
 */
#include "inference/architecture.h"

#include <string.h>

static const struct architecture table[] = {
    {"gemma-embedding", gemma_bind, &gemma_forward, gemma_prompts},
    {"gemma-embedding2", gemma2_bind, &gemma2_forward, gemma_prompts},
    {"bert", bert_bind, &bert_forward, NULL},
    {"mpnet", mpnet_bind, &bert_forward, NULL},
    {"nomic-bert", rotary_bind_nomic, &rotary_forward, NULL},
    {"gte", rotary_bind_gte, &rotary_forward, NULL},
    {"modern-bert", modernbert_bind, &modernbert_forward, NULL},
    {"qwen3", qwen3_bind, &qwen3_forward, qwen3_prompts},
};

const struct architecture *architecture_find(struct gguf_str name)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strlen(table[i].name) == name.len && memcmp(table[i].name, name.ptr, name.len) == 0)
            return &table[i];
    return NULL;
}
