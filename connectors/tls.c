/*
 * tls.c: see tls.h.
 *
 * Owns:    an SSL object between two memory BIOs; output is copied out of its BIO, because the
 *          bytes of a write must not move until libuv is done with them.
 * Threads: the loop thread.
 */
#include "connectors/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

struct tls_context {
    SSL_CTX *ctx;
    const char *ca_option, *cert_option;
};

struct tls {
    const struct tls_context *context;
    SSL *ssl;
    BIO *in, *out; /* owned by ssl */
    char *away;    /* being sent */
};

static bool is_set(const char *text)
{
    return text && *text;
}

static int refuse(const char *file, const char *what, char *err, size_t err_size)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());

    /* The system's word for what is wrong with a file says more than the library's. */
    if (access(file, R_OK) != 0)
        reason = strerror(errno);
    snprintf(err, err_size, "expected %s, and '%.200s' is none: %s", what, file,
             reason ? reason : "it cannot be read");
    ERR_clear_error();
    return -EINVAL;
}

static int load_files(SSL_CTX *ctx, const struct tls_files *files, const char **bad_option,
                      char *err, size_t err_size)
{
    /* What an earlier call left in this thread's queue would be taken for our reason. */
    ERR_clear_error();
    *bad_option = files->ca_option;
    if (!is_set(files->ca)) {
        SSL_CTX_set_default_verify_paths(ctx); /* an empty store refuses everything, in words */
    } else if (SSL_CTX_load_verify_locations(ctx, files->ca, NULL) != 1) {
        return refuse(files->ca, "a file of PEM certificates", err, err_size);
    }
    if (!is_set(files->cert) && !is_set(files->key))
        return 0;
    /* The one that is missing is the one to set. */
    *bad_option = is_set(files->cert) ? files->key_option : files->cert_option;
    if (!is_set(files->cert) || !is_set(files->key)) {
        snprintf(err, err_size, "expected a file: certificate and key go together");
        return -EINVAL;
    }
    *bad_option = files->cert_option;
    if (SSL_CTX_use_certificate_chain_file(ctx, files->cert) != 1)
        return refuse(files->cert, "a PEM certificate", err, err_size);
    *bad_option = files->key_option;
    if (SSL_CTX_use_PrivateKey_file(ctx, files->key, SSL_FILETYPE_PEM) != 1)
        return refuse(files->key, "the PEM key of that certificate", err, err_size);
    return 0;
}

int tls_context_open(struct tls_context **out, const struct tls_files *files,
                     const char **bad_option, char *err, size_t err_size)
{
    struct tls_context *context = calloc(1, sizeof(*context));

    if (context)
        context->ctx = SSL_CTX_new(TLS_client_method());
    if (!context || !context->ctx) {
        tls_context_close(context);
        snprintf(err, err_size, "out of memory");
        return -ENOMEM;
    }
    context->ca_option = files->ca_option;
    context->cert_option = files->cert_option;
    SSL_CTX_set_min_proto_version(context->ctx, TLS1_2_VERSION);
    SSL_CTX_set_verify(context->ctx, SSL_VERIFY_PEER, NULL);
    /* 34 KB less for each idle connection. */
    SSL_CTX_set_mode(context->ctx, SSL_MODE_RELEASE_BUFFERS);
    int rc = load_files(context->ctx, files, bad_option, err, err_size);
    if (rc) {
        tls_context_close(context);
        return rc;
    }
    *out = context;
    return 0;
}

void tls_context_close(struct tls_context *context)
{
    if (!context)
        return;
    SSL_CTX_free(context->ctx);
    free(context);
}

/* An address is looked for among the certificate's addresses, a name among its names; only names
 * may be told to the server (RFC 6066). */
static int set_host(SSL *ssl, const char *host)
{
    unsigned char address[16];
    bool is_address =
        inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;

    if (is_address)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host);
    return SSL_set1_host(ssl, host) && SSL_set_tlsext_host_name(ssl, host);
}

int tls_open(struct tls **out, const struct tls_context *context, const char *host)
{
    struct tls *tls = calloc(1, sizeof(*tls));

    if (!tls)
        return -ENOMEM;
    tls->context = context;
    tls->ssl = SSL_new(context->ctx);
    tls->in = BIO_new(BIO_s_mem());
    tls->out = BIO_new(BIO_s_mem());
    if (!tls->ssl || !tls->in || !tls->out || !set_host(tls->ssl, host)) {
        BIO_free(tls->in);
        BIO_free(tls->out);
        SSL_free(tls->ssl);
        free(tls);
        return -ENOMEM;
    }
    /* From here on SSL_free frees both BIOs; before, each had its own free. */
    SSL_set_bio(tls->ssl, tls->in, tls->out);
    SSL_set_connect_state(tls->ssl);
    ERR_clear_error();
    SSL_do_handshake(tls->ssl); /* cannot be done yet: this writes the first bytes */
    *out = tls;
    return 0;
}

void tls_close(struct tls *tls)
{
    if (!tls)
        return;
    SSL_free(tls->ssl);
    free(tls->away);
    free(tls);
}

/* What to do about a certificate that is refused. */
static const char *advice_on(const struct tls *tls, long verified, char *out, size_t size)
{
    switch (verified) {
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        return "the URL must name the server as its certificate does";
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return "give the server a new one; or is this machine's clock wrong?";
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return "is this machine's clock wrong, or the server's when it was made?";
    default:
        snprintf(out, size, "%s names the authority to trust", tls->context->ca_option);
        return out;
    }
}

/* Why the library would not go on. */
static int fail(const struct tls *tls, char *err, size_t err_size)
{
    long verified = SSL_get_verify_result(tls->ssl);
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    char advice[80];

    if (verified != X509_V_OK)
        snprintf(err, err_size, "TLS: the server's certificate is refused: %s (%s)",
                 X509_verify_cert_error_string(verified),
                 advice_on(tls, verified, advice, sizeof(advice)));
    /* After the handshake advice on ports and certificates would mislead. */
    else if (SSL_is_init_finished(tls->ssl))
        snprintf(err, err_size, "TLS: %s", reason ? reason : "the connection was ended");
    else
        snprintf(err, err_size,
                 "TLS: %s (does this port speak TLS, and does it ask for a certificate, "
                 "%s?)",
                 reason ? reason : "the handshake failed", tls->context->cert_option);
    ERR_clear_error();
    return -EPROTO;
}

/* Whether rc of an SSL call only says "not now". */
static bool is_waiting(const struct tls *tls, int rc)
{
    int error = SSL_get_error(tls->ssl, rc);
    return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

int tls_receive(struct tls *tls, const char *bytes, size_t len, char *err, size_t err_size)
{
    size_t written;

    ERR_clear_error();
    if (BIO_write_ex(tls->in, bytes, len, &written) != 1 || written != len) {
        snprintf(err, err_size, "no memory for a reply");
        return -ENOMEM;
    }
    /* Data, not handshake: tls_read takes it out. */
    if (SSL_is_init_finished(tls->ssl))
        return 0;
    int rc = SSL_do_handshake(tls->ssl);
    return rc == 1 || is_waiting(tls, rc) ? 0 : fail(tls, err, err_size);
}

bool tls_ready(const struct tls *tls)
{
    return SSL_is_init_finished(tls->ssl);
}

long tls_read(struct tls *tls, char *out, size_t size, char *err, size_t err_size)
{
    size_t n = 0;

    ERR_clear_error();
    int rc = SSL_read_ex(tls->ssl, out, size, &n);
    if (rc == 1)
        return (long)n;
    return is_waiting(tls, rc) ? 0 : fail(tls, err, err_size);
}

int tls_write(struct tls *tls, const char *bytes, size_t len)
{
    size_t written = 0;

    ERR_clear_error();
    /* A memory BIO takes all there is, so only memory can fail. */
    return SSL_write_ex(tls->ssl, bytes, len, &written) == 1 && written == len ? 0 : -ENOMEM;
}

size_t tls_output(struct tls *tls, char **bytes)
{
    size_t len = BIO_ctrl_pending(tls->out), n = 0;

    /* The caller asks again only when the last write is over. */
    free(tls->away);
    tls->away = len ? malloc(len) : NULL;
    if (!tls->away || BIO_read_ex(tls->out, tls->away, len, &n) != 1)
        return 0; /* without memory nothing is sent, and the silence is found by its timer */
    *bytes = tls->away;
    return n;
}
