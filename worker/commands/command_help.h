/*
 * command_help.h: the description of a command for people: --help and what the manual page shares
 * with it.
 *
 * Threads: the main thread.
 */
#ifndef COMMAND_HELP_H
#define COMMAND_HELP_H

#include <stdio.h>

#include "worker/commands/command.h"

/* Synopsis, text, options and exit codes. options: those of the command. */
void command_help_print(const struct command *command, const struct options *options, FILE *to);
/* What --help says of an exit code. */
const char *command_help_ending(const struct command_ending *ending);

/* A flag that every command, or every one that reads a configuration, has. */
struct common_flag {
    const char *flag, *help;
    bool of_files; /* not for commands with flags_only */
};
extern const struct common_flag common_flags[]; /* ended by flag NULL */

#endif
