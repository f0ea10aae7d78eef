/*
 * migration.h: an output that stores texts by id is made anew beside itself, and changes places
 * with the new one.
 *
 * Owns:    for a connector: where the new output grows (the side), what is in both, holding the
 *          output while the two are compared, the change of places, finishing one that was cut
 *          short by a death.
 * Refuses: embedding, and whether the new vectors are right: `embedmill migrate`.
 * Threads: the calling one; every call blocks.
 * Why:     vectors of two models in one output are the worst fault there is, and nothing shows it.
 *          So whatever dies and whenever: the output is whole and of the old model, or it is held
 *          (no worker writes to it) until the same command has finished it.
 */
#ifndef MIGRATION_H
#define MIGRATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connectors/connector.h"
#include "connectors/made_with.h"
#include "connectors/queue.h"

/* A connector's own begins with this. */
struct migration {
    const struct migration_ops *ops;
    /* For people, set by open: the output, the side, where it is said why a text was not embedded.
     */
    char output[200], side[200], errors[200];
};

/* One vector of an output. All bytes are borrowed. */
struct migration_vector {
    struct bytes text; /* id of the text it is of, or of a piece of */
    int64_t chunk;     /* the number of the piece; -1: of a whole text */
    struct bytes raw;  /* the vector in the output's dtype; absent: it is in the payload */
    struct bytes payload;
};
/* 0, or a negative errno and a sentence, which end the reading. */
typedef int (*migration_reader)(void *ctx, const struct migration_vector *vector, char *err,
                                size_t err_size);

struct migration_found {
    bool is_switching;              /* a death cut the change of places short: call finish */
    char made_with[MADE_WITH_SIZE]; /* the output; "": nothing says so */
    size_t texts;                   /* in it */
};

struct migration_compared {
    size_t changed;      /* texts that were written since begin, and that the side is behind of */
    char changed_id[80]; /* one of them */
    size_t dropped;  /* texts that were deleted since begin; the side has them no more, either */
    size_t left_out; /* texts that the output cannot take, for something of others is there */
    char left_out_id[80]; /* one of them */
};

/* Failures are negative errnos with a sentence in err. */
struct migration_ops {
    const char *const *schemes; /* of its URLs, ended by NULL */
    const char *form;           /* of its URLs, for people */
    /* Options that make url the output. */
    int (*output)(const char *url, const struct queue_setter *to);
    /* The output as the settings name it. -EINVAL: they name one that cannot be migrated; -EBUSY:
     * another process migrates it. */
    int (*open)(struct migration **out, const struct settings *settings, char *err,
                size_t err_size);
    /* What is there, to be compared with later. Whoever began before on this output is done with;
     * an output held for a comparison is given back. */
    int (*begin)(struct migration *migration, struct migration_found *out, char *err,
                 size_t err_size);
    /* The options that make the sink write to the side. */
    int (*aim)(struct migration *migration, const struct queue_setter *to);
    /* Make the side, empty, for vectors of dim values. */
    int (*prepare)(struct migration *migration, size_t dim, char *err, size_t err_size);
    /* All vectors of the output, or of the side; those of a text one after the other, in order. */
    int (*read)(struct migration *migration, bool is_side, migration_reader reader, void *ctx,
                char *err, size_t err_size);
    /* Hold the output and look whether the side is still all of it, and made with that. Nothing
     * changed: it stays held and is marked for the change of places, which finish then does. Else
     * it is given back. */
    int (*compare)(struct migration *migration, const char *made_with,
                   struct migration_compared *out, char *err, size_t err_size);
    /* Put the side in the place of the output. May be called again after any failure or death. */
    int (*finish)(struct migration *migration, char *err, size_t err_size);
    void (*close)(struct migration *migration); /* accepts NULL */
};

#endif
