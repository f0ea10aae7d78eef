/*
 * postgres_array.h: one-dimensional arrays in PostgreSQL's binary form: a column of many rows.
 *
 * Owns:    the head and the elements of one array, as they are sent.
 * Refuses: what an element means.
 * Threads: no state.
 * Why:     a statement with an array for each column writes hundreds of rows for one parse, one
 *          plan and one round trip.
 */
#ifndef POSTGRES_ARRAY_H
#define POSTGRES_ARRAY_H

#include <libpq-fe.h>
#include <stddef.h>
#include <stdint.h>

#include "connectors/buffer.h"
#include "connectors/connector.h"

/* Zero-initialise; begin for each use. A failure is in bytes.status. */
struct postgres_array {
    struct buffer bytes;
    Oid type; /* of the array */
    uint32_t n;
};

void postgres_array_begin(struct postgres_array *array, Oid type, Oid element);
void postgres_array_close(struct postgres_array *array);

/* One element each. */
void postgres_array_null(struct postgres_array *array);
void postgres_array_bytes(struct postgres_array *array, struct bytes bytes); /* absent: null */
void postgres_array_text(struct postgres_array *array, const char *text);
void postgres_array_int4(struct postgres_array *array, int32_t value);
void postgres_array_int8(struct postgres_array *array, int64_t value);
void postgres_array_bool(struct postgres_array *array, bool value);
/* An element of len bytes, which the caller fills in; NULL without memory. */
char *postgres_array_room(struct postgres_array *array, size_t len);

/* Bytes of integers as they go over the wire. */
void postgres_put_int4(char *to, uint32_t value);
void postgres_put_int2(char *to, uint16_t value);

/* Numbers of types that are the same in every database. */
enum {
    POSTGRES_OID_BOOL_ARRAY = 1000,
    POSTGRES_OID_BYTEA_ARRAY = 1001,
    POSTGRES_OID_TEXT_ARRAY = 1009,
    POSTGRES_OID_INT4_ARRAY = 1007,
    POSTGRES_OID_INT8_ARRAY = 1016,
    POSTGRES_OID_JSONB_ARRAY = 3807,
    POSTGRES_OID_BOOL = 16,
    POSTGRES_OID_BYTEA = 17,
    POSTGRES_OID_INT8 = 20,
    POSTGRES_OID_INT4 = 23,
    POSTGRES_OID_TEXT = 25,
    POSTGRES_OID_JSONB = 3802,
};

#endif
