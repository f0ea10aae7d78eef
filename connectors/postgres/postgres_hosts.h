/*
 * postgres_hosts.h: the servers that a connection string names.
 *
 * Owns:    reading the string, by libpq's own rules and with its environment (PGHOST, PGPORT ...).
 * Refuses: connecting; postgres_link.c does.
 * Threads: no state.
 */
#ifndef POSTGRES_HOSTS_H
#define POSTGRES_HOSTS_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Absent ones are NULL: libpq chooses. */
struct postgres_host {
    char *name, *address, *port;
};

struct postgres_hosts {
    PQconninfoOption *words;     /* of the connection string */
    struct postgres_host *items; /* [n], n >= 1 */
    size_t n;
    uint64_t connect_ms; /* for one address */
};

/* 0; -EINVAL and err; -ENOMEM. */
int postgres_hosts_open(struct postgres_hosts *out, const char *url, char *err, size_t err_size);
void postgres_hosts_close(struct postgres_hosts *hosts);

/* Is it a name to be looked up, and not a folder of sockets or an address? */
bool postgres_host_is_name(const struct postgres_host *host);

/* Start to connect to that host alone. address: of its name, or NULL. NULL: no memory. */
PGconn *postgres_hosts_connect(const struct postgres_hosts *hosts, const struct postgres_host *host,
                               const char *address, const char *password);

#endif
