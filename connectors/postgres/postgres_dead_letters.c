/*
 * postgres_dead_letters.c: reads the table of dead letters.
 *
 * Owns:    one cursor over those there are.
 * Refuses: to put letters back: their input is another broker's, and SQL reads and deletes them.
 * Threads: the calling one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/dead_letters.h"
#include "connectors/postgres/postgres_call.h"
#include "connectors/postgres/postgres_table.h"

#define FETCH "FETCH 100 FROM letters"

struct postgres_dead_letters {
    struct letters base;
    PGconn *conn;
    PGresult *rows;
    int row;
    unsigned char *value; /* of the last one, unescaped */
};

static struct postgres_dead_letters *self(struct letters *letters)
{
    return (struct postgres_dead_letters *)letters;
}

static int dead_letters_close(struct letters *base, char *err, size_t err_size)
{
    struct postgres_dead_letters *letters = self(base);
    (void)err, (void)err_size;
    PQfreemem(letters->value);
    PQclear(letters->rows);
    PQfinish(letters->conn);
    free(letters);
    return 0;
}

/* By the oldest; the name comes from the server, quoted. */
static int begin(struct postgres_dead_letters *letters, const struct postgres_config *config,
                 char *err, size_t err_size)
{
    char sql[POSTGRES_NAME_SIZE + 200];
    const char *name[] = {config->dead_letters};
    PGresult *found = postgres_call(letters->conn,
                                    "SELECT format('%I.%I', s.nspname, c.relname) FROM pg_class c "
                                    "JOIN pg_namespace s ON s.oid = c.relnamespace WHERE c.oid = "
                                    "to_regclass($1)",
                                    1, name, err, err_size);
    if (!found)
        return -EIO;
    if (PQntuples(found) == 0) {
        snprintf(err, err_size, "there is no table %s: see postgres.dead_letters", name[0]);
        PQclear(found);
        return -ENOENT;
    }
    snprintf(sql, sizeof sql,
             "DECLARE letters CURSOR FOR SELECT position, code, reason, value FROM %s ORDER BY "
             "died_at, position",
             PQgetvalue(found, 0, 0));
    PQclear(found);
    PQclear(PQexec(letters->conn, "BEGIN READ ONLY"));
    found = postgres_call(letters->conn, sql, 0, NULL, err, err_size);
    PQclear(found);
    return found ? 0 : -EIO;
}

static int dead_letters_open(struct letters **out, const struct settings *settings, const char *to,
                             char *err, size_t err_size)
{
    struct postgres_config config;
    (void)to;
    int rc = postgres_config_read(&config, settings, err, err_size);
    if (rc)
        return rc;
    struct postgres_dead_letters *letters = calloc(1, sizeof *letters);
    rc = letters ? postgres_call_open(&letters->conn, &config, err, err_size) : -ENOMEM;
    if (!rc)
        rc = begin(letters, &config, err, err_size);
    postgres_config_clear(&config);
    if (rc) {
        if (letters)
            dead_letters_close(&letters->base, NULL, 0);
        return rc;
    }
    letters->base.ops = &postgres_dead_letters;
    *out = &letters->base;
    return 0;
}

static struct bytes cell(const struct postgres_dead_letters *letters, int column)
{
    return (struct bytes){PQgetvalue(letters->rows, letters->row, column),
                          (size_t)PQgetlength(letters->rows, letters->row, column)};
}

static int dead_letters_next(struct letters *base, struct letter *out, char *err, size_t err_size)
{
    struct postgres_dead_letters *letters = self(base);
    if (!letters->rows || ++letters->row >= PQntuples(letters->rows)) {
        PQclear(letters->rows);
        letters->row = 0;
        letters->rows = postgres_call(letters->conn, FETCH, 0, NULL, err, err_size);
        if (!letters->rows)
            return -EIO;
        if (PQntuples(letters->rows) == 0)
            return 0;
    }
    bool is_empty = PQgetisnull(letters->rows, letters->row, 3);
    size_t len = 0;
    PQfreemem(letters->value);
    letters->value =
        PQunescapeBytea((const unsigned char *)PQgetvalue(letters->rows, letters->row, 3), &len);
    if (!letters->value)
        return -ENOMEM;
    *out = (struct letter){.position = cell(letters, 0),
                           .origin = cell(letters, 0),
                           .code = cell(letters, 1),
                           .reason = cell(letters, 2),
                           .value = {is_empty ? NULL : (const char *)letters->value, len},
                           .is_empty = is_empty};
    return 1;
}

static int dead_letters_replay(struct letters *base, char *err, size_t err_size)
{
    (void)base;
    snprintf(err, err_size,
             "dead letters in PostgreSQL are not put back: their input is another system's. Send "
             "`value` again from there, and delete the row");
    return -ENOTSUP;
}

static const char *const options[] = {"postgres.", NULL};

const struct dead_letters_ops postgres_dead_letters = {
    .options = options,
    .open = dead_letters_open,
    .next = dead_letters_next,
    .replay = dead_letters_replay,
    .close = dead_letters_close,
};
