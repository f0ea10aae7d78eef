/*
 * postgres_connector.c: what the worker knows of PostgreSQL.
 */
#include "connectors/postgres/postgres.h"
#include "connectors/postgres/postgres_migration.h"
#include "connectors/postgres/postgres_table.h"

static const char *names_output(const struct settings *settings)
{
    (void)settings;
    return "postgres.table";
}

const struct connector postgres_connector = {
    .name = "postgres",
    .options = postgres_options,
    .sink = &postgres_sink_ops,
    .check = &postgres_check,
    .dead_letters = &postgres_dead_letters,
    .migration = &postgres_migration_ops,
    .is_keeper = true,
    .schema = postgres_table_schema,
    .keeps_versions = true,
    .names_output = names_output,
};
