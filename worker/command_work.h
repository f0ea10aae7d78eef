/*
 * command_work.h: what `run` and `embed` share: options, log, model, pipeline, signals, the end.
 *
 * Threads: the main thread, which is the loop thread.
 */
#ifndef COMMAND_WORK_H
#define COMMAND_WORK_H

#include <stdbool.h>

#include "worker/options.h"

/* How one command differs from the other. */
struct work {
    const char *command;              /* "run" */
    const char *usage;                /* text of --help before the options */
    const struct preset *presets;     /* ended by name NULL */
    bool (*wanted)(const char *name); /* options --help shows; NULL: all */
    bool is_filter;                   /* embed: standard input to standard output */
    void (*leave)(int code);          /* see command.h */
};

/* The whole life of the command; returns its exit code. */
int command_work(const struct work *work, int argc, char **argv);

#endif
