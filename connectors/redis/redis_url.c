/*
 * redis_url.c: see redis_url.h.
 *
 * Owns:    the grammar of the URL.
 * Refuses: anything it does not know, in a sentence that repeats no part of the userinfo.
 * Threads: no state.
 */
#include "connectors/redis/redis_url.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "connectors/url.h"

#define URL_FORM                                                                                   \
    "expected redis[s]://[user[:password]@]host[:port][/db], unix:///path[?db=N], "                \
    "redis[s]+sentinel://[user[:password]@]host[:port][,host...]/master[/db] or "                  \
    "redis[s]+cluster://[user[:password]@]host[:port][,host...]"
#define REDIS_PORT    6379
#define SENTINEL_PORT 26379
#define NODES_SHOWN   3 /* of a list, in messages */

static int refuse(char *err, size_t err_size, const char *what)
{
    snprintf(err, err_size, "%s; " URL_FORM, what);
    return -EINVAL;
}

/* user:password, :password or user before the '@'. */
static int parse_userinfo(struct redis_url *url, const char *from, size_t len)
{
    const char *colon = memchr(from, ':', len);
    size_t user_len = colon ? (size_t)(colon - from) : len;
    int rc = 0;

    if (user_len)
        rc = url_decode(&url->user, from, user_len);
    if (rc == 0 && colon && len > user_len + 1)
        rc = url_decode(&url->password, colon + 1, len - user_len - 1);
    return rc;
}

static int parse_host(struct redis_address *out, int default_port, const char *from, size_t len,
                      char *err, size_t err_size)
{
    const char *why;

    out->port = default_port;
    int rc = url_host(from, len, &out->host, &out->port, &why);
    return rc == -EINVAL ? refuse(err, err_size, why) : rc;
}

/* [user[:password]@]host[:port][/db] */
static int parse_tcp(struct redis_url *url, const char *rest, char *err, size_t err_size)
{
    size_t len = strcspn(rest, "/?#");
    const char *tail = rest + len;

    if (*tail == '/')
        tail++;
    if (strpbrk(tail, "?#"))
        return refuse(err, err_size, "? and # options are not known in a redis:// URL");
    if (*tail && (url->db = url_number(tail, strlen(tail), 0, 999999999)) < 0)
        return refuse(err, err_size, "the database after / is not a number");
    struct redis_address address = {0};
    int rc = parse_host(&address, REDIS_PORT, rest, len, err, err_size);
    url->host = address.host;
    url->port = address.port;
    return rc;
}

/* /master[/db] */
static int parse_master(struct redis_url *url, const char *rest, char *err, size_t err_size)
{
    size_t len = strcspn(rest, "/?#");
    const char *tail = rest + len;

    if (len == 0)
        return refuse(err, err_size, "the name of the master is missing after the sentinels");
    if (*tail == '/')
        tail++;
    if (strpbrk(tail, "?#"))
        return refuse(err, err_size, "? and # options are not known in a sentinel URL");
    if (*tail && (url->db = url_number(tail, strlen(tail), 0, 999999999)) < 0)
        return refuse(err, err_size, "the database after the name of the master is not a number");
    int rc = url_decode(&url->master, rest, len);
    return rc == -EINVAL ? refuse(err, err_size, "the name of the master has a bad %-escape") : rc;
}

/* host[:port][,host[:port]...] up to a '/', '?', '#' or the end, which is *tail then. */
static int parse_nodes(struct redis_url *url, int default_port, const char *rest, const char **tail,
                       char *err, size_t err_size)
{
    size_t len = strcspn(rest, "/?#"), n = 1;
    const char *end = rest + len;
    int rc = 0;

    *tail = end;
    for (const char *p = rest; p < end; p++)
        n += *p == ',';
    url->nodes = calloc(n, sizeof(*url->nodes));
    if (!url->nodes)
        return -ENOMEM;
    for (const char *from = rest; rc == 0 && url->n_nodes < n;) {
        const char *comma = memchr(from, ',', (size_t)(end - from));
        const char *to = comma ? comma : end;
        rc = parse_host(&url->nodes[url->n_nodes++], default_port, from, (size_t)(to - from), err,
                        err_size);
        /* After the last one it is behind the end, and the loop is over: n counts the commas. */
        from = to + 1;
    }
    return rc;
}

/* [user[:password]@]host[:port][,host[:port]...]/master[/db] */
static int parse_sentinel(struct redis_url *url, const char *rest, char *err, size_t err_size)
{
    const char *tail;
    int rc = parse_nodes(url, SENTINEL_PORT, rest, &tail, err, err_size);

    return rc ? rc : parse_master(url, *tail == '/' ? tail + 1 : tail, err, err_size);
}

/* [user[:password]@]host[:port][,host[:port]...][/0] */
static int parse_cluster(struct redis_url *url, const char *rest, char *err, size_t err_size)
{
    const char *tail;
    int rc = parse_nodes(url, REDIS_PORT, rest, &tail, err, err_size);

    url->is_cluster = true;
    if (rc == 0 && *tail && strcmp(tail, "/") != 0 && strcmp(tail, "/0") != 0)
        rc = refuse(err, err_size, "a cluster has database 0 only, and nothing follows its nodes");
    return rc;
}

/* /path[?db=N] */
static int parse_unix(struct redis_url *url, const char *rest, char *err, size_t err_size)
{
    size_t len = strcspn(rest, "?#");
    const char *tail = rest + len;

    if (rest[0] != '/' || len < 2)
        return refuse(err, err_size, "the path of a unix:// URL must be absolute");
    if (*tail) {
        if (strncmp(tail, "?db=", 4) != 0)
            return refuse(err, err_size, "a unix:// URL knows the option ?db=N only");
        if ((url->db = url_number(tail + 4, strlen(tail + 4), 0, 999999999)) < 0)
            return refuse(err, err_size, "the database after ?db= is not a number");
    }
    int rc = url_decode(&url->path, rest, len);
    if (rc == -EINVAL)
        return refuse(err, err_size, "the path has a bad %-escape");
    if (rc == 0 && strlen(url->path) >= 108) /* sizeof(sockaddr_un.sun_path) */
        return refuse(err, err_size, "the path of the unix socket is longer than 107 bytes");
    return rc;
}

typedef int (*parse_cb)(struct redis_url *url, const char *rest, char *err, size_t err_size);

static const struct {
    const char *scheme;
    bool tls;
    parse_cb parse; /* what follows the userinfo */
} schemes[] = {
    {"redis://", false, parse_tcp},
    {"rediss://", true, parse_tcp},
    {"unix://", false, parse_unix},
    {"redis+sentinel://", false, parse_sentinel},
    {"rediss+sentinel://", true, parse_sentinel},
    {"redis+cluster://", false, parse_cluster},
    {"rediss+cluster://", true, parse_cluster},
};
#define N_SCHEMES (sizeof(schemes) / sizeof(schemes[0]))

int redis_url_parse(struct redis_url *out, const char *text, char *err, size_t err_size)
{
    struct redis_url url = {0};
    const char *rest, *at;
    size_t i = 0;
    int rc;

    while (i < N_SCHEMES && strncasecmp(text, schemes[i].scheme, strlen(schemes[i].scheme)) != 0)
        i++;
    if (i == N_SCHEMES)
        return refuse(err, err_size, "not a Redis URL");
    url.tls = schemes[i].tls;
    rest = text + strlen(schemes[i].scheme);
    /* A '/' in a password must be written %2F, so the userinfo ends before the first one. */
    at = NULL;
    for (const char *p = rest; *p && !strchr("/?#", *p); p++)
        if (*p == '@')
            at = p;
    if (at) {
        rc = parse_userinfo(&url, rest, (size_t)(at - rest));
        if (rc == -EINVAL)
            rc = refuse(err, err_size, "the user or password has a bad %-escape");
        if (rc)
            goto fail;
        rest = at + 1;
    }
    rc = schemes[i].parse(&url, rest, err, err_size);
    if (rc == 0 && url.user && !url.password)
        rc = refuse(err, err_size, "there is a user but no password");
    if (rc)
        goto fail;
    *out = url;
    return 0;
fail:
    if (rc == -ENOMEM)
        snprintf(err, err_size, "out of memory");
    redis_url_clear(&url);
    return rc;
}

void redis_url_clear(struct redis_url *url)
{
    free(url->host);
    free(url->path);
    free(url->master);
    for (size_t i = 0; i < url->n_nodes; i++)
        free(url->nodes[i].host);
    free(url->nodes);
    free(url->user);
    free(url->password);
    *url = (struct redis_url){0};
}

bool redis_url_same(const struct redis_url *a, const struct redis_url *b)
{
    if (a->db != b->db || !a->host != !b->host || !a->path != !b->path ||
        a->is_cluster != b->is_cluster || a->n_nodes != b->n_nodes)
        return false;
    if (a->host)
        return a->port == b->port && strcasecmp(a->host, b->host) == 0;
    if (a->path)
        return strcmp(a->path, b->path) == 0;
    for (size_t i = 0; i < a->n_nodes; i++)
        if (a->nodes[i].port != b->nodes[i].port ||
            strcasecmp(a->nodes[i].host, b->nodes[i].host) != 0)
            return false;
    return a->is_cluster || strcmp(a->master, b->master) == 0;
}

void redis_address_print(const char *host, int port, char *out, size_t size)
{
    snprintf(out, size, strchr(host, ':') ? "[%s]:%d" : "%s:%d", host, port);
}

void redis_url_print(const struct redis_url *url, char *out, size_t size)
{
    char address[300];
    int len;

    if (url->path) {
        snprintf(out, size, "%s/%d", url->path, url->db);
        return;
    }
    if (url->host) {
        redis_address_print(url->host, url->port, address, sizeof(address));
        snprintf(out, size, "%s/%d", address, url->db);
        return;
    }
    len = url->is_cluster ? snprintf(out, size, "cluster ")
                          : snprintf(out, size, "%s/%d by sentinels ", url->master, url->db);
    for (size_t i = 0; i < url->n_nodes && len >= 0 && (size_t)len < size; i++) {
        if (i == NODES_SHOWN) {
            snprintf(out + len, size - (size_t)len, ",...");
            return;
        }
        redis_address_print(url->nodes[i].host, url->nodes[i].port, address, sizeof(address));
        len += snprintf(out + len, size - (size_t)len, "%s%s", i ? "," : "", address);
    }
}
