/*
 * nats_reply.h: what a server's answer says.
 *
 * Owns:    statuses in headers, errors of JetStream by their codes and whose fault they are, the
 *          subject that a message is acknowledged on.
 * Threads: no state.
 */
#ifndef NATS_REPLY_H
#define NATS_REPLY_H

#include <nats/nats.h>
#include <stdbool.h>
#include <stdint.h>

#include "connectors/connector.h"

/* The code of a status message (503: nobody listens); 0: it is not such a message. text: may be
 * NULL; what stands behind the code, borrowed. */
int nats_reply_status(natsMsg *message, const char **text);
struct bytes nats_reply_body(natsMsg *message);

/* Of JetStream, as they come: "error":{"code":400,"err_code":10054,"description":"..."}. */
struct nats_error {
    int64_t code; /* as of HTTP; 0: no error */
    int64_t err_code;
    char text[200];
};
/* 503 without a body: no stream (or no JetStream) listens on what was asked: code 503, err_code 0.
 */
void nats_reply_error(natsMsg *message, struct nats_error *out);

#define NATS_NO_CONSUMER 10014
#define NATS_NO_STREAM   10059
#define NATS_NO_MESSAGE  10037

/* How a refusal of a record is sorted. */
enum nats_refusal {
    NATS_RECORD_TOO_LARGE,
    NATS_RECORD_AGAIN,   /* an election, an overload: soon over, or somebody has to mend it */
    NATS_RECORD_UNKNOWN, /* perhaps this record's own fault */
    NATS_SERVER_UNKNOWN, /* the server says that it is its own, by a code not known here */
};
enum nats_refusal nats_reply_refusal(const struct nats_error *error);
/* What to do about it; "" when the server's words are all there is. */
const char *nats_reply_advice(const struct nats_error *error);

/* "$JS.ACK.STREAM.CONSUMER.DELIVERED.SEQ.CSEQ.TIME.PENDING", or, from 2.10 on, with domain and
 * account behind ACK. */
struct nats_delivery {
    struct bytes stream, consumer;
    uint64_t deliveries, sequence, pending;
    int64_t timestamp_ns;
};
bool nats_reply_delivery(const char *subject, struct nats_delivery *out);

#endif
