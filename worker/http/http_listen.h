/*
 * http_listen.h: a listening socket from what an option says.
 *
 * Owns:    names of addresses, IPv4 beside IPv6, the file of a Unix socket.
 * Threads: no state.
 */
#ifndef HTTP_LISTEN_H
#define HTTP_LISTEN_H

#include <stddef.h>

#define HTTP_LISTEN_UNIX "unix:" /* before the path of a Unix socket */

/*
 * where: "127.0.0.1:8080", "[::1]:8080", ":8080" for all addresses, "unix:/run/embedmill.sock";
 * port 0 takes a free one. name: what was bound, in the same form. The socket does not block, or
 * negative errno: -EINVAL: `where` is not an address; err says what to do.
 */
int http_listen(const char *where, char *name, size_t name_size, char *err, size_t err_size);
/* Only the form: 0 or -EINVAL. */
int http_listen_check(const char *where, char *err, size_t err_size);
/* Removes the file of a Unix socket; of other addresses there is none. */
void http_listen_remove(const char *where);

#endif
