/*
 * postgres_dead_letters.c: reads the table of dead letters.
 *
 * Owns:    one cursor over those there are, and a connection that takes them off.
 * Refuses: to put letters back: their input is on another system.
 * Threads: the calling one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/buffer.h"
#include "connectors/dead_letters.h"
#include "connectors/postgres/postgres_call.h"
#include "connectors/postgres/postgres_table.h"

#define FETCH "FETCH 100 FROM letters"

struct postgres_dead_letters {
    struct letters base;
    struct postgres_config config;
    PGconn *conn, *taker; /* the cursor's; NULL until something is taken */
    PGresult *rows;
    int row;
    char table[POSTGRES_NAME_SIZE];
    unsigned char *value, *key; /* of the last one, unescaped */
    struct buffer texts;        /* the names and values of its headers */
    struct header *headers;
    size_t n_headers;
};

enum { POSITION, CODE, REASON, VALUE, KEY, HEADERS, DIED_AT };

/* Headers in hexadecimal, "NAME:VALUE NAME:VALUE". */
#define COLUMNS                                                                                    \
    "position, code, reason, value, key, (SELECT string_agg(encode(convert_to(h->>'name', "        \
    "'UTF8'), 'hex') || ':' || encode(CASE WHEN h ? 'base64' THEN decode(h->>'base64', 'base64') " \
    "ELSE convert_to(h->>'value', 'UTF8') END, 'hex'), ' ' ORDER BY n) FROM "                      \
    "jsonb_array_elements(headers) WITH ORDINALITY AS e (h, n)), died_at"

static struct postgres_dead_letters *self(struct letters *letters)
{
    return (struct postgres_dead_letters *)letters;
}

static int dead_letters_close(struct letters *base, char *err, size_t err_size)
{
    struct postgres_dead_letters *letters = self(base);
    (void)err, (void)err_size;
    PQfreemem(letters->value);
    PQfreemem(letters->key);
    buffer_close(&letters->texts);
    free(letters->headers);
    PQclear(letters->rows);
    PQfinish(letters->conn);
    PQfinish(letters->taker);
    postgres_config_clear(&letters->config);
    free(letters);
    return 0;
}

/* By the oldest; the name comes from the server, quoted. */
static int begin(struct postgres_dead_letters *letters, char *err, size_t err_size)
{
    char sql[POSTGRES_NAME_SIZE + sizeof COLUMNS + 100];
    const char *name[] = {letters->config.dead_letters};
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
    snprintf(letters->table, sizeof letters->table, "%s", PQgetvalue(found, 0, 0));
    PQclear(found);
    snprintf(sql, sizeof sql,
             "DECLARE letters CURSOR FOR SELECT " COLUMNS " FROM %s ORDER BY died_at, position",
             letters->table);
    PQclear(PQexec(letters->conn, "BEGIN READ ONLY"));
    found = postgres_call(letters->conn, sql, 0, NULL, err, err_size);
    PQclear(found);
    return found ? 0 : -EIO;
}

static int dead_letters_open(struct letters **out, const struct settings *settings, const char *to,
                             char *err, size_t err_size)
{
    struct postgres_dead_letters *letters = calloc(1, sizeof *letters);
    (void)to;
    snprintf(err, err_size, "out of memory");
    if (!letters)
        return -ENOMEM;
    int rc = postgres_config_read(&letters->config, settings, err, err_size);
    if (!rc)
        rc = postgres_call_open(&letters->conn, &letters->config, err, err_size);
    if (!rc)
        rc = begin(letters, err, err_size);
    if (rc) {
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

/* 0 or -ENOMEM. *out is NULL where the column is. */
static int read_bytea(struct postgres_dead_letters *letters, int column, unsigned char **out,
                      struct bytes *bytes)
{
    PQfreemem(*out);
    *out = NULL;
    *bytes = (struct bytes){NULL, 0};
    if (PQgetisnull(letters->rows, letters->row, column))
        return 0;
    *out = PQunescapeBytea((const unsigned char *)PQgetvalue(letters->rows, letters->row, column),
                           &bytes->len);
    bytes->ptr = (const char *)*out;
    return *out ? 0 : -ENOMEM;
}

static int digit_of(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* Hexadecimal up to `end`, into the room that is left. */
static struct bytes read_hex(struct buffer *texts, const char **at, char end)
{
    char *to = texts->ptr + texts->len;
    struct bytes out = {to, 0};
    for (; **at && **at != end; *at += 2)
        to[out.len++] = (char)(digit_of((*at)[0]) << 4 | digit_of((*at)[1]));
    *at += **at == end;
    texts->len += out.len;
    return out;
}

/* 0 or -ENOMEM. */
static int read_headers(struct postgres_dead_letters *letters)
{
    struct bytes all = cell(letters, HEADERS);
    const char *at = all.ptr;
    size_t n = 0;
    for (size_t i = 0; i < all.len; i++)
        n += all.ptr[i] == ':';
    letters->n_headers = 0;
    letters->texts.len = 0;
    if (n == 0)
        return 0;
    /* Room for all at once: what was read stays where it is. */
    struct header *headers = realloc(letters->headers, n * sizeof *headers);
    if (!headers || !buffer_extend(&letters->texts, all.len))
        return -ENOMEM;
    letters->headers = headers;
    letters->texts.len = 0;
    for (; letters->n_headers < n; letters->n_headers++) {
        headers[letters->n_headers].name = read_hex(&letters->texts, &at, ':');
        headers[letters->n_headers].value = read_hex(&letters->texts, &at, ' ');
    }
    return 0;
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
    *out = (struct letter){.position = cell(letters, POSITION),
                           .origin = cell(letters, POSITION),
                           .code = cell(letters, CODE),
                           .reason = cell(letters, REASON)};
    snprintf(err, err_size, "out of memory");
    if (read_bytea(letters, VALUE, &letters->value, &out->value) ||
        read_bytea(letters, KEY, &letters->key, &out->key) || read_headers(letters))
        return -ENOMEM;
    out->is_empty = !out->value.ptr;
    out->headers = letters->headers;
    out->n_headers = letters->n_headers;
    return 1;
}

/* Unless it has died again meanwhile. */
static int dead_letters_take(struct letters *base, char *err, size_t err_size)
{
    struct postgres_dead_letters *letters = self(base);
    char sql[POSTGRES_NAME_SIZE + 100];
    const char *values[] = {cell(letters, POSITION).ptr, cell(letters, DIED_AT).ptr};
    int rc =
        letters->taker ? 0 : postgres_call_open(&letters->taker, &letters->config, err, err_size);
    if (rc)
        return rc;
    snprintf(sql, sizeof sql, "DELETE FROM %s WHERE position = $1 AND died_at = $2",
             letters->table);
    PGresult *done = postgres_call(letters->taker, sql, 2, values, err, err_size);
    if (!done)
        return -EIO;
    bool is_taken = strcmp(PQcmdTuples(done), "0") != 0;
    PQclear(done);
    return is_taken;
}

static const char *const options[] = {"postgres.", NULL};

const struct dead_letters_ops postgres_dead_letters = {
    .options = options,
    .open = dead_letters_open,
    .next = dead_letters_next,
    .take = dead_letters_take,
    .close = dead_letters_close,
};
