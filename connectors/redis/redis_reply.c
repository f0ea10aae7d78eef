/*
 * redis_reply.c: see redis_reply.h.
 *
 * Threads: no state.
 */
#include "connectors/number.h"
#include "connectors/redis/redis_fault.h"
#include "connectors/redis/redis_reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void redis_reply_hush(redisReply *reply)
{
    char *quoted =
        reply->type == REDIS_REPLY_ERROR ? strstr(reply->str, ", with args beginning with") : NULL;

    if (!quoted)
        return;
    *quoted = '\0';
    reply->len = (size_t)(quoted - reply->str);
}

static bool parse_u64(uint64_t *out, const char **text, const char *end)
{
    const char *p = *text;
    uint64_t value = 0;

    while (p < end && *p >= '0' && *p <= '9') {
        unsigned digit = (unsigned)(*p - '0');
        if (value > (UINT64_MAX - digit) / 10)
            return false;
        value = value * 10 + digit;
        p++;
    }
    if (p == *text)
        return false;
    *text = p;
    *out = value;
    return true;
}

bool redis_id_parse(struct redis_id *out, const char *text, size_t len)
{
    const char *end = text + len;
    struct redis_id id;

    if (!parse_u64(&id.ms, &text, end) || text == end || *text++ != '-' ||
        !parse_u64(&id.seq, &text, end) || text != end)
        return false;
    *out = id;
    return true;
}

int redis_id_compare(struct redis_id a, struct redis_id b)
{
    if (a.ms != b.ms)
        return a.ms < b.ms ? -1 : 1;
    if (a.seq != b.seq)
        return a.seq < b.seq ? -1 : 1;
    return 0;
}

size_t redis_id_print(struct redis_id id, char out[REDIS_ID_SIZE])
{
    size_t n = number_print(id.ms, out);

    out[n++] = '-';
    return n + number_print(id.seq, out + n);
}

const redisReply *redis_reply_at(const redisReply *reply, size_t i)
{
    return redis_reply_is_array(reply) && i < reply->elements ? reply->element[i] : NULL;
}

bool redis_reply_is_text(const redisReply *reply)
{
    return reply && (reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS);
}

bool redis_reply_is_array(const redisReply *reply)
{
    return reply && reply->type == REDIS_REPLY_ARRAY;
}

const redisReply *redis_reply_field(const redisReply *reply, const char *name)
{
    for (size_t i = 0; redis_reply_is_array(reply) && i + 1 < reply->elements; i += 2)
        if (redis_reply_is_text(reply->element[i]) && strcmp(reply->element[i]->str, name) == 0)
            return reply->element[i + 1];
    return NULL;
}

bool redis_reply_is_error(const redisReply *reply, const char *code)
{
    return reply && reply->type == REDIS_REPLY_ERROR &&
           strcmp(redis_fault_find(reply->str).code, code) == 0;
}

bool redis_reply_master(const redisReply *reply, char *host, size_t host_size, int *port)
{
    const redisReply *name = redis_reply_at(reply, 0), *number = redis_reply_at(reply, 1);

    if (!redis_reply_is_text(name) || !redis_reply_is_text(number) || !name->len ||
        name->len >= host_size)
        return false;
    long value = strtol(number->str, NULL, 10);
    if (value < 1 || value > 65535)
        return false;
    memcpy(host, name->str, name->len + 1);
    *port = (int)value;
    return true;
}

void redis_args_reset(struct redis_args *args)
{
    args->n = 0;
    args->n_numbers = 0;
    args->failed = false;
}

void redis_args_close(struct redis_args *args)
{
    free(args->items);
    *args = (struct redis_args){0};
}

void redis_args_add(struct redis_args *args, struct bytes item)
{
    if (args->n == args->room) {
        size_t room = args->room ? args->room * 2 : 32;
        struct bytes *items = realloc(args->items, room * sizeof(*items));
        if (!items) {
            args->failed = true;
            return;
        }
        args->items = items;
        args->room = room;
    }
    args->items[args->n++] = item;
}

void redis_args_text(struct redis_args *args, const char *text)
{
    redis_args_add(args, bytes_of(text));
}

void redis_args_number(struct redis_args *args, uint64_t number)
{
    /* The numbers lie in args itself, where they do not move. */
    if (args->n_numbers == sizeof(args->numbers) / sizeof(args->numbers[0])) {
        args->failed = true;
        return;
    }
    char *text = args->numbers[args->n_numbers++];
    size_t len = number_print(number, text);
    redis_args_add(args, (struct bytes){text, len});
}
