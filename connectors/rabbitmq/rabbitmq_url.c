/*
 * rabbitmq_url.c: see rabbitmq_url.h.
 */
#include "connectors/rabbitmq/rabbitmq_url.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "connectors/url.h"

#define NAME_BYTES_MAX 255 /* of a vhost, in the protocol */

/* What a list of URLs may hold. */
struct grammar {
    const char *form;
    struct {
        const char *text;
        int port;
    } plain, tls;
};

static const struct grammar amqp = {
    "expected amqp[s]://[user[:password]@]host[:port][/vhost][,amqp...]",
    {"amqp://", 5672},
    {"amqps://", 5671}};
static const struct grammar management = {"expected http[s]://[user[:password]@]host[:port]",
                                          {"http://", RABBITMQ_MANAGEMENT_PORT},
                                          {"https://", RABBITMQ_MANAGEMENT_TLS_PORT}};

static int refuse(char *err, size_t err_size, const char *what)
{
    snprintf(err, err_size, "%s", what);
    return -EINVAL;
}

static int parse_user(struct rabbitmq_url *url, const char *from, size_t len, char *err,
                      size_t err_size)
{
    const char *colon = memchr(from, ':', len);
    size_t user_len = colon ? (size_t)(colon - from) : len;
    int rc = url_decode(&url->user, from, user_len);
    if (rc == 0)
        rc = colon ? url_decode(&url->password, colon + 1, len - user_len - 1)
                   : url_decode(&url->password, "", 0);
    return rc == -EINVAL ? refuse(err, err_size, "the user or password has a bad %-escape") : rc;
}

static int parse_host(struct rabbitmq_url *url, const char *from, size_t len, char *err,
                      size_t err_size)
{
    const char *why;
    int rc = url_host(from, len, &url->host, &url->port, &why);
    if (rc == 0 && strlen(url->host) > 255)
        return refuse(err, err_size, "the host is not a name or an address");
    return rc == -EINVAL ? refuse(err, err_size, why) : rc;
}

static int parse_vhost(struct rabbitmq_url *url, const char *tail, size_t len, char *err,
                       size_t err_size)
{
    if (memchr(tail, '?', len) || memchr(tail, '#', len))
        return refuse(err, err_size, "? and # options are not known here");
    if (len > 1 && memchr(tail + 1, '/', len - 1))
        return refuse(err, err_size, "a / in the name of a vhost is written %2F");
    int rc = len > 1 ? url_decode(&url->vhost, tail + 1, len - 1) : url_decode(&url->vhost, "/", 1);
    if (rc == 0 && strlen(url->vhost) > NAME_BYTES_MAX)
        return refuse(err, err_size, "the vhost is longer than 255 bytes");
    return rc == -EINVAL ? refuse(err, err_size, "the vhost has a bad %-escape") : rc;
}

static bool begins(const char *text, size_t len, const char *scheme)
{
    return len >= strlen(scheme) && strncasecmp(text, scheme, strlen(scheme)) == 0;
}

static int parse_one(struct rabbitmq_url *url, const struct grammar *grammar, const char *text,
                     size_t len, char *err, size_t err_size)
{
    const char *end = text + len, *at = NULL, *tail;
    url->tls = begins(text, len, grammar->tls.text);
    if (!url->tls && !begins(text, len, grammar->plain.text))
        return refuse(err, err_size, "not such a URL");
    text += strlen(url->tls ? grammar->tls.text : grammar->plain.text);
    url->port = url->tls ? grammar->tls.port : grammar->plain.port;
    for (tail = text; tail < end && !strchr("/?#", *tail); tail++)
        /* The last one: a password may have one, too. */
        if (*tail == '@')
            at = tail;
    int rc = at ? parse_user(url, text, (size_t)(at - text), err, err_size) : 0;
    text = at ? at + 1 : text;
    if (rc == 0)
        rc = parse_host(url, text, (size_t)(tail - text), err, err_size);
    return rc ? rc : parse_vhost(url, tail, (size_t)(end - tail), err, err_size);
}

static int parse(struct rabbitmq_urls *out, const struct grammar *grammar, const char *text,
                 char *err, size_t err_size)
{
    struct rabbitmq_urls urls = {.n = 0};
    char why[160] = "out of memory";
    size_t most = 1;
    int rc = 0;
    for (const char *p = text; *p; p++)
        most += *p == ',';
    urls.items = calloc(most, sizeof *urls.items);
    if (!urls.items)
        rc = -ENOMEM;
    /* Counted before it is parsed, so that a bad one is cleared with the rest. */
    while (rc == 0 && urls.n < most) {
        size_t len = strcspn(text, ",");
        rc = parse_one(&urls.items[urls.n++], grammar, text, len, why, sizeof why);
        text += len + (text[len] == ',');
    }
    if (rc == 0) {
        *out = urls;
        return 0;
    }
    snprintf(err, err_size, "%s%s%s", why, rc == -EINVAL ? "; " : "",
             rc == -EINVAL ? grammar->form : "");
    rabbitmq_urls_clear(&urls);
    return rc;
}

int rabbitmq_urls_parse(struct rabbitmq_urls *out, const char *text, char *err, size_t err_size)
{
    return parse(out, &amqp, text, err, err_size);
}

int rabbitmq_management_parse(struct rabbitmq_urls *out, const char *text, char *err,
                              size_t err_size)
{
    return parse(out, &management, text, err, err_size);
}

void rabbitmq_urls_clear(struct rabbitmq_urls *urls)
{
    for (size_t i = 0; i < urls->n; i++) {
        struct rabbitmq_url *url = &urls->items[i];
        if (url->password)
            explicit_bzero(url->password, strlen(url->password));
        free(url->host);
        free(url->vhost);
        free(url->user);
        free(url->password);
    }
    free(urls->items);
    *urls = (struct rabbitmq_urls){0};
}

bool rabbitmq_urls_use_tls(const struct rabbitmq_urls *urls)
{
    for (size_t i = 0; i < urls->n; i++)
        if (urls->items[i].tls)
            return true;
    return false;
}

bool rabbitmq_urls_meet(const struct rabbitmq_urls *a, const struct rabbitmq_urls *b)
{
    for (size_t i = 0; i < a->n; i++)
        for (size_t j = 0; j < b->n; j++)
            if (a->items[i].port == b->items[j].port &&
                strcasecmp(a->items[i].host, b->items[j].host) == 0 &&
                strcmp(a->items[i].vhost, b->items[j].vhost) == 0)
                return true;
    return false;
}

void rabbitmq_url_print(const struct rabbitmq_url *url, char *out, size_t size)
{
    bool is_default = strcmp(url->vhost, "/") == 0;
    /* An IPv6 address, as it must be written in a URL. */
    snprintf(out, size, strchr(url->host, ':') ? "[%s]:%d%s%s" : "%s:%d%s%s", url->host, url->port,
             is_default ? "" : "/", is_default ? "" : url->vhost);
}
