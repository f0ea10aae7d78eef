/*
 * postgres_migration.c: a table of PostgreSQL, made anew beside itself (connectors/migration.h).
 *
 * Owns:    the side (TABLE_next and what lies beside it), the note of what was there, and the one
 *          transaction in which the tables change places.
 * Refuses: tables that other things hang on by their identity: views, foreign keys, triggers.
 * Threads: the calling one.
 * Why:     the change is one transaction, so there is nothing to finish after a death: either it
 *          was committed or it was not. It holds a lock that every transaction of a worker shares
 *          (postgres_burst.c) and changes the note what the vectors are made with, which each of
 *          them compares under that lock: so none of a worker of the old model comes after it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "connectors/migration.h"
#include "connectors/postgres/postgres_call.h"
#include "connectors/postgres/postgres_migration.h"
#include "connectors/postgres/postgres_refusal.h"
#include "connectors/postgres/postgres_table.h"

static struct postgres_migration *self(struct migration *migration)
{
    return (struct postgres_migration *)migration;
}

static const char *const schemes[] = {"postgresql", "postgres", NULL};

static int output(const char *url, const struct queue_setter *to)
{
    const struct queue_option options[] = {{"postgres.url", url}};
    return queue_set(to, options, 1);
}

static int aim(struct migration *base, const struct queue_setter *to)
{
    const struct postgres_migration *m = self(base);
    const struct queue_option options[] = {{"postgres.table", m->side},
                                           {"postgres.deleted", m->side_deleted},
                                           {"postgres.dead_letters", m->side_letters}};
    return queue_set(to, options, 3);
}

/* ---- its life */

static void hush(void *ctx, const char *message)
{
    (void)ctx, (void)message;
}

static void migration_close(struct migration *base)
{
    struct postgres_migration *m = self(base);
    char sql[POSTGRES_MIGRATION_SQL];
    if (!m)
        return;
    if (m->conn && m->base.output[0]) { /* it was open */
        /* The note of what was there: of no use without the process that compares with it. */
        snprintf(sql, sizeof sql, "DROP TABLE IF EXISTS %s", m->stock);
        PQclear(PQexec(m->conn, sql));
    }
    PQfinish(m->conn);
    postgres_config_clear(&m->config);
    free(m->side);
    free(m->side_letters);
    free(m->side_deleted);
    free(m->side_made_with);
    free(m->stock);
    free(m->old);
    free(m);
}

static int name_tables(struct postgres_migration *m)
{
    const char *table = m->config.table;
    m->side = postgres_name_of(NULL, table, "_next");
    m->old = postgres_name_of(NULL, table, "_old");
    m->stock = postgres_name_of(NULL, table, "_next_stock");
    m->side_letters = postgres_name_of(NULL, table, "_next_dlq");
    m->side_deleted = postgres_name_of(NULL, table, "_next_deleted");
    m->side_made_with = postgres_name_of(NULL, table, "_next_made_with");
    bool is_good =
        m->side && m->old && m->stock && m->side_letters && m->side_deleted && m->side_made_with;
    return is_good ? 0 : -ENOMEM;
}

/* Of two migrations of a table the second ends: what the first knows would not be true any more. */
static int be_alone(struct postgres_migration *m, char *err, size_t err_size)
{
    char sql[POSTGRES_MIGRATION_SQL], is_alone[8];
    PQsetNoticeProcessor(m->conn, hush, NULL);
    PQclear(PQexec(m->conn, "SET statement_timeout = 0")); /* it is about whole tables */
    /* A lock of the session: it goes with the connection, whatever ends this process. */
    snprintf(sql, sizeof sql,
             "SELECT pg_try_advisory_lock(hashtextextended('embedmill migrate ' ||"
             " coalesce(to_regclass('%s')::oid::text, ''), 0))",
             m->config.table);
    int rc = postgres_migration_value(m, is_alone, sizeof is_alone, sql, err, err_size);
    if (!rc && is_alone[0] != 't') {
        snprintf(err, err_size, "table %.200s is being migrated by another process",
                 m->config.table);
        rc = -EBUSY;
    }
    return rc;
}

static int migration_open(struct migration **out, const struct settings *settings, char *err,
                          size_t err_size)
{
    struct postgres_migration *m = calloc(1, sizeof *m);
    snprintf(err, err_size, "out of memory");
    if (!m)
        return -ENOMEM;
    m->base.ops = &postgres_migration_ops;
    int rc = postgres_config_read(&m->config, settings, err, err_size);
    if (!rc)
        rc = name_tables(m);
    if (!rc && strlen(m->config.table) > 40) {
        snprintf(err, err_size,
                 "postgres.table: expected at most 40 characters, for the names of the tables that "
                 "a migration puts beside it are longer, and PostgreSQL cuts them at 63");
        rc = -EINVAL;
    }
    if (!rc && strchr(m->config.table, '\'')) {
        snprintf(err, err_size, "postgres.table: a name with a quote (') cannot be migrated");
        rc = -EINVAL;
    }
    if (!rc)
        rc = postgres_call_open(&m->conn, &m->config, err, err_size);
    if (!rc)
        rc = be_alone(m, err, err_size);
    if (rc) {
        migration_close(&m->base);
        return rc;
    }
    snprintf(m->base.output, sizeof m->base.output, "table %.120s", m->config.table);
    snprintf(m->base.side, sizeof m->base.side, "table %.120s", m->side);
    snprintf(m->base.errors, sizeof m->base.errors, "table %.120s", m->side_letters);
    *out = &m->base;
    return 0;
}

/* What hangs on a table by its identity, and would stay with the old one; one row: a sentence. */
static const char hangs_on[] =
    "SELECT string_agg(DISTINCT what, ', ') FROM ("
    " SELECT 'view ' || r.ev_class::regclass FROM pg_depend d JOIN pg_rewrite r"
    "  ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid"
    "  WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = to_regclass('%1$s')"
    "  AND r.ev_class <> d.refobjid"
    " UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgrelid = to_regclass('%1$s')"
    "  AND NOT tgisinternal"
    " UNION ALL SELECT 'foreign key ' || conname FROM pg_constraint"
    "  WHERE contype = 'f' AND to_regclass('%1$s') IN (confrelid, conrelid)"
    " UNION ALL SELECT 'inheritance' FROM pg_inherits"
    "  WHERE to_regclass('%1$s') IN (inhrelid, inhparent)"
    " UNION ALL SELECT 'publication ' || p.pubname FROM pg_publication_rel r"
    "  JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = to_regclass('%1$s')"
    " UNION ALL SELECT CASE WHEN relkind = 'r' THEN 'row security' ELSE 'not an ordinary table' END"
    "  FROM pg_class WHERE oid = to_regclass('%1$s') AND (relrowsecurity OR relkind <> 'r')"
    ") AS x (what)";

static int check_table(struct postgres_migration *m, char *err, size_t err_size)
{
    char sql[POSTGRES_MIGRATION_SQL], found[400];
    snprintf(sql, sizeof sql, "SELECT to_regclass('%s')", m->config.table);
    int rc = postgres_migration_value(m, found, sizeof found, sql, err, err_size);
    if (!rc && !found[0]) {
        snprintf(err, err_size, "there is no table %.200s", m->config.table);
        return -EINVAL;
    }
    snprintf(sql, sizeof sql, hangs_on, m->config.table);
    if (!rc)
        rc = postgres_migration_value(m, found, sizeof found, sql, err, err_size);
    if (!rc && found[0]) {
        snprintf(err, err_size,
                 "table %.100s would be replaced by another one, and this would stay with the old "
                 "one: %.250s; drop it before and create it again behind, or write to another "
                 "table and move its readers (docs/operations.md, Changing the model)",
                 m->config.table, found);
        return -EINVAL;
    }
    return rc;
}

/* A worker looks at the note behind the lock of the change. At a stricter level of isolation it
 * would see the note as it was before it had waited, and write on. */
static const char stricter[] =
    "SELECT string_agg(DISTINCT level, ', ') FROM ("
    " SELECT current_setting('default_transaction_isolation')"
    " UNION ALL SELECT split_part(one, '=', 2) FROM pg_db_role_setting, unnest(setconfig) AS one"
    "  WHERE one LIKE 'default_transaction_isolation=%'"
    ") AS x (level) WHERE level <> 'read committed'";

static int check_isolation(struct postgres_migration *m, char *err, size_t err_size)
{
    char found[200];
    int rc = postgres_migration_value(m, found, sizeof found, stricter, err, err_size);
    if (rc || !found[0])
        return rc;
    snprintf(err, err_size,
             "default_transaction_isolation is '%.100s' here or for some role or database, and a "
             "worker that writes so could miss the change: set it to 'read committed' until this "
             "is done (ALTER ROLE or ALTER DATABASE ... RESET default_transaction_isolation)",
             found);
    return -EINVAL;
}

/* ---- what is there */

static int begin(struct migration *base, struct migration_found *out, char *err, size_t err_size)
{
    struct postgres_migration *m = self(base);
    char sql[POSTGRES_MIGRATION_SQL], number[32] = "0", made_with[20];
    *out = (struct migration_found){0};
    int rc = check_table(m, err, err_size);
    if (!rc)
        rc = check_isolation(m, err, err_size);
    snprintf(sql, sizeof sql, "SELECT to_regclass('%s')", m->config.made_with);
    if (!rc)
        rc = postgres_migration_value(m, made_with, sizeof made_with, sql, err, err_size);
    snprintf(sql, sizeof sql,
             "SELECT made_with FROM %s WHERE single AND of_table = to_regclass('%s')",
             m->config.made_with, m->config.table);
    if (!rc && made_with[0])
        rc = postgres_migration_value(m, out->made_with, sizeof out->made_with, sql, err, err_size);
    snprintf(sql, sizeof sql, "DROP TABLE IF EXISTS %s", m->stock);
    if (!rc)
        rc = postgres_migration_run(m, err, err_size, sql);
    /* With the xmin of each row: whatever is written from here on shows as changed. */
    snprintf(sql, sizeof sql, "CREATE TABLE %s AS " POSTGRES_MIGRATION_ROWS, m->stock,
             m->config.table);
    if (!rc)
        rc = postgres_migration_run(m, err, err_size, sql);
    snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", m->stock);
    if (!rc)
        rc = postgres_migration_value(m, number, sizeof number, sql, err, err_size);
    out->texts = strtoull(number, NULL, 10);
    return rc;
}

/* ---- the side */

/* Columns and defaults of the table, with vectors of another type, and the indexes that a worker
 * needs; the others come when it is filled. */
static int create_side(struct postgres_migration *m, size_t dim, char *err, size_t err_size)
{
    char sql[POSTGRES_MIGRATION_SQL], type[64];
    postgres_type_name(m->config.type, dim, type, sizeof type);
    snprintf(sql, sizeof sql,
             "CREATE TABLE %1$s (LIKE %2$s INCLUDING ALL EXCLUDING INDEXES);"
             "ALTER TABLE %1$s ALTER COLUMN embedding TYPE %3$s USING NULL, ADD PRIMARY KEY (id);"
             "CREATE INDEX ON %1$s (parent) WHERE parent IS NOT NULL",
             m->side, m->config.table, type);
    return postgres_migration_run_many(m, sql, err, err_size);
}

static int prepare(struct migration *base, size_t dim, char *err, size_t err_size)
{
    struct postgres_migration *m = self(base);
    char sql[POSTGRES_MIGRATION_SQL], found[100];
    snprintf(sql, sizeof sql, "SELECT to_regclass('%s')", m->old);
    int rc = postgres_migration_value(m, found, sizeof found, sql, err, err_size);
    /* The table is renamed to that at the end, when it would be too late to say so. */
    if (!rc && found[0]) {
        snprintf(err, err_size,
                 "table %.200s is there, from an earlier migration: drop it, or call it something "
                 "else",
                 m->old);
        return -EINVAL;
    }
    if (!rc)
        rc = postgres_migration_drop_side(m, false, err, err_size);
    if (!rc)
        rc = create_side(m, dim, err, err_size);
    if (rc)
        return rc;
    char *text = NULL;
    size_t len;
    FILE *to = open_memstream(&text, &len);
    if (!to) {
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    postgres_table_print_others(m->side_letters, m->side_deleted, m->side_made_with, to);
    fclose(to);
    rc = postgres_migration_run_many(m, text, err, err_size);
    free(text);
    return rc;
}

/* ---- reading */

static uint32_t four(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* What PostgreSQL sends of a vector, halfvec or bit, as the worker writes it; in place. */
static struct bytes raw_of(char *cell, int len, bool is_bit, size_t width)
{
    if (len < 4)
        return (struct bytes){NULL, 0};
    /* The head of four bytes says how many there are; behind it they are big-endian. */
    for (int i = 4; !is_bit && i + (int)width <= len; i += (int)width)
        for (size_t k = 0; k < width / 2; k++) {
            char kept = cell[i + (int)k];
            cell[i + (int)k] = cell[i + (int)(width - 1 - k)];
            cell[i + (int)(width - 1 - k)] = kept;
        }
    return (struct bytes){cell + 4, (size_t)len - 4};
}

static int read_page(const PGresult *page, bool is_bit, size_t width, migration_reader reader,
                     void *ctx, char *err, size_t err_size)
{
    int rc = 0;
    for (int i = 0; !rc && i < PQntuples(page); i++) {
        int32_t chunk = (int32_t)four((const unsigned char *)PQgetvalue(page, i, 1));
        struct migration_vector vector = {
            .text = {PQgetvalue(page, i, 0), (size_t)PQgetlength(page, i, 0)},
            .chunk = chunk,
            .raw = raw_of(PQgetvalue(page, i, 2), PQgetlength(page, i, 2), is_bit, width)};
        rc = reader(ctx, &vector, err, err_size);
    }
    return rc;
}

static int read_all(struct migration *base, bool is_side, migration_reader reader, void *ctx,
                    char *err, size_t err_size)
{
    struct postgres_migration *m = self(base);
    const char *table = is_side ? m->side : m->config.table;
    char sql[POSTGRES_MIGRATION_SQL], type[64];
    snprintf(sql, sizeof sql,
             "SELECT t.typname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid WHERE "
             "a.attrelid = to_regclass('%s') AND a.attname = 'embedding'",
             table);
    int rc = postgres_migration_value(m, type, sizeof type, sql, err, err_size);
    if (!rc)
        rc = postgres_migration_run(m, err, err_size,
                                    "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY");
    snprintf(sql, sizeof sql,
             "DECLARE vectors NO SCROLL CURSOR FOR SELECT coalesce(parent, id::text), "
             "coalesce(chunk, -1)::int4, embedding FROM %s WHERE embedding IS NOT NULL "
             "ORDER BY 1, 2",
             table);
    if (!rc)
        rc = postgres_migration_run(m, err, err_size, sql);
    for (int n = 1; !rc && n > 0;) {
        /* 500 vectors at a time: a table may be larger than the memory. */
        PGresult *page =
            PQexecParams(m->conn, "FETCH 500 FROM vectors", 0, NULL, NULL, NULL, NULL, 1);
        n = PQntuples(page);
        if (PQresultStatus(page) != PGRES_TUPLES_OK) {
            postgres_message(PQerrorMessage(m->conn), err, err_size);
            rc = -EIO;
        } else {
            rc = read_page(page, strcmp(type, "bit") == 0, strcmp(type, "halfvec") == 0 ? 2 : 4,
                           reader, ctx, err, err_size);
        }
        PQclear(page);
    }
    PQclear(PQexec(m->conn, "ROLLBACK"));
    return rc;
}

/* The transaction has done it all. */
static int finish(struct migration *base, char *err, size_t err_size)
{
    (void)base, (void)err, (void)err_size;
    return 0;
}

const struct migration_ops postgres_migration_ops = {
    .schemes = schemes,
    .form = "postgresql://[USER@]HOST/DB",
    .output = output,
    .open = migration_open,
    .begin = begin,
    .aim = aim,
    .prepare = prepare,
    .read = read_all,
    .compare = postgres_migration_compare,
    .finish = finish,
    .close = migration_close,
};
