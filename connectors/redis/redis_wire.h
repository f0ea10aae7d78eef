/*
 * redis_wire.h: the two ends of one connection's byte streams.
 *
 * Owns:    commands on their way out, the order in which replies are due, hiredis' reader and
 *          the memory of a reply.
 * Refuses: sockets, time: redis_link.c.
 * Threads: the loop thread.
 */
#ifndef REDIS_WIRE_H
#define REDIS_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <hiredis/hiredis.h>

#include "connectors/buffer.h"
#include "connectors/connector.h"

/* reply is borrowed; NULL: the connection was lost and whether the command ran is unknown. */
typedef void (*redis_reply_cb)(void *ctx, void *arg, const redisReply *reply);

/* A command whose reply is due. */
struct redis_due {
    redis_reply_cb cb;
    void *arg;
    uint64_t sent_ms, extra_ms; /* extra: how much longer than usual it may take */
};

struct redis_wire {
    struct buffer out;  /* filling */
    struct buffer away; /* being written; its bytes may not move */
    redisReader *reader;
    struct redis_block *blocks; /* the memory of the reply that is being read */
    struct redis_due *due;      /* ring of [room], oldest at head */
    size_t head, n_due, room;
};

/* 0 or -ENOMEM. The wire may not move while it is open. */
int redis_wire_open(struct redis_wire *wire);
void redis_wire_close(struct redis_wire *wire);

/* The reply that the reader gave last is not used any more; it is not for freeReplyObject. */
void redis_wire_release(struct redis_wire *wire);

/* Append a command and remember who waits for its reply. 0, or -ENOMEM and nothing is changed. */
int redis_wire_command(struct redis_wire *wire, const struct bytes *args, size_t n,
                       struct redis_due due);
/* Turn what was filled into what is away; what was away before must have been written. */
void redis_wire_turn(struct redis_wire *wire);
/* The oldest command whose reply is due; NULL: none. */
const struct redis_due *redis_wire_oldest(const struct redis_wire *wire);
/* Take it off; there must be one. */
struct redis_due redis_wire_take(struct redis_wire *wire);

#endif
