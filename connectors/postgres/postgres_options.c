/*
 * postgres_options.c: the postgres.* options and what they mean.
 *
 * Owns:    names, defaults and help of the options.
 * Refuses: to know whether a table is there: the server tells (postgres_table.c).
 * Threads: the loop thread, at open.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/postgres/postgres.h"
#include "connectors/postgres/postgres_hosts.h"

const struct option postgres_options[] = {
    {"postgres.url", OPTION_SECRET, "postgresql://", NULL, 0, 0, "URL",
     "Server to write to, as libpq reads it: postgresql://[user[:password]@]host[,host...]/db, "
     "with "
     "?sslmode=verify-full and the like, or words like host=a,b dbname=c; what is missing comes "
     "from "
     "PGHOST, PGUSER and so on, the password from ~/.pgpass too"},
    {"postgres.password", OPTION_SECRET, NULL, NULL, 0, 0, "TEXT",
     "Password, to keep it out of the URL"},
    {"postgres.table", OPTION_TEXT, "embeddings", NULL, 0, 0, "TABLE",
     "Table of the embeddings, a row for each text: [schema.]name; `embedmill schema` prints how "
     "to "
     "create it"},
    {"postgres.dead_letters", OPTION_TEXT, NULL, NULL, 0, 0, "TABLE",
     "Table for messages that cannot be embedded (default: the table's name with _dlq)"},
    {"postgres.deleted", OPTION_TEXT, NULL, NULL, 0, 0, "TABLE",
     "Table of deleted ids and their versions, so that a late, older message does not bring one "
     "back (default: the table's name with _deleted)"},
    {"postgres.offsets", OPTION_TEXT, NULL, NULL, 0, 0, "TABLE",
     "With delivery exactly-once: table of the offsets of the input's partitions (default: the "
     "table's name with _offsets)"},
    {"postgres.timeout", OPTION_DURATION, "30s", NULL, 100, 3600 * 1000, "TIME",
     "Give up a statement that takes longer (statement_timeout), and a server that is silent for "
     "longer"},
    {"postgres.lock_timeout", OPTION_DURATION, "5s", NULL, 10, 3600 * 1000, "TIME",
     "Give up waiting for a lock after this time (lock_timeout), and retry"},
    {NULL, OPTION_TEXT, NULL, NULL, 0, 0, NULL, NULL},
};

static int read_type(struct postgres_config *config, const struct settings *settings,
                     const char **bad_option, char *err, size_t err_size)
{
    *bad_option = "dtype";
    if (settings_is(settings, "dtype", "i1")) {
        snprintf(err, err_size,
                 "pgvector has no type for int8; expected f4 (vector), f2 (halfvec) or b1 (bit)");
        return -EINVAL;
    }
    config->type = settings_is(settings, "dtype", "f2")   ? POSTGRES_HALFVEC
                   : settings_is(settings, "dtype", "b1") ? POSTGRES_BIT
                                                          : POSTGRES_VECTOR;
    return 0;
}

/* What was asked for, or by default: "a"."b" becomes "a"."b_dlq". */
char *postgres_name_of(const char *asked, const char *table, const char *ending)
{
    size_t len = strlen(table), size = len + strlen(ending) + 1;
    /* The ending goes in front of the closing quote. */
    bool is_quoted = len > 1 && table[len - 1] == '"';
    if (asked && *asked)
        return strdup(asked);
    char *name = malloc(size);
    if (name)
        snprintf(name, size, "%.*s%s%s", (int)(len - is_quoted), table, ending,
                 is_quoted ? "\"" : "");
    return name;
}

static int read_tables(struct postgres_config *config, const struct settings *settings,
                       const char **bad_option, char *err, size_t err_size)
{
    const char *table = settings_text(settings, "postgres.table");
    *bad_option = "postgres.table";
    if (!*table) {
        snprintf(err, err_size, "expected the name of a table, got nothing");
        return -EINVAL;
    }
    config->table = strdup(table);
    config->dead_letters =
        postgres_name_of(settings_text(settings, "postgres.dead_letters"), table, "_dlq");
    config->deleted =
        postgres_name_of(settings_text(settings, "postgres.deleted"), table, "_deleted");
    config->offsets =
        postgres_name_of(settings_text(settings, "postgres.offsets"), table, "_offsets");
    config->made_with = postgres_name_of(NULL, table, "_made_with");
    if (!config->table || !config->dead_letters || !config->deleted || !config->offsets ||
        !config->made_with)
        return -ENOMEM;
    const char *others[] = {config->dead_letters, config->deleted};
    static const char *const options[] = {"postgres.dead_letters", "postgres.deleted"};
    for (size_t i = 0; i < 2; i++) {
        *bad_option = options[i];
        if (strcmp(config->table, others[i]) == 0) {
            snprintf(err, err_size, "expected another table than postgres.table");
            return -EINVAL;
        }
    }
    return 0;
}

static int config_read(void *out, const struct settings *settings, const char **bad_option,
                       char *err, size_t err_size)
{
    struct postgres_config config = {0};
    struct postgres_hosts hosts;
    *bad_option = "postgres.url";
    config.url = strdup(settings_text(settings, "postgres.url"));
    int rc = config.url ? settings_copy(settings, "postgres.password", &config.password) : -ENOMEM;
    if (!rc)
        rc = postgres_hosts_open(&hosts, config.url, err, err_size);
    if (!rc)
        /* Only read, so that a bad string is found before the start. */
        postgres_hosts_close(&hosts);
    if (!rc)
        rc = read_type(&config, settings, bad_option, err, err_size);
    if (!rc)
        rc = read_tables(&config, settings, bad_option, err, err_size);
    if (rc) {
        postgres_config_clear(&config);
        return rc;
    }
    config.timeout_ms = (uint64_t)settings_number(settings, "postgres.timeout");
    config.lock_ms = (uint64_t)settings_number(settings, "postgres.lock_timeout");
    config.exactly_once = settings_is(settings, "delivery", "exactly-once");
    config.is_chunking = settings_is(settings, "too_long", "chunk");
    *(struct postgres_config *)out = config;
    return 0;
}

int postgres_config_read(struct postgres_config *out, const struct settings *settings, char *err,
                         size_t err_size)
{
    return settings_read(config_read, out, settings, err, err_size);
}

int postgres_config_check(const struct settings *settings, const char **bad_option, char *err,
                          size_t err_size)
{
    struct postgres_config config = {0};
    int rc = config_read(&config, settings, bad_option, err, err_size);
    postgres_config_clear(&config);
    return rc;
}

void postgres_config_clear(struct postgres_config *config)
{
    free(config->url);
    free(config->password);
    free(config->table);
    free(config->dead_letters);
    free(config->deleted);
    free(config->offsets);
    free(config->made_with);
    *config = (struct postgres_config){0};
}
