/*
 * url.c: see url.h.
 */
#include "connectors/url.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int url_decode(char **out, const char *from, size_t len)
{
    char *text = malloc(len + 1);
    size_t n = 0;
    if (!text)
        return -ENOMEM;
    for (size_t i = 0; i < len; i++) {
        char c = from[i];
        if (c == '%') {
            int high = i + 2 < len ? hex_digit(from[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(from[i + 2]) : -1;
            c = low >= 0 ? (char)(high * 16 + low) : '\0';
            i += 2;
            /* %00 is refused as well: it would end the text where C reads it. */
            if (!c) {
                free(text);
                return -EINVAL;
            }
        }
        text[n++] = c;
    }
    text[n] = '\0';
    *out = text;
    return 0;
}

int url_number(const char *from, size_t len, int low, int high)
{
    long value = 0;
    /* Nine digits fit any long; a longer one is out of every range that is asked for. */
    if (len == 0 || len > 9)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (from[i] < '0' || from[i] > '9')
            return -1;
        value = value * 10 + (from[i] - '0');
    }
    return value >= low && value <= high ? (int)value : -1;
}

int url_host(const char *from, size_t len, char **host, int *port, const char **why)
{
    const char *begin = from, *end = from + len, *stop, *number = NULL;
    if (len && *from == '[') {
        begin = from + 1;
        stop = memchr(from, ']', len);
        if (!stop)
            return *why = "an IPv6 address lacks its closing ]", -EINVAL;
        if (stop + 1 < end && stop[1] != ':')
            return *why = "only :port may follow the ] of an IPv6 address", -EINVAL;
        number = stop + 1 < end ? stop + 2 : NULL;
    } else {
        const char *colon = memchr(from, ':', len);
        if (colon && memchr(colon + 1, ':', (size_t)(end - colon - 1)))
            return *why = "an IPv6 address must stand in [brackets]", -EINVAL;
        stop = colon ? colon : end;
        number = colon ? colon + 1 : NULL;
    }
    if (stop == begin)
        return *why = "the host is missing", -EINVAL;
    /* Without a port *port stays the caller's default. */
    if (number)
        *port = url_number(number, (size_t)(end - number), 1, 65535);
    if (*port < 0)
        return *why = "the port is not a number from 1 to 65535", -EINVAL;
    *why = "the host has a bad %-escape";
    return url_decode(host, begin, (size_t)(stop - begin));
}
