/*
 * clients.c: see clients.h.
 */
#include "worker/http/clients.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

int clients_open(struct clients *clients, const struct client_limits *limits)
{
    *clients = (struct clients){.limits = *limits};
    clients->all = calloc(limits->room, sizeof *clients->all);
    TAILQ_INIT(&clients->free);
    for (size_t i = 0; i < CLIENTS_LISTS; i++)
        TAILQ_INIT(&clients->lists[i]);
    for (size_t i = 0; clients->all && i < limits->room; i++)
        TAILQ_INSERT_TAIL(&clients->free, &clients->all[i], link);
    return clients->all ? 0 : -ENOMEM;
}

void clients_close(struct clients *clients)
{
    free(clients->all);
    clients->all = NULL;
}

/* Whoever has one address of IPv6 has its network of 2^64 others, too. */
static void address_of(uint8_t out[16], const struct sockaddr *from)
{
    memset(out, 0, 16);
    if (from && from->sa_family == AF_INET) {
        /* ::ffff:a.b.c.d, as IPv6 has it: whichever socket it came by, it is one client. */
        out[10] = out[11] = 0xff;
        memcpy(out + 12, &((const struct sockaddr_in *)(const void *)from)->sin_addr, 4);
    } else if (from && from->sa_family == AF_INET6) {
        const struct in6_addr *in = &((const struct sockaddr_in6 *)(const void *)from)->sin6_addr;
        memcpy(out, in, IN6_IS_ADDR_V4MAPPED(in) ? 16 : 8);
    }
}

static bool is_there(const struct client *client)
{
    return client->is_used && !client->is_shut;
}

static void list_add(struct client *client, unsigned list)
{
    client->list = list;
    TAILQ_INSERT_TAIL(&client->of->lists[list], client, link);
    client->of->n++;
}

static void list_remove(struct client *client)
{
    TAILQ_REMOVE(&client->of->lists[client->list], client, link);
    assert(client->of->n > 0);
    client->of->n--;
}

static void shut(struct client *client)
{
    list_remove(client);
    client->is_shut = true;
    /* Not closed: the descriptor is the daemon's, which sees the end and then has the client
     * removed. */
    shutdown(client->fd, SHUT_RDWR);
}

/* Who has less to lose has the lower rank. Bodies that never come, and answers that are not taken,
 * must not outlast a probe that has connected just now. */
static unsigned rank(const struct clients *clients, const struct client *client)
{
    bool is_idle = clients->limits.is_quick && client->state != CLIENT_WAITING;
    return is_idle ? CLIENT_IDLE : client->state;
}

/* Whether a goes before b when one must; b NULL: there is no other. */
static bool goes_first(const struct clients *clients, const struct client *a,
                       const struct client *b)
{
    if (clients->limits.spares_waiting && a->state >= CLIENT_WAITING)
        return false;
    if (!b)
        return true;
    unsigned a_rank = rank(clients, a), b_rank = rank(clients, b);
    return a_rank != b_rank ? a_rank < b_rank : a->order < b->order;
}

static void make_room(struct clients *clients, const struct client *newcomer)
{
    struct client *first = NULL;
    for (size_t i = 0; i < CLIENTS_LISTS && clients->n > clients->limits.max; i++) {
        /* Of each list its first, which has been so for longest. */
        struct client *head = TAILQ_FIRST(&clients->lists[i]);
        /* The newcomer is never who has to go, or a probe would be. */
        if (head == newcomer)
            head = TAILQ_NEXT(head, link);
        if (head && goes_first(clients, head, first))
            first = head;
    }
    if (first)
        shut(first);
}

/* Among those of its address, when these may not be all there are. */
static void make_room_of_address(struct clients *clients, const struct client *newcomer)
{
    struct client *first = NULL;
    size_t n = 0;
    if (clients->limits.of_address >= clients->limits.max)
        return;
    for (size_t i = 0; i < clients->limits.room; i++) {
        struct client *client = &clients->all[i];
        if (!is_there(client) || memcmp(client->from, newcomer->from, sizeof client->from) != 0)
            continue;
        n++;
        if (client != newcomer && goes_first(clients, client, first))
            first = client;
    }
    if (n > clients->limits.of_address && first)
        shut(first);
}

static uint64_t due_of(const struct client_limits *limits, enum client_state state, uint64_t now_ms)
{
    switch (state) {
    case CLIENT_IDLE:
        return now_ms + limits->idle_ms;
    case CLIENT_SENDING:
        return now_ms + limits->body_ms;
    case CLIENT_ANSWERING:
        return now_ms + limits->answer_ms;
    case CLIENT_WAITING:
        break;
    }
    /* It waits for us, not we for it. */
    return UINT64_MAX;
}

struct client *clients_add(struct clients *clients, int fd, const struct sockaddr *from,
                           uint64_t now_ms)
{
    struct client *client = TAILQ_FIRST(&clients->free);
    /* Places beyond `max` are for those that are shut down and not gone yet: all are taken. */
    if (!client)
        return NULL;
    TAILQ_REMOVE(&clients->free, client, link);
    *client = (struct client){.of = clients,
                              .is_used = true,
                              .fd = fd,
                              .order = ++clients->n_changes,
                              .due_ms = now_ms + clients->limits.header_ms};
    address_of(client->from, from);
    list_add(client, CLIENTS_NEW);
    make_room_of_address(clients, client);
    make_room(clients, client);
    return client;
}

void clients_remove(struct client *client)
{
    if (!client)
        return;
    if (is_there(client))
        list_remove(client);
    client->is_used = false;
    TAILQ_INSERT_HEAD(&client->of->free, client, link);
}

void clients_change(struct clients *clients, struct client *client, enum client_state state,
                    uint64_t now_ms)
{
    if (!client)
        return;
    assert(client->is_used);
    client->state = state;
    client->order = ++clients->n_changes;
    client->due_ms = due_of(&clients->limits, state, now_ms);
    /* Shut down and not gone yet: it is in no list. */
    if (client->is_shut)
        return;
    list_remove(client);
    list_add(client, state);
}

void clients_expire(struct clients *clients, uint64_t now_ms)
{
    struct client *head;
    for (size_t i = 0; i < CLIENTS_LISTS; i++)
        /* All of a list have the same time from their last change on, so its first is due first. */
        while ((head = TAILQ_FIRST(&clients->lists[i])) && head->due_ms <= now_ms)
            shut(head);
}

uint64_t clients_wait(const struct clients *clients, uint64_t now_ms)
{
    uint64_t wait_ms = UINT64_MAX;
    for (size_t i = 0; i < CLIENTS_LISTS; i++) {
        const struct client *head = TAILQ_FIRST(&clients->lists[i]);
        if (!head || head->due_ms == UINT64_MAX)
            continue;
        uint64_t left = head->due_ms > now_ms ? head->due_ms - now_ms : 0;
        wait_ms = left < wait_ms ? left : wait_ms;
    }
    return wait_ms;
}
