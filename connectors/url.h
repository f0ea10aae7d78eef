/*
 * url.h: pieces of URLs.
 *
 * Refuses: what a URL is made of: that is each connector's.
 * Threads: no state.
 */
#ifndef URL_H
#define URL_H

#include <stddef.h>

/* A copy of [from, from + len), its %-escapes decoded. 0; -EINVAL: a bad one, or one of a NUL;
 * -ENOMEM. */
int url_decode(char **out, const char *from, size_t len);
/* A decimal number within [low, high] that fills the text; -1: it does not. low: at least 0. */
int url_number(const char *from, size_t len, int low, int high);
/* host[:port], or an IPv6 address in [brackets]: the host decoded, and the port if there is one. 0;
 * -EINVAL: *why says what is wrong with it; -ENOMEM. */
int url_host(const char *from, size_t len, char **host, int *port, const char **why);

#endif
