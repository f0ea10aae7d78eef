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

/* What one of the two does beyond the other. */
struct checkup {
    const char *command; /* "check" */
    const char *usage;
    /* Beyond configuration and machine; NULL: nothing. model may be NULL. */
    void (*more)(struct findings *findings, const struct settings *settings,
                 const struct model *model);
};

/* The whole life of the command; returns its exit code. */
int checkup_run(const struct checkup *checkup, int argc, char **argv);

#endif
