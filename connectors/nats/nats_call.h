/*
 * nats_call.h: questions to a server, one after the other, each waited for.
 *
 * Owns:    a connection without a loop, for commands that a person waits for.
 * Threads: the calling one, and the library's own.
 */
#ifndef NATS_CALL_H
#define NATS_CALL_H

#include <stddef.h>
#include <stdint.h>

#include "connectors/buffer.h"
#include "connectors/connector.h"
#include "connectors/nats/nats.h"
#include "connectors/nats/nats_reply.h"

struct nats_call {
    natsConnection *nc;
    const struct nats_config *config; /* the owner's */
    natsMsg *answer;                  /* the last one */
    struct bytes body;                /* of it */
};

/* Failures are negative errnos with a sentence in err, here and below. */
int nats_call_open(struct nats_call *call, const struct nats_config *config, char *err,
                   size_t err_size);
void nats_call_close(struct nats_call *call); /* zeroed ones are fine */

/* Takes message. The answer is call->answer until the next question. -ETIMEDOUT: none came, and the
 * sentence says which right is missing, if that was told. */
int nats_call_ask(struct nats_call *call, natsMsg *message, char *err, size_t err_size);
/* Of JetStream's API: what ("STREAM.INFO."), of which (a name, or ""), text (JSON, or ""). error:
 * what it answered. */
int nats_call_api(struct nats_call *call, const char *what, const char *of, const char *text,
                  struct nats_error *error, char *err, size_t err_size);
/* The name of the stream that stores a subject; "" when none does. */
int nats_call_find_stream(struct nats_call *call, const char *subject, char name[160], char *err,
                          size_t err_size);

/* A message that a stream holds. Its texts are in the buffers; headers are as they came:
 * "NATS/1.0\r\nname: value\r\n...". */
struct nats_stored {
    uint64_t sequence;
    char subject[256];
    struct buffer headers, value;
};

void nats_stored_close(struct nats_stored *stored);
/* The first one of that subject from a sequence on. 1, or 0: there is none. */
int nats_call_next(struct nats_call *call, const char *stream, const char *subject, uint64_t from,
                   struct nats_stored *out, char *err, size_t err_size);
/* The next header; *at is 0 at first. False: no more. */
bool nats_stored_header(const struct nats_stored *stored, size_t *at, struct header *out);
/* The value of the header of that name; ptr NULL: none has it. */
struct bytes nats_stored_find(const struct nats_stored *stored, const char *name);

#endif
