/*
 * postgres.h: the PostgreSQL connector, among its own files and for the registry.
 *
 * Owns:    the postgres.* options and what they mean.
 * Refuses: what libpq's connection string says better: hosts, TLS, target_session_attrs.
 * Threads: the loop thread.
 */
#ifndef POSTGRES_H
#define POSTGRES_H

#include <stdbool.h>
#include <stdint.h>

#include "connectors/check.h"
#include "connectors/connector.h"
#include "connectors/dead_letters.h"

extern const struct sink_ops postgres_sink_ops;
extern const struct connector_check postgres_check;
extern const struct dead_letters_ops postgres_dead_letters;
extern const struct option postgres_options[];

/* The type of the column `embedding`, which the dtype says. */
enum postgres_type { POSTGRES_VECTOR, POSTGRES_HALFVEC, POSTGRES_BIT };

struct postgres_config {
    char *url, *password, *table, *dead_letters, *deleted, *offsets;
    char *made_with; /* the table that says what the vectors of `table` are made with */
    enum postgres_type type;
    uint64_t timeout_ms, lock_ms;
    bool exactly_once; /* the offsets of the input lie in a table, too */
    bool is_chunking;  /* texts may be cut, so rows of a document come and go */
};

/* 0; -EINVAL with a sentence that names the option; -ENOMEM. */
int postgres_config_read(struct postgres_config *out, const struct settings *settings, char *err,
                         size_t err_size);
/* The name of a table beside another: what was asked for, else that table's name and an ending; to
 * be freed, NULL without memory. */
char *postgres_name_of(const char *asked, const char *table, const char *ending);
/* As check of sink_ops. */
int postgres_config_check(const struct settings *settings, const char **bad_option, char *err,
                          size_t err_size);
void postgres_config_clear(struct postgres_config *config);

#endif
