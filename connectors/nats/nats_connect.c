/*
 * nats_connect.c: how the library is to connect, and what its failures mean.
 *
 * Owns:    addresses, login, TLS; which failures no retry mends.
 * Threads: any; no state.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "connectors/nats/nats.h"

/* A server that is frozen or cut off is missed after so many unanswered pings. */
#define PING_MS   5000
#define PINGS_MAX 2

/* The library's words, without the place in its sources that it begins with: "(conn.c:2088): ". */
static const char *last_words(void)
{
    const char *said = nats_GetLastError(NULL);
    const char *end = said && *said == '(' ? strstr(said, "): ") : NULL;
    return end ? end + 3 : said ? said : "";
}

/* The sentence names the option, which the file was given by. */
static int tell(natsStatus status, const char *option, const char *file, char *err, size_t err_size)
{
    const char *said = last_words();
    snprintf(err, err_size, "%s: %s cannot be used: %.200s", option, file,
             *said ? said : natsStatus_GetText(status));
    return status == NATS_NO_MEMORY ? -ENOMEM : -EINVAL;
}

static int set_files(natsOptions *options, const struct nats_config *config, char *err,
                     size_t err_size)
{
    natsStatus s = NATS_OK;
    if (config->tls_ca && (s = natsOptions_LoadCATrustedCertificates(options, config->tls_ca)))
        return tell(s, "nats.tls_ca", config->tls_ca, err, err_size);
    if (config->tls_cert &&
        (s = natsOptions_LoadCertificatesChain(options, config->tls_cert, config->tls_key)))
        return tell(s, "nats.tls_cert", config->tls_cert, err, err_size);
    /* The library reads it at each connection, and would only say then that it cannot. */
    if (config->creds && access(config->creds, R_OK) != 0) {
        snprintf(err, err_size, "nats.creds: %s cannot be read: %s", config->creds,
                 strerror(errno));
        return -EINVAL;
    }
    if (config->creds &&
        (s = natsOptions_SetUserCredentialsFromFiles(options, config->creds, NULL)))
        return tell(s, "nats.creds", config->creds, err, err_size);
    return 0;
}

int nats_connect_options(natsOptions **out, const struct nats_config *config, const char *name,
                         char *err, size_t err_size)
{
    natsOptions *options = NULL;
    natsStatus s = natsOptions_Create(&options);
    if (!s)
        s = natsOptions_SetServers(options, (const char **)config->urls, (int)config->n_urls);
    if (s && s != NATS_NO_MEMORY) {
        natsOptions_Destroy(options);
        snprintf(err, err_size, "nats.url: %s", natsStatus_GetText(s));
        return -EINVAL;
    }
    if (!s && config->user)
        s = natsOptions_SetUserInfo(options, config->user, config->password);
    if (!s && config->token)
        s = natsOptions_SetToken(options, config->token);
    if (!s && config->is_secure)
        s = natsOptions_SetSecure(options, true);
    if (!s)
        s = natsOptions_SetName(options, name);
    if (!s && strcmp(config->inbox, "_INBOX") != 0)
        s = natsOptions_SetCustomInboxPrefix(options, config->inbox);
    if (!s)
        s = natsOptions_SetTimeout(options, (int64_t)config->timeout_ms);
    if (!s)
        /* Connecting again is the link's (nats_link.h says why). */
        s = natsOptions_SetAllowReconnect(options, false);
    if (!s)
        s = natsOptions_SetPingInterval(options, PING_MS);
    if (!s)
        s = natsOptions_SetMaxPingsOut(options, PINGS_MAX);
    if (s)
        snprintf(err, err_size, "%s", natsStatus_GetText(s));
    int rc = s == NATS_NO_MEMORY ? -ENOMEM : s ? -EINVAL : 0;
    if (!rc)
        rc = set_files(options, config, err, err_size);
    if (rc) {
        natsOptions_Destroy(options);
        return rc;
    }
    *out = options;
    return 0;
}

bool nats_connect_is_refusal(natsStatus status)
{
    /* With several servers the status is that of the last one that was tried. */
    return status == NATS_CONNECTION_AUTH_FAILED || strstr(last_words(), "Authorization Violation");
}

static const char *advice_for(natsStatus status)
{
    switch (nats_connect_is_refusal(status) ? NATS_CONNECTION_AUTH_FAILED : status) {
    case NATS_CONNECTION_AUTH_FAILED:
        return " (correct nats.user and nats.password, nats.token or nats.creds, or allow this "
               "user at the server)";
    case NATS_SECURE_CONNECTION_REQUIRED:
        return " (the server wants TLS: write tls:// in nats.url)";
    case NATS_SECURE_CONNECTION_WANTED:
        return " (the server has no TLS: write nats:// in nats.url)";
    case NATS_SSL_ERROR:
        return " (see nats.tls_ca, nats.tls_cert and nats.tls_key)";
    case NATS_NO_SERVER:
        return " (is it running, and is nats.url right?)";
    default:
        return "";
    }
}

void nats_connect_explain(natsStatus status, char *why, size_t size)
{
    const char *said = last_words(), *text = natsStatus_GetText(status);
    if (*said && strcmp(said, text) != 0)
        snprintf(why, size, "%s: %.200s%s", text, said, advice_for(status));
    else
        snprintf(why, size, "%s%s", text, advice_for(status));
}
