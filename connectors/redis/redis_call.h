/*
 * redis_call.h: a connection to Redis for commands that a person waits for: one at a time,
 * blocking.
 *
 * Owns:    connecting, by sentinels or to the owner of a cluster's slot if need be, TLS, AUTH and
 *          SELECT, what a failure is called.
 * Refuses: to reconnect by itself. Workers use redis_link.h.
 * Threads: the calling one.
 */
#ifndef REDIS_CALL_H
#define REDIS_CALL_H

#include <stddef.h>
#include <stdint.h>
#include <hiredis/hiredis.h>

#include "connectors/redis/redis_reply.h"
#include "connectors/redis/redis_url.h"
#include "connectors/tls.h"

struct redis_call;

/* url and tls are borrowed for its life; tls is needed for rediss:// only; slot: of all keys in its
 * commands, in a cluster. 0, or a negative errno with a sentence in err. */
int redis_call_open(struct redis_call **out, const struct redis_url *url, int slot,
                    const struct tls_context *tls, uint64_t timeout_ms, char *err, size_t err_size);
void redis_call_close(struct redis_call *call); /* accepts NULL */
/* After a silence, in which the server may have hung up (its option timeout): connect again if it
 * has. As redis_call_open. */
int redis_call_wake(struct redis_call *call, char *err, size_t err_size);

/* One command of n words. 0 and *out, to be freed; -EIO: the connection; -EACCES: refused. */
int redis_call_words(struct redis_call *call, redisReply **out, size_t n, const char **words,
                     char *err, size_t err_size);
/* The same of words that may hold NUL bytes. */
int redis_call_args(struct redis_call *call, redisReply **out, const struct redis_args *args,
                    char *err, size_t err_size);
/* How often a cluster has sent it to another node. What has no key (SCAN) is never sent on. */
unsigned redis_call_moves(const struct redis_call *call);

#endif
