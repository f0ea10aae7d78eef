/*
 * json_reader.c: see json_reader.h. Formats written: the msgpack specification, section "Formats".
 */
#include "worker/codec/json_reader.h"

#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    const char *at, *end;
    struct json_reading *reading;
    unsigned depth;
    size_t n_values, n_keys;
    bool holds_nul; /* the string read last */
    enum json_fault fault;
};

static bool value_read(struct reader *r);

static bool fail(struct reader *r, enum json_fault fault)
{
    r->fault = fault;
    return false;
}

/* The end of the input where more was needed, or else a fault of its own. */
static bool fail_at(struct reader *r, enum json_fault fault)
{
    return fail(r, r->at == r->end ? JSON_FAULT_END : fault);
}

static void space_skip(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r'))
        r->at++;
}

static bool begins(const struct reader *r, const char *word)
{
    size_t len = strlen(word);
    return (size_t)(r->end - r->at) >= len && memcmp(r->at, word, len) == 0;
}

/* ---- msgpack */

static void put(struct reader *r, const void *bytes, size_t len)
{
    struct json_reading *reading = r->reading;
    /* Without packed it only counts: the first of two passes, which says how much room is
     * needed. */
    if (reading->packed && len > 0)
        memcpy(reading->packed + reading->packed_len, bytes, len);
    reading->packed_len += len;
}

/* A head byte and the `width` low bytes of value behind it, the highest first. */
static size_t head_write(char out[9], unsigned char head, uint64_t value, size_t width)
{
    out[0] = (char)head;
    for (size_t i = 0; i < width; i++)
        out[1 + i] = (char)(value >> (8 * (width - 1 - i)));
    return 1 + width;
}

static void put_head(struct reader *r, unsigned char head, uint64_t value, size_t width)
{
    char bytes[9];
    put(r, bytes, head_write(bytes, head, value, width));
}

static void put_natural(struct reader *r, uint64_t value)
{
    if (value < 0x80)
        put_head(r, (unsigned char)value, 0, 0);
    else if (value <= UINT8_MAX)
        put_head(r, 0xcc, value, 1);
    else if (value <= UINT16_MAX)
        put_head(r, 0xcd, value, 2);
    else if (value <= UINT32_MAX)
        put_head(r, 0xce, value, 4);
    else
        put_head(r, 0xcf, value, 8);
}

/* value: below zero, as its two's complement. */
static void put_negative(struct reader *r, uint64_t value)
{
    int64_t integer = (int64_t)value;
    if (integer >= -32)
        put_head(r, (unsigned char)value, 0, 0);
    else if (integer >= INT8_MIN)
        put_head(r, 0xd0, value, 1);
    else if (integer >= INT16_MIN)
        put_head(r, 0xd1, value, 2);
    else if (integer >= INT32_MIN)
        put_head(r, 0xd2, value, 4);
    else
        put_head(r, 0xd3, value, 8);
}

static void put_string_head(struct reader *r, size_t len)
{
    if (len < 32)
        put_head(r, (unsigned char)(0xa0 | len), 0, 0);
    else if (len <= UINT8_MAX)
        put_head(r, 0xd9, len, 1);
    else if (len <= UINT16_MAX)
        put_head(r, 0xda, len, 2);
    else
        put_head(r, 0xdb, len, 4);
}

/* The count is known at the end only. Room for the shortest head was left at `start`; what is
 * inside moves up for a longer one. */
static void container_close(struct reader *r, size_t start, size_t count, bool is_map)
{
    char head[9], *packed = r->reading->packed;
    size_t n = count < 16 ? head_write(head, (unsigned char)((is_map ? 0x80 : 0x90) | count), 0, 0)
               : count <= UINT16_MAX ? head_write(head, is_map ? 0xde : 0xdc, count, 2)
                                     : head_write(head, is_map ? 0xdf : 0xdd, count, 4);
    if (packed) {
        /* Most containers are small, and then nothing moves. */
        if (n > 1)
            memmove(packed + start + n, packed + start + 1, r->reading->packed_len - (start + 1));
        memcpy(packed + start, head, n);
    }
    assert(n >= 1 && r->reading->packed_len > start);
    r->reading->packed_len += n - 1;
}

/* ---- strings */

static bool hex_read(struct reader *r, unsigned *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++, r->at++) {
        if (r->at == r->end)
            return fail(r, JSON_FAULT_END);
        unsigned char c = (unsigned char)*r->at, low = c | 0x20;
        if (c >= '0' && c <= '9')
            *out = *out << 4 | (c - '0');
        else if (low >= 'a' && low <= 'f')
            *out = *out << 4 | (unsigned)(low - 'a' + 10);
        else
            return fail(r, JSON_FAULT_ESCAPE);
    }
    return true;
}

/* Of half a surrogate pair, too; see json_reader.h. */
static size_t character_write(char out[4], unsigned code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char heads[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n - 1; i > 0; i--, code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)(heads[n] | code);
    return n;
}

/* Behind "\u". A high half takes the low half that follows it, if there is one. */
static bool unicode_read(struct reader *r, unsigned *code)
{
    if (!hex_read(r, code))
        return false;
    if (*code < 0xd800 || *code > 0xdbff || !begins(r, "\\u"))
        return true;
    const char *before = r->at;
    unsigned low;
    r->at += 2;
    if (!hex_read(r, &low))
        return false;
    if (low >= 0xdc00 && low <= 0xdfff)
        *code = 0x10000 + ((*code - 0xd800) << 10) + (low - 0xdc00);
    else
        /* Two halves that are not a pair: the second is read by itself. */
        r->at = before;
    return true;
}

/* Behind a backslash. The bytes of the character, 0: a fault. */
static size_t escape_read(struct reader *r, char out[4])
{
    static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    if (r->at == r->end)
        return fail(r, JSON_FAULT_END);
    const char *name = *r->at ? strchr(names, *r->at) : NULL;
    if (name) {
        r->at++;
        out[0] = meant[name - names];
        return 1;
    }
    unsigned code;
    if (*r->at != 'u')
        return fail(r, JSON_FAULT_ESCAPE);
    r->at++;
    return unicode_read(r, &code) ? character_write(out, code) : 0;
}

/* Up to the closing quote. to: NULL, or room for what an earlier call counted. */
static bool string_scan(struct reader *r, char *to, size_t *len)
{
    char escaped[4];
    size_t n = 0;
    r->holds_nul = false;
    for (;;) {
        const char *begun = r->at;
        while (r->at < r->end && *r->at != '"' && *r->at != '\\' && (unsigned char)*r->at >= 0x20)
            r->at++;
        size_t plain = (size_t)(r->at - begun);
        if (to && plain > 0)
            memcpy(to + n, begun, plain);
        n += plain;
        if (r->at == r->end || (unsigned char)*r->at < 0x20)
            return fail_at(r, JSON_FAULT_CONTROL);
        /* The control was ruled out: a quote or a backslash. */
        if (*r->at++ == '"')
            break;
        size_t more = escape_read(r, escaped);
        if (more == 0)
            return false;
        r->holds_nul |= escaped[0] == '\0';
        if (to)
            memcpy(to + n, escaped, more);
        n += more;
    }
    *len = n;
    return true;
}

static bool string_read(struct reader *r, bool is_key)
{
    struct json_reading *reading = r->reading;
    const char *begun = ++r->at;
    size_t len;
    /* Twice: msgpack has the length before the bytes, and escapes make it shorter than it looks. */
    if (!string_scan(r, NULL, &len))
        return false;
    put_string_head(r, len);
    if (reading->packed) {
        char *to = reading->packed + reading->packed_len;
        r->at = begun;
        string_scan(r, to, &len);
    }
    reading->packed_len += len;
    if (is_key && r->holds_nul)
        return fail(r, JSON_FAULT_NUL);
    return true;
}

/* ---- numbers */

static bool is_digit(const struct reader *r)
{
    return r->at < r->end && *r->at >= '0' && *r->at <= '9';
}

static bool digits_skip(struct reader *r)
{
    if (!is_digit(r))
        return fail_at(r, JSON_FAULT_SYNTAX);
    while (is_digit(r))
        r->at++;
    return true;
}

/* A fraction or an exponent was seen: the number from `begun` on. */
static bool real_read(struct reader *r, const char *begun)
{
    if (*r->at == '.') {
        r->at++;
        if (!digits_skip(r))
            return false;
    }
    if (r->at < r->end && (*r->at | 0x20) == 'e') {
        r->at++;
        if (r->at < r->end && (*r->at == '+' || *r->at == '-'))
            r->at++;
        if (!digits_skip(r))
            return false;
    }
    if (r->at == r->end) /* strtod needs a byte to stop at, and a whole object has one */
        return fail(r, JSON_FAULT_END);
    double value = strtod(begun, NULL); /* the program stays in the locale "C" */
    if (!isfinite(value)) {
        r->at = begun;
        return fail(r, JSON_FAULT_RANGE);
    }
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_head(r, 0xcb, bits, 8);
    return true;
}

static bool number_read(struct reader *r)
{
    const char *begun = r->at;
    bool is_negative = *r->at == '-', fits = true;
    uint64_t value = 0;
    r->at += is_negative;
    if (begins(r, "Infinity"))
        return fail(r, JSON_FAULT_NAN);
    if (!is_digit(r))
        return fail_at(r, JSON_FAULT_SYNTAX);
    /* Of 007 the first zero ends the number, and what follows is a fault. */
    bool is_zero = *r->at == '0';
    do {
        unsigned digit = (unsigned)(*r->at++ - '0');
        /* Once it does not fit value wraps, which does not matter: a fraction or exponent makes
         * it a real, and otherwise it is refused. */
        fits = fits && value <= (UINT64_MAX - digit) / 10;
        value = value * 10 + digit;
    } while (!is_zero && is_digit(r));
    if (r->at < r->end && (*r->at == '.' || (*r->at | 0x20) == 'e'))
        return real_read(r, begun);
    if (is_digit(r)) /* 007 */
        return fail(r, JSON_FAULT_SYNTAX);
    if (!fits || (is_negative && value > (uint64_t)INT64_MAX + 1)) {
        r->at = begun;
        return fail(r, JSON_FAULT_RANGE);
    }
    if (is_negative && value > 0)
        put_negative(r, 0 - value);
    else
        put_natural(r, value);
    return true;
}

/* ---- values */

static bool word_read(struct reader *r, const char *word, unsigned char packed)
{
    for (; *word; word++, r->at++)
        if (r->at == r->end || *r->at != *word)
            return fail_at(r, JSON_FAULT_SYNTAX);
    put_head(r, packed, 0, 0);
    return true;
}

static bool count_value(struct reader *r)
{
    return ++r->n_values <= r->reading->max_values || fail(r, JSON_FAULT_VALUES);
}

static bool key_read(struct reader *r)
{
    if (!count_value(r))
        return false;
    if (r->at < r->end && *r->at == '\'')
        return fail(r, JSON_FAULT_QUOTE);
    if (r->at == r->end || *r->at != '"')
        return fail_at(r, JSON_FAULT_SYNTAX);
    if (++r->n_keys == r->reading->wanted_key)
        r->reading->key_at = r->at;
    if (!string_read(r, true))
        return false;
    space_skip(r);
    if (r->at == r->end || *r->at != ':')
        return fail_at(r, JSON_FAULT_SYNTAX);
    r->at++;
    r->reading->n_pairs++;
    space_skip(r);
    return true;
}

/* Recursion ends at max_depth. */
static bool container_read(struct reader *r, bool is_map)
{
    const char closing = is_map ? '}' : ']';
    size_t start = r->reading->packed_len, count = 0;
    if (r->depth == r->reading->max_depth)
        return fail(r, JSON_FAULT_DEEP);
    r->depth++;
    r->at++;
    put(r, "", 1); /* the head comes last */
    space_skip(r);
    bool is_closed = r->at < r->end && *r->at == closing;
    while (!is_closed) {
        if ((is_map && !key_read(r)) || !value_read(r))
            return false;
        count++;
        space_skip(r);
        if (r->at == r->end || (*r->at != ',' && *r->at != closing))
            return fail_at(r, JSON_FAULT_SYNTAX);
        is_closed = *r->at == closing;
        if (!is_closed) {
            r->at++;
            space_skip(r);
        }
    }
    r->at++;
    r->depth--;
    container_close(r, start, count, is_map);
    return true;
}

static bool value_read(struct reader *r)
{
    if (!count_value(r))
        return false;
    if (r->at == r->end)
        return fail(r, JSON_FAULT_END);
    if (begins(r, "NaN") || begins(r, "Infinity"))
        return fail(r, JSON_FAULT_NAN);
    r->reading->holds_text |= r->depth > 0 && (*r->at == '"' || *r->at == '{');
    switch (*r->at) {
    case '{':
    case '[':
        return container_read(r, *r->at == '{');
    case '"':
        return string_read(r, false);
    case 't':
        return word_read(r, "true", 0xc3);
    case 'f':
        return word_read(r, "false", 0xc2);
    case 'n':
        return word_read(r, "null", 0xc0);
    case '\'':
        return fail(r, JSON_FAULT_QUOTE);
    default:
        return *r->at == '-' || is_digit(r) ? number_read(r) : fail(r, JSON_FAULT_SYNTAX);
    }
}

enum json_fault json_reader_run(struct bytes json, struct json_reading *reading)
{
    struct reader r = {.at = json.ptr, .end = json.ptr + json.len, .reading = reading};
    reading->packed_len = reading->n_pairs = 0;
    reading->key_at = NULL;
    reading->holds_text = false;
    space_skip(&r);
    if (value_read(&r)) {
        space_skip(&r);
        if (r.at < r.end)
            r.fault = JSON_FAULT_TRAILING;
    }
    reading->at = r.at;
    return r.fault;
}
