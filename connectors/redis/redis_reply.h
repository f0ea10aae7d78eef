/*
 * redis_reply.h: what replies mean and how commands are put together.
 *
 * Owns:    entry ids, argument lists, safe access to parts of a reply. What an error reply means is
 *          in redis_fault.h.
 * Refuses: connections.
 * Threads: no state.
 */
#ifndef REDIS_REPLY_H
#define REDIS_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <hiredis/hiredis.h>

#include "connectors/connector.h"

/* Redis quotes the words of a command that it does not know, a password or a text among them: cut
 * them off an error reply, which is told to people. Others are left as they are. */
void redis_reply_hush(redisReply *reply);

struct redis_id {
    uint64_t ms, seq;
};

/* "1700000000000-0"; false when it is none. */
bool redis_id_parse(struct redis_id *out, const char *text, size_t len);
int redis_id_compare(struct redis_id a, struct redis_id b);
#define REDIS_ID_SIZE 42 /* 20 digits, dash, 20 digits, NUL */
size_t redis_id_print(struct redis_id id, char out[REDIS_ID_SIZE]);

/* Element i of an array reply, NULL when there is none. */
const redisReply *redis_reply_at(const redisReply *reply, size_t i);
bool redis_reply_is_text(const redisReply *reply); /* bulk or status, str set */
bool redis_reply_is_array(const redisReply *reply);
/* An error with this code ("NOPERM"), however the server words it; see redis_fault.h. */
bool redis_reply_is_error(const redisReply *reply, const char *code);
/* The value that follows the name in a flat array of names and values; NULL: none. */
const redisReply *redis_reply_field(const redisReply *reply, const char *name);
/* Where the master is, as a sentinel tells it: [host, port]; false: it is something else. */
bool redis_reply_master(const redisReply *reply, char *host, size_t host_size, int *port);

/* Arguments of one command, borrowed but for numbers. Zero-initialise to open. A failed add is
 * remembered in `failed`, so that only the end needs a check. */
struct redis_args {
    struct bytes *items;
    size_t n, room;
    char numbers[8][24];
    size_t n_numbers;
    bool failed;
};

void redis_args_reset(struct redis_args *args);
void redis_args_close(struct redis_args *args);
void redis_args_add(struct redis_args *args, struct bytes item);
void redis_args_text(struct redis_args *args, const char *text); /* must outlive the send */
void redis_args_number(struct redis_args *args, uint64_t number);

#endif
