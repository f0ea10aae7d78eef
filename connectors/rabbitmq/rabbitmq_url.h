/*
 * rabbitmq_url.h: where a RabbitMQ node is and who we are there, read from a URL.
 *
 * Owns:    amqp[s]://[user[:password]@]host[:port][/vhost], several with commas between; percent-
 *          decoding. A vhost that is not named is "/".
 * Refuses: to show a password: no error or printed form holds one.
 * Threads: no state.
 */
#ifndef RABBITMQ_URL_H
#define RABBITMQ_URL_H

#include <stdbool.h>
#include <stddef.h>

#define RABBITMQ_MANAGEMENT_PORT     15672
#define RABBITMQ_MANAGEMENT_TLS_PORT 15671

struct rabbitmq_url {
    char *host, *vhost;
    char *user, *password; /* both NULL: none given */
    int port;
    bool tls; /* amqps:// */
};

/* Nodes of one cluster, in the order in which they are tried. */
struct rabbitmq_urls {
    struct rabbitmq_url *items;
    size_t n;
};

/* 0; -EINVAL: err says what was expected; -ENOMEM. *out is set only on success. */
int rabbitmq_urls_parse(struct rabbitmq_urls *out, const char *text, char *err, size_t err_size);
/* The same of the management API: http[s]://[user[:password]@]host[:port]. */
int rabbitmq_management_parse(struct rabbitmq_urls *out, const char *text, char *err,
                              size_t err_size);
void rabbitmq_urls_clear(struct rabbitmq_urls *urls); /* zeroed ones are fine */
bool rabbitmq_urls_use_tls(const struct rabbitmq_urls *urls);
/* Whether both name a same node and vhost. */
bool rabbitmq_urls_meet(const struct rabbitmq_urls *a, const struct rabbitmq_urls *b);
/* "host:port/vhost" for messages; of the default vhost "host:port". */
void rabbitmq_url_print(const struct rabbitmq_url *url, char *out, size_t size);

#endif
