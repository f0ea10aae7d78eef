/*
 * embedder.h: how texts become vectors.
 *
 * Owns:    the functions of inference/embed.h as a table, so that a test can put slow, failing and
 *          hanging ones in their place; what a vector must be.
 * Threads: as those of embed.h.
 */
#ifndef EMBEDDER_H
#define EMBEDDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "inference/embed.h"

struct embedder {
    const struct model_info *(*info)(const struct model *model);
    int (*open)(struct session **out, const struct model *model,
                const struct session_options *options);
    void (*embed)(struct session *session, const struct text *texts, size_t n, float *const *rows,
                  struct embed_result *results);
    void (*close)(struct session *session);
    /* As session_tokenize. NULL: texts cannot be cut into chunks. */
    int (*tokenize)(struct session *session, struct text text, int32_t *ids, size_t max_ids,
                    size_t *n_ids, struct embed_result *result);
    /* As session_embed_ids. NULL: token ids cannot be embedded. */
    int (*embed_ids)(struct session *session, const int32_t *ids, size_t n, float *out,
                     struct embed_result *result);
    /* As session_rerank. NULL: its models are not rerankers. */
    void (*rerank)(struct session *session, struct text query, const struct text *texts, size_t n,
                   float *scores, struct embed_result *results);
};

extern const struct embedder embedder_sessions; /* those of embed.h */

/* Is the row a unit vector? Catches NaN too. */
bool embedder_is_unit(const float *row, size_t dim);

#endif
