/*
 * checkup.h: what `check` and `doctor` share: options in, findings on configuration and machine.
 *
 * Threads: the main thread, without a loop.
 */
#ifndef CHECKUP_H
#define CHECKUP_H

#include <stdbool.h>

#include "inference/embed.h"
#include "worker/commands/findings.h"
#include "worker/config/options.h"

/* Both have these beside the options of `run`. */
extern const struct option checkup_options[];
/* Is the option one of `run`? What --print-config prints is a file for it. */
bool checkup_is_of_run(const char *name);
/*
 * The findings on standard output; returns the exit code. more: what is looked at beyond
 * configuration and machine, NULL: nothing; its models [n] may be NULL.
 */
int checkup_run(const struct options *options,
                void (*more)(struct findings *findings, const struct settings *settings,
                             struct model *const *models, size_t n));

#endif
