/*
 * redis_tls.h: TLS for one connection, as a filter over bytes.
 *
 * Owns:    OpenSSL; certificates, the handshake, what is encrypted and not yet sent.
 * Refuses: sockets (redis_link.c moves the bytes), and servers whose certificate does not prove
 *          their name: there is no option to skip that.
 * Threads: the loop thread; a context may be shared by connections.
 */
#ifndef REDIS_TLS_H
#define REDIS_TLS_H

#include <stdbool.h>
#include <stddef.h>

struct redis_tls_context;
struct redis_tls;

/* PEM files; NULL or "": for ca the system's own authorities, for cert and key none. */
struct redis_tls_files {
    const char *ca, *cert, *key;
};

/* 0; -EINVAL, the option at fault and a sentence in err that names the file; -ENOMEM. */
int redis_tls_context_open(struct redis_tls_context **out, const struct redis_tls_files *files,
                           const char **bad_option, char *err, size_t err_size);
void redis_tls_context_close(struct redis_tls_context *context); /* accepts NULL */

/* host: what the server's certificate must be for. The first bytes of the handshake are then due
 * in redis_tls_output. 0 or -ENOMEM. The context must outlive it. */
int redis_tls_open(struct redis_tls **out, const struct redis_tls_context *context,
                   const char *host);
void redis_tls_close(struct redis_tls *tls); /* accepts NULL */

/* Bytes from the network. 0; -EPROTO: no TLS or a server we must not talk to, a sentence in err;
 * -ENOMEM. */
int redis_tls_receive(struct redis_tls *tls, const char *bytes, size_t len, char *err,
                      size_t err_size);
bool redis_tls_ready(const struct redis_tls *tls); /* the handshake is done */
/* Plain bytes that have come, at most size: their number, 0 when there are none, or -EPROTO. */
long redis_tls_read(struct redis_tls *tls, char *out, size_t size, char *err, size_t err_size);
/* Plain bytes to send; only when ready. 0, or -ENOMEM. */
int redis_tls_write(struct redis_tls *tls, const char *bytes, size_t len);
/* What is due to the network, valid until the next call of this function; its length, 0: none. */
size_t redis_tls_output(struct redis_tls *tls, char **bytes);

#endif
