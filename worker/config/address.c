/*
 * address.c: see address.h.
 *
 * Threads: no state.
 */
#include "worker/config/address.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int address_split(const char *text, char *host, size_t host_size, char *port, size_t port_size,
                  char *err, size_t err_size)
{
    const char *colon = strrchr(text, ':');
    const char *first = text;
    size_t len = colon ? (size_t)(colon - text) : 0;
    char *end;
    if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
        first = text + 1;
        len -= 2;
    } else if (colon && memchr(text, ':', len)) {
        colon = NULL; /* an IPv6 address without brackets: where does the port begin? */
    }
    long number = colon && colon[1] >= '0' && colon[1] <= '9' ? strtol(colon + 1, &end, 10) : -1;
    /* `end` is set by then: without digits number is -1, and the first test has ended this. */
    if (number < 0 || number > 65535 || *end || len >= host_size ||
        strlen(colon + 1) >= port_size) {
        snprintf(err, err_size,
                 "'%.100s': expected HOST:PORT, as 127.0.0.1:9464, [::1]:9464, or :9464 for all "
                 "addresses",
                 text);
        return -EINVAL;
    }
    memcpy(host, first, len);
    host[len] = '\0';
    strcpy(port, colon + 1);
    return 0;
}
