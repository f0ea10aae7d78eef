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

struct probe {
    struct postgres_config config;
    struct postgres_table table;
    PGconn *conn;
    size_t dim; /* asked for; 0: the model's */
    finding_cb report;
    void *ctx;
};

#define say(probe, ...) check_say((probe)->report, (probe)->ctx, __VA_ARGS__)

/* NULL, and reported: it was refused. */
static PGresult *ask(struct probe *probe, const char *what, const char *sql, int n,
                     const char *const *values)
{
    char err[400];
    PGresult *answer = postgres_call(probe->conn, sql, n, values, err, sizeof err);
    if (!answer)
        say(probe, FINDING_BAD, what, "%s", err);
    return answer;
}

static void check_server(struct probe *probe)
{
    const char *host = PQhost(probe->conn);
    say(probe, FINDING_OK, "connection", "%s, database %s, user %s%s",
        host && *host ? host : "the default socket", PQdb(probe->conn), PQuser(probe->conn),
        PQsslInUse(probe->conn) ? ", over TLS" : "");
    PGresult *answer =
        ask(probe, "version",
            "SELECT current_setting('server_version'), current_setting('synchronous_commit'),"
            " current_setting('fsync'), coalesce((SELECT extversion FROM pg_extension WHERE extname"
            " = 'vector'), '')",
            0, NULL);
    if (!answer)
        return;
    const char *commit = PQgetvalue(answer, 0, 1), *fsync = PQgetvalue(answer, 0, 2);
    const char *vector = PQgetvalue(answer, 0, 3);
    say(probe, FINDING_OK, "version", "PostgreSQL %s", PQgetvalue(answer, 0, 0));
    if (*vector)
        say(probe, FINDING_OK, "pgvector", "%s", vector);
    else
        say(probe, probe->config.type == POSTGRES_BIT ? FINDING_WARN : FINDING_BAD, "pgvector",
            "this database has no extension vector: CREATE EXTENSION vector");
    if (strcmp(fsync, "on") != 0 || strcmp(commit, "off") == 0)
        say(probe, FINDING_WARN, "durability",
            "with fsync %s and synchronous_commit %s a crash of the server loses rows that it has "
            "confirmed",
            fsync, commit);
    PQclear(answer);
}

static bool check_tables(struct probe *probe)
{
    char why[600];
    const char *names[] = {probe->config.table, probe->config.dead_letters, probe->config.deleted,
                           probe->config.exactly_once ? probe->config.offsets : NULL,
                           probe->config.made_with};
    PGresult *answer = ask(probe, "table", postgres_table_question, 5, names);
    if (!answer)
        return false;
    enum postgres_fit fit =
        postgres_table_read(&probe->table, &probe->config, answer, why, sizeof why);
    PQclear(answer);
    if (fit != POSTGRES_FITS) {
        say(probe, FINDING_BAD, "table", "%s", why);
        return false;
    }
    if (probe->dim && probe->table.dim > 0 && probe->dim != (size_t)probe->table.dim) {
        say(probe, FINDING_BAD, "table", "column embedding of %s has %d dimensions and dim is %zu",
            probe->table.name, probe->table.dim, probe->dim);
        return false;
    }
    postgres_type_name(probe->config.type, probe->table.dim > 0 ? (size_t)probe->table.dim : 0, why,
                       sizeof why);
    say(probe, FINDING_OK, "table", "%s, embedding %s; dead letters in %s, deletions in %s",
        probe->table.name, why, probe->table.letters, probe->table.deleted);
    if (!probe->table.made_with[0])
        say(probe, FINDING_WARN, "made_with",
            "there is no table %s, so vectors of two models could get into %s without a word: "
            "`embedmill schema` prints how to create it",
            probe->config.made_with, probe->table.name);
    return true;
}

static void check_rights(struct probe *probe)
{
    static const char question[] =
        "SELECT n.name, r.name FROM unnest($1::text[]) AS n (name), unnest(ARRAY['SELECT', "
        "'INSERT',"
        " 'UPDATE', 'DELETE']) AS r (name) WHERE NOT has_table_privilege(n.name, r.name)"
        " AND (r.name <> 'DELETE' OR n.name = $2)";
    /* Every byte of a name may be escaped, and each has two quotes and a comma around it. */
    char names[5 * (2 * POSTGRES_NAME_SIZE + 3) + 3], *at = names;
    const char *tables[] = {probe->table.name, probe->table.letters, probe->table.deleted,
                            probe->table.made_with, probe->table.offsets};
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
    const char *values[] = {names, probe->table.name};
    PGresult *answer = ask(probe, "permissions", question, 2, values);
    if (!answer)
        return;
    if (PQntuples(answer) == 0)
        say(probe, FINDING_OK, "permissions", "user %s may write all tables", PQuser(probe->conn));
    for (int i = 0; i < PQntuples(answer); i++)
        say(probe, FINDING_BAD, "permissions", "user %s lacks a right: GRANT %s ON %s TO \"%s\"",
            PQuser(probe->conn), PQgetvalue(answer, i, 1), PQgetvalue(answer, i, 0),
            PQuser(probe->conn));
    PQclear(answer);
}

static void check_broker(const struct settings *settings, bool is_source, bool is_sink,
                         finding_cb report, void *ctx)
{
    struct probe probe = {.report = report, .ctx = ctx};
    char err[600];
    (void)is_source, (void)is_sink;
    if (postgres_config_read(&probe.config, settings, err, sizeof err)) {
        say(&probe, FINDING_BAD, "options", "%s", err);
        return;
    }
    if (settings_find(settings, "dim"))
        probe.dim = strtoul(settings_text(settings, "dim"), NULL, 10);
    if (postgres_call_open(&probe.conn, &probe.config, err, sizeof err)) {
        say(&probe, FINDING_BAD, "connection", "%s; see postgres.url", err);
    } else {
        check_server(&probe);
        if (check_tables(&probe))
            check_rights(&probe);
        PQfinish(probe.conn);
    }
    postgres_config_clear(&probe.config);
}

static void check_library(finding_cb report, void *ctx)
{
    int version = PQlibVersion();
    check_say(report, ctx, FINDING_OK, "libpq", "%d.%d", version / 10000, version % 10000);
}

const struct connector_check postgres_check = {check_library, check_broker};
