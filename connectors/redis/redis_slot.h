/*
 * redis_slot.h: hash slots of a Redis cluster, and what its nodes say about them.
 *
 * Owns:    which slot a key is in, MOVED and ASK, the answer to CLUSTER SLOTS.
 * Refuses: connections: redis_cluster.c.
 * Threads: no state.
 * Source:  the Redis cluster specification: CRC16 (XMODEM) of the key modulo 16384; of what stands
 *          between the first '{' and the next '}' alone, if that is not empty.
 */
#ifndef REDIS_SLOT_H
#define REDIS_SLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <hiredis/hiredis.h>

#include "connectors/connector.h"

#define REDIS_SLOTS     16384
#define REDIS_HOST_SIZE 256

int redis_slot_of(struct bytes key); /* 0 ... 16383 */
/* What stands between the braces; false: the key has no tag. Keys that begin with text have the
 * tag of text, if it has one. */
bool redis_slot_tag(struct bytes text, struct bytes *tag);

struct redis_node {
    char host[REDIS_HOST_SIZE]; /* "": that of whoever said so */
    int port;
};

/* "MOVED 3999 127.0.0.1:6381", "ASK 3999 [::1]:6381", "MOVED 3999 :6381" */
struct redis_redirect {
    bool is_ask; /* for this one command; else for good */
    int slot;
    struct redis_node to;
};
/* False: the text of the error is none. */
bool redis_slot_redirect(struct redis_redirect *out, const char *text);

/* Who serves the slot, of an answer to CLUSTER SLOTS. False: nobody, or it is not such an answer.
 */
bool redis_slot_owner(const redisReply *reply, int slot, struct redis_node *out);
/* The masters and replicas in such an answer: the first `room` of them. Returns how many. */
size_t redis_slot_nodes(const redisReply *reply, struct redis_node *out, size_t room);

#endif
