/*
 * nats_client.h: NATS on a loop: messages out, answers and messages in.
 *
 * Owns:    the link and its end, the questions that are not answered, how long to wait for that.
 * Refuses: what is asked: nats_source.c, nats_sink.c.
 * Threads: the loop thread.
 */
#ifndef NATS_CLIENT_H
#define NATS_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "connectors/nats/nats.h"
#include "connectors/nats/nats_asks.h"
#include "connectors/nats/nats_link.h"

#define NATS_REPLY_SIZE 160

struct nats_client_events {
    void (*on_up)(void *ctx);
    /* All questions were answered with NULL before. */
    void (*on_down)(void *ctx, const char *why);
    /* Not to be tried again. */
    void (*on_failed)(void *ctx, int err, const char *why);
    /* A right is missing, in the server's words. What was asked for by it is never answered. */
    void (*on_denied)(void *ctx, const char *what);
    /* Gives a message of a channel that was opened. NULL: no channel is used. */
    void (*on_message)(void *ctx, enum nats_channel channel, natsMsg *message);
};

struct nats_client;

/* name: what the server shows. Connects and connects again. 0; -EINVAL with a sentence; -ENOMEM. */
int nats_client_open(struct nats_client **out, uv_loop_t *loop, const struct nats_config *config,
                     const char *name, const struct nats_client_events *events, void *ctx,
                     char *err, size_t err_size);
bool nats_client_is_up(const struct nats_client *client);
/* Of a message with its headers, as of the last connection. */
size_t nats_client_max_payload(const struct nats_client *client);

/* All of these do nothing, or nothing more, while the client is down. */

/* The subject that the answer to the next question comes on: its message's reply. */
void nats_client_reply(const struct nats_client *client, char reply[NATS_REPLY_SIZE]);
/* Takes message, made with that reply. False: cb is not called: without memory, or down. */
bool nats_client_ask(struct nats_client *client, natsMsg *message, nats_answer_cb cb, void *arg);
/* The same for a message of text. */
bool nats_client_ask_text(struct nats_client *client, const char *subject, const char *text,
                          nats_answer_cb cb, void *arg);
void nats_client_send_text(struct nats_client *client, const char *subject, const char *reply,
                           const char *text);
/* A new subject of our own for a channel: "INBOX.p.N". */
void nats_client_inbox(struct nats_client *client, char subject[NATS_REPLY_SIZE]);
void nats_client_listen(struct nats_client *client, enum nats_channel channel, const char *subject,
                        const char *group);

/* Takes client. Sends what is queued; no event follows but closed, once, from the loop, at the
 * latest after deadline_ms. Questions are not answered any more. */
void nats_client_close(struct nats_client *client, uint64_t deadline_ms, void (*closed)(void *ctx),
                       void *ctx);

#endif
