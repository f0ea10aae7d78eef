/*
 * clients.h: who is connected to the metrics' address, and who must go.
 *
 * Owns:    the deadlines of connections, and the choice whom to close when there are too many.
 * Refuses: HTTP; closing descriptors: it shuts sockets down, and whoever owns them sees an end.
 * Threads: the loop thread.
 * Why:     connections that send half a request, or nothing, or a byte now and then, must not keep
 * a probe from being answered: an orchestrator kills workers over that.
 */
#ifndef CLIENTS_H
#define CLIENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum {
    CLIENTS_MAX = 64,         /* served at once ... */
    CLIENTS_OF_ADDRESS = 32,  /* ... of these from one address */
    CLIENTS_ROOM = 192,       /* with those that are shut down and not gone yet */
    CLIENT_HEADER_MS = 5000,  /* from connected to a whole request */
    CLIENT_ANSWER_MS = 10000, /* from a whole request to an answer that was taken */
    CLIENT_IDLE_MS = 60000,   /* from an answer to the next whole request */
};

struct client {
    bool is_used, is_shut;
    bool is_serving; /* a whole request is there, its answer is not taken yet */
    int fd;
    uint64_t order; /* of the last change: who has been so for longest has the smallest */
    uint64_t due_ms;
    uint8_t from[16]; /* address; of IPv6 the network */
};

/* All zero is an empty one. */
struct clients {
    struct client all[CLIENTS_ROOM];
    uint64_t n_changes; /* a clock is too coarse: many connect in one millisecond */
};

/*
 * Connected. When that is one too many, of all or of its address, the one that has been longest
 * without a whole request is shut down; when all have one, the one that has had it longest. NULL:
 * no room, which is for whoever accepts to prevent.
 */
struct client *clients_add(struct clients *clients, int fd, const struct sockaddr *from,
                           uint64_t now_ms);
void clients_remove(struct client *client); /* its socket is being closed; accepts NULL */
/* A whole request is there; its answer is taken. client: NULL is accepted. */
void clients_on_request(struct clients *clients, struct client *client, uint64_t now_ms);
void clients_on_answered(struct clients *clients, struct client *client, uint64_t now_ms);
/* Shut down all whose time is over. */
void clients_expire(struct clients *clients, uint64_t now_ms);
/* Milliseconds until the next one's time is over; UINT64_MAX: nobody is there. */
uint64_t clients_wait(const struct clients *clients, uint64_t now_ms);

#endif
