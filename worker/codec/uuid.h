/*
 * uuid.h: a UUID from a name, as others compute it, too.
 *
 * Owns:    version 5 of RFC 9562 in its namespace for URLs: uuid5(NAMESPACE_URL, name) in Python.
 * Threads: no state.
 */
#ifndef UUID_H
#define UUID_H

#include <stdbool.h>

#include "connectors/connector.h"

enum { UUID_TEXT = 36 };

/* 36 characters and a NUL. 0 or -ENOMEM. */
int uuid_of_name(struct bytes name, char out[UUID_TEXT + 1]);
/* Is it one already, in the usual form with hyphens? */
bool uuid_is(struct bytes text);

#endif
