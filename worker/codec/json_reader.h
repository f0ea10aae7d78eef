/*
 * json_reader.h: JSON, as the msgpack value it stands for.
 *
 * Owns:    what JSON is (RFC 8259), where a value stops being it, and the bounds of every read.
 *          Nothing is built and nothing is allocated.
 * Refuses: the meaning of values, sentences (codec_json.c), keys that are there twice
 *          (codec_strings.c).
 * Threads: no state.
 * Why:     jansson knows no integers above 2^63, refuses a lone surrogate, builds a tree of objects
 *          and takes its allocator from a variable of the process.
 */
#ifndef JSON_READER_H
#define JSON_READER_H

#include <stdbool.h>
#include <stddef.h>

#include "connectors/connector.h"

enum json_fault {
    JSON_FAULT_NONE,
    JSON_FAULT_END,      /* ends inside a value */
    JSON_FAULT_TRAILING, /* more bytes after the value */
    JSON_FAULT_RANGE,    /* a number that fits no 64 bits, or no float64 */
    JSON_FAULT_NAN,      /* NaN or Infinity */
    JSON_FAULT_CONTROL,  /* a control character inside a string */
    JSON_FAULT_ESCAPE,   /* a backslash before what needs none */
    JSON_FAULT_QUOTE,    /* a single quote */
    JSON_FAULT_NUL,      /* a key with a NUL character */
    JSON_FAULT_SYNTAX,   /* anything else */
    JSON_FAULT_DEEP,     /* nested deeper than asked for; JSON so far */
    JSON_FAULT_VALUES,   /* more keys and values than asked for; JSON so far */
};

struct json_reading {
    unsigned max_depth; /* the outermost is 1 */
    size_t max_values;  /* keys are counted, too */
    char *packed;       /* room for packed_len bytes; NULL: only count them */
    size_t wanted_key;  /* report where this key begins, the first of the value is 1; 0: none */

    /* What was found. */
    size_t packed_len;
    size_t n_pairs;     /* keys with a colon behind them */
    const char *at;     /* a fault: where it is seen */
    const char *key_at; /* the wanted key */
    bool holds_text;    /* a string or an object is inside an array or object */
};

/*
 * Read one whole value, with white space around it. Integers are kept exactly from -2^63 to 2^64-1.
 * Bytes that are not UTF-8 pass inside strings as they are, and half of a surrogate pair as its
 * three bytes, which are not UTF-8 either: whoever reads the string judges that.
 */
enum json_fault json_reader_run(struct bytes json, struct json_reading *reading);

#endif
