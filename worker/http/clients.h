/*
 * clients.h: who is connected to an HTTP address, and who must go.
 *
 * Owns:    the deadlines of connections, and the choice whom to close when there are too many.
 * Refuses: HTTP; closing descriptors: it shuts sockets down, and whoever owns them sees an end.
 * Threads: the loop thread.
 * Why:     connections that send half a request, or nothing, or a byte now and then, must not keep
 *          others from being answered: an orchestrator kills workers whose probes are not.
 */
#ifndef CLIENTS_H
#define CLIENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>

struct client_limits {
    size_t max;         /* served at once ... */
    size_t of_address;  /* ... of these from one address */
    size_t room;        /* with those that are shut down and not gone yet */
    uint64_t header_ms; /* from connected to a whole header */
    uint64_t body_ms;   /* from a whole header to a whole request */
    uint64_t answer_ms; /* from an answer that is there to one that was taken */
    uint64_t idle_ms;   /* from an answer to the next whole header */
    /* Nobody has reason to send a body or to read an answer slowly: a client that waits for neither
     * a thought of ours nor a header is as idle as one that has sent nothing. */
    bool is_quick;
    bool spares_waiting; /* whoever waits for an answer is never closed to make room */
};

/* Who must go first comes first. */
enum client_state {
    CLIENT_IDLE,      /* no header yet, or an answer was taken */
    CLIENT_SENDING,   /* a header is there, its body is not */
    CLIENT_WAITING,   /* a whole request is there, its answer is not: that takes what it takes */
    CLIENT_ANSWERING, /* an answer is there and not taken yet */
};

/* Lists of those that are there and not shut down. In each the first has been there for longest,
 * and its time is over first. */
enum {
    CLIENTS_NEW = CLIENT_ANSWERING + 1, /* of CLIENT_IDLE those without a header yet */
    CLIENTS_LISTS,
};

struct client {
    TAILQ_ENTRY(client) link; /* of its list; or of those that are free, by its next */
    struct clients *of;
    bool is_used, is_shut;
    unsigned list;
    enum client_state state;
    int fd;
    uint64_t order;   /* of the last change: who has been so for longest has the smallest */
    uint64_t due_ms;  /* UINT64_MAX: never */
    uint8_t from[16]; /* address; of IPv6 the network */
};

TAILQ_HEAD(client_list, client);

struct clients {
    struct client *all; /* [limits.room] */
    struct client_list lists[CLIENTS_LISTS], free;
    size_t n; /* in all lists */
    struct client_limits limits;
    uint64_t n_changes; /* a clock is too coarse: many connect in one millisecond */
};

/* 0 or -ENOMEM. */
int clients_open(struct clients *clients, const struct client_limits *limits);
void clients_close(struct clients *clients);
/*
 * Connected. When that is one too many, of all or of its address, the one in the lowest state is
 * shut down, of several the one that has been so for longest. NULL: no room, which is for whoever
 * accepts to prevent.
 */
struct client *clients_add(struct clients *clients, int fd, const struct sockaddr *from,
                           uint64_t now_ms);
void clients_remove(struct client *client); /* its socket is being closed; accepts NULL */
/* client: NULL is accepted. */
void clients_change(struct clients *clients, struct client *client, enum client_state state,
                    uint64_t now_ms);
/* Shut down all whose time is over. */
void clients_expire(struct clients *clients, uint64_t now_ms);
/* Milliseconds until the next one's time is over; UINT64_MAX: none is. */
uint64_t clients_wait(const struct clients *clients, uint64_t now_ms);

#endif
