/*
 * postgres_migration_call.c: the statements of a migration.
 *
 * Threads: the calling one.
 */
#include <errno.h>
#include <stdio.h>

#include "connectors/postgres/postgres_call.h"
#include "connectors/postgres/postgres_migration.h"
#include "connectors/postgres/postgres_refusal.h"

/* A statement without parameters. 0; -EIO and a sentence. */
int postgres_migration_run(struct postgres_migration *m, char *err, size_t err_size,
                           const char *sql)
{
    PGresult *result = postgres_call(m->conn, sql, 0, NULL, err, err_size);
    if (!result)
        return PQstatus(m->conn) == CONNECTION_OK ? -EACCES : -EIO;
    PQclear(result);
    return 0;
}

/* The first value that a statement gives, "" for none or NULL. */
int postgres_migration_value(struct postgres_migration *m, char *out, size_t size, const char *sql,
                             char *err, size_t err_size)
{
    PGresult *result = postgres_call(m->conn, sql, 0, NULL, err, err_size);
    if (!result)
        return PQstatus(m->conn) == CONNECTION_OK ? -EACCES : -EIO;
    snprintf(out, size, "%s", PQntuples(result) ? PQgetvalue(result, 0, 0) : "");
    PQclear(result);
    return 0;
}

int postgres_migration_run_many(struct postgres_migration *m, const char *sql, char *err,
                                size_t err_size)
{
    /* One string, so one transaction of its own unless one is open. */
    PGresult *result = PQexec(m->conn, sql);
    ExecStatusType status = PQresultStatus(result);
    int rc = 0;
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_EMPTY_QUERY) {
        postgres_message(PQerrorMessage(m->conn), err, err_size);
        rc = PQstatus(m->conn) == CONNECTION_OK ? -EACCES : -EIO;
    }
    PQclear(result);
    return rc;
}

/* is_done: the side has become the table. Dead letters that nobody has read stay. */
int postgres_migration_drop_side(struct postgres_migration *m, bool is_done, char *err,
                                 size_t err_size)
{
    char sql[POSTGRES_MIGRATION_SQL];
    if (is_done)
        snprintf(sql, sizeof sql,
                 "DROP TABLE %s, %s, %s; DO $$ BEGIN IF NOT EXISTS (SELECT FROM %s) THEN "
                 "DROP TABLE %s; END IF; END $$",
                 m->side_deleted, m->side_made_with, m->stock, m->side_letters, m->side_letters);
    else
        snprintf(sql, sizeof sql, "DROP TABLE IF EXISTS %s, %s, %s, %s", m->side, m->side_deleted,
                 m->side_made_with, m->side_letters);
    return postgres_migration_run_many(m, sql, err, err_size);
}
