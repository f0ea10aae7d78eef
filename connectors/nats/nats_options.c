/*
 * nats_options.c: the nats.* options and what they mean.
 *
 * Owns:    names, defaults and help of the options.
 * Refuses: what cannot be one: a URL that is none, a subject that nothing can be published to.
 * Threads: the loop thread, at open.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/nats/nats.h"

const struct option nats_options[] = {
    {"nats.url", OPTION_SECRET, "nats://127.0.0.1:4222", NULL, 0, 0, "URL,...",
     "Servers, any of which will do: nats://[user[:password]@]host[:port], or tls:// for TLS"},
    {"nats.stream", OPTION_TEXT, "texts", NULL, 0, 0, "NAME",
     "JetStream stream to read; with {model} in its name every model reads its own"},
    {"nats.consumer", OPTION_TEXT, "embedmill", NULL, 0, 0, "NAME",
     "Durable pull consumer that all workers share; created at the stream's start when missing"},
    {"nats.subject", OPTION_TEXT, NULL, NULL, 0, 0, "SUBJECT",
     "Subjects that a consumer created here takes from the stream; with {model} in them and in "
     "nats.consumer every model takes its own (default: all)"},
    {"nats.output_subject", OPTION_TEXT, NULL, NULL, 0, 0, "SUBJECT",
     "Subject for embeddings, stored by a stream (default: the input stream's name with "
     "-embeddings)"},
    {"nats.dead_letter_subject", OPTION_TEXT, NULL, NULL, 0, 0, "SUBJECT",
     "Subject for messages that cannot be embedded, stored by a stream (default: the input "
     "stream's name with -dlq)"},
    {"nats.creds", OPTION_TEXT, NULL, NULL, 0, 0, "FILE",
     "Credentials file (JWT and seed); it chooses the account"},
    {"nats.user", OPTION_TEXT, NULL, NULL, 0, 0, "NAME", "User, unless nats.url has one"},
    {"nats.password", OPTION_SECRET, NULL, NULL, 0, 0, "TEXT", "Password of nats.user"},
    {"nats.token", OPTION_SECRET, NULL, NULL, 0, 0, "TEXT", "Token, for servers that ask for one"},
    {"nats.tls_ca", OPTION_TEXT, NULL, NULL, 0, 0, "FILE",
     "CA certificates to verify the server with, PEM (default: the system's)"},
    {"nats.tls_cert", OPTION_TEXT, NULL, NULL, 0, 0, "FILE",
     "Client certificate, PEM, for servers that ask for one"},
    {"nats.tls_key", OPTION_TEXT, NULL, NULL, 0, 0, "FILE", "Its key, PEM"},
    {"nats.ack_wait", OPTION_DURATION, "30s", NULL, 1000, 24 * 3600 * 1000, "TIME",
     "For a consumer created here: a message that is neither acknowledged nor extended for this "
     "long goes to another worker"},
    {"nats.max_ack_pending", OPTION_COUNT, "10000", NULL, 1, 1000000000, "N",
     "For a consumer created here: how many unacknowledged messages all workers together may hold"},
    {"nats.timeout", OPTION_DURATION, "5s", NULL, 100, 3600 * 1000, "TIME",
     "How long to wait for a connection, and for an answer before asking again"},
    {"nats.api_prefix", OPTION_TEXT, "$JS.API", NULL, 0, 0, "SUBJECT",
     "Subject of JetStream's API: $JS.DOMAIN.API for a domain, or the one that an account imports "
     "it as"},
    {"nats.inbox_prefix", OPTION_TEXT, "_INBOX", NULL, 0, 0, "SUBJECT",
     "Prefix of the subjects of answers, for users that may not subscribe to _INBOX.>"},
    {NULL, OPTION_TEXT, NULL, NULL, 0, 0, NULL, NULL},
};

/* ---- subjects */

/* Tokens between dots, none empty and none with white space; wild: * and > may be among them. */
static bool is_subject(const char *text, bool wild)
{
    size_t len = 0;
    for (; *text; text++) {
        if (isspace((unsigned char)*text) || (!wild && (*text == '*' || *text == '>')))
            return false;
        if (*text == '.' && len == 0)
            return false;
        len = *text == '.' ? 0 : len + 1;
    }
    return len > 0;
}

/* A name is a single token, for it is part of subjects. */
static bool is_name(const char *text)
{
    return is_subject(text, false) && !strchr(text, '.') && !strchr(text, '/') &&
           !strchr(text, '\\');
}

bool nats_subject_is_literal(const char *text)
{
    return is_subject(text, false);
}

bool nats_subject_matches(const char *pattern, const char *subject)
{
    while (*pattern && *subject) {
        size_t p = strcspn(pattern, "."), s = strcspn(subject, ".");
        if (p == 1 && *pattern == '>')
            return true;
        if (!(p == 1 && *pattern == '*') && (p != s || memcmp(pattern, subject, p) != 0))
            return false;
        pattern += p + (pattern[p] == '.');
        subject += s + (subject[s] == '.');
    }
    return !*pattern && !*subject;
}

/* ---- reading */

/* A copy of the option, or of the stream's name and suffix when it was not set. 0 or -ENOMEM. */
static int copy_derived(const struct settings *settings, const char *name, const char *suffix,
                        char **out)
{
    int rc = settings_copy(settings, name, out);
    if (rc || *out)
        return rc;
    const char *stream = settings_text(settings, "nats.stream");
    size_t size = strlen(stream) + strlen(suffix) + 1;
    *out = malloc(size);
    if (*out)
        snprintf(*out, size, "%s%s", stream, suffix);
    return *out ? 0 : -ENOMEM;
}

static int read_texts(struct nats_config *config, const struct settings *settings)
{
    const struct {
        const char *name;
        char **to;
    } texts[] = {
        {"nats.stream", &config->stream},     {"nats.consumer", &config->consumer},
        {"nats.subject", &config->subject},   {"nats.creds", &config->creds},
        {"nats.user", &config->user},         {"nats.password", &config->password},
        {"nats.token", &config->token},       {"nats.tls_ca", &config->tls_ca},
        {"nats.tls_cert", &config->tls_cert}, {"nats.tls_key", &config->tls_key},
        {"nats.api_prefix", &config->api},    {"nats.inbox_prefix", &config->inbox},
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0] && !rc; i++)
        rc = settings_copy(settings, texts[i].name, texts[i].to);
    if (!rc)
        rc = copy_derived(settings, "nats.output_subject", "-embeddings", &config->output_subject);
    if (!rc)
        rc = copy_derived(settings, "nats.dead_letter_subject", "-dlq",
                          &config->dead_letter_subject);
    return rc;
}

/* host, host:port, or with nats:// or tls:// before it; *is_secure becomes true by the latter. */
static bool is_url(const char *url, bool *is_secure)
{
    const char *colons = strstr(url, "://"), *rest = colons ? colons + 3 : url;
    if (colons) {
        bool tls = strncmp(url, "tls://", 6) == 0;
        if (!tls && strncmp(url, "nats://", 7) != 0)
            return false;
        *is_secure |= tls;
    }
    /* The last @: a password may have one, too. */
    const char *at = strrchr(rest, '@'), *host = at ? at + 1 : rest;
    if (!*host || *host == ':' || strpbrk(host, "/ ?#"))
        return false;
    /* Colons of an IPv6 address stand before the bracket. */
    const char *bracket = strchr(host, ']'), *port = strrchr(bracket ? bracket : host, ':');
    if (!port)
        return true;
    char *end;
    long number = strtol(port + 1, &end, 10);
    return isdigit((unsigned char)port[1]) && !*end && number > 0 && number < 65536;
}

static int read_urls(struct nats_config *config, const char *list, char *err, size_t err_size)
{
    size_t n = 1;
    for (const char *at = list; *at; at++)
        n += *at == ',';
    config->urls = calloc(n, sizeof *config->urls);
    if (!config->urls)
        return -ENOMEM;
    for (size_t len; *list; list += len + (list[len] == ',')) {
        len = strcspn(list, ",");
        if (!len)
            continue;
        char *url = strndup(list, len);
        if (!url)
            return -ENOMEM;
        config->urls[config->n_urls++] = url;
        if (!is_url(url, &config->is_secure))
            /* One bad URL refuses all of them; those before it stay for nats_config_clear. */
            config->n_urls = 0;
        if (!config->n_urls) {
            free(url);
            break;
        }
    }
    if (config->n_urls)
        return 0;
    snprintf(err, err_size,
             "nats.url: expected nats://[user[:password]@]host[:port] or tls://..., several "
             "separated by commas");
    return -EINVAL;
}

/* ---- checking */

static int check_subjects(const struct nats_config *config, char *err, size_t err_size)
{
    const struct {
        const char *name, *text;
        bool wild;
    } subjects[] = {
        {"nats.output_subject", config->output_subject, false},
        {"nats.dead_letter_subject", config->dead_letter_subject, false},
        {"nats.subject", config->subject, true},
        {"nats.api_prefix", config->api, false},
        {"nats.inbox_prefix", config->inbox, false},
    };
    for (size_t i = 0; i < sizeof subjects / sizeof subjects[0]; i++) {
        const char *text = subjects[i].text;
        if (!text && i == 2)
            continue;
        if (text && is_subject(text, subjects[i].wild))
            continue;
        snprintf(err, err_size, "%s: expected a subject: words between dots, without spaces%s",
                 subjects[i].name, subjects[i].wild ? "" : ", * and >");
        return -EINVAL;
    }
    for (size_t i = 0; i < 2 && config->subject; i++)
        if (nats_subject_matches(config->subject, subjects[i].text)) {
            snprintf(err, err_size,
                     "%s: '%.100s' is an input, by nats.subject: the worker would read what it "
                     "writes; choose another subject",
                     subjects[i].name, subjects[i].text);
            return -EINVAL;
        }
    return 0;
}

static int check_all(const struct nats_config *config, char *err, size_t err_size)
{
    const char *names[][2] = {{"nats.stream", config->stream}, {"nats.consumer", config->consumer}};
    for (size_t i = 0; i < 2; i++)
        if (!names[i][1] || !is_name(names[i][1])) {
            snprintf(err, err_size, "%s: expected a name without white space, dots, *, >, / and \\",
                     names[i][0]);
            return -EINVAL;
        }
    if (!config->tls_cert != !config->tls_key) {
        snprintf(err, err_size, "%s: a certificate needs its key, and a key its certificate",
                 config->tls_cert ? "nats.tls_key" : "nats.tls_cert");
        return -EINVAL;
    }
    if (config->password && !config->user) {
        snprintf(err, err_size, "nats.password: whose? Set nats.user too");
        return -EINVAL;
    }
    return check_subjects(config, err, err_size);
}

int nats_config_read(struct nats_config *out, const struct settings *settings, char *err,
                     size_t err_size)
{
    struct nats_config config = {0};
    int rc = read_texts(&config, settings);
    if (!rc)
        rc = read_urls(&config, settings_text(settings, "nats.url"), err, err_size);
    if (!rc)
        rc = check_all(&config, err, err_size);
    if (rc == -ENOMEM)
        snprintf(err, err_size, "out of memory");
    if (rc) {
        nats_config_clear(&config);
        return rc;
    }
    /* A certificate is of no use without TLS. */
    config.is_secure |= config.tls_ca || config.tls_cert;
    config.ack_wait_ms = (uint64_t)settings_number(settings, "nats.ack_wait");
    config.timeout_ms = (uint64_t)settings_number(settings, "nats.timeout");
    config.max_ack_pending = settings_number(settings, "nats.max_ack_pending");
    *out = config;
    return 0;
}

void nats_config_clear(struct nats_config *config)
{
    char *texts[] = {config->stream,   config->consumer,
                     config->subject,  config->output_subject,
                     config->user,     config->dead_letter_subject,
                     config->password, config->token,
                     config->creds,    config->tls_ca,
                     config->tls_cert, config->tls_key,
                     config->api,      config->inbox};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        free(texts[i]);
    for (size_t i = 0; i < config->n_urls; i++)
        free(config->urls[i]);
    free(config->urls);
    *config = (struct nats_config){0};
}

/* A consumer has the subjects that it was made with. */
static int check_models(const struct settings *settings, char *err, size_t err_size)
{
    if (!settings_has_model(settings, "nats.subject") ||
        settings_has_model(settings, "nats.stream") ||
        settings_has_model(settings, "nats.consumer"))
        return 0;
    snprintf(err, err_size,
             "nats.consumer: each model has subjects of its own, and needs a consumer of its own: "
             "put " SETTINGS_MODEL " into this name, too");
    return -EINVAL;
}

int nats_config_check(const struct settings *settings, const char **bad_option, char *err,
                      size_t err_size)
{
    struct nats_config config;
    natsOptions *options = NULL;
    int rc = check_models(settings, err, err_size);
    if (!rc)
        rc = nats_config_read(&config, settings, err, err_size);
    if (!rc) {
        /* The library reads the files: what is wrong with them is found out
         * here, before the start. */
        rc = nats_connect_options(&options, &config, "embedmill", err, err_size);
        natsOptions_Destroy(options);
        nats_config_clear(&config);
    }
    if (rc == -EINVAL)
        *bad_option = settings_blame(settings, "nats.url", err);
    return rc;
}
