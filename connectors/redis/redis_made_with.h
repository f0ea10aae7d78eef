/*
 * redis_made_with.h: what the vectors under a prefix are made with, as the sink keeps it.
 *
 * Owns:    the key of that note; setting it, comparing it, waiting while `embedmill migrate` holds
 *          it; the guard by which every write of vectors proves that it is still the same.
 * Refuses: what is in the note: connectors/made_with.h.
 * Threads: the loop thread.
 * Why:     a worker compares when it connects, but the note may change a second later, by a
 *          migration. So each script that writes vectors compares its digest first, in the same
 *          atomic step, and writes nothing when it differs.
 */
#ifndef REDIS_MADE_WITH_H
#define REDIS_MADE_WITH_H

#include <stdbool.h>

#include "connectors/endpoint.h"
#include "connectors/redis/redis_link.h"
#include "connectors/redis/redis_reply.h"

enum { REDIS_MADE_WITH_KEY_SIZE = 1200 };

struct redis_made_with {
    struct redis_link *link;
    struct endpoint *end;
    unsigned part; /* of its health */
    const char *prefix;
    const char *ours; /* what this worker's are made with */
    struct redis_args args;
    bool is_asking, is_known; /* by this connection */
    char key[REDIS_MADE_WITH_KEY_SIZE];
    char guard[41]; /* SHA-1 of the note, as Redis prints it; "": writes are not guarded */
};

/* The key of the note: "embedmill:made-with:PREFIX", not the other way round, for who lists the
 * keys of the prefix wants vectors. 0 or -ENAMETOOLONG. */
int redis_made_with_key(const char *prefix, char out[REDIS_MADE_WITH_KEY_SIZE]);
/* SHA-1 in hexadecimal, as redis.sha1hex of a script. 0 or -ENOMEM. */
int redis_made_with_digest(struct bytes text, char out[41]);
/* A zeroed one; all is borrowed for its life. */
void redis_made_with_open(struct redis_made_with *note, struct redis_link *link,
                          struct endpoint *end, unsigned part, const char *prefix);
/* Nothing is known any more: the connection is new, or a guarded write found another note. */
void redis_made_with_forget(struct redis_made_with *note);
/* Ask, unless that is known or under way; ours NULL: there is nothing to compare. What comes of it:
 * is_known and a pump, a pause, or endpoint_fail. */
void redis_made_with_ask(struct redis_made_with *note, const char *ours);
void redis_made_with_close(struct redis_made_with *note);

#endif
