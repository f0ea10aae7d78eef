/*
 * redis_verdict.h: what becomes of a record that Redis answered, or did not.
 *
 * Owns:    whose fault a refusal is when the error alone does not tell.
 * Refuses: what an error says by itself: redis_refusal.c. Doing what the verdict says:
 *          redis_sink.c.
 * Threads: the loop thread.
 * Why:     one message must never stop the workers, and a server that refuses everything must not
 *          turn all messages into dead letters.
 */
#ifndef REDIS_VERDICT_H
#define REDIS_VERDICT_H

#include "connectors/health.h"
#include "connectors/redis/redis_record.h"
#include "connectors/redis/redis_refusal.h"
#include "connectors/slots.h"

#define REDIS_ASIDE_MAX 64 /* records set aside at once */

/* What is known of a record on its way. */
struct redis_slot {
    struct slot base;    /* first member */
    bool acks;           /* the command sent last acks the origin too */
    bool is_script;      /* it is several commands in one script */
    bool whole;          /* send the script itself: the server did not know its digest */
    unsigned lost;       /* connections that ended while it was the next to be answered */
    unsigned strikes;    /* refusals after each of which another record was accepted */
    uint64_t n_accepted; /* by its destination, when it was refused last */
};

enum redis_next {
    NEXT_DONE,      /* it is published, or never will be: how, and for PUBLISH_REFUSED code, why */
    NEXT_AGAIN,     /* send it again at once */
    NEXT_PAUSE,     /* ... after a pause; why is what is to be reported */
    NEXT_RECONNECT, /* ... on another connection; why this one is of no use */
    NEXT_ASIDE,     /* ... when others have shown whose fault it is; why, as above */
    NEXT_STOP,      /* all records are refused; why */
};

struct redis_verdict {
    enum redis_next next;
    enum published how;
    const char *code;
    char why[HEALTH_WHY_SIZE];
};

/* What verdicts are made of. The pointers are borrowed from the sink; scratch and args are
 * overwritten. */
struct redis_judge {
    const struct redis_config *config;
    struct redis_args *args;
    struct redis_scratch *scratch;
    uint64_t *accepted; /* [2 * streams] records by destination: outputs, then dead letters */
    unsigned n_tries, n_blamed; /* of records set aside, since anything was accepted */
};

/* It was answered, and not with an error. */
void redis_verdict_accepted(struct redis_judge *judge, struct redis_slot *slot,
                            const redisReply *reply, struct redis_verdict *out);
/* n_aside: records that are set aside already. */
void redis_verdict_refused(struct redis_judge *judge, struct redis_slot *slot,
                           const struct redis_refused *refused, size_t n_aside,
                           struct redis_verdict *out);
/* The connection ended before the answer; is_next: to this one, and not to one before it. */
void redis_verdict_lost(struct redis_slot *slot, bool is_next, struct redis_verdict *out);
/* It is not sent, because its key is a stream of ours, or a note, or its id ends in #. */
enum redis_reserved { RESERVED_STREAM, RESERVED_NOTE, RESERVED_HEAD };
void redis_verdict_reserved(enum redis_reserved kind, const char *stream,
                            struct redis_verdict *out);

#endif
