/*
 * bench_rig.h: texts through batch, pool and sessions as the pipeline takes them, without brokers.
 *
 * Owns:    a batch, a pool and one session a thread.
 * Refuses: clocks: whoever measures has his own.
 * Threads: the main thread; jobs run on the pool's.
 * Why:     what is measured is then what the worker does: the same slices, the same sessions.
 */
#ifndef BENCH_RIG_H
#define BENCH_RIG_H

#include "inference/embed.h"
#include "worker/codec/prompt.h"

struct bench_rig;

/* model stays the caller's and open. 0 or negative errno. */
int bench_rig_open(struct bench_rig **out, const struct model *model, size_t n_threads,
                   const struct prompt *prompt);
void bench_rig_close(struct bench_rig *rig); /* accepts NULL */

/*
 * All texts as one batch, on all threads; returns when they are embedded: 0, or the negative errno
 * of the first text that failed. vectors [n][dim] and results [n] are the rig's, good until the
 * next call.
 */
int bench_rig_embed(struct bench_rig *rig, const struct text *texts, size_t n);
const float *bench_rig_vectors(const struct bench_rig *rig);
const struct embed_result *bench_rig_results(const struct bench_rig *rig);

#endif
