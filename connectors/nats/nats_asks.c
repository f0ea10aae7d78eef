/*
 * nats_asks.c: see nats_asks.h.
 */
#include "connectors/nats/nats_asks.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROOM_MIN 64

void nats_asks_close(struct nats_asks *asks)
{
    free(asks->ring);
    *asks = (struct nats_asks){0};
}

static struct nats_ask *at(const struct nats_asks *asks, uint64_t number)
{
    return &asks->ring[number & (asks->room - 1)];
}

static int grow(struct nats_asks *asks)
{
    struct nats_asks larger = *asks;
    larger.room = asks->room ? 2 * asks->room : ROOM_MIN;
    larger.ring = malloc(larger.room * sizeof *larger.ring);
    if (!larger.ring)
        return -ENOMEM;
    for (uint64_t i = asks->first; i < asks->next; i++)
        /* Each keeps its number; only its place in the ring is another. */
        *at(&larger, i) = *at(asks, i);
    free(asks->ring);
    *asks = larger;
    return 0;
}

int nats_asks_add(struct nats_asks *asks, nats_answer_cb cb, void *arg, uint64_t now_ms)
{
    assert(cb);
    if (asks->next - asks->first == asks->room && grow(asks) != 0)
        return -ENOMEM;
    *at(asks, asks->next++) = (struct nats_ask){cb, arg, now_ms};
    asks->n_open++;
    return 0;
}

bool nats_asks_take(struct nats_asks *asks, uint64_t number, struct nats_ask *out)
{
    if (number < asks->first || number >= asks->next || !at(asks, number)->cb)
        return false;
    *out = *at(asks, number);
    at(asks, number)->cb = NULL;
    assert(asks->n_open > 0);
    asks->n_open--;
    /* Behind the first all may be answered already: numbers between are skipped at once. */
    while (asks->first < asks->next && !at(asks, asks->first)->cb)
        asks->first++;
    return true;
}

bool nats_asks_take_late(struct nats_asks *asks, uint64_t before_ms, struct nats_ask *out)
{
    if (!asks->n_open || at(asks, asks->first)->asked_ms >= before_ms)
        return false;
    return nats_asks_take(asks, asks->first, out);
}

bool nats_asks_parse(const char *subject, uint64_t *number)
{
    const char *word = strrchr(subject, '.');
    char *end;
    if (!word || word[1] < '0' || word[1] > '9')
        return false;
    *number = strtoull(word + 1, &end, 10);
    /* Somebody else's message on our inbox may end in anything. */
    return !*end;
}
