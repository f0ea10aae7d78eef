/*
 * json.c: see json.h.
 */
#include "connectors/json.h"

#include <inttypes.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/number.h"
#include "connectors/utf8.h"

enum { NUMBER_ROOM = 32 };

static void put_escaped(struct buffer *to, unsigned char c)
{
    static const char names[] = "btnvfr"; /* 8 to 13; JSON has no \v */
    char escape[8];
    if (c == '"' || c == '\\')
        buffer_put(to, (char[]){'\\', (char)c}, 2);
    else if (c >= 8 && c <= 13 && c != 11)
        buffer_put(to, (char[]){'\\', names[c - 8]}, 2);
    else
        buffer_put(to, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", c));
}

static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

static void put_string(struct buffer *to, struct bytes string, bool is_repaired)
{
    buffer_put_text(to, "\"");
    for (size_t i = 0; i < string.len;) {
        size_t n = 0;
        while (i + n < string.len && is_plain((unsigned char)string.ptr[i + n]))
            n++;
        buffer_put(to, string.ptr + i, n);
        i += n;
        if (i == string.len)
            break;
        /* 1: a control, a quote, a backslash or DEL; more: a character that stays as it is; less
         * than 0: a bad part. */
        int step = utf8_next(string.ptr + i, string.len - i);
        if (step < 0 && is_repaired)
            buffer_put_text(to, UTF8_REPLACEMENT);
        else if (step != 1)
            buffer_put(to, string.ptr + i, (size_t)abs(step));
        else
            put_escaped(to, (unsigned char)string.ptr[i]);
        i += (size_t)abs(step);
    }
    buffer_put_text(to, "\"");
}

void json_put_string(struct buffer *to, struct bytes string)
{
    put_string(to, string, true);
}

void json_put_bytes(struct buffer *to, struct bytes string)
{
    put_string(to, string, false);
}

void json_put_text(struct buffer *to, const char *text)
{
    json_put_string(to, bytes_of(text));
}

void json_put_base64(struct buffer *to, struct bytes bytes)
{
    enum { PIECE = 3 << 20 }; /* a multiple of 3, and far below the int that OpenSSL counts in */
    buffer_put_text(to, "\"");
    for (size_t i = 0; i < bytes.len; i += PIECE) {
        size_t n = bytes.len - i < PIECE ? bytes.len - i : PIECE, n_digits = (n + 2) / 3 * 4;
        char *digits = buffer_extend(to, n_digits + 1); /* OpenSSL ends them with a NUL */
        if (!digits)
            return;
        EVP_EncodeBlock((unsigned char *)digits, (const unsigned char *)bytes.ptr + i, (int)n);
        /* The next piece, or the closing quote, goes over the NUL. */
        to->len--;
    }
    buffer_put_text(to, "\"");
}

void json_put_integer(struct buffer *to, int64_t value)
{
    char text[NUMBER_ROOM];
    buffer_put(to, text, (size_t)snprintf(text, sizeof text, "%" PRId64, value));
}

void json_put_natural(struct buffer *to, uint64_t value)
{
    char text[NUMBER_SIZE];
    buffer_put(to, text, number_print(value, text));
}

/* Always with a point or an exponent: without, -0 and 1.0 come back as integers. */
void json_put_real(struct buffer *to, double value, int digits)
{
    char text[NUMBER_ROOM];
    if (!isfinite(value)) {
        buffer_put_text(to, "null");
        return;
    }
    buffer_put(to, text, (size_t)snprintf(text, sizeof text, "%.*g", digits, value));
    if (!strpbrk(text, ".e"))
        buffer_put_text(to, ".0");
}

/* 15 digits are what people wrote; 17 bring any double back exactly. */
void json_put_double(struct buffer *to, double value)
{
    char text[NUMBER_ROOM];
    snprintf(text, sizeof text, "%.15g", value);
    json_put_real(to, value, strtod(text, NULL) == value ? 15 : 17);
}

void json_quote(struct buffer *to, size_t start)
{
    size_t len = to->len - start;
    if (buffer_reserve(to, 6 * len + 2)) /* so that nothing moves while it is read */
        return;
    /* A byte becomes at most six (\u00xx), and two quotes: that is the room reserved. */
    json_put_string(to, (struct bytes){to->ptr + start, len});
    to->len -= len;
    /* The quoted string was appended behind the raw one and moves into its place. */
    memmove(to->ptr + start, to->ptr + start + len, to->len - start);
}

int json_print(struct bytes string, FILE *to)
{
    struct buffer json = {0};
    json_put_string(&json, string);
    int status = json.status;
    if (status == 0)
        fwrite(json.ptr, 1, json.len, to);
    else
        fputs("null", to);
    buffer_close(&json);
    return status;
}
