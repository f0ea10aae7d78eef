/*
 * redis_reply.c: see redis_reply.h.
 *
 * Owns:    the fault table.
 * Threads: no state.
 */
#include "connectors/redis/redis_reply.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALLOW "allow this user the command and the keys (ACL SETUSER)"

/* First match of the beginning wins, so special cases of ERR stand before it. */
static const struct {
    const char *start;
    enum redis_remedy remedy;
    const char *advice;
} faults[] = {
    {"LOADING", REMEDY_RECONNECT, "the server is loading its data"},
    {"MASTERDOWN", REMEDY_RECONNECT, "the replica has lost its master"},
    {"READONLY", REMEDY_RECONNECT, "this server is a replica; the URL must lead to the master"},
    {"MISCONF", REMEDY_RETRY, "the server cannot save to disk and refuses writes; free its disk"},
    {"OOM", REMEDY_RETRY, "the server has reached maxmemory; free memory there or raise it"},
    {"BUSYGROUP", REMEDY_RETRY, "the group exists"},
    {"BUSY", REMEDY_RETRY, "the server is running a long script"},
    {"TRYAGAIN", REMEDY_RETRY, "the server is moving these keys"},
    {"CLUSTERDOWN", REMEDY_RECONNECT, "the cluster is down"},
    {"NOREPLICAS", REMEDY_RETRY, "the server lacks the replicas it needs to accept writes"},
    {"NOSCRIPT", REMEDY_SCRIPT, "the script cache was emptied"},
    {"NOGROUP", REMEDY_GROUP, "the consumer group is gone"},
    {"UNBLOCKED", REMEDY_GROUP, "the stream was deleted or is of another type now"},
    {"UNKILLABLE", REMEDY_RETRY, "the server is running a script that has written"},
    {"NOAUTH", REMEDY_FATAL, "the server wants a password; put it into the URL"},
    {"WRONGPASS", REMEDY_FATAL, "user or password in the URL is wrong, or the user is disabled"},
    {"NOPERM", REMEDY_FATAL, ALLOW},
    /* The same within a script, as Redis 7.0 says it, and 6 within its wrapping. */
    {"ERR The user executing the script", REMEDY_FATAL, ALLOW},
    {"The user executing the script", REMEDY_FATAL, ALLOW},
    {"WRONGTYPE", REMEDY_FATAL,
     "a key of that name holds another type; choose another name or "
     "delete the key"},
    {"MOVED", REMEDY_FATAL,
     "this is a cluster and the key lives on another node; the URL must name that node"},
    {"ASK", REMEDY_RETRY, "the cluster is moving this key"},
    {"CROSSSLOT", REMEDY_FATAL,
     "in a cluster the stream and the outputs need a common {tag} in "
     "their names"},
    {"NOPROTO", REMEDY_FATAL, "the server speaks another protocol version"},
    {"DENIED", REMEDY_FATAL, "the server is in protected mode; give it a password or bind it"},
    {"ERR max number of clients", REMEDY_RECONNECT, "the server has reached maxclients"},
    {"ERR Protocol error: invalid bulk length", REMEDY_TOO_LARGE,
     "the value is above the server's proto-max-bulk-len"},
    {"ERR Protocol error: invalid multibulk length", REMEDY_TOO_LARGE,
     "Redis before 7 takes 1,048,576 words in a command"},
    {"ERR Protocol error", REMEDY_RECONNECT, "the server did not understand us"},
    {"ERR string exceeds maximum allowed size", REMEDY_TOO_LARGE,
     "the value is above the server's proto-max-bulk-len"},
    {"ERR DB index is out of range", REMEDY_FATAL,
     "the server has no such database; see the number after / in the URL"},
    {"ERR invalid DB index", REMEDY_FATAL,
     "the server has no such database; see the number after / in the URL"},
    {"ERR SELECT is not allowed in cluster mode", REMEDY_FATAL,
     "a cluster has database 0 only; see the URL"},
    {"ERR AUTH", REMEDY_FATAL, "the server has no password set; remove it from the URL"},
    {"ERR Client sent AUTH", REMEDY_FATAL,
     "the server has no password set; remove it from the URL"},
    {"ERR invalid password", REMEDY_FATAL, "the password in the URL is wrong"},
    {"ERR wrong number of arguments for 'auth'", REMEDY_FATAL,
     "the server knows no users; leave the user out of the URL"},
    {"ERR unknown command", REMEDY_FATAL, "Redis 6.2 or newer is needed"},
    {"ERR syntax error", REMEDY_FATAL, "Redis 6.2 or newer is needed"},
};

#define N_FAULTS (sizeof(faults) / sizeof(faults[0]))

/* Redis 6 wraps what a command in a script answered: "ERR Error running script (call to f_...):
 * @user_script:3: -OOM command not allowed ...". */
static const char *script_cause(const char *text)
{
    if (strncmp(text, "ERR Error running script", 24) != 0)
        return text;
    for (const char *p = strstr(text, ": "); p; p = strstr(p + 1, ": ")) {
        const char *cause = p + 2 + (p[2] == '-');
        for (size_t i = 0; i < N_FAULTS; i++)
            if (strncmp(cause, faults[i].start, strlen(faults[i].start)) == 0)
                return cause;
    }
    return text;
}

struct redis_fault redis_fault_find(const char *text)
{
    const char *cause = script_cause(text);

    for (size_t i = 0; i < N_FAULTS; i++) {
        size_t len = strlen(faults[i].start);
        if (strncmp(cause, faults[i].start, len) != 0)
            continue;
        /* A code must end there; a phrase need not. */
        if (strchr(faults[i].start, ' ') || cause[len] == ' ' || cause[len] == '\0')
            return (struct redis_fault){faults[i].remedy, faults[i].advice};
    }
    return (struct redis_fault){REMEDY_RETRY, "an error this program does not know"};
}

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
    return (size_t)snprintf(out, REDIS_ID_SIZE, "%" PRIu64 "-%" PRIu64, id.ms, id.seq);
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
    if (args->n_numbers == sizeof(args->numbers) / sizeof(args->numbers[0])) {
        args->failed = true;
        return;
    }
    char *text = args->numbers[args->n_numbers++];
    snprintf(text, sizeof(args->numbers[0]), "%" PRIu64, number);
    redis_args_text(args, text);
}
