/*
 * postgres_call.c: see postgres_call.h.
 */
#include "connectors/postgres/postgres_call.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/postgres/postgres_link.h"
#include "connectors/postgres/postgres_refusal.h"

static bool is_given(const char *url, const char *word, const char *variable)
{
    bool is_there = getenv(variable) != NULL;
    PQconninfoOption *words = PQconninfoParse(url, NULL);
    for (const PQconninfoOption *at = words; at && at->keyword; at++)
        is_there |= strcmp(at->keyword, word) == 0 && at->val && *at->val;
    PQconninfoFree(words);
    return is_there;
}

int postgres_call_open(PGconn **out, const struct postgres_config *config, char *err,
                       size_t err_size)
{
    const char *names[8] = {"dbname", "fallback_application_name", "client_encoding"};
    const char *values[8] = {config->url, "embedmill", "UTF8"};
    char limit[64];
    size_t n = 3;
    if (config->password) {
        names[n] = "password";
        values[n++] = config->password;
    }
    if (!is_given(config->url, "connect_timeout", "PGCONNECT_TIMEOUT")) {
        names[n] = "connect_timeout";
        values[n++] = "10";
    }
    if (!is_given(config->url, "target_session_attrs", "PGTARGETSESSIONATTRS")) {
        names[n] = "target_session_attrs";
        values[n++] = "read-write";
    }
    /* 1: dbname may be a connection string or a URL. */
    PGconn *conn = PQconnectdbParams(names, values, 1);
    if (!conn || PQstatus(conn) != CONNECTION_OK) {
        postgres_message(conn ? PQerrorMessage(conn) : "out of memory", err, err_size);
        PQfinish(conn);
        return -EIO;
    }
    snprintf(limit, sizeof limit, "SET statement_timeout = %llu",
             (unsigned long long)config->timeout_ms);
    PQclear(PQexec(conn, limit));
    *out = conn;
    return 0;
}

PGresult *postgres_call(PGconn *conn, const char *sql, int n, const char *const *values, char *err,
                        size_t err_size)
{
    PGresult *result = PQexecParams(conn, sql, n, NULL, values, NULL, NULL, 0);
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)
        return result;
    /* Without a result the message is the connection's: it was lost, or there is no memory. */
    const char *text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    snprintf(err, err_size, "%s%s%s", text ? text : PQerrorMessage(conn), state ? ": " : "",
             state ? postgres_refusal_find(state).advice : "");
    PQclear(result);
    return NULL;
}
