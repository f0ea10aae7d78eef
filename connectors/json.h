/*
 * json.h: writing JSON, for payloads, files and reports alike.
 *
 * Owns:    escapes, numbers and base64. Whatever bytes come in, what goes out is valid JSON in
 *          UTF-8, with the one exception that says so.
 * Refuses: reading it (worker/codec/codec_json.c), and the commas and braces between values.
 * Threads: no state.
 * Why:     written as it goes, piece by piece: a tree of values would have 768 of them for each
 *          vector.
 */
#ifndef JSON_H
#define JSON_H

#include <stdint.h>
#include <stdio.h>

#include "connectors/buffer.h"
#include "connectors/connector.h"

/* All append one value; a failure is in buffer->status. */

/* Bytes that are not UTF-8 become U+FFFD, one for each maximal bad part. */
void json_put_string(struct buffer *to, struct bytes string);
void json_put_text(struct buffer *to, const char *text);
/* ... or pass as they are, for a reader of ours that judges them (bad_utf8): not JSON then. */
void json_put_bytes(struct buffer *to, struct bytes string);
/* A string of base64, RFC 4648, with padding. */
void json_put_base64(struct buffer *to, struct bytes bytes);
void json_put_integer(struct buffer *to, int64_t value);
void json_put_natural(struct buffer *to, uint64_t value);
/* digits: significant ones. NaN and infinity are null. */
void json_put_real(struct buffer *to, double value, int digits);
/* With as many digits as bring value back. */
void json_put_double(struct buffer *to, double value);

/* What was appended since `start` is a value of JSON: put it as a string in its place. */
void json_quote(struct buffer *to, size_t start);

/* A string to a stream; without memory, null and -ENOMEM. */
int json_print(struct bytes string, FILE *to);

#endif
