/*
 * config_flags.h: options from the command line, and the order in which all sources are read.
 *
 * Owns:    --name value, --name=value, --switch and --no-switch, the few flags that are no options.
 * Refuses: arguments that are not flags; abbreviations of flags (they break when options are
 * added). Threads: the main thread.
 */
#ifndef CONFIG_FLAGS_H
#define CONFIG_FLAGS_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/config/options.h"

/* What the command line asked for beside values. */
struct flags {
    bool help, print_config;
    const char *config; /* --config; borrowed from argv */
};

/*
 * Read argv[0 .. argc) (without program and command), the environment, and the file that --config
 * names, into options. 0; -EINVAL for flags, -EBADMSG for environment or file (err: what was
 * wrong, where, what was expected, what may have been meant); -ENOMEM. With flags->help nothing
 * else is read.
 */
int config_read(struct options *options, int argc, char *const *argv, char *const *environment,
                struct flags *flags, char *err, size_t err_size);

#endif
