/*
 * redis_refusal.h: whose fault an error reply to a record's command is.
 *
 * Owns:    the scope (connector.h) of an error reply, and the sentence about it that names the key.
 * Refuses: what is done about it: redis_sink.c. What an error reply means by itself: redis_fault.c.
 * Threads: the loop thread.
 * Why:     WRONGTYPE of the output stream is everybody's; WRONGTYPE of a key that was made from the
 *          id of a text is that message's alone, and must not stop the worker. A right to a key may
 *          be either: rights are given by patterns, and nobody tells us which. So such a record is
 *          set aside, and the others show whose fault it is.
 */
#ifndef REDIS_REFUSAL_H
#define REDIS_REFUSAL_H

#include "connectors/connector.h"
#include "connectors/redis/redis_fault.h"
#include "connectors/redis/redis_record.h"
#include "connectors/redis/redis_reply.h"

struct redis_refusal {
    enum refusal_scope scope;
    bool is_sure;          /* else REFUSES_RECORD holds only if the destination takes others */
    bool is_right_missing; /* not sure, and waiting does not mend it */
    const char *code;      /* of the dead letter, for REFUSES_RECORD */
    struct redis_fault fault;
};

/* A refused command of a record: the text of the error, and which of the record's commands it was,
 * from 1; 0: not known, or not one of them but the step around them. */
struct redis_refused {
    const char *text;
    size_t nth;
};

/* What the reply to a record's command, or script, says: true, it was refused. */
bool redis_refusal_read(struct redis_refused *out, const redisReply *reply, bool is_script);

struct redis_refusal redis_refusal_find(const struct redis_config *config,
                                        const struct record *record,
                                        const struct redis_refused *refused);

/* "writing to 'embedding:a': WRONGTYPE ... (advice)". scratch and args are overwritten. */
void redis_refusal_explain(const struct redis_record_form *form, const struct record *record,
                           const struct redis_refused *refused, const char *advice,
                           struct redis_scratch *scratch, struct redis_args *args, char *out,
                           size_t size);

#endif
