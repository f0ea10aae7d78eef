/*
 * postgres_table.c: see postgres_table.h.
 *
 * A row is of a text, or of a piece of one: then `parent` is the id of the text and `chunk` counts.
 * The rows of a text, whole or in pieces, are a document here. Which version of it a row is of is
 * the time and number of its message: version, version_order.
 *
 * Written in this order: first rows, then what is left over is deleted. A worker that writes
 * another version of a document at the same time waits at its rows, and then deletes with eyes that
 * see them; so whoever comes last leaves the newest version alone, whichever that is.
 *
 * What was deleted has no row any more that an older message could be compared with, or that its
 * writer would wait at. So its version is kept in a table of its own, which is looked at twice:
 * when rows are written, and again at the end of the transaction, behind a lock that those who
 * delete have for themselves. What an older message has written until then is seen there and goes
 * again; what is not seen yet waits for the lock, and then sees the deletion.
 */
#include "connectors/postgres/postgres_table.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define NEWER(a, b) "(" a ".version, " a ".version_order) > (" b ".version, " b ".version_order)"

/* unique: an index that ON CONFLICT (id) can use; first: some index begins with the column. Views
 * have none and show through to their table's. */
const char postgres_table_question[] =
    "SELECT n.ord, format('%I.%I', s.nspname, c.relname), a.attname, t.typname,"
    " format_type(a.atttypid, NULL), a.atttypid::int8, t.typarray::int8, a.atttypmod,"
    " c.relkind = 'v' OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique"
    "  AND i.indisvalid AND i.indpred IS NULL AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum),"
    " c.relkind = 'v' OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid"
    "  AND i.indkey[0] = a.attnum)"
    " FROM unnest(ARRAY[$1, $2, $3, $4, $5]) WITH ORDINALITY AS n (name, ord)"
    " JOIN pg_class c ON c.oid = to_regclass(n.name) JOIN pg_namespace s ON s.oid = c.relnamespace"
    " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
    " JOIN pg_type t ON t.oid = a.atttypid ORDER BY n.ord, a.attnum";

enum { TABLE, NAME, COLUMN, TYPE, SQL_TYPE, TYPE_OID, ARRAY_OID, MODIFIER, UNIQUE, FIRST };

static const char upsert[] =
    "INSERT INTO %1$s AS t (id, parent, chunk, embedding, metadata, version, version_order)"
    " SELECT u.id::%2$s, u.parent, u.chunk, u.embedding, u.metadata, u.version, u.version_order"
    " FROM unnest($1, $2, $3, $4, $5, $6, $7) AS u"
    " (id, parent, chunk, embedding, metadata, version, version_order)"
    " WHERE NOT EXISTS (SELECT FROM %1$s o WHERE o.parent IS NOT NULL"
    "  AND o.parent = coalesce(u.parent, u.id) AND " NEWER(
        "o",
        "u") ")"
             " AND (u.parent IS NULL OR NOT EXISTS (SELECT FROM %1$s o WHERE o.id = u.parent::%2$s"
             "  AND " NEWER(
                 "o",
                 "u") "))"
                      " AND NOT EXISTS (SELECT FROM %3$s d WHERE d.id = coalesce(u.parent, "
                      "(u.id::%2$s)::text) AND " NEWER(
                          "d",
                          "u") ")"
                               " ON CONFLICT (id) DO UPDATE SET parent = excluded.parent, chunk = "
                               "excluded.chunk,"
                               " embedding = excluded.embedding, metadata = excluded.metadata,"
                               " version = excluded.version, version_order = excluded.version_order"
                               " WHERE NOT " NEWER("t", "excluded");

/* Pieces of a document that this version has no more, and those of older versions. A delete that
 * has no version is newer than whatever is there: then the comparison is null. */
static const char delete_pieces[] =
    "DELETE FROM %1$s t USING unnest($1, $2, $3, $4, $5) AS d (doc, first, whole, version,"
    " version_order) WHERE t.parent IS NOT NULL AND t.parent = d.doc"
    " AND ((t.chunk >= d.first AND (" NEWER(
        "t",
        "d") ") IS NOT TRUE)"
             " OR EXISTS (SELECT FROM %1$s o WHERE o.parent IS NOT NULL AND o.parent = t.parent"
             "  AND " NEWER("o", "t") "))";

/* The row of a text that is in pieces now, or deleted. */
static const char delete_wholes[] =
    "DELETE FROM %1$s t USING unnest($1, $2, $3, $4, $5) AS d (doc, first, whole, version,"
    " version_order) WHERE t.id = d.doc::%2$s AND t.parent IS NULL"
    " AND ((NOT d.whole AND (" NEWER(
        "t", "d") ") IS NOT TRUE)"
                  " OR EXISTS (SELECT FROM %1$s o WHERE o.parent IS NOT NULL AND o.parent = d.doc"
                  "  AND " NEWER("o", "t") "))";

/* An id as the column writes it: '7' and '007' of a bigint are one. A delete without a version gets
 * that of what it deletes, and leaves no trace where there is nothing. */
static const char put_deleted[] =
    "INSERT INTO %1$s AS d (id, version, version_order)"
    " SELECT n.id, n.version, n.version_order FROM (SELECT (u.id::%2$s)::text, coalesce(u.version,"
    " greatest((SELECT max(t.version) FROM %3$s t WHERE t.id = u.id::%2$s AND t.parent IS NULL),"
    "  (SELECT max(t.version) FROM %3$s t WHERE t.parent IS NOT NULL AND t.parent = u.id))),"
    " u.version_order FROM unnest($1, $2, $3) AS u (id, version, version_order))"
    " AS n (id, version, version_order) WHERE n.version IS NOT NULL"
    " ON CONFLICT (id) DO UPDATE SET version = excluded.version,"
    " version_order = excluded.version_order, deleted_at = now()"
    " WHERE " NEWER("excluded", "d");

/* Rows that were written while somebody else deleted them. */
static const char delete_revived[] =
    "WITH gone AS (SELECT d.* FROM unnest($1) AS u (id) JOIN %3$s d ON d.id = (u.id::%2$s)::text),"
    " whole AS (DELETE FROM %1$s t USING gone WHERE t.id = gone.id::%2$s AND t.parent IS NULL"
    "  AND " NEWER(
        "gone",
        "t") ")"
             " DELETE FROM %1$s t USING gone WHERE t.parent IS NOT NULL AND t.parent = gone.id"
             " AND " NEWER("gone", "t");

const char postgres_table_lock[] = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
const char postgres_table_share[] = "SELECT pg_advisory_xact_lock_shared(hashtextextended($1, 0))";

static const char put_letters[] =
    "INSERT INTO %1$s (position, code, reason, key, value, headers)"
    " SELECT * FROM unnest($1, $2, $3, $4, $5, $6)"
    " ON CONFLICT (position) DO UPDATE SET code = excluded.code, reason = excluded.reason,"
    " key = excluded.key, value = excluded.value, headers = excluded.headers, died_at = now()";

/* A worker that is given a part counts the epoch up, and then no other can move it any more. */
static const char claim[] = "INSERT INTO %1$s AS o (consumer_group, part, done, epoch)"
                            " SELECT $1, n.part, n.done, 1 FROM unnest($2, $3) AS n (part, done)"
                            " ON CONFLICT (consumer_group, part) DO UPDATE SET epoch = o.epoch + 1"
                            " RETURNING part, done, epoch";

static const char check[] =
    "SELECT n.part, o.done, o.epoch FROM unnest($2, $3) AS n (part, done) LEFT JOIN %1$s o"
    " ON o.consumer_group = $1 AND o.part = n.part";

/* All or nothing: a division by zero ends the transaction when one of them is another's by now. */
static const char move[] =
    "WITH moved AS (UPDATE %1$s o SET done = n.done, moved_at = now()"
    " FROM unnest($2, $3, $4) AS n (part, epoch, done)"
    " WHERE o.consumer_group = $1 AND o.part = n.part AND o.epoch = n.epoch RETURNING 1)"
    " SELECT 1 / (CASE WHEN (SELECT count(*) FROM moved) = cardinality($2) THEN 1 ELSE 0 END)";

/* The first worker says it for all: of two that begin at once, the second waits for the first. What
 * was said of a table that was dropped since does not count. */
static const char keep_made_with[] =
    "INSERT INTO %1$s AS m (single, of_table, made_with) VALUES (true, to_regclass($2), $1)"
    " ON CONFLICT (single) DO UPDATE SET of_table = excluded.of_table,"
    " made_with = excluded.made_with WHERE m.of_table <> excluded.of_table";
/* All or nothing, as `move`: the note may have changed since this worker has compared it. */
static const char guard_made_with[] = "SELECT 1 / (CASE WHEN (SELECT made_with FROM %1$s WHERE "
                                      "single) = $1 THEN 1 ELSE 0 END)";
static const char get_made_with[] = "SELECT made_with FROM %1$s WHERE single";

static const struct column {
    const char *name, *type; /* NULL: any */
    bool is_first;           /* must be the first of an index */
} columns[] = {
    {"id", NULL, false},
    {"parent", "text", true},
    {"chunk", "int4", false},
    {"embedding", NULL, false},
    {"metadata", "jsonb", false},
    {"version", "int8", false},
    {"version_order", "int8", false},
};

static const char *const deleted_columns[] = {"id", "version", "version_order", "deleted_at"};
static const char *const offset_columns[] = {"consumer_group", "part", "done", "epoch", "moved_at"};
static const char *const letter_columns[] = {"position", "code",    "reason", "key",
                                             "value",    "headers", "died_at"};

static const char *cell(const PGresult *answer, int row, int column)
{
    return PQgetvalue(answer, row, column);
}

/* -1: there is no such column. table: "1" or "2". */
static int find(const PGresult *answer, const char *table, const char *name)
{
    for (int i = 0; i < PQntuples(answer); i++)
        if (strcmp(cell(answer, i, TABLE), table) == 0 &&
            strcmp(cell(answer, i, COLUMN), name) == 0)
            return i;
    return -1;
}

static bool has_table(const PGresult *answer, const char *table, char *name)
{
    for (int i = 0; i < PQntuples(answer); i++)
        if (strcmp(cell(answer, i, TABLE), table) == 0) {
            snprintf(name, POSTGRES_NAME_SIZE, "%s", cell(answer, i, NAME));
            return true;
        }
    return false;
}

static bool has_columns(const PGresult *answer, const char *table, char *why, size_t size)
{
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        const struct column *wanted = &columns[i];
        int row = find(answer, "1", wanted->name);
        const char *type = row < 0 ? "" : cell(answer, row, TYPE);
        if (row < 0 || (wanted->type && strcmp(type, wanted->type) != 0)) {
            snprintf(why, size,
                     "table %s has no column %s%s%s: `embedmill schema` prints the table", table,
                     wanted->name, wanted->type ? " of type " : "",
                     wanted->type ? wanted->type : "");
            return false;
        }
        if (wanted->is_first && cell(answer, row, FIRST)[0] != 't') {
            snprintf(why, size,
                     "table %s has no index on %s, and every write would read all of it: CREATE "
                     "INDEX ON %s (%s) WHERE %s IS NOT NULL",
                     table, wanted->name, table, wanted->name, wanted->name);
            return false;
        }
    }
    if (cell(answer, find(answer, "1", "id"), UNIQUE)[0] == 't')
        return true;
    snprintf(why, size,
             "table %s has no unique index on id alone: ALTER TABLE %s ADD PRIMARY KEY "
             "(id)",
             table, table);
    return false;
}

/* One of the tables beside that of the embeddings; nth: in the question. */
static bool has_other(char *name, const PGresult *answer, const char *nth, const char *asked,
                      const char *const *wanted, size_t n, char *why, size_t size)
{
    if (!has_table(answer, nth, name)) {
        snprintf(why, size,
                 "there is no table %.100s, or this role may not see it: `embedmill schema` prints "
                 "how to create it",
                 asked);
        return false;
    }
    for (size_t i = 0; i < n; i++)
        if (find(answer, nth, wanted[i]) < 0) {
            snprintf(why, size, "table %s has no column %s: `embedmill schema` prints the table",
                     name, wanted[i]);
            return false;
        }
    return true;
}

static bool has_others(struct postgres_table *out, const struct postgres_config *config,
                       const PGresult *answer, char *why, size_t size)
{
    if (!has_other(out->letters, answer, "2", config->dead_letters, letter_columns,
                   sizeof letter_columns / sizeof *letter_columns, why, size) ||
        !has_other(out->deleted, answer, "3", config->deleted, deleted_columns,
                   sizeof deleted_columns / sizeof *deleted_columns, why, size))
        return false;
    if (has_table(answer, "5", out->made_with) &&
        (find(answer, "5", "of_table") < 0 || find(answer, "5", "made_with") < 0))
        out->made_with[0] = '\0'; /* a table of somebody else */
    return !config->exactly_once ||
           has_other(out->offsets, answer, "4", config->offsets, offset_columns,
                     sizeof offset_columns / sizeof *offset_columns, why, size);
}

static enum postgres_fit read_embedding(struct postgres_table *out,
                                        const struct postgres_config *config,
                                        const PGresult *answer, char *why, size_t size)
{
    static const char *const types[] = {"vector", "halfvec", "bit"};
    static const char *const dtypes[] = {"f4", "f2", "b1"};
    int row = find(answer, "1", "embedding");
    const char *type = cell(answer, row, TYPE);
    size_t found = 0;
    while (found < 3 && strcmp(type, types[found]) != 0)
        found++;
    if (found != (size_t)config->type) {
        snprintf(why, size,
                 "column embedding of table %s is of type %.60s, and dtype %s needs %s%s%s",
                 out->name, type, dtypes[config->type], types[config->type],
                 found < 3 ? ": take dtype " : "", found < 3 ? dtypes[found] : "");
        return POSTGRES_DIFFERS;
    }
    out->vector = (Oid)strtoul(cell(answer, row, TYPE_OID), NULL, 10);
    out->vector_array = (Oid)strtoul(cell(answer, row, ARRAY_OID), NULL, 10);
    /* -1 where the column names none. */
    out->dim = atoi(cell(answer, row, MODIFIER));
    return POSTGRES_FITS;
}

enum postgres_fit postgres_table_read(struct postgres_table *out,
                                      const struct postgres_config *config, const PGresult *answer,
                                      char *why, size_t size)
{
    *out = (struct postgres_table){.dim = -1};
    if (!has_table(answer, "1", out->name)) {
        snprintf(why, size,
                 "there is no table %.100s, or this role may not see it: `embedmill schema` prints "
                 "how to create it",
                 config->table);
        return POSTGRES_LACKS;
    }
    if (!has_columns(answer, out->name, why, size) || !has_others(out, config, answer, why, size))
        return POSTGRES_LACKS;
    snprintf(out->id_type, sizeof out->id_type, "%s",
             cell(answer, find(answer, "1", "id"), SQL_TYPE));
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(out->upsert, sizeof out->upsert, upsert, out->name, out->id_type, out->deleted);
    snprintf(out->delete_pieces, sizeof out->delete_pieces, delete_pieces, out->name);
    snprintf(out->delete_wholes, sizeof out->delete_wholes, delete_wholes, out->name, out->id_type);
    snprintf(out->put_deleted, sizeof out->put_deleted, put_deleted, out->deleted, out->id_type,
             out->name);
    snprintf(out->delete_revived, sizeof out->delete_revived, delete_revived, out->name,
             out->id_type, out->deleted);
    snprintf(out->put_letters, sizeof out->put_letters, put_letters, out->letters);
    snprintf(out->claim, sizeof out->claim, claim, out->offsets);
    snprintf(out->check, sizeof out->check, check, out->offsets);
    snprintf(out->move, sizeof out->move, move, out->offsets);
    snprintf(out->keep_made_with, sizeof out->keep_made_with, keep_made_with, out->made_with);
    snprintf(out->guard_made_with, sizeof out->guard_made_with, guard_made_with, out->made_with);
    snprintf(out->get_made_with, sizeof out->get_made_with, get_made_with, out->made_with);
#pragma GCC diagnostic pop
    return read_embedding(out, config, answer, why, size);
}

void postgres_type_name(enum postgres_type type, size_t dim, char *out, size_t size)
{
    static const char *const names[] = {"vector", "halfvec", "bit"};
    snprintf(out, size, "%s(%zu)", names[type], dim);
}

/* The last word of a name like s."My table", for the name of an index: letters and digits. */
static void plain_name(const char *table, char *out, size_t size)
{
    const char *last = strrchr(table, '.');
    size_t n = 0;
    for (const char *at = last ? last + 1 : table; *at && n + 1 < size; at++)
        if (*at != '"')
            out[n++] = isalnum((unsigned char)*at) ? *at : '_';
    out[n] = '\0';
}

void postgres_table_print_others(const char *letters, const char *deleted, const char *made_with,
                                 FILE *to)
{
    fprintf(to,
            "CREATE TABLE IF NOT EXISTS %s (\n"
            "    position text PRIMARY KEY, -- of the message in the input\n"
            "    code     text NOT NULL,    -- `embedmill dlq codes` explains them\n"
            "    reason   text NOT NULL,\n"
            "    key      bytea,\n"
            "    value    bytea,            -- the message, byte for byte\n"
            "    headers  jsonb,\n"
            "    died_at  timestamptz NOT NULL DEFAULT now()\n"
            ");\n",
            letters);
    fprintf(to,
            "\n-- What was deleted, and by which version. Now and then:\n"
            "-- DELETE FROM %s WHERE deleted_at < now() - interval '30 days';\n"
            "CREATE TABLE IF NOT EXISTS %s (\n"
            "    id            text PRIMARY KEY,\n"
            "    version       bigint NOT NULL,\n"
            "    version_order bigint NOT NULL,\n"
            "    deleted_at    timestamptz NOT NULL DEFAULT now()\n"
            ");\n",
            deleted, deleted);
    fprintf(to,
            "\nCREATE TABLE IF NOT EXISTS %s (\n"
            "    single    boolean PRIMARY KEY DEFAULT true CHECK (single), -- one row\n"
            "    of_table  regclass NOT NULL,\n"
            "    made_with text NOT NULL -- model, dim, prompt ... of the vectors there\n"
            ");\n",
            made_with);
}

static void print_tables(const struct postgres_config *config, size_t dim, FILE *to)
{
    char type[40], name[50];
    postgres_type_name(config->type, dim, type, sizeof type);
    plain_name(config->table, name, sizeof name);
    fprintf(to,
            "CREATE EXTENSION IF NOT EXISTS vector;\n\n"
            "CREATE TABLE IF NOT EXISTS %s (\n"
            "    id            text PRIMARY KEY,\n"
            "    parent        text,     -- of a chunk: the id of its text\n"
            "    chunk         integer,  -- and its number, from 0\n"
            "    embedding     %s,\n"
            "    metadata      jsonb,    -- the other fields of the message\n"
            "    version       bigint NOT NULL DEFAULT 0, -- the message's own, or its time in ms\n"
            "    version_order bigint NOT NULL DEFAULT 0  -- among messages of one version\n"
            ");\n"
            "CREATE INDEX IF NOT EXISTS %s_parent ON %s (parent) WHERE parent IS NOT NULL;\n\n",
            config->table, type, name, config->table);
    postgres_table_print_others(config->dead_letters, config->deleted, config->made_with, to);
    if (config->exactly_once)
        fprintf(to,
                "\nCREATE TABLE IF NOT EXISTS %s (\n"
                "    consumer_group text,\n"
                "    part           text,            -- of the input: TOPIC/PARTITION\n"
                "    done           bigint NOT NULL, -- Kafka: the offset where it goes on\n"
                "    epoch          bigint NOT NULL, -- how often it was given to a worker\n"
                "    moved_at       timestamptz NOT NULL DEFAULT now(),\n"
                "    PRIMARY KEY (consumer_group, part)\n"
                ");\n",
                config->offsets);
}

int postgres_table_schema(const struct settings *settings, size_t dim, FILE *to, char *err,
                          size_t err_size)
{
    struct postgres_config config;
    int rc = postgres_config_read(&config, settings, err, err_size);
    if (rc)
        return rc;
    print_tables(&config, dim, to);
    postgres_config_clear(&config);
    return 0;
}
