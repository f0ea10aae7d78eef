/*
 * name.h: what the names of files and variables end with.
 *
 * Threads: no state.
 */
#ifndef NAME_H
#define NAME_H

#include <stdbool.h>
#include <stddef.h>

bool name_ends_with(const char *name, const char *end);
/* Is there anything in OUT.errors.jsonl, the dead letters of the sink `file`? out: its name. */
bool name_has_errors(const char *output, char *out, size_t size);

/* Is it one of n names? */
bool name_in(const char *name, const char *const *names, size_t n);

#endif
