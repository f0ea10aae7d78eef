/*
 * engine.h: one way to embed texts, as the paired benchmark sees it; one implementation a program.
 *
 * Owns:    the model, the threads and all buffers.
 * Refuses: clocks and standard streams, which are peer.c's.
 * Threads: called from one; uses as many as it was opened with.
 * Why:     both sides run under the same peer.c, so that what is timed is the same by construction:
 *          text in, tokenised, embedded, vectors of unit length out.
 */
#ifndef ENGINE_H
#define ENGINE_H

#include <stddef.h>
#include <stdint.h>

#include "inference/embed.h"

struct engine;

/*
 * setting: "exact" or "fast" of this project, of llama.cpp the most tokens computed at once. 0, or
 * negative errno and a sentence in err.
 */
int engine_open(struct engine **out, const char *model, size_t n_threads, const char *setting,
                char *err, size_t err_size);
void engine_close(struct engine *engine); /* accepts NULL */
size_t engine_dim(const struct engine *engine);

/* out [n][dim], n_tokens [n]. 0; -E2BIG: a text has more tokens than setting; other negative errno.
 */
int engine_embed(struct engine *engine, const struct text *texts, size_t n, float *out,
                 uint32_t *n_tokens);

/* Token ids of one text, bos and eos included: ids [max_ids], *n_ids of them written. 0 or negative
 * errno; -E2BIG: there are more. */
int engine_ids(struct engine *engine, struct text text, int32_t *ids, size_t max_ids,
               size_t *n_ids);

#endif
