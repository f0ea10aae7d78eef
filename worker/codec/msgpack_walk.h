/*
 * msgpack_walk.h: reading msgpack one value at a time, in place.
 *
 * Owns:    the bounds of every read. Nothing is built and nothing is allocated, so a claim of four
 *          billion entries costs as much as the bytes that came with it.
 * Refuses: what the values mean.
 * Threads: no state.
 * Why:     msgpack-c reserves memory for what a count claims: six bytes are enough for 2.4 GB.
 */
#ifndef MSGPACK_WALK_H
#define MSGPACK_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "connectors/connector.h"

enum walk_type {
    WALK_NIL,
    WALK_BOOL,
    WALK_INT,   /* fits int64 */
    WALK_UINT,  /* above INT64_MAX */
    WALK_FLOAT, /* 32 or 64 bits */
    WALK_STR,
    WALK_BIN,
    WALK_EXT,
    WALK_ARRAY,
    WALK_MAP,
};

struct walk_value {
    enum walk_type type;
    bool is_true;
    int64_t integer;
    uint64_t natural; /* WALK_UINT */
    double real;
    struct bytes bytes; /* str, bin, ext: in the message */
    int8_t ext_type;
    uint32_t count; /* array: values that follow; map: pairs that follow */
};

struct walk {
    const char *at, *end;
};

enum walk_fault {
    WALK_OK,
    WALK_CUT,      /* ends inside a value */
    WALK_COUNT,    /* claims more than there are bytes for */
    WALK_BYTE,     /* 0xc1, which no value begins with */
    WALK_DEPTH,    /* nested deeper than asked for */
    WALK_KEY,      /* a key of the outermost map is not a str */
    WALK_TRAILING, /* more bytes after the value */
};

/* Read one value; of an array or map only its head, the values in it are read next. */
enum walk_fault msgpack_walk_next(struct walk *walk, struct walk_value *out);
/* Step over one value with everything in it. */
enum walk_fault msgpack_walk_skip(struct walk *walk);
/* Is this exactly one value, nested at most max_depth (<= 32) deep, str keys on the outside? */
enum walk_fault msgpack_walk_check(struct bytes value, unsigned max_depth);
/* "a map", "a float", for sentences about what was found. */
const char *walk_type_name(enum walk_type type);

#endif
