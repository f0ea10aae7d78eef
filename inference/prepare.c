/*
 * prepare.c: the prompts of a causal model, computed before the first text (see prefix.h).
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "inference/embed.h"
#include "inference/forward.h"
#include "inference/session.h"

/* The tokens of a prompt alone, without the model's end. The last of them may be another one when a
 * text follows: then prefix_find leaves it out. */
static size_t prompt_tokens(struct session *s, const struct prompt *prompt, size_t most)
{
    struct text text = {prompt->lead, strlen(prompt->lead)};
    struct embed_result result;
    size_t n;
    if (session_tokenize(s, text, s->ids, s->model->info.max_tokens, &n, &result) < 0 || n < 1)
        return 0;
    /* The model's end: behind the prompt comes the text. */
    n--;
    return n < most ? n : most;
}

static int prompt_compute(struct session *s, struct prefix *out, size_t n)
{
    const struct model *m = s->model;
    const uint32_t starts[] = {0, (uint32_t)n};
    /* A token's row without its queries. */
    size_t width = m->attention.ld - m->attention.n_heads * m->attention.head_dim;
    int rc = prefix_open(out, s->ids, n, m->n_layers, width);
    if (rc == 0) {
        const struct pack pack = {.ids = s->ids, .starts = starts, .n_texts = 1, .keep = out};
        forward_run(s->forward, &pack, s->vectors);
    }
    return rc;
}

int model_prepare_prompts(struct model *m)
{
    const struct session_options options = {0};
    struct session *s = NULL;
    size_t n_prompts = 0, n = 0, left = PREFIX_TOKENS_MAX;
    assert(!m->prefixes);
    if (!m->attention.is_causal || !m->info.prompts)
        return 0;
    while (m->info.prompts[n_prompts].name)
        n_prompts++;
    struct prefix *prefixes = calloc(n_prompts + 1, sizeof *prefixes);
    /* Opened while the model has no prefixes: this session computes them and uses none. */
    int rc = prefixes ? session_open(&s, m, &options) : -ENOMEM;
    for (size_t i = 0; i < n_prompts && rc == 0; i++) {
        /* Only a beginning, where not all of it is left: prefix_find takes what is common. */
        size_t n_tokens = prompt_tokens(s, &m->info.prompts[i], left);
        /* All of it but the last token may be there already: of a prompt with the same words. */
        if (n_tokens < PREFIX_LEAST || prefix_find(prefixes, n, s->ids, n_tokens).n + 1 == n_tokens)
            continue;
        rc = prompt_compute(s, &prefixes[n], n_tokens);
        left -= n_tokens;
        n += rc == 0;
    }
    session_close(s);
    m->prefixes = prefixes; /* also those of a failure, for model_close */
    m->n_prefixes = n;
    m->info.session_bytes += n ? m->info.max_tokens * m->attention.ld * sizeof(float) : 0;
    return rc;
}
