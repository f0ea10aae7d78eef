/*
 * redis_url.h: where a Redis server is and who we are there, read from a URL.
 *
 * Owns:    redis[s]://[user[:password]@]host[:port][/db] and unix://[user[:password]@]/path[?db=N],
 *          percent-decoding.
 * Refuses: to show a password: no error or printed form holds one.
 * Threads: no state.
 */
#ifndef REDIS_URL_H
#define REDIS_URL_H

#include <stdbool.h>
#include <stddef.h>

struct redis_url {
    char *host; /* NULL: a unix socket at path */
    char *path;
    int port;
    char *user, *password; /* NULL: none */
    int db;
    bool tls; /* rediss:// */
};

/* 0; -EINVAL: err says what was expected; -ENOMEM. *out is set only on success. */
int redis_url_parse(struct redis_url *out, const char *text, char *err, size_t err_size);
void redis_url_clear(struct redis_url *url); /* zeroed and cleared ones are fine */

/* The same server and the same database, as far as the text can tell. */
bool redis_url_same(const struct redis_url *a, const struct redis_url *b);
/* "host:port/db" for messages. */
void redis_url_print(const struct redis_url *url, char *out, size_t size);

#endif
