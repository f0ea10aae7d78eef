/*
 * session.h: the inside of a session, for session.c, rerank.c and the step that one thread takes
 * over from another with the scratch of its own session.
 */
#ifndef SESSION_H
#define SESSION_H

#include "inference/embed.h"
#include "inference/forward.h"
#include "inference/model.h"

/* Texts are packed up to so many tokens; only one by itself may have more. What a pass works on
 * then stays a few megabytes. */
enum { PACK_TOKENS = 2048 };

struct pairs;

struct session {
    const struct model *model;
    struct session_options options;
    struct tokenizer_scratch *tokens;
    struct forward *forward;
    int32_t *ids;                /* [max_tokens] of the pack in hand */
    uint32_t *starts;            /* [max_tokens + 1] */
    size_t *rows;                /* [max_tokens] which text of the call a text of the pack is */
    float *vectors;              /* [max_tokens][n_out]: texts are never shorter than a token */
    struct prefix_use *prefixes; /* [max_tokens] what texts of the pack have before these ids; NULL
                                    where the model has nothing of the kind */
    size_t n_texts;              /* in the pack in hand */
    struct pairs *pairs;         /* of a reranker, else NULL */
};

int pairs_open(struct session *session); /* 0 or -ENOMEM */
void pairs_close(struct session *session);

#endif
