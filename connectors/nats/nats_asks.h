/*
 * nats_asks.h: the questions that are not answered yet.
 *
 * Owns:    a number for each, which is the last word of the subject that its answer comes on.
 * Refuses: sending and receiving: nats_client.c.
 * Threads: one at a time.
 */
#ifndef NATS_ASKS_H
#define NATS_ASKS_H

#include <nats/nats.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* answer: borrowed; NULL: none came in time, or the connection was lost: ask again. */
typedef void (*nats_answer_cb)(void *ctx, void *arg, natsMsg *answer);

struct nats_ask {
    nats_answer_cb cb; /* NULL: answered */
    void *arg;
    uint64_t asked_ms;
};

/* All zero is an empty one. */
struct nats_asks {
    struct nats_ask *ring; /* [room], a power of two */
    size_t room;
    uint64_t first, next; /* numbers: the oldest not answered, and that of the next question */
    size_t n_open;
};

void nats_asks_close(struct nats_asks *asks);
/* The next number is taken by this question. 0 or -ENOMEM. */
int nats_asks_add(struct nats_asks *asks, nats_answer_cb cb, void *arg, uint64_t now_ms);
/* Takes out the question of that number. False: there is none, or it is answered. */
bool nats_asks_take(struct nats_asks *asks, uint64_t number, struct nats_ask *out);
/* Takes out the oldest one, if it was asked before then. */
bool nats_asks_take_late(struct nats_asks *asks, uint64_t before_ms, struct nats_ask *out);

/* Numbers as words of subjects. False: it is not one of ours. */
bool nats_asks_parse(const char *subject, uint64_t *number);

#endif
