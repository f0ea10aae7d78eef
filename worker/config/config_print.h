/*
 * config_print.h: the option table for people: --help and --print-config.
 *
 * Threads: the main thread.
 */
#ifndef CONFIG_PRINT_H
#define CONFIG_PRINT_H

#include <stdbool.h>
#include <stdio.h>

#include "worker/config/options.h"

/* One group of lines for each prefix. wanted: NULL for all, else whether to show an option. */
void config_print_help(const struct options *options, bool (*wanted)(const char *name), FILE *to);
/* A YAML file that --config reads back, with origins as comments. Of a secret that is a URL the
 * password is masked, any other as a whole; such a line is a comment. */
void config_print_effective(const struct options *options, bool (*wanted)(const char *name),
                            FILE *to);

#endif
