/*
 * redis_migration.h: what the files of a migration on Redis know of each other.
 *
 * Owns:    struct redis_migration; reading, comparing and moving texts, some at a time.
 * Threads: the calling one.
 */
#ifndef REDIS_MIGRATION_H
#define REDIS_MIGRATION_H

#include "connectors/migration.h"
#include "connectors/redis/redis.h"
#include "connectors/redis/redis_call.h"
#include "connectors/redis/redis_reply.h"

extern const struct migration_ops redis_migration_ops;

/* A text that was there at the beginning. */
struct redis_stock {
    struct bytes id; /* in `memory` of the list */
    char digest[41];
};

/* Ids, sorted, each once. */
struct redis_ids {
    struct bytes *items;
    size_t n, room;
};

struct redis_migration {
    struct migration base;
    struct redis_config config;
    struct redis_call *call, *alone; /* alone: open as long as this one migrates */
    struct redis_args args;
    char *side, *letters, *stream;            /* prefix; streams of the sink there */
    char *note, *side_note, *owner, *journal; /* keys */
    char token[64];
    char was[2 * MADE_WITH_SIZE], held[2 * MADE_WITH_SIZE]; /* the note before, and for finish */
    struct redis_ids ids;                                   /* of what `stock` has, in its order */
    struct redis_stock *stock;
    size_t n_stock;
};

/* args: EVAL of a script with n_keys keys; what follows is added by the caller. */
void redis_migration_words(struct redis_migration *m, const char *script, int n_keys, ...);

int redis_migration_take_stock(struct redis_migration *m, size_t *texts, char *err,
                               size_t err_size);
void redis_migration_forget(struct redis_migration *m);
/* Nothing is on the side. */
int redis_migration_clear(struct redis_migration *m, char *err, size_t err_size);
/* read of struct migration_ops. */
int redis_migration_read_all(struct migration *migration, bool is_side, migration_reader reader,
                             void *ctx, char *err, size_t err_size);
/* While the output is held: what has changed since stock was taken; the journal of what to move. */
int redis_migration_judge(struct redis_migration *m, struct migration_compared *out, char *err,
                          size_t err_size);
int redis_migration_move_all(struct redis_migration *m, const char *held, char *err,
                             size_t err_size);

#endif
