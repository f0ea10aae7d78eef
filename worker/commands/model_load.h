/*
 * model_load.h: the model of a command that runs a loop: opened, proven, told of in the log.
 *
 * Threads: called on the loop thread; the work is done in libuv's thread pool.
 * Why:     a cold file on a slow disk takes its time, and a request to stop must not wait for it.
 */
#ifndef MODEL_LOAD_H
#define MODEL_LOAD_H

#include <stdbool.h>
#include <uv.h>

#include "connectors/settings.h"
#include "inference/embed.h"

/* Runs the loop until the model is there, so signals that are watched are delivered meanwhile;
 * nothing else may keep the loop alive. prove: the first embedding, which pages the model in and
 * compares a known text. Returns an exit code; what went wrong is in the log. */
int model_load(struct model **out, uv_loop_t *loop, const struct settings *settings, bool prove);
/* The same, or a reranker, which is not proven. */
int model_load_any(struct model **out, uv_loop_t *loop, const struct settings *settings);

#endif
