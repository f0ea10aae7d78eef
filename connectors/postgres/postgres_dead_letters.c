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
    struct dead_letters base;
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

static struct postgres_dead_letters *self(struct dead_letters *dlq)
{
    return (struct postgres_dead_letters *)dlq;
}

static int dead_letters_close(struct dead_letters *base, char *err, size_t err_size)
{
    struct postgres_dead_letters *dlq = self(base);
    (void)err, (void)err_size;
    PQfreemem(dlq->value);
    PQfreemem(dlq->key);
    buffer_close(&dlq->texts);
    free(dlq->headers);
    PQclear(dlq->rows);
    PQfinish(dlq->conn);
    PQfinish(dlq->taker);
    postgres_config_clear(&dlq->config);
    free(dlq);
    return 0;
}

/* By the oldest; the name comes from the server, quoted. */
static int begin(struct postgres_dead_letters *dlq, char *err, size_t err_size)
{
    char sql[POSTGRES_NAME_SIZE + sizeof COLUMNS + 100];
    const char *name[] = {dlq->config.dead_letters};
    PGresult *found = postgres_call(dlq->conn,
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
    snprintf(dlq->table, sizeof dlq->table, "%s", PQgetvalue(found, 0, 0));
    PQclear(found);
    snprintf(sql, sizeof sql,
             "DECLARE letters CURSOR FOR SELECT " COLUMNS " FROM %s ORDER BY died_at, position",
             dlq->table);
    /* A cursor lives as long as its transaction, and sees what there was when it began. */
    PQclear(PQexec(dlq->conn, "BEGIN READ ONLY"));
    found = postgres_call(dlq->conn, sql, 0, NULL, err, err_size);
    PQclear(found);
    return found ? 0 : -EIO;
}

static int dead_letters_open(struct dead_letters **out, const struct settings *settings,
                             const char *to, char *err, size_t err_size)
{
    struct postgres_dead_letters *dlq = calloc(1, sizeof *dlq);
    (void)to;
    snprintf(err, err_size, "out of memory");
    if (!dlq)
        return -ENOMEM;
    int rc = postgres_config_read(&dlq->config, settings, err, err_size);
    if (!rc)
        rc = postgres_call_open(&dlq->conn, &dlq->config, err, err_size);
    if (!rc)
        rc = begin(dlq, err, err_size);
    if (rc) {
        dead_letters_close(&dlq->base, NULL, 0);
        return rc;
    }
    dlq->base.ops = &postgres_dead_letters;
    *out = &dlq->base;
    return 0;
}

static struct bytes cell(const struct postgres_dead_letters *dlq, int column)
{
    return (struct bytes){PQgetvalue(dlq->rows, dlq->row, column),
                          (size_t)PQgetlength(dlq->rows, dlq->row, column)};
}

/* 0 or -ENOMEM. *out is NULL where the column is. */
static int read_bytea(struct postgres_dead_letters *dlq, int column, unsigned char **out,
                      struct bytes *bytes)
{
    PQfreemem(*out);
    *out = NULL;
    *bytes = (struct bytes){NULL, 0};
    if (PQgetisnull(dlq->rows, dlq->row, column))
        return 0;
    *out = PQunescapeBytea((const unsigned char *)PQgetvalue(dlq->rows, dlq->row, column),
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
    /* Behind the colon or the space; at the end of all there is neither. */
    *at += **at == end;
    texts->len += out.len;
    return out;
}

/* 0 or -ENOMEM. */
static int read_headers(struct postgres_dead_letters *dlq)
{
    struct bytes all = cell(dlq, HEADERS);
    const char *at = all.ptr;
    size_t n = 0;
    for (size_t i = 0; i < all.len; i++)
        n += all.ptr[i] == ':';
    dlq->n_headers = 0;
    dlq->texts.len = 0;
    if (n == 0)
        return 0;
    /* Room for all at once: what was read stays where it is. */
    struct header *headers = realloc(dlq->headers, n * sizeof *headers);
    if (!headers || !buffer_extend(&dlq->texts, all.len))
        return -ENOMEM;
    dlq->headers = headers;
    dlq->texts.len = 0;
    for (; dlq->n_headers < n; dlq->n_headers++) {
        headers[dlq->n_headers].name = read_hex(&dlq->texts, &at, ':');
        headers[dlq->n_headers].value = read_hex(&dlq->texts, &at, ' ');
    }
    return 0;
}

static int dead_letters_next(struct dead_letters *base, struct dead_letter *out, char *err,
                             size_t err_size)
{
    struct postgres_dead_letters *dlq = self(base);
    if (!dlq->rows || ++dlq->row >= PQntuples(dlq->rows)) {
        /* The letter given last pointed into these rows, until this call. */
        PQclear(dlq->rows);
        dlq->row = 0;
        dlq->rows = postgres_call(dlq->conn, FETCH, 0, NULL, err, err_size);
        if (!dlq->rows)
            return -EIO;
        if (PQntuples(dlq->rows) == 0)
            return 0;
    }
    *out = (struct dead_letter){.position = cell(dlq, POSITION),
                                .origin = cell(dlq, POSITION),
                                .code = cell(dlq, CODE),
                                .reason = cell(dlq, REASON)};
    snprintf(err, err_size, "out of memory");
    if (read_bytea(dlq, VALUE, &dlq->value, &out->value) ||
        read_bytea(dlq, KEY, &dlq->key, &out->key) || read_headers(dlq))
        return -ENOMEM;
    out->is_empty = !out->value.ptr;
    out->headers = dlq->headers;
    out->n_headers = dlq->n_headers;
    return 1;
}

/* Unless it has died again meanwhile. */
static int dead_letters_take(struct dead_letters *base, char *err, size_t err_size)
{
    struct postgres_dead_letters *dlq = self(base);
    char sql[POSTGRES_NAME_SIZE + 100];
    const char *values[] = {cell(dlq, POSITION).ptr, cell(dlq, DIED_AT).ptr};
    /* By another connection: the cursor's transaction is read-only and stays open. */
    int rc = dlq->taker ? 0 : postgres_call_open(&dlq->taker, &dlq->config, err, err_size);
    if (rc)
        return rc;
    snprintf(sql, sizeof sql, "DELETE FROM %s WHERE position = $1 AND died_at = $2", dlq->table);
    PGresult *done = postgres_call(dlq->taker, sql, 2, values, err, err_size);
    if (!done)
        return -EIO;
    bool is_taken = strcmp(PQcmdTuples(done), "0") != 0;
    PQclear(done);
    return is_taken;
}

static const char *const options[] = {"postgres.", NULL};

static const char *find_place(const struct settings *settings)
{
    return settings_model_from(settings, "postgres.dead_letters", "postgres.table");
}

const struct dead_letters_ops postgres_dead_letters = {
    .options = options,
    .place = find_place,
    .open = dead_letters_open,
    .next = dead_letters_next,
    .take = dead_letters_take,
    .close = dead_letters_close,
};
