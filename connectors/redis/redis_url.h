/*
 * redis_url.h: where a Redis server is and who we are there, read from a URL.
 *
 * Owns:    redis[s]://[user[:password]@]host[:port][/db], unix://[user[:password]@]/path[?db=N],
 *          redis[s]+sentinel://[user[:password]@]host[:port][,host[:port]...]/master[/db] and
 *          redis[s]+cluster://[user[:password]@]host[:port][,host[:port]...], percent-decoding.
 * Refuses: to show a password: no error or printed form holds one.
 * Threads: no state.
 */
#ifndef REDIS_URL_H
#define REDIS_URL_H

#include <stdbool.h>
#include <stddef.h>

struct redis_address {
    char *host;
    int port;
};

/* One of host, path, master and is_cluster is set. */
struct redis_url {
    char *host;
    char *path; /* of a unix socket */
    int port;
    char *master;                /* its name among these sentinels */
    bool is_cluster;             /* of which these nodes are some */
    struct redis_address *nodes; /* sentinels or nodes, in their order */
    size_t n_nodes;
    char *user, *password; /* NULL: none */
    int db;
    bool tls; /* rediss://, rediss+sentinel:// or rediss+cluster:// */
};

/* 0; -EINVAL: err says what was expected; -ENOMEM. *out is set only on success. */
int redis_url_parse(struct redis_url *out, const char *text, char *err, size_t err_size);
void redis_url_clear(struct redis_url *url); /* zeroed and cleared ones are fine */

/* The same server and the same database, as far as the text can tell. */
bool redis_url_same(const struct redis_url *a, const struct redis_url *b);
/* "host:port/db" for messages, "master/db by sentinels host:port,host:port", "cluster host:port".
 */
void redis_url_print(const struct redis_url *url, char *out, size_t size);
void redis_address_print(const char *host, int port, char *out, size_t size);

#endif
