/*
 * nats_link.h: a connection to NATS on a thread of its own, which comes back.
 *
 * Owns:    the connection and its subscriptions, when to connect again, two queues: what is to be
 *          sent, and what has come.
 * Refuses: what any of it means: nats_client.h.
 * Threads: its own, the library's, and the loop thread, which alone calls these functions. One
 *          lock, around the two queues.
 * Why:     calls of the library that connect, look up names or write to a socket that is full wait,
 *          some without a limit, and hold a lock that all other calls of the connection want. So no
 *          call that takes a connection is made on the loop thread. The library's adapter for
 *          libuv makes reading and writing not wait, but not connecting. Connecting again is ours,
 *          because the library would repeat what was queued meanwhile, and everything that was not
 *          answered is asked again by whoever asked.
 */
#ifndef NATS_LINK_H
#define NATS_LINK_H

#include <nats/nats.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

/* Subscriptions. */
enum nats_channel {
    NATS_REPLIES, /* answers to questions; there whenever the link is up */
    NATS_PULL,    /* messages of the consumer */
    NATS_ADVICE,  /* what the server tells of the consumer */
    NATS_CHANNELS
};

enum nats_event_type {
    NATS_UP,      /* max_payload is known; all channels but the replies are to be opened anew */
    NATS_DOWN,    /* text: why, and it is tried again after a pause */
    NATS_REFUSED, /* text: why; it is not tried again */
    NATS_DENIED,  /* text: which right is missing, in the server's words */
    NATS_MESSAGE,
    NATS_ENDED, /* last, after nats_link_stop or NATS_REFUSED */
};

struct nats_event {
    struct nats_event *next;
    enum nats_event_type type;
    enum nats_channel channel;
    uint64_t generation; /* of NATS_UP: what commands for this connection carry */
    natsMsg *message;    /* to be taken (set to NULL) or left */
    size_t max_payload;
    char text[];
};

struct nats_link;

/*
 * Takes options, also on failure, and connects. async: woken when something has come, until the
 * link is stopped or let go. inbox: replies come on INBOX.r.*; copied. 0, -ENOMEM or -EAGAIN: no
 * thread.
 */
int nats_link_open(struct nats_link **out, natsOptions *options, const char *inbox,
                   uv_async_t *async);
/* Takes message: send it, if the connection is still of that generation. */
void nats_link_send(struct nats_link *link, uint64_t generation, natsMsg *message);
/* Open a channel, in place of what it was: subscribe to that subject, as one of `group` if that is
 * not NULL. */
void nats_link_listen(struct nats_link *link, uint64_t generation, enum nats_channel channel,
                      const char *subject, const char *group);
/* What has come, oldest first; NULL: nothing. Each to be freed with nats_event_free. */
struct nats_event *nats_link_take(struct nats_link *link);
void nats_event_free(struct nats_event *event);
/* Send what is queued, close the connection, end the thread; NATS_ENDED comes. */
void nats_link_stop(struct nats_link *link);
/* Takes link: nothing comes any more. A thread that hangs in a call is left to itself. */
void nats_link_leave(struct nats_link *link);

#endif
