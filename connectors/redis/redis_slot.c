/*
 * redis_slot.c: see redis_slot.h.
 */
#include "connectors/redis/redis_slot.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/redis/redis_reply.h"

/* Bit by bit: names of streams are hashed at start, and nothing on the way of a message. */
static uint16_t crc16(struct bytes bytes)
{
    uint16_t crc = 0;

    for (size_t i = 0; i < bytes.len; i++) {
        crc ^= (uint16_t)((unsigned char)bytes.ptr[i] << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1);
    }
    return crc;
}

bool redis_slot_tag(struct bytes text, struct bytes *tag)
{
    const char *open = text.len ? memchr(text.ptr, '{', text.len) : NULL;
    const char *end = text.ptr + text.len, *close;

    if (!open)
        return false;
    open++;
    close = open < end ? memchr(open, '}', (size_t)(end - open)) : NULL;
    if (!close || close == open)
        return false;
    *tag = (struct bytes){open, (size_t)(close - open)};
    return true;
}

int redis_slot_of(struct bytes key)
{
    struct bytes tag;

    return crc16(redis_slot_tag(key, &tag) ? tag : key) % REDIS_SLOTS;
}

/* A decimal number within [low, high] that ends at `end`; -1 when it is none. */
static int read_number(const char *text, const char *end, int low, int high)
{
    int value = 0;

    if (text == end || end - text > 5)
        return -1;
    for (; text < end; text++) {
        if (*text < '0' || *text > '9')
            return -1;
        value = value * 10 + (*text - '0');
    }
    return value >= low && value <= high ? value : -1;
}

/* A name that says nothing: the node that was asked stands for it. */
static bool is_unknown(const char *host, size_t len)
{
    return len == 0 || (len == 1 && host[0] == '?');
}

static bool node_set(struct redis_node *out, const char *host, size_t len, long long port)
{
    if (port < 1 || port > 65535 || len >= sizeof(out->host) || memchr(host, '\0', len))
        return false;
    if (is_unknown(host, len))
        len = 0;
    memcpy(out->host, host, len);
    out->host[len] = '\0';
    out->port = (int)port;
    return true;
}

bool redis_slot_redirect(struct redis_redirect *out, const char *text)
{
    bool is_ask = strncmp(text, "ASK ", 4) == 0;
    const char *at = text + (is_ask ? 4 : 6), *space, *colon, *host, *end;

    if (!is_ask && strncmp(text, "MOVED ", 6) != 0)
        return false;
    space = strchr(at, ' ');
    if (!space)
        return false;
    out->is_ask = is_ask;
    out->slot = read_number(at, space, 0, REDIS_SLOTS - 1);
    host = space + 1;
    end = host + strcspn(host, " \r\n");
    for (colon = end; colon > host && *colon != ':'; colon--) /* an IPv6 address has more */
        ;
    if (out->slot < 0 || *colon != ':')
        return false;
    int port = read_number(colon + 1, end, 1, 65535);
    size_t len = (size_t)(colon - host);
    if (len >= 2 && host[0] == '[' && host[len - 1] == ']') {
        host++;
        len -= 2;
    }
    return node_set(&out->to, host, len, port);
}

/* [host, port, id, ...]; host may be nil. */
static bool read_node(const redisReply *reply, struct redis_node *out)
{
    const redisReply *host = redis_reply_at(reply, 0), *port = redis_reply_at(reply, 1);

    if (!host || !port || port->type != REDIS_REPLY_INTEGER)
        return false;
    /* The host that was asked is meant (cluster-preferred-endpoint-type). */
    if (host->type == REDIS_REPLY_NIL)
        return node_set(out, "", 0, port->integer);
    return redis_reply_is_text(host) && node_set(out, host->str, host->len, port->integer);
}

/* Each row is [first slot, last slot, master, replica ...]. */
bool redis_slot_owner(const redisReply *reply, int slot, struct redis_node *out)
{
    for (size_t i = 0; redis_reply_is_array(reply) && i < reply->elements; i++) {
        const redisReply *row = reply->element[i];
        const redisReply *first = redis_reply_at(row, 0), *last = redis_reply_at(row, 1);
        if (first && first->type == REDIS_REPLY_INTEGER && last &&
            last->type == REDIS_REPLY_INTEGER && slot >= first->integer && slot <= last->integer)
            return read_node(redis_reply_at(row, 2), out);
    }
    return false;
}

static bool is_among(const struct redis_node *nodes, size_t n, const struct redis_node *node)
{
    for (size_t i = 0; i < n; i++)
        if (nodes[i].port == node->port && strcmp(nodes[i].host, node->host) == 0)
            return true;
    return false;
}

size_t redis_slot_nodes(const redisReply *reply, struct redis_node *out, size_t room)
{
    struct redis_node node;
    size_t n = 0;

    for (size_t i = 0; redis_reply_is_array(reply) && i < reply->elements; i++) {
        const redisReply *row = reply->element[i];
        for (size_t j = 2; redis_reply_at(row, j) && n < room; j++)
            if (read_node(redis_reply_at(row, j), &node) && !is_among(out, n, &node))
                out[n++] = node;
    }
    return n;
}
