/*
 * postgres_migration.h: a table made anew, for `embedmill migrate`: what its files know of each
 * other.
 *
 * Threads: the calling one.
 */
#ifndef POSTGRES_MIGRATION_H
#define POSTGRES_MIGRATION_H

#include <libpq-fe.h>

#include "connectors/migration.h"
#include "connectors/postgres/postgres.h"

extern const struct migration_ops postgres_migration_ops;

enum { POSTGRES_MIGRATION_SQL = 6000 }; /* bytes of a statement */

struct postgres_migration {
    struct migration base;
    struct postgres_config config;
    PGconn *conn;
    char *side, *side_letters, *side_deleted, *side_made_with, *stock,
        *old; /* as the user writes */
};

/* One line for each text: which rows it has, by what PostgreSQL gives each of their versions. */
#define POSTGRES_MIGRATION_ROWS                                                                    \
    "SELECT coalesce(parent, id::text) AS doc, md5(string_agg(concat_ws('.', id, version,"         \
    " version_order, xmin), ' ' ORDER BY chunk, id)) AS rows FROM %s GROUP BY 1"

/* A statement without parameters; several. 0; -EIO: the connection; -EACCES: refused. */
int postgres_migration_run(struct postgres_migration *m, char *err, size_t err_size,
                           const char *sql);
int postgres_migration_run_many(struct postgres_migration *m, const char *sql, char *err,
                                size_t err_size);
/* The first value that a statement gives, "" for none or NULL. */
int postgres_migration_value(struct postgres_migration *m, char *out, size_t size, const char *sql,
                             char *err, size_t err_size);
/* is_done: the side has become the table. */
int postgres_migration_drop_side(struct postgres_migration *m, bool is_done, char *err,
                                 size_t err_size);
/* compare of struct migration_ops, and with it the change of places. */
int postgres_migration_compare(struct migration *base, const char *made_with,
                               struct migration_compared *out, char *err, size_t err_size);

#endif
