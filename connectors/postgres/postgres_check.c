/*
 * postgres_check.c: what `embedmill doctor` asks a PostgreSQL server.
 *
 * Owns:    connection, version, the extension, the tables and their columns, rights, what a commit
 *          is worth there.
 * Refuses: writing.
 * Threads: the main thread; each statement has the limit postgres.timeout.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/postgres/postgres_call.h"
#include "connectors/postgres/postgres_table.h"

struct visit {
    struct postgres_config config;
    struct postgres_table table;
    PGconn *conn;
    size_t dim; /* asked for; 0: the model's */
    finding_cb report;
    void *ctx;
};

#define say(visit, ...) check_say((visit)->report, (visit)->ctx, __VA_ARGS__)

/* NULL, and reported: it was refused. */
static PGresult *ask(struct visit *visit, const char *what, const char *sql, int n,
                     const char *const *values)
{
    char err[400];
    PGresult *answer = postgres_call(visit->conn, sql, n, values, err, sizeof err);
    if (!answer)
        say(visit, FINDING_BAD, what, "%s", err);
    return answer;
}

static void check_server(struct visit *visit)
{
    const char *host = PQhost(visit->conn);
    say(visit, FINDING_OK, "connection", "%s, database %s, user %s%s",
        host && *host ? host : "the default socket", PQdb(visit->conn), PQuser(visit->conn),
        PQsslInUse(visit->conn) ? ", over TLS" : "");
    PGresult *answer =
        ask(visit, "version",
            "SELECT current_setting('server_version'), current_setting('synchronous_commit'),"
            " current_setting('fsync'), coalesce((SELECT extversion FROM pg_extension WHERE extname"
            " = 'vector'), '')",
            0, NULL);
    if (!answer)
        return;
    const char *commit = PQgetvalue(answer, 0, 1), *fsync = PQgetvalue(answer, 0, 2);
    const char *vector = PQgetvalue(answer, 0, 3);
    say(visit, FINDING_OK, "version", "PostgreSQL %s", PQgetvalue(answer, 0, 0));
    if (*vector)
        say(visit, FINDING_OK, "pgvector", "%s", vector);
    else
        say(visit, visit->config.type == POSTGRES_BIT ? FINDING_WARN : FINDING_BAD, "pgvector",
            "this database has no extension vector: CREATE EXTENSION vector");
    if (strcmp(fsync, "on") != 0 || strcmp(commit, "off") == 0)
        say(visit, FINDING_WARN, "durability",
            "with fsync %s and synchronous_commit %s a crash of the server loses rows that it has "
            "confirmed",
            fsync, commit);
    PQclear(answer);
}

static bool check_tables(struct visit *visit)
{
    char why[600];
    const char *names[] = {visit->config.table, visit->config.dead_letters, visit->config.deleted,
                           visit->config.exactly_once ? visit->config.offsets : NULL,
                           visit->config.made_with};
    PGresult *answer = ask(visit, "table", postgres_table_question, 5, names);
    if (!answer)
        return false;
    enum postgres_fit fit =
        postgres_table_read(&visit->table, &visit->config, answer, why, sizeof why);
    PQclear(answer);
    if (fit != POSTGRES_FITS) {
        say(visit, FINDING_BAD, "table", "%s", why);
        return false;
    }
    if (visit->dim && visit->table.dim > 0 && visit->dim != (size_t)visit->table.dim) {
        say(visit, FINDING_BAD, "table", "column embedding of %s has %d dimensions and dim is %zu",
            visit->table.name, visit->table.dim, visit->dim);
        return false;
    }
    postgres_type_name(visit->config.type, visit->table.dim > 0 ? (size_t)visit->table.dim : 0, why,
                       sizeof why);
    say(visit, FINDING_OK, "table", "%s, embedding %s; dead letters in %s, deletions in %s",
        visit->table.name, why, visit->table.letters, visit->table.deleted);
    if (!visit->table.made_with[0])
        say(visit, FINDING_WARN, "made_with",
            "there is no table %s, so vectors of two models could get into %s without a word: "
            "`embedmill schema` prints how to create it",
            visit->config.made_with, visit->table.name);
    return true;
}

static void check_rights(struct visit *visit)
{
    static const char question[] =
        "SELECT n.name, r.name FROM unnest($1::text[]) AS n (name), unnest(ARRAY['SELECT', "
        "'INSERT',"
        " 'UPDATE', 'DELETE']) AS r (name) WHERE NOT has_table_privilege(n.name, r.name)"
        " AND (r.name <> 'DELETE' OR n.name = $2)";
    char names[5 * POSTGRES_NAME_SIZE + 100], *at = names;
    const char *tables[] = {visit->table.name, visit->table.letters, visit->table.deleted,
                            visit->table.made_with, visit->table.offsets};
    *at++ = '{';
    for (size_t i = 0; i < 5; i++) { /* "a"."b" inside an array */
        if (!*tables[i])
            continue;
        at += snprintf(at, 3, "%s", i ? "," : "");
        *at++ = '"';
        for (const char *from = tables[i]; *from; from++) {
            if (*from == '"' || *from == '\\')
                *at++ = '\\';
            *at++ = *from;
        }
        *at++ = '"';
    }
    snprintf(at, 2, "}");
    const char *values[] = {names, visit->table.name};
    PGresult *answer = ask(visit, "permissions", question, 2, values);
    if (!answer)
        return;
    if (PQntuples(answer) == 0)
        say(visit, FINDING_OK, "permissions", "user %s may write all tables", PQuser(visit->conn));
    for (int i = 0; i < PQntuples(answer); i++)
        say(visit, FINDING_BAD, "permissions", "user %s lacks a right: GRANT %s ON %s TO \"%s\"",
            PQuser(visit->conn), PQgetvalue(answer, i, 1), PQgetvalue(answer, i, 0),
            PQuser(visit->conn));
    PQclear(answer);
}

static void check_broker(const struct settings *settings, bool is_source, bool is_sink,
                         finding_cb report, void *ctx)
{
    struct visit visit = {.report = report, .ctx = ctx};
    char err[600];
    (void)is_source, (void)is_sink;
    if (postgres_config_read(&visit.config, settings, err, sizeof err)) {
        say(&visit, FINDING_BAD, "options", "%s", err);
        return;
    }
    if (settings_find(settings, "dim"))
        visit.dim = strtoul(settings_text(settings, "dim"), NULL, 10);
    if (postgres_call_open(&visit.conn, &visit.config, err, sizeof err)) {
        say(&visit, FINDING_BAD, "connection", "%s; see postgres.url", err);
    } else {
        check_server(&visit);
        if (check_tables(&visit))
            check_rights(&visit);
        PQfinish(visit.conn);
    }
    postgres_config_clear(&visit.config);
}

static void check_library(finding_cb report, void *ctx)
{
    int version = PQlibVersion();
    check_say(report, ctx, FINDING_OK, "libpq", "%d.%d", version / 10000, version % 10000);
}

const struct connector_check postgres_check = {check_library, check_broker};
