/*
 * config_flags.h: options from the command line, and the order in which all sources are read.
 *
 * Owns:    --name value, --name=value, --switch and --no-switch, short names ("-o"), words without
 *          a flag, the few flags that are not options.
 * Refuses: words that no option takes; abbreviations of flags (they break when options are added).
 * Threads: the main thread.
 */
#ifndef CONFIG_FLAGS_H
#define CONFIG_FLAGS_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/config/options.h"

/* A short name of an option in one command: "-o" or "--output" for "file.output". */
struct flag_alias {
    const char *flag, *option;
};

/* What the command line of one command may hold beside the flags of its options. */
struct flag_syntax {
    const struct flag_alias *aliases; /* ended by flag NULL; NULL: none */
    /* Names of the options that take the words without a flag, in order, ended by NULL; NULL: no
     * such words. With repeats the last takes all that are left, joined by commas. */
    const char *const *positionals;
    bool repeats;
    bool flags_only; /* neither the environment nor a file is read */
};

/* What the command line asked for beside values. */
struct flags {
    bool help, print_config;
    const char *config; /* --config; borrowed from argv */
};

/*
 * Read argv[0 .. argc) (without program and command), the environment, and the file that --config
 * names, into options. syntax NULL: flags of options alone. 0; -EINVAL for flags, -EBADMSG for
 * environment or file (err: what was wrong, where, what was expected, what may have been meant);
 * -ENOMEM. With flags->help nothing else is read.
 */
int config_read(struct options *options, const struct flag_syntax *syntax, int argc,
                char *const *argv, char *const *environment, struct flags *flags, char *err,
                size_t err_size);

#endif
