/*
 * nats_json.h: single values out of what JetStream answers, which is JSON.
 *
 * Owns:    finding a value by its path, text in place of escapes.
 * Refuses: judging JSON: of what is none, nothing is found.
 * Threads: no state.
 * Why:     a few known fields of short answers are wanted; codec_json.c is of another room.
 */
#ifndef NATS_JSON_H
#define NATS_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connectors/connector.h"

/* The bytes of the value at "config.max_msg_size"; ptr NULL: there is none. */
struct bytes nats_json_find(struct bytes json, const char *path);
/* ... as an integer, or fallback. */
int64_t nats_json_number(struct bytes json, const char *path, int64_t fallback);
bool nats_json_bool(struct bytes json, const char *path);
/* ... as text, cut to size; "" when there is none. */
void nats_json_text(struct bytes json, const char *path, char *out, size_t size);
/* The next element of an array whose bytes are `array`; *at is 0 at first. False: no more. */
bool nats_json_next(struct bytes array, size_t *at, struct bytes *out);
/* A value that is a string, as text. */
void nats_json_string(struct bytes value, char *out, size_t size);

#endif
