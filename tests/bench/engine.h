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
 * n_ubatch: most tokens computed at once, where the engine lets one choose. 0, or negative errno
 * and a sentence in err.
 */
int engine_open(struct engine **out, const char *model, size_t n_threads, size_t n_ubatch,
                char *err, size_t err_size);
void engine_close(struct engine *engine); /* accepts NULL */
size_t engine_dim(const struct engine *engine);

/* out [n][dim], n_tokens [n]. 0; -E2BIG: a text does not fit into n_ubatch; other negative errno.
 */
int engine_embed(struct engine *engine, const struct text *texts, size_t n, float *out,
                 uint32_t *n_tokens);

#endif
