/*
 * postgres_refusal.h: what a refusal of the server means, by its SQLSTATE.
 *
 * Owns:    the one table of codes and classes.
 * Refuses: what is done about it: postgres_sink.c.
 * Threads: constant tables.
 * Why:     a code is stable over versions and languages, a sentence is neither.
 */
#ifndef POSTGRES_REFUSAL_H
#define POSTGRES_REFUSAL_H

#include <stdbool.h>
#include <stddef.h>

#include "connectors/connector.h"

enum postgres_remedy {
    POSTGRES_DEAD_LETTER, /* the record's own fault, once it is alone */
    POSTGRES_SUSPECT,     /* perhaps; perhaps the table takes nothing at all */
    POSTGRES_DOUBT,       /* somebody has to mend it, unless others pass and it alone does not */
    POSTGRES_WAIT,        /* somebody has to mend it */
    POSTGRES_SMALLER,     /* it took too long: try fewer rows */
    POSTGRES_AGAIN,       /* met another transaction */
    POSTGRES_RECONNECT,   /* this server is going, or is not the one to write to */
};

struct postgres_refusal {
    enum refusal_scope scope;
    enum postgres_remedy remedy;
    const char *advice; /* what to do about it */
    const char *code;   /* of the dead letter, where it is one */
};

struct postgres_refusal postgres_refusal_find(const char *sqlstate);

/* Is a failed login refused for good? The message is libpq's, in its verbose form; out: what it
 * says, and what to do. */
bool postgres_refusal_of_login(const char *message, char *out, size_t size);

/* The first line of what libpq says, without "ERROR:" and the like, nor the newline. */
void postgres_message(const char *said, char *out, size_t size);

#endif
