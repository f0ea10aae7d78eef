/*
 * config_environment.h: options from EMBEDMILL_* variables.
 *
 * Owns:    variable names: EMBEDMILL_ and the option's name in capitals, dots as underscores;
 *          EMBEDMILL_X_FILE names a file that holds the value of a secret.
 * Refuses: unknown EMBEDMILL_* variables, for a misspelt one would be silently without effect.
 *          Let alone are EMBEDMILL_TEST_* and what Kubernetes sets for services named embedmill*.
 *          An empty variable counts as unset (compose files write `X: ${X:-}`).
 * Threads: the main thread.
 */
#ifndef CONFIG_ENVIRONMENT_H
#define CONFIG_ENVIRONMENT_H

#include <stddef.h>

#include "worker/config/options.h"

/* 0; -EBADMSG with a sentence in err; -ENOMEM. */
int config_environment_read(struct options *options, char *const *environment, char *err,
                            size_t err_size);

#endif
