/*
 * command_line.h: from the words of a command to its options, for all commands alike.
 *
 * Owns:    reading flags, environment and file; --help; log and model, which most commands open;
 * what is said when that fails, and the exit code that goes with it. Refuses: what the other
 * options mean. Threads: the main thread.
 */
#ifndef COMMAND_LINE_H
#define COMMAND_LINE_H

#include <stdbool.h>

#include "inference/embed.h"
#include "worker/config/config_flags.h"
#include "worker/config/options.h"

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
/* The same for an option: a bad flag is wrong usage, a bad value from anywhere else wrong
 * configuration. */
int command_line_fail_option(const char *command, const struct options *options, const char *name,
                             const char *why);
/* COMMAND_OK, or all is said: config_check, or config_check_names for commands without ends. */
int command_line_check(const char *command, const struct options *options,
                       int (*check)(const struct options *options, const char **bad_option,
                                    char *err, size_t err_size));
/* Open the log as log_level, log_format and progress say. */
void command_line_log(const struct settings *settings);
/* Open the model that `model` and `kernels` name: COMMAND_OK, or the exit code and a sentence. */
int command_line_open_model(const struct settings *settings, struct model **out, char *err,
                            size_t err_size);
/* The exit code that goes with an errno of model_open. */
int command_line_model_code(int rc);

#endif
