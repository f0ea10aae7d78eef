/*
 * postgres_table.h: the tables that are written, as the server describes them.
 *
 * Owns:    which columns there must be, the question to the server and what its answer means, the
 *          statements that write, the statements that create.
 * Refuses: sending them.
 * Threads: no state.
 */
#ifndef POSTGRES_TABLE_H
#define POSTGRES_TABLE_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "connectors/postgres/postgres.h"

#define POSTGRES_NAME_SIZE 300 /* "schema"."table", quoted */

struct postgres_table {
    char name[POSTGRES_NAME_SIZE];      /* as SQL, whatever the search path */
    char offsets[POSTGRES_NAME_SIZE];   /* "": not wanted */
    char letters[POSTGRES_NAME_SIZE];   /* of the dead letters; "": it is not there */
    char deleted[POSTGRES_NAME_SIZE];   /* of what was deleted; the same */
    char made_with[POSTGRES_NAME_SIZE]; /* "": it is not there */
    char id_type[64];
    Oid vector, vector_array; /* the type of its embeddings */
    int dim;                  /* -1: any */
    char upsert[3200], delete_pieces[1200], delete_wholes[1200], put_letters[1000];
    char put_deleted[2800], delete_revived[2400];
    char claim[900], check[600], move[900];       /* of offsets */
    char keep_made_with[700], get_made_with[400]; /* $1: what ours are made with, $2: the table */
    char guard_made_with[500];                    /* $1: the note as it was read */
};

/* One row for each column of the tables named by $1 to $5: those of embeddings, dead letters,
 * deletions, offsets (may be null) and of what the vectors are made with. */
extern const char postgres_table_question[];
/* Until the end of the transaction, alone or with others that share it: $1, a name. */
extern const char postgres_table_lock[], postgres_table_share[];

enum postgres_fit {
    POSTGRES_FITS,
    POSTGRES_LACKS,   /* something is missing, which somebody can create meanwhile */
    POSTGRES_DIFFERS, /* the embeddings are of another type than asked for */
};

/* Read the answer. why: what does not fit, and what to do. */
enum postgres_fit postgres_table_read(struct postgres_table *out,
                                      const struct postgres_config *config, const PGresult *answer,
                                      char *why, size_t size);

/* How a type is called with its dimension: "halfvec(256)". */
void postgres_type_name(enum postgres_type type, size_t dim, char *out, size_t size);
/* The statements that create the tables beside one. */
void postgres_table_print_others(const char *letters, const char *deleted, const char *made_with,
                                 FILE *to);
/* As schema of sink_ops: the statements that create what is missing. */
int postgres_table_schema(const struct settings *settings, size_t dim, FILE *to, char *err,
                          size_t err_size);

#endif
