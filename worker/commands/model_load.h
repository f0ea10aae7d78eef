/*
 * model_load.h: the models of a command that runs a loop: opened, proven, told of in the log.
 *
 * Threads: called on the loop thread; the work is done in libuv's thread pool.
 * Why:     a cold file on a slow disk takes its time, and a request to stop must not wait for it.
 */
#ifndef MODEL_LOAD_H
#define MODEL_LOAD_H

#include <stdbool.h>
#include <uv.h>

#include "inference/embed.h"
#include "worker/commands/command_line.h"

/* Runs the loop until the model is there, so signals that are watched are delivered meanwhile;
 * nothing else may keep the loop alive. prove: the first embedding, which pages the model in and
 * compares a known text. Returns an exit code; what went wrong is in the log. */
int model_load(struct model **out, uv_loop_t *loop, const struct settings *settings, bool prove);
/* The models of a command that takes several. */
struct model_set {
    size_t n;
    const char *names[COMMAND_MODELS_MAX]; /* NULL: that one has none */
    struct model *models[COMMAND_MODELS_MAX];
};
/* All that the options name, in their order, rerankers too, which are not proven. */
int model_load_set(struct model_set *out, uv_loop_t *loop, const struct settings *settings);
void model_set_close(struct model_set *set);

#endif
