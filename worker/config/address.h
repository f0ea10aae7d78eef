/*
 * address.h: "HOST:PORT" of the metrics endpoint, for the worker that listens and the commands
 * that ask.
 *
 * Threads: no state.
 */
#ifndef ADDRESS_H
#define ADDRESS_H

#include <stddef.h>

/*
 * Split "127.0.0.1:9464", "[::1]:9464" or ":9464" (host ""). 0 or -EINVAL; err says what was
 * expected.
 */
int address_split(const char *text, char *host, size_t host_size, char *port, size_t port_size,
                  char *err, size_t err_size);

#endif
