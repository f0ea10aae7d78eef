/*
 * environment.h: variables in a list of them, as `environ` is one.
 *
 * Threads: no state.
 */
#ifndef ENVIRONMENT_H
#define ENVIRONMENT_H

#include <stddef.h>

/* The value of a variable, or NULL. */
const char *environment_get(char *const *environment, const char *name, size_t name_len);

#endif
