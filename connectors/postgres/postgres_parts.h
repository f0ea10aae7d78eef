/*
 * postgres_parts.h: how far the parts of the input are done, kept in a table (struct keeper).
 *
 * Owns:    the parts that were given to this worker, their epochs, the statements that claim, check
 *          and move them.
 * Refuses: sending them; which records are done.
 * Threads: the loop thread.
 * Why:     a worker that is thought dead may still write. The epoch of a part counts how often it
 *          was given to somebody, and only who has the last one can move it.
 */
#ifndef POSTGRES_PARTS_H
#define POSTGRES_PARTS_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connectors/connector.h"
#include "connectors/postgres/postgres_array.h"
#include "connectors/postgres/postgres_link.h"
#include "connectors/postgres/postgres_table.h"

enum postgres_part_state {
    PART_WANTED, /* given to us; to be claimed */
    PART_DOUBT,  /* claimed; whether the last transaction was committed is not known */
    PART_OURS,
    PART_LOST, /* claimed by another since */
};

struct postgres_part {
    struct postgres_part *next;
    char *name;
    enum postgres_part_state state;
    bool is_begun; /* the source was answered */
    int64_t epoch;
    int64_t done;   /* the order up to which all is committed; -1: nothing is known */
    int64_t moving; /* ... as soon as what is being sent is; -1: nothing of it is */
    int64_t given;  /* the greatest order that the sink was given */
};

/* Zero-initialise to open. */
struct postgres_parts {
    struct postgres_part *first;
    char *group;
    struct postgres_array arrays[3]; /* of the statement */
    const char *values[4];
    int lengths[4];
    Oid types[4];
    enum postgres_part_state asked; /* what the last question was about */
    int status;                     /* -ENOMEM: met in an event of the source */
};

void postgres_parts_close(struct postgres_parts *parts);

/* As the keeper's. */
void postgres_parts_claim(struct postgres_parts *parts, const char *group, const char *name);
void postgres_parts_leave(struct postgres_parts *parts, const char *name);
void postgres_parts_rewind(struct postgres_parts *parts, const char *name, int64_t order);

/* NULL: it is not ours. */
struct postgres_part *postgres_parts_find(const struct postgres_parts *parts, const char *name);

/* The connection is a new one: what was sent may be committed or not. */
void postgres_parts_doubt(struct postgres_parts *parts);
/* What was sent was refused because one of its parts has another epoch. */
void postgres_parts_fenced(struct postgres_parts *parts);
/* Is there something to ask before anything is written? Then out is the statement. */
bool postgres_parts_ask(struct postgres_parts *parts, const struct postgres_table *table,
                        struct postgres_statement *out);
/* Its answer; the source is told where new parts begin. */
void postgres_parts_answer(struct postgres_parts *parts, const PGresult *answer,
                           struct source *source);

/* Nothing is being sent. */
void postgres_parts_begin(struct postgres_parts *parts);
/* The statement that moves the parts of what is being sent; false: there are none. */
bool postgres_parts_move(struct postgres_parts *parts, const struct postgres_table *table,
                         struct postgres_statement *out);
/* What was sent is committed. */
void postgres_parts_moved(struct postgres_parts *parts);

#endif
