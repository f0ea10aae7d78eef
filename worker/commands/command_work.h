/*
 * command_work.h: what `run`, `embed` and `index` share: options, log, model, pipeline, signals,
 * the end.
 *
 * Threads: the main thread, which is the loop thread.
 */
#ifndef COMMAND_WORK_H
#define COMMAND_WORK_H

#include <stdbool.h>

#include "worker/pipeline/pipeline.h"
#include "worker/config/options.h"

/* How one command differs from the others. */
struct work {
    const char *command;              /* "run" */
    bool (*wanted)(const char *name); /* options it takes; NULL: all */
    bool is_filter;                   /* embed: standard input to standard output */
    void (*leave)(int code);          /* see command.h */
    /* A command whose source ends; NULL for others. begin: before the pipeline opens; may change
     * options; 0, or an exit code and a sentence in err. finish: the exit code once all is done. */
    int (*begin)(const struct settings *settings, const struct model_info *model,
                 struct pipeline_options *options, char *err, size_t err_size);
    /* opened: OUT and all else is this process's own. 0, or an exit code and a sentence in err. */
    int (*opened)(const struct settings *settings, const struct model_info *model,
                  const struct pipeline_options *options, char *err, size_t err_size);
    int (*finish)(const struct settings *settings, const struct model_info *model,
                  const struct pipeline_stats *stats, double seconds);
};

/* Check the options, and fix those of a filter; an exit code, and all is said. */
int command_work_prepare(const struct work *work, struct options *options);
/* The whole life of the command; returns its exit code. */
int command_work_run(const struct work *work, const struct settings *settings);

#endif
