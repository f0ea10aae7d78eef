/*
 * redis_sink_internal.h: what the two files of the Redis sink share.
 *
 * Owns:    the sink itself; redis_sink.c sends, redis_sink_refused.c takes what was not accepted.
 * Threads: the loop thread.
 */
#ifndef REDIS_SINK_INTERNAL_H
#define REDIS_SINK_INTERNAL_H

#include "connectors/health.h"
#include "connectors/redis/redis_link.h"
#include "connectors/redis/redis_record.h"
#include "connectors/redis/redis_refusal.h"
#include "connectors/redis/redis_slots.h"

#define PART_LINK  1u
#define PART_WRITE 2u

struct redis_sink {
    struct sink base;
    uv_loop_t *loop;
    struct redis_config config;
    struct redis_source *peer; /* the source, if it is one of ours; NULL: none */
    struct redis_link *link;
    struct health state;
    struct backoff backoff;
    struct redis_args args;
    struct redis_scratch scratch;
    struct redis_slot_queue again, waiting; /* sent before and to be sent again; never sent */
    struct redis_slot_queue sent;           /* without a reply yet; replies come in this order */
    struct redis_slot_queue suspects;       /* refused, and it is not clear yet whose fault it is */
    struct redis_slot *spare;               /* slots for reuse */
    uint64_t *accepted; /* [2 * streams] records: outputs, then dead letters; see accepted_of */
    unsigned n_tries, n_blamed; /* of suspects, since anything was accepted */
    char sha[41];               /* of the script; empty: not known yet on this connection */
    bool loading;               /* SCRIPT LOAD is under way */
    size_t value_max;
    bool no_memory, paused, failed, closing;
    bool is_losing; /* the connection has ended, and some that were sent are answered with NULL */
    uv_timer_t pump_timer, pause_timer, close_timer;
    size_t n_open;
    void (*closed)(void *ctx);
    void *closed_ctx;
};

/* redis_sink.c */
void redis_sink_done(struct redis_slot *slot, enum published how); /* takes the slot */
void redis_sink_fail(struct redis_sink *sink, int err, const char *why);
void redis_sink_pause(struct redis_sink *sink);

/* redis_sink_refused.c; each takes the slot. */
/* It was answered, and not with an error. */
void redis_sink_accepted(struct redis_slot *slot, const redisReply *reply);
/* It is not sent, because its key is a stream of ours. */
void redis_sink_reserved(struct redis_slot *slot, const char *stream);
void redis_sink_refused(struct redis_slot *slot, const struct redis_refused *refused);
/* The connection ended before the answer; is_next: to this one, and not to one before it. */
void redis_sink_lost(struct redis_slot *slot, bool is_next);

#endif
