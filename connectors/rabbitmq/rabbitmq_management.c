/*
 * rabbitmq_management.c: see rabbitmq_management.h.
 */
#include "connectors/rabbitmq/rabbitmq_management.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "connectors/json.h"
#include "connectors/tcp.h"

#define REPLY_MAX ((size_t)1 << 20)
#define DEPTH_MAX 32

/* ---- JSON: where a value is */

static const char *skip_space(const char *at)
{
    while (*at && isspace((unsigned char)*at))
        at++;
    return at;
}

/* Behind a string; NULL: it does not end. */
static const char *skip_string(const char *at)
{
    for (at++; *at && *at != '"'; at++)
        if (*at == '\\' && at[1])
            at++;
    return *at ? at + 1 : NULL;
}

/* Behind a value; NULL: it is none. */
static const char *skip_value(const char *at, unsigned depth)
{
    at = skip_space(at);
    if (*at == '"')
        return skip_string(at);
    if (*at != '{' && *at != '[')
        return *at && !strchr(",:]}", *at) ? at + strcspn(at, ",]} \r\n\t") : NULL;
    /* A server's JSON is not deeper; what is would use up the stack. */
    if (depth == DEPTH_MAX)
        return NULL;
    char close = *at == '{' ? '}' : ']';
    for (at = skip_space(at + 1); at && *at != close; at = at ? skip_space(at) : NULL) {
        if (close == '}') {
            at = *at == '"' ? skip_string(at) : NULL;
            at = at ? skip_space(at) : NULL;
            at = at && *at == ':' ? at + 1 : NULL;
        }
        at = at ? skip_value(at, depth + 1) : NULL;
        at = at ? skip_space(at) : NULL;
        if (at && *at == ',')
            at++;
        else if (at && *at != close)
            at = NULL;
        if (!at)
            return NULL;
    }
    return at ? at + 1 : NULL;
}

/* The value of a name in an object; NULL: it is not there. */
static const char *member(const char *at, const char *name)
{
    size_t len = strlen(name);
    if (!at)
        return NULL;
    at = skip_space(at);
    if (*at != '{')
        return NULL;
    for (at = skip_space(at + 1); at && *at == '"';) {
        const char *key = at + 1;
        at = skip_string(at);
        if (!at)
            return NULL;
        bool is_it = (size_t)(at - 1 - key) == len && memcmp(key, name, len) == 0;
        at = skip_space(at);
        if (*at != ':')
            return NULL;
        at = skip_space(at + 1);
        if (is_it)
            return at;
        at = skip_value(at, 0);
        at = at ? skip_space(at) : NULL;
        if (at && *at == ',')
            at = skip_space(at + 1);
    }
    return NULL;
}

static bool text_of(const char *at, char *out, size_t size)
{
    const char *end = at && *at == '"' ? skip_string(at) : NULL;
    if (!end)
        return false;
    snprintf(out, size, "%.*s", (int)(end - at - 2), at + 1);
    return true;
}

/* ---- what is wanted */

/* An argument of the queue goes before its policy's definition. */
static const char *setting(const char *queue, const char *name)
{
    char argument[64];
    snprintf(argument, sizeof argument, "x-%s", name);
    const char *at = member(member(queue, "arguments"), argument);
    return at ? at : member(member(queue, "effective_policy_definition"), name);
}

/* The smaller of the two, as the server has it; -1: neither. */
static int64_t number_setting(const char *queue, const char *name)
{
    char argument[64];
    snprintf(argument, sizeof argument, "x-%s", name);
    const char *own = member(member(queue, "arguments"), argument);
    const char *policy = member(member(queue, "effective_policy_definition"), name);
    int64_t a = own ? strtoll(own, NULL, 10) : -1, b = policy ? strtoll(policy, NULL, 10) : -1;
    return a < 0 ? b : b < 0 ? a : a < b ? a : b;
}

int rabbitmq_management_read(const char *json, struct rabbitmq_queue_facts *out)
{
    *out = (struct rabbitmq_queue_facts){.delivery_limit = -1};
    const char *arguments = member(json, "arguments");
    if (!arguments || !skip_value(json, 0))
        return -EPROTO;
    if (!text_of(member(json, "type"), out->type, sizeof out->type) &&
        !text_of(member(arguments, "x-queue-type"), out->type, sizeof out->type))
        strcpy(out->type, "classic");
    /* of a plugin's module in some versions */
    if (strncmp(out->type, "rabbit_", 7) == 0)
        memmove(out->type, out->type + 7, strlen(out->type + 7) + 1);
    if (strstr(out->type, "_queue"))
        *strstr(out->type, "_queue") = '\0';
    out->delivery_limit = number_setting(json, "delivery-limit");
    out->consumer_timeout_ms = number_setting(json, "consumer-timeout");
    out->message_ttl_ms = number_setting(json, "message-ttl");
    out->max_length = number_setting(json, "max-length");
    if (out->max_length < 0)
        out->max_length = number_setting(json, "max-length-bytes");
    out->has_dead_letter_exchange = setting(json, "dead-letter-exchange") != NULL;
    text_of(setting(json, "overflow"), out->overflow, sizeof out->overflow);
    return 0;
}

/* ---- HTTP */

struct get {
    struct tcp *tcp;
    struct buffer request, reply;
    uv_timer_t timer;
    size_t n_open; /* handles still to be closed */
    bool is_over;
    char why[300];
};

static void on_open(void *ctx)
{
    struct get *get = ctx;
    buffer_put(tcp_output(get->tcp), get->request.ptr, get->request.len);
    tcp_flush(get->tcp);
}

static void on_bytes(void *ctx, const char *bytes, size_t len)
{
    struct get *get = ctx;
    /* Three columns of one queue: a reply of 1 MiB is no answer to this question. */
    if (get->reply.len + len > REPLY_MAX || buffer_put(&get->reply, bytes, len))
        get->is_over = true;
}

static void on_ended(void *ctx, const char *why)
{
    struct get *get = ctx;
    snprintf(get->why, sizeof get->why, "%s", why);
    get->is_over = true;
}

static void on_late(uv_timer_t *timer)
{
    struct get *get = timer->data;
    snprintf(get->why, sizeof get->why, "no answer");
    get->is_over = true;
}

static void on_closed(void *ctx)
{
    struct get *get = ctx;
    assert(get->n_open > 0);
    get->n_open--;
}

static void on_timer_closed(uv_handle_t *handle)
{
    on_closed(handle->data);
}

static void put_escaped(struct buffer *to, const char *text)
{
    for (; *text; text++) {
        char escaped[4];
        if (isalnum((unsigned char)*text) || strchr("-_.~", *text)) {
            buffer_put(to, text, 1);
            continue;
        }
        snprintf(escaped, sizeof escaped, "%%%02X", (unsigned)(unsigned char)*text);
        buffer_put(to, escaped, 3);
    }
}

static void put_request(struct buffer *to, const struct rabbitmq_url *url,
                        const struct rabbitmq_url *node, const char *queue)
{
    const struct rabbitmq_url *who = url->user ? url : node;
    struct buffer login = {0};
    buffer_put_text(&login, who->user ? who->user : "guest");
    buffer_put_text(&login, ":");
    buffer_put_text(&login, who->user ? who->password : "guest");
    buffer_put_text(to, "GET /api/queues/");
    put_escaped(to, node->vhost);
    buffer_put_text(to, "/");
    put_escaped(to, queue);
    /* HTTP/1.0: the reply ends with the connection, and needs no chunks to be read. */
    buffer_put_text(to, "?columns=type,arguments,effective_policy_definition HTTP/1.0\r\nHost: ");
    buffer_put_text(to, url->host);
    buffer_put_text(to, "\r\nAuthorization: Basic ");
    size_t start = to->len;
    json_put_base64(to, (struct bytes){login.ptr, login.len});
    if (!to->status && !login.status) { /* without its quotes */
        memmove(to->ptr + start, to->ptr + start + 1, to->len - start - 2);
        to->len -= 2;
    }
    buffer_put_text(to, "\r\n\r\n");
    if (login.ptr)
        explicit_bzero(login.ptr, login.len);
    buffer_close(&login);
}

/* 0, or what the reply means. */
static int read_reply(const struct get *get, struct rabbitmq_queue_facts *out, char *err,
                      size_t err_size)
{
    const char *body = get->reply.ptr ? strstr(get->reply.ptr, "\r\n\r\n") : NULL;
    int code = 0;
    if (!body || sscanf(get->reply.ptr, "HTTP/%*s %d", &code) != 1) {
        snprintf(err, err_size, "%s", get->why[0] ? get->why : "the answer is not HTTP");
        return -EIO;
    }
    if (code == 200 && rabbitmq_management_read(body + 4, out) == 0)
        return 0;
    snprintf(err, err_size, "it answers %d%s", code,
             code == 401 ? ": this user needs the tag `monitoring` (rabbitmqctl set_user_tags)"
                         : "");
    return -EACCES;
}

static int fetch(const struct rabbitmq_config *config, const struct rabbitmq_url *url,
                 uv_loop_t *loop, struct get *get)
{
    static const struct tcp_events events = {on_open, on_bytes, on_ended};
    struct tcp_options options = {url->host, url->port, url->tls ? config->tls : NULL,
                                  config->timeout_ms};
    int rc = tcp_open(&get->tcp, loop, &options, &events, get);
    if (rc)
        return rc;
    uv_timer_init(loop, &get->timer);
    get->timer.data = get;
    uv_timer_start(&get->timer, on_late, config->timeout_ms, 0);
    while (!get->is_over)
        uv_run(loop, UV_RUN_ONCE);
    /* The timer and tcp point at `get`, which is on the caller's stack: both
     * must be closed first. */
    get->n_open = 2;
    tcp_close(get->tcp, on_closed, get);
    uv_close((uv_handle_t *)&get->timer, on_timer_closed);
    while (get->n_open)
        uv_run(loop, UV_RUN_ONCE);
    return 0;
}

int rabbitmq_management_queue(const struct rabbitmq_config *config, const struct rabbitmq_url *node,
                              uv_loop_t *loop, const char *queue, struct rabbitmq_queue_facts *out,
                              char *err, size_t err_size)
{
    struct rabbitmq_url url = *node;
    struct get get = {0};
    char why[400];
    url.port = node->tls ? RABBITMQ_MANAGEMENT_TLS_PORT : RABBITMQ_MANAGEMENT_PORT;
    if (config->management.n)
        url = config->management.items[0];
    put_request(&get.request, &url, node, queue);
    int rc = get.request.status ? -ENOMEM : fetch(config, &url, loop, &get);
    buffer_put(&get.reply, "", 1);
    if (rc == 0)
        rc = read_reply(&get, out, why, sizeof why);
    if (rc)
        snprintf(err, err_size, "http%s://%s:%d: %s", url.tls ? "s" : "", url.host, url.port,
                 rc == -ENOMEM ? "out of memory" : why);
    if (get.request.ptr)
        explicit_bzero(get.request.ptr, get.request.len);
    buffer_close(&get.request);
    buffer_close(&get.reply);
    return rc;
}
