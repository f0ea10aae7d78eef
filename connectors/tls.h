/*
 * tls.h: TLS for one connection, as a filter over bytes.
 *
 * Owns:    OpenSSL; certificates, the handshake, what is encrypted and not yet sent.
 * Refuses: sockets (its caller moves the bytes), and servers whose certificate does not prove
 *          their name: there is no option to skip that.
 * Threads: the loop thread; a context may be shared by connections.
 */
#ifndef TLS_H
#define TLS_H

#include <stdbool.h>
#include <stddef.h>

struct tls_context;
struct tls;

/* PEM files; NULL or "": for ca the system's own authorities, for cert and key none. The options
 * that name them are static and stand in what is said to people. */
struct tls_files {
    const char *ca, *cert, *key;
    const char *ca_option, *cert_option, *key_option;
};

/* 0; -EINVAL, the option at fault and a sentence in err that names the file; -ENOMEM. */
int tls_context_open(struct tls_context **out, const struct tls_files *files,
                     const char **bad_option, char *err, size_t err_size);
void tls_context_close(struct tls_context *context); /* accepts NULL */

/* host: what the server's certificate must be for. The first bytes of the handshake are then due
 * in tls_output. 0 or -ENOMEM. The context must outlive it. */
int tls_open(struct tls **out, const struct tls_context *context, const char *host);
void tls_close(struct tls *tls); /* accepts NULL */

/* Bytes from the network. 0; -EPROTO: no TLS or a server we must not talk to, a sentence in err;
 * -ENOMEM. */
int tls_receive(struct tls *tls, const char *bytes, size_t len, char *err, size_t err_size);
bool tls_ready(const struct tls *tls); /* the handshake is done */
/* Plain bytes that have come, at most size: their number, 0 when there are none, or -EPROTO. */
long tls_read(struct tls *tls, char *out, size_t size, char *err, size_t err_size);
/* Plain bytes to send; only when ready. 0, or -ENOMEM. */
int tls_write(struct tls *tls, const char *bytes, size_t len);
/* What is due to the network, valid until the next call of this function; its length, 0: none. */
size_t tls_output(struct tls *tls, char **bytes);

#endif
