/*
 * config_print.h: the option table for people: --help and --print-config.
 *
 * Threads: the main thread.
 */
#ifndef CONFIG_PRINT_H
#define CONFIG_PRINT_H

#include <stdbool.h>
#include <stdio.h>

#include "worker/config/config_flags.h"
#include "worker/config/options.h"

/* One group of lines for each prefix. wanted: NULL for all, else whether to show an option;
 * aliases: as in flag_syntax, shown before the option's own flag. */
void config_print_help(const struct options *options, bool (*wanted)(const char *name),
                       const struct flag_alias *aliases, FILE *to);
/* What --help calls the value of an option; "" for a switch. */
const char *config_print_argument(const struct option *option);
/* "--dim N" with all short names before it: "-o, --output, --file-output OUT". */
void config_print_flags(const struct option *option, const struct flag_alias *aliases, char *out,
                        size_t size);
/* The help of an option with its choices and default. */
void config_print_sentence(const struct option *option, char *out, size_t size);
/* A YAML file that --config reads back, with origins as comments. Of a secret that is a URL the
 * password is masked, any other as a whole; such a line is a comment. */
void config_print_effective(const struct options *options, bool (*wanted)(const char *name),
                            FILE *to);

#endif
