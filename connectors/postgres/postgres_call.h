/*
 * postgres_call.h: one question after the other, for commands that a person waits for.
 *
 * Owns:    a connection whose calls block, with a limit on each.
 * Threads: the calling one, without a loop.
 */
#ifndef POSTGRES_CALL_H
#define POSTGRES_CALL_H

#include <libpq-fe.h>
#include <stddef.h>

#include "connectors/postgres/postgres.h"

/* Connected to the host that takes writes. 0; -EIO and err: what the server or libpq says. */
int postgres_call_open(PGconn **out, const struct postgres_config *config, char *err,
                       size_t err_size);
/* The answer to a statement with n parameters in text, which may be NULL. NULL: err says why. */
PGresult *postgres_call(PGconn *conn, const char *sql, int n, const char *const *values, char *err,
                        size_t err_size);

#endif
