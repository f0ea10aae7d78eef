/*
 * dead_letters.h: dead letters as people deal with them: look through them, put one back.
 *
 * Owns:    what a connector must offer for `embedmill dlq`.
 * Refuses: which dead letters are meant and how they are shown: worker/commands/command_dlq.c.
 * Threads: the calling one. These calls block: a command that a person waits for needs no loop.
 */
#ifndef DEAD_LETTERS_H
#define DEAD_LETTERS_H

#include <stddef.h>

#include "connectors/connector.h"

struct dead_letter {
    struct bytes position; /* where it lies, printable */
    struct bytes origin;   /* where it was an input, printable */
    struct bytes code, reason, value;
    bool is_empty;                /* there is nothing in it that could be put back */
    struct bytes key;             /* with take only, below: the message as it came */
    const struct header *headers; /* [n_headers] */
    size_t n_headers;
};

/* First member of every connector's own. */
struct dead_letters {
    const struct dead_letters_ops *ops;
};

/* Failures are negative errnos with a sentence in err, here and below. */
struct dead_letters_ops {
    /* The options that these calls read, ended by NULL: for --help. "kafka." stands for all below.
     */
    const char *const *options;
    /* The option that says where they are, as the settings are (as names_output in connector.h). */
    const char *(*place)(const struct settings *settings);
    /* The dead letters there are at this time. to: where replay puts them; NULL: on the input;
     * -ENOTSUP: not there. */
    int (*open)(struct dead_letters **out, const struct settings *settings, const char *to,
                char *err, size_t err_size);
    /* 1: *out is the next one, borrowed until the call after; 0: there are no more. */
    int (*next)(struct dead_letters *dlq, struct dead_letter *out, char *err, size_t err_size);
    /* Put the one given last back as it came, then take it off. 1, or 0: it was gone already.
     * NULL: there are no inputs on this system; they go back by another connector, then take. */
    int (*replay)(struct dead_letters *dlq, char *err, size_t err_size);
    /* Take the one given last off. 1, or 0: it was gone already. NULL where replay is. */
    int (*take)(struct dead_letters *dlq, char *err, size_t err_size);
    /* What replay has done is kept only if this succeeds. */
    int (*close)(struct dead_letters *dlq, char *err, size_t err_size);
};

#endif
