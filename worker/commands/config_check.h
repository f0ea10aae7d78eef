/*
 * config_check.h: what can be said of the options together, before anything is opened.
 *
 * Owns:    the prompt's name, the instruction set, the form of the address for metrics, and asking
 *          the chosen source and sink.
 * Refuses: files and networks: what they say is found out by opening them.
 * Threads: the main thread.
 */
#ifndef CONFIG_CHECK_H
#define CONFIG_CHECK_H

#include <stddef.h>

#include "worker/config/options.h"

/*
 * 0; -EINVAL: *bad_option is the option to be changed, err says where it was given, what is wrong
 * and what was expected; -ENOMEM.
 */
int config_check(const struct options *options, const char **bad_option, char *err,
                 size_t err_size);
/* And what is promised between source and sink: for `run`, whose configuration other commands share
 * that promise nothing of the kind. */
int config_check_run(const struct options *options, const char **bad_option, char *err,
                     size_t err_size);
/* May `run` have these models, if there are several? `serve` may. */
int config_check_models(const struct options *options, const char **bad_option, char *err,
                        size_t err_size);
/* For `serve`: names, metrics and what is served over HTTP. */
int config_check_serve(const struct options *options, const char **bad_option, char *err,
                       size_t err_size);
/* The same without source, sink and metrics, for commands that have none. */
int config_check_names(const struct options *options, const char **bad_option, char *err,
                       size_t err_size);

#endif
