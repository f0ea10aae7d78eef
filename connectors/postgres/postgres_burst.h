/*
 * postgres_burst.h: records as the statements of one transaction.
 *
 * Owns:    the columns of all rows, documents and dead letters of a transaction, in binary.
 * Refuses: which records are to go together, and sending them.
 * Threads: the loop thread.
 * Why:     INSERT ... SELECT FROM unnest(columns) is one parse, plan and round trip for hundreds of
 *          rows, may be repeated as often as need be, and needs no prepared statement, which
 *          poolers between us and the server would lose.
 */
#ifndef POSTGRES_BURST_H
#define POSTGRES_BURST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connectors/buffer.h"
#include "connectors/postgres/postgres_array.h"
#include "connectors/postgres/postgres_link.h"
#include "connectors/postgres/postgres_table.h"

/* Rows of one execution: few enough to stay in caches, and in memory that is not given back to the
 * system each time. */
enum { POSTGRES_GROUP_ROWS = 32, POSTGRES_GROUPS_MAX = 40 };
enum {
    POSTGRES_ROWS_MAX = 1024,
    POSTGRES_STATEMENTS_MAX = POSTGRES_GROUPS_MAX + 13,
    POSTGRES_SEEN_SIZE = 4096
};

enum postgres_step {
    STEP_SETTINGS,
    STEP_MADE_WITH,
    STEP_OFFSETS,
    STEP_UPSERT,
    STEP_PIECES,
    STEP_WHOLES,
    STEP_LETTERS,
    STEP_DELETED,
    STEP_TRIAL
};

struct postgres_burst {
    const struct postgres_config *config;
    const struct postgres_table *table;
    struct postgres_array rows[POSTGRES_GROUPS_MAX][7]; /* by groups */
    size_t group;                                       /* that is filled */
    struct postgres_array docs[5], wholes[5], letters[6];
    struct postgres_array deleted[3]; /* documents: id, version, order */
    const char *made_with; /* its rows are written only while the table's are made with that; NULL:
                              always. Borrowed until they are sent */
    struct buffer scratch;
    size_t n_rows, n_docs, n_wholes, n_letters, n_deleted, n_bytes;
    /* The documents in it: no statement may write a row twice. */
    uint64_t seen[POSTGRES_SEEN_SIZE];
    uint32_t seen_in[POSTGRES_SEEN_SIZE], nth; /* of which burst an entry is; this one */
    size_t n_seen;
    /* What is sent. */
    struct postgres_statement statements[POSTGRES_STATEMENTS_MAX];
    enum postgres_step steps[POSTGRES_STATEMENTS_MAX];
    size_t n;
    const char *values[POSTGRES_STATEMENTS_MAX][8];
    int lengths[POSTGRES_STATEMENTS_MAX][8];
    Oid types[POSTGRES_STATEMENTS_MAX][8];
    uint64_t timeout_ms, lock_ms; /* for each statement; begin sets those of the config */
    char timeout[24], lock[24];
};

enum postgres_fits {
    BURST_TAKES,
    BURST_FULL,    /* send it first */
    BURST_REFUSES, /* such a record can never be written: why */
    BURST_TOO_LARGE,
    BURST_DIFFERS, /* its vectors are of another dimension than the table's: why */
};

/* Zero-initialise; begin before each use. */
void postgres_burst_begin(struct postgres_burst *burst, const struct postgres_config *config,
                          const struct postgres_table *table);
void postgres_burst_close(struct postgres_burst *burst);

/* Take a record in, if it may be with those that are in already. An empty one takes any. given_us:
 * when the sink was given it, in microseconds since 1970 and later than all that came before it. */
enum postgres_fits postgres_burst_add(struct postgres_burst *burst, const struct record *record,
                                      int64_t given_us, char *why, size_t size);
/* Whether one of the record's documents, or its dead letter, is in the burst, as far as is known:
 * in two transactions at a time each would wait for the other. */
bool postgres_burst_meets(const struct postgres_burst *burst, const struct record *record);
/* Put the statements together: burst->statements. offsets: to be moved in the same step, borrowed
 * until they are sent; NULL: none. 0 or -ENOMEM. */
int postgres_burst_end(struct postgres_burst *burst, const struct postgres_statement *offsets);
/* After postgres_burst_end: all of it is done and then undone, by a statement that always fails
 * (STEP_TRIAL). */
void postgres_burst_try(struct postgres_burst *burst);

#endif
