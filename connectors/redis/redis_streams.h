/*
 * redis_streams.h: the streams a worker reads, and where what comes of each of them goes.
 *
 * Owns:    what redis.stream means: "a,b,c".
 * Refuses: lists that cannot be meant: an empty name, the same name twice.
 * Threads: no state.
 * Why:     an entry knows its stream by address, and with it everything that depends on it: where
 *          it is acked, where its output and its dead letter go.
 */
#ifndef REDIS_STREAMS_H
#define REDIS_STREAMS_H

#include <stdbool.h>
#include <stddef.h>

#include "connectors/connector.h"

struct redis_stream {
    char *name;
    char *output, *dead_letters; /* streams: the one the user has named, else one of its own */
};

/* Zeroed: none. */
struct redis_streams {
    struct redis_stream *items; /* [n] in the order of the list, at least one once it is read */
    size_t n;
    char *list; /* as the user wrote it, for messages */
};

/*
 * output, dead_letters: for all of them; NULL or "": the name of each and :embeddings or :dlq.
 * 0; -EINVAL: err says what is wrong with the list; -ENOMEM. *out is set only on success.
 */
int redis_streams_read(struct redis_streams *out, const char *list, const char *output,
                       const char *dead_letters, char *err, size_t err_size);
void redis_streams_clear(struct redis_streams *streams);

/* How many different outputs, or dead_letters, they have: the first so many streams have them all.
 */
size_t redis_streams_targets(const struct redis_streams *streams, bool outputs);

/* The one of that name, NULL when there is none. */
struct redis_stream *redis_streams_find(const struct redis_streams *streams, struct bytes name);

#endif
