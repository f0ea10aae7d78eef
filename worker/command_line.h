/*
 * command_line.h: from the words of a command to its options, for all commands alike.
 *
 * Owns:    reading flags, environment and file; --help; what is said when that fails, and the exit
 *          code that goes with it.
 * Refuses: what the options mean.
 * Threads: the main thread.
 */
#ifndef COMMAND_LINE_H
#define COMMAND_LINE_H

#include <stdbool.h>

#include "worker/config_flags.h"
#include "worker/options.h"

struct command_line {
    const char *command;      /* "search", for messages */
    const char *usage;        /* what --help prints before the options */
    const struct option *own; /* beside those of the worker, ended by name NULL; NULL: none */
    const struct preset *presets;
    bool (*wanted)(const char *name); /* the options that --help lists; NULL: all */
};

/*
 * True: *options and *flags are read, and the caller closes the options. False: it ends here, all
 * is said, and *code is the exit code.
 */
bool command_line_read(const struct command_line *line, int argc, char *const *argv,
                       struct options **options, struct flags *flags, int *code);
/* "embedmill COMMAND: why" to stderr; returns code. */
int command_line_fail(const char *command, int code, const char *why);

#endif
