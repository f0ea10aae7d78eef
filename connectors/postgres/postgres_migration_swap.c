/*
 * postgres_migration_swap.c: the side takes the place of the table, see postgres_migration.c.
 *
 * Owns:    what the side gets of the table first, and the transaction of the change.
 * Threads: the calling one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "connectors/postgres/postgres_migration.h"

enum { TRIES = 30 }; /* for the lock, a second apart */

/* Those of the vectors only where these are of the same type, for they name it. */
static int create_indexes(struct postgres_migration *m, char *err, size_t err_size)
{
    char sql[POSTGRES_MIGRATION_SQL], indexes[POSTGRES_MIGRATION_SQL];
    snprintf(sql, sizeof sql,
             "SELECT string_agg('CREATE ' || CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END ||"
             " 'INDEX ON %1$s' || substr(pg_get_indexdef(i.indexrelid),"
             " strpos(pg_get_indexdef(i.indexrelid), ' USING ')), ';')"
             " FROM pg_index i, pg_attribute a, pg_attribute b"
             " WHERE i.indrelid = to_regclass('%2$s') AND i.indisvalid"
             " AND a.attrelid = i.indrelid AND a.attname = 'embedding'"
             " AND b.attrelid = to_regclass('%1$s') AND b.attname = 'embedding'"
             " AND NOT (i.indisunique AND i.indnkeyatts = 1 AND i.indkey[0] = (SELECT attnum FROM"
             "  pg_attribute WHERE attrelid = i.indrelid AND attname = 'id'))"
             " AND NOT (NOT i.indisunique AND i.indnkeyatts = 1 AND i.indkey[0] = (SELECT attnum"
             "  FROM pg_attribute WHERE attrelid = i.indrelid AND attname = 'parent'))"
             " AND (a.atttypid = b.atttypid OR NOT EXISTS (SELECT FROM pg_depend d WHERE"
             "  d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid AND d.refobjid ="
             "  i.indrelid AND d.refobjsubid = a.attnum))",
             m->side, m->config.table);
    int rc = postgres_migration_value(m, indexes, sizeof indexes, sql, err, err_size);
    /* Cut by snprintf, in the middle of a statement. */
    if (!rc && strlen(indexes) >= sizeof indexes - 1) {
        snprintf(err, err_size, "table %.200s has too many indexes", m->config.table);
        return -EINVAL;
    }
    return rc ? rc : postgres_migration_run_many(m, indexes, err, err_size);
}

/* Fields are those of the text, and the model and the places of pieces are those of the side. */
static const char metadata[] =
    "(coalesce(t.metadata, '{}') - CASE WHEN t.embedmill_is_piece THEN"
    " '{parent,chunk,start,end}'::text[] ELSE '{}' END) ||"
    " (SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(s.metadata)"
    " WHERE key = 'embedding-model' OR key IN ('parent', 'chunk', 'start', 'end') AND"
    " (s.parent IS NOT NULL OR t.embedmill_is_piece))";

/* What the side does not know: versions, fields of the message, columns of others. */
static int carry_over(struct postgres_migration *m, char *err, size_t err_size)
{
    static const char list[] =
        "SELECT string_agg(format('%s', attname, attname), ', ') FROM pg_attribute"
        " WHERE attrelid = to_regclass('%s') AND attnum > 0 AND NOT attisdropped AND"
        " attgenerated = '' AND attidentity = '' AND attname NOT IN"
        " ('id', 'parent', 'chunk', 'embedding', 'metadata')";
    char sql[POSTGRES_MIGRATION_SQL], sets[2000] = "", columns[2000] = "";
    snprintf(sql, sizeof sql, list, "%I = t.%I", m->config.table);
    int rc = postgres_migration_value(m, sets, sizeof sets, sql, err, err_size);
    /* The same columns once more, for the inner SELECT. */
    snprintf(sql, sizeof sql, list, "%I", m->config.table);
    if (!rc)
        rc = postgres_migration_value(m, columns, sizeof columns, sql, err, err_size);
    if (!rc && strlen(sets) >= sizeof sets - 1) {
        snprintf(err, err_size, "table %.200s has too many columns", m->config.table);
        return -EINVAL;
    }
    snprintf(sql, sizeof sql,
             "UPDATE %s s SET %s, metadata = %s FROM (SELECT DISTINCT ON (coalesce(parent,"
             " id::text)) coalesce(parent, id::text) AS doc, parent IS NOT NULL AS"
             " embedmill_is_piece, metadata, %s FROM %s ORDER BY coalesce(parent, id::text), chunk)"
             " t WHERE t.doc = coalesce(s.parent, s.id::text)",
             m->side, sets, metadata, columns, m->config.table);
    return rc ? rc : postgres_migration_run(m, err, err_size, sql);
}

/* What others may do with the table they may do with the new one. */
static int grant(struct postgres_migration *m, char *err, size_t err_size)
{
    char sql[POSTGRES_MIGRATION_SQL], grants[4000] = "";
    snprintf(sql, sizeof sql,
             "SELECT string_agg(format('GRANT %%s ON %%s TO %%s', a.privilege_type,"
             " to_regclass('%s'), CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE"
             " quote_ident(pg_get_userbyid(a.grantee)) END), '; ') || format('; ALTER TABLE %%s"
             " OWNER TO %%I', to_regclass('%s'), pg_get_userbyid(c.relowner)) FROM pg_class c,"
             " aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a"
             " WHERE c.oid = to_regclass('%s') GROUP BY c.relowner",
             m->side, m->side, m->config.table);
    int rc = postgres_migration_value(m, grants, sizeof grants, sql, err, err_size);
    if (rc || !grants[0])
        return rc;
    return postgres_migration_run_many(m, grants, err, err_size);
}

/* Nobody writes from here to the end of the transaction. -EAGAIN: somebody else has a lock. */
static int lock(struct postgres_migration *m, char *err, size_t err_size)
{
    char sql[POSTGRES_MIGRATION_SQL], ignored[8];
    int rc = postgres_migration_run(m, err, err_size, "BEGIN");
    snprintf(sql, sizeof sql, "SET LOCAL lock_timeout = %llu",
             (unsigned long long)m->config.lock_ms);
    if (!rc)
        rc = postgres_migration_run(m, err, err_size, sql);
    /* The lock that each transaction of a worker shares (add_guard in postgres_burst.c). */
    snprintf(
        sql, sizeof sql,
        "SELECT pg_advisory_xact_lock(hashtextextended(format('%%I.%%I', s.nspname, c.relname),"
        " 0)) FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace"
        " WHERE c.oid = to_regclass('%s')",
        m->config.made_with);
    if (!rc)
        rc = postgres_migration_value(m, ignored, sizeof ignored, sql, err, err_size);
    snprintf(sql, sizeof sql, "LOCK TABLE %s, %s, %s IN ACCESS EXCLUSIVE MODE", m->config.table,
             m->config.deleted, m->side);
    if (!rc)
        rc = postgres_migration_run(m, err, err_size, sql);
    return rc == -EACCES ? -EAGAIN : rc;
}

#define DOCS "(SELECT DISTINCT coalesce(parent, id::text) AS doc FROM %s)"

/* Texts that are deleted by now go from the side; then, what the side is behind of. */
static int judge(struct postgres_migration *m, struct migration_compared *out, char *err,
                 size_t err_size)
{
    char sql[POSTGRES_MIGRATION_SQL], number[32] = "0", changed[140] = "";
    snprintf(sql, sizeof sql,
             "WITH gone AS (SELECT s.doc FROM " DOCS " s LEFT JOIN " DOCS " t USING (doc)"
             " WHERE t.doc IS NULL AND (EXISTS (SELECT FROM %s k WHERE k.doc = s.doc) OR EXISTS"
             " (SELECT FROM %s d WHERE d.id = s.doc))), dropped AS (DELETE FROM %s s USING gone"
             " WHERE coalesce(s.parent, s.id::text) = gone.doc) SELECT count(*) FROM gone",
             m->side, m->config.table, m->stock, m->config.deleted, m->side);
    int rc = postgres_migration_value(m, number, sizeof number, sql, err, err_size);
    out->dropped = strtoull(number, NULL, 10);
    snprintf(sql, sizeof sql,
             "SELECT count(*) || ' ' || coalesce(min(n.doc), '') FROM (" POSTGRES_MIGRATION_ROWS
             ") n LEFT JOIN %s k USING (doc) LEFT JOIN " DOCS " s USING (doc)"
             " WHERE s.doc IS NULL OR k.rows IS DISTINCT FROM n.rows",
             m->config.table, m->stock, m->side);
    if (!rc)
        /* Count and one id in one value, a space between. */
        rc = postgres_migration_value(m, changed, sizeof changed, sql, err, err_size);
    char *behind = changed;
    out->changed = strtoull(changed, &behind, 10);
    snprintf(out->changed_id, sizeof out->changed_id, "%.79s", *behind ? behind + 1 : "");
    return rc;
}

/* The last word of a name, as SQL. */
static const char *last_word(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

static int swap(struct postgres_migration *m, char *err, size_t err_size)
{
    char sql[POSTGRES_MIGRATION_SQL];
    snprintf(sql, sizeof sql, "ALTER TABLE %s RENAME TO %s", m->config.table, last_word(m->old));
    int rc = postgres_migration_run(m, err, err_size, sql);
    /* In the transaction of `lock`: nobody sees a moment without a table. */
    snprintf(sql, sizeof sql, "ALTER TABLE %s RENAME TO %s", m->side, last_word(m->config.table));
    if (!rc)
        rc = postgres_migration_run(m, err, err_size, sql);
    snprintf(sql, sizeof sql,
             "UPDATE %s SET of_table = to_regclass('%s'), made_with = (SELECT made_with FROM %s"
             " WHERE single) WHERE single",
             m->config.made_with, m->config.table, m->side_made_with);
    if (!rc)
        rc = postgres_migration_run(m, err, err_size, sql);
    return rc ? rc : postgres_migration_drop_side(m, true, err, err_size);
}

static int check_note(struct postgres_migration *m, const char *made_with, char *err,
                      size_t err_size)
{
    char sql[POSTGRES_MIGRATION_SQL], note[2 * MADE_WITH_SIZE];
    snprintf(sql, sizeof sql,
             "SELECT made_with FROM %s WHERE single AND of_table = to_regclass('%s')",
             m->side_made_with, m->side);
    int rc = postgres_migration_value(m, note, sizeof note, sql, err, err_size);
    if (!rc && !made_with_fits(bytes_of(note), made_with, "the new vectors", m->base.side,
                               "start this again", err, err_size))
        rc = -EBUSY;
    return rc;
}

int postgres_migration_compare(struct migration *base, const char *made_with,
                               struct migration_compared *out, char *err, size_t err_size)
{
    struct postgres_migration *m = (struct postgres_migration *)base;
    *out = (struct migration_compared){0};
    int rc = carry_over(m, err, err_size);
    if (!rc)
        rc = create_indexes(m, err, err_size);
    if (!rc)
        rc = grant(m, err, err_size);
    for (int tries = 0; !rc; tries++) {
        rc = lock(m, err, err_size);
        if (rc != -EAGAIN || tries >= TRIES)
            break;
        /* The lock is given back between two tries, so that workers go on writing. */
        PQclear(PQexec(m->conn, "ROLLBACK"));
        sleep(1);
        rc = 0;
    }
    if (!rc)
        rc = check_note(m, made_with, err, err_size);
    if (!rc)
        rc = judge(m, out, err, err_size);
    bool is_wanted = !rc && out->changed == 0;
    if (is_wanted)
        rc = swap(m, err, err_size);
    if (is_wanted && !rc)
        return postgres_migration_run(m, err, err_size, "COMMIT");
    /* Not wanted, or refused: the table is as it was, and the locks are gone. */
    PQclear(PQexec(m->conn, "ROLLBACK"));
    return rc == -EAGAIN ? -EIO : rc;
}
