/*
 * command_line.h: what most commands begin with: log, model, and what to say and to return when
 * something is wrong.
 *
 * Threads: the main thread.
 */
#ifndef COMMAND_LINE_H
#define COMMAND_LINE_H

#include <stdbool.h>

#include "inference/embed.h"
#include "worker/config/options.h"

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
/* A model that the options name; both strings are theirs. */
struct command_model {
    const char *name; /* of NAME=FILE; NULL: it has none */
    const char *path; /* NULL: none was named, and there is no default place */
};
enum { COMMAND_MODELS_MAX = 8 };
/* All of them, in their order, 1 or more. COMMAND_OK, or the exit code and a sentence. */
int command_line_models(const struct settings *settings,
                        struct command_model out[COMMAND_MODELS_MAX], size_t *n, char *err,
                        size_t err_size);
/* The file of the only one, or of the first. NULL as path. */
const char *command_line_model_path(const struct settings *settings);
/* Open the model of a file, as `kernels` and `precision` say: COMMAND_OK, or the exit code and a
 * sentence. */
int command_line_open_file(const struct settings *settings, const char *path, struct model **out,
                           char *err, size_t err_size);
/* The same of the model that the options name, who may name only one. Any, one that gives vectors,
 * or a reranker. */
int command_line_open_any(const struct settings *settings, struct model **out, char *err,
                          size_t err_size);
int command_line_open_model(const struct settings *settings, struct model **out, char *err,
                            size_t err_size);
int command_line_open_reranker(const struct settings *settings, struct model **out, char *err,
                               size_t err_size);
/* The exit code that goes with an errno of model_open. */
int command_line_model_code(int rc);

#endif
