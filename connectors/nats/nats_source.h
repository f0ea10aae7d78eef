/*
 * nats_source.h: the inside of a NATS source, for its own files.
 *
 * Owns:    what nats_source.c (credit, giving, the end), nats_pull.c, nats_consumer.c,
 *          nats_skips.c, nats_ack.c and nats_message.c share.
 * Threads: the loop thread.
 */
#ifndef NATS_SOURCE_H
#define NATS_SOURCE_H

#include "connectors/endpoint.h"
#include "connectors/intake.h"
#include "connectors/nats/nats.h"
#include "connectors/nats/nats_client.h"
#include "connectors/nats/nats_reply.h"

/* What can be in trouble, as bits of a health. */
#define PART_LINK     1u
#define PART_CONSUMER 2u
#define PART_PULL     4u
#define PART_ACK      8u

#define NATS_TICK_MS  200
#define NATS_RETRY_MS 1000
#define NATS_CLOSE_MS 3000 /* for what was given back, and the connection */

/* One that is with us. `asked`: its ack is on its way; then it lives until that is answered. */
struct nats_message {
    struct taken taken; /* first member */
    natsMsg *native;
    char *reply; /* of the newest delivery; NULL: native's own */
    uint64_t sequence, renewed_ms;
    bool asked;
    /* Its consumer is gone: nothing is said of it any more, and whatever the answer to what was
     * said, it is forgotten. The server goes by sequences alone: of a stream that was made again
     * another message may have this one's. */
    bool is_void;
    bool is_dead; /* its dead letter is published: to be ended, not acked */
    char *reason; /* its problem.reason */
    /* Behind it in memory: its position, "STREAM SEQUENCE". */
};

/* The request under way. */
struct nats_pull {
    bool is_open;
    bool listens;   /* the channel is open */
    bool is_single; /* the next message is larger than what was asked for: ask for it alone */
    size_t n;       /* messages still to come */
    size_t n_got;
    uint64_t number, until_ms;
    uint64_t not_before_ms; /* one was refused: when to ask again */
    char inbox[NATS_REPLY_SIZE];
};

/* What the server says of the consumer. */
struct nats_consumer {
    bool is_known, is_asked;
    uint64_t asked_ms, pause_ms; /* of the last question; how long until the next */
    uint64_t ack_wait_ms;
    int64_t max_deliver, max_batch, max_bytes, max_expires_ms; /* 0 or less: no limit */
};

/* What the last look at the consumer has shown. */
struct nats_skips {
    bool is_known;
    char created[40];
    int64_t sequence, n_given; /* the furthest message given, how many deliveries there were */
};

struct nats_source {
    struct source base;
    struct endpoint end;
    struct nats_config config;
    struct nats_client *client;
    struct nats_pull pull;
    struct nats_consumer consumer;
    struct nats_skips skips;
    struct intake intake;
    struct taken_list done; /* to be acked, until that is confirmed */
    uint64_t refused_ms;    /* since when nobody has taken acks; 0: they were taken */
    size_t mean_bytes;
    bool is_returned;
    uv_timer_t tick_timer;
};

/* ---- nats_source.c, for the sink */

/* Its dead letter is published: the server is told so in place of an ack, if it is a message of
 * NATS. */
void nats_source_mark_dead(struct message *message);

/* ---- nats_message.c */

/* Takes native, a message of the consumer that is acknowledged on delivery's subject. NULL: no
 * memory. */
struct nats_message *nats_message_open(struct nats_source *source, natsMsg *native,
                                       const struct nats_delivery *delivery);
void nats_message_close(struct nats_message *message);
const char *nats_message_reply(const struct nats_message *message);

/* What of the input is read here: the stream, or subjects of it. */
static inline const char *nats_source_part(const struct nats_source *source)
{
    return source->config.subject ? source->config.subject : source->config.stream;
}

/* ---- nats_consumer.c */

/* After connecting, and from time to time. */
void nats_consumer_check(struct nats_source *source);
/* Something says that it is not as it was: look before anything else is asked of it. */
void nats_consumer_doubt(struct nats_source *source);
void nats_consumer_tick(struct nats_source *source, uint64_t now);

/* Of what CONSUMER.INFO says. Settings with which it cannot be worked; NULL: none. */
const char *nats_consumer_fault(struct bytes body);
/* The shortest time after which a message is delivered again, in ms. */
uint64_t nats_consumer_ack_wait(struct bytes body);

/* ---- nats_skips.c */

/* The consumer is made: it was not there, or is not any more. */
void nats_skips_on_made(struct nats_source *source);
/* info: what CONSUMER.INFO says. */
void nats_skips_look(struct nats_source *source, struct bytes info);

/* ---- nats_pull.c */

/* Ask for what is wanted, unless that is under way. */
void nats_pull_step(struct nats_source *source);
void nats_pull_tick(struct nats_source *source, uint64_t now);
/* The connection is new. */
void nats_pull_reset(struct nats_source *source);
void nats_pull_on_message(struct nats_source *source, natsMsg *native);

/* ---- nats_ack.c */

/* Send the acks that are not on their way. */
void nats_ack_send(struct nats_source *source);
/* Say of what is with us that it is being worked on, each in its time; all: now. */
void nats_ack_renew(struct nats_source *source, uint64_t now, bool all);
/* The consumer that gave what is with us is gone: acks are owed to nobody. */
void nats_ack_forget(struct nats_source *source);
/* Give a message back, unless its consumer is gone. */
void nats_ack_return(struct nats_source *source, struct nats_message *message);
/* At the end: tell on_failed of acks that are not confirmed, if there are any. */
void nats_ack_report_rest(struct nats_source *source);

#endif
