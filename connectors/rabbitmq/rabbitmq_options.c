/*
 * rabbitmq_options.c: the rabbitmq.* options and what they mean.
 *
 * Owns:    names, defaults and help.
 * Threads: the loop thread, at open.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "connectors/rabbitmq/rabbitmq.h"

#define NAME_BYTES_MAX 255 /* of queues and exchanges, in the protocol */

const struct option rabbitmq_options[] = {
    {"rabbitmq.url", OPTION_SECRET, "amqp://127.0.0.1:5672", NULL, 0, 0, "URL,...",
     "Nodes to read from, tried in turn: amqp://[user[:password]@]host[:port][/vhost]; amqps: over "
     "TLS. Without a user it is guest, or the one that rabbitmq.tls_cert names"},
    {"rabbitmq.queue", OPTION_TEXT, "texts", NULL, 0, 0, "NAME",
     "Queue to read, quorum or classic; it must exist. With {model} in its name every model reads "
     "its own"},
    {"rabbitmq.prefetch", OPTION_COUNT, "256", NULL, 1, 65535, "N",
     "The most unacknowledged messages to hold; the worker takes fewer when it needs fewer"},
    {"rabbitmq.consumer_timeout", OPTION_DURATION, "30m", NULL, 0, INT64_C(30) * 24 * 3600 * 1000,
     "TIME",
     "The server's consumer_timeout: messages that cannot be acknowledged within it are given back "
     "before; 0: never"},
    {"rabbitmq.timeout", OPTION_DURATION, "10s", NULL, 100, 3600 * 1000, "TIME",
     "Give up an attempt to connect after this time, and report outputs that are not confirmed "
     "within it"},
    {"rabbitmq.management_url", OPTION_SECRET, NULL, NULL, 0, 0, "URL",
     "Where doctor asks for types and policies of queues (default: the node's port 15672, with TLS "
     "15671): http[s]://[user[:password]@]host[:port]"},
    {"rabbitmq.tls_ca", OPTION_TEXT, NULL, NULL, 0, 0, "FILE",
     "CA certificates to verify the server with, PEM (default: the system's)"},
    {"rabbitmq.tls_cert", OPTION_TEXT, NULL, NULL, 0, 0, "FILE",
     "Client certificate, PEM, for servers that ask for one"},
    {"rabbitmq.tls_key", OPTION_TEXT, NULL, NULL, 0, 0, "FILE", "Its key, PEM"},
    {"rabbitmq.output_url", OPTION_SECRET, NULL, NULL, 0, 0, "URL,...",
     "Nodes to write to (default: rabbitmq.url)"},
    {"rabbitmq.output_exchange", OPTION_TEXT, "", NULL, 0, 0, "NAME",
     "Exchange for embeddings (default: the default exchange, which routes to a queue by its "
     "name)"},
    {"rabbitmq.output_queue", OPTION_TEXT, NULL, NULL, 0, 0, "NAME",
     "Queue for embeddings, or their routing key when an exchange is named (default: the input "
     "queue's name with -embeddings)"},
    {"rabbitmq.dead_letters", OPTION_CHOICE, "queue", "queue|reject", 0, 0, NULL,
     "Where messages that cannot be embedded go: to a queue, with the reason; or rejected, so that "
     "the input queue's own dead-letter exchange gets them, without a reason"},
    {"rabbitmq.dead_letter_queue", OPTION_TEXT, NULL, NULL, 0, 0, "NAME",
     "Queue for dead letters (default: the input queue's name with -dlq)"},
    {NULL, OPTION_TEXT, NULL, NULL, 0, 0, NULL, NULL},
};

static bool is_set(const char *text)
{
    return text && *text;
}

static int read_tls(struct rabbitmq_config *config, const struct settings *settings,
                    const char **bad_option, char *err, size_t err_size)
{
    struct tls_files files = {settings_text(settings, "rabbitmq.tls_ca"),
                              settings_text(settings, "rabbitmq.tls_cert"),
                              settings_text(settings, "rabbitmq.tls_key"),
                              "rabbitmq.tls_ca",
                              "rabbitmq.tls_cert",
                              "rabbitmq.tls_key"};
    if (!rabbitmq_urls_use_tls(&config->urls) && !rabbitmq_urls_use_tls(&config->output_urls) &&
        !rabbitmq_urls_use_tls(&config->management))
        return 0;
    /* Then a URL without a user logs in by it (EXTERNAL, rabbitmq_greeting.c). */
    config->has_certificate = is_set(files.cert);
    return tls_context_open(&config->tls, &files, bad_option, err, err_size);
}

static int read_urls(struct rabbitmq_config *config, const struct settings *settings,
                     const char **bad_option, char *err, size_t err_size)
{
    const char *text = settings_text(settings, "rabbitmq.url");
    *bad_option = "rabbitmq.url";
    int rc = rabbitmq_urls_parse(&config->urls, text, err, err_size);
    if (rc)
        return rc;
    if (is_set(settings_text(settings, "rabbitmq.output_url")))
        *bad_option = "rabbitmq.output_url";
    text = settings_text(settings, *bad_option);
    rc = rabbitmq_urls_parse(&config->output_urls, text, err, err_size);
    if (rc)
        return rc;
    *bad_option = "rabbitmq.management_url";
    text = settings_text(settings, *bad_option);
    rc = is_set(text) ? rabbitmq_management_parse(&config->management, text, err, err_size) : 0;
    return rc ? rc : read_tls(config, settings, bad_option, err, err_size);
}

/* The option, or the input queue and suffix when it was not set. */
static int read_name(char **out, const struct settings *settings, const char *option,
                     const char *suffix, const char **bad_option, char *err, size_t err_size)
{
    const char *text = settings_text(settings, option);
    const char *queue = settings_text(settings, "rabbitmq.queue");
    size_t size = strlen(is_set(text) ? text : queue) + strlen(suffix) + 1;
    *out = malloc(size);
    if (!*out)
        return -ENOMEM;
    snprintf(*out, size, "%s%s", is_set(text) ? text : queue, is_set(text) ? "" : suffix);
    *bad_option = option;
    if (strlen(*out) <= NAME_BYTES_MAX)
        return 0;
    snprintf(err, err_size, "expected a name of at most 255 bytes");
    return -EINVAL;
}

static int read_names(struct rabbitmq_config *config, const struct settings *settings,
                      const char **bad_option, char *err, size_t err_size)
{
    const char *exchange = settings_text(settings, "rabbitmq.output_exchange");
    *bad_option = "rabbitmq.queue";
    if (!*settings_text(settings, *bad_option)) {
        snprintf(err, err_size, "expected a name, got nothing");
        return -EINVAL;
    }
    int rc = read_name(&config->queue, settings, *bad_option, "", bad_option, err, err_size);
    if (rc == 0)
        rc = read_name(&config->output_queue, settings, "rabbitmq.output_queue", "-embeddings",
                       bad_option, err, err_size);
    if (rc == 0)
        rc = read_name(&config->dead_letter_queue, settings, "rabbitmq.dead_letter_queue", "-dlq",
                       bad_option, err, err_size);
    if (rc)
        return rc;
    *bad_option = "rabbitmq.output_exchange";
    if (exchange && strlen(exchange) > NAME_BYTES_MAX) {
        snprintf(err, err_size, "expected a name of at most 255 bytes");
        return -EINVAL;
    }
    config->output_exchange = strdup(exchange ? exchange : "");
    return config->output_exchange ? 0 : -ENOMEM;
}

/* Reading what one writes never ends. */
static int check_loop(const struct rabbitmq_config *config, const struct settings *settings,
                      const char **bad_option, char *err, size_t err_size)
{
    const char *loop = NULL;
    /* Nothing is read from RabbitMQ: then names may be equal. */
    if (settings_find(settings, "source") && !settings_is(settings, "source", "rabbitmq"))
        return 0;
    if (!rabbitmq_urls_meet(&config->urls, &config->output_urls))
        return 0;
    if (!*config->output_exchange && strcmp(config->queue, config->output_queue) == 0)
        loop = "rabbitmq.output_queue";
    if (!config->rejects && strcmp(config->queue, config->dead_letter_queue) == 0)
        loop = "rabbitmq.dead_letter_queue";
    if (!loop)
        return 0;
    *bad_option = loop;
    snprintf(err, err_size,
             "'%.100s' is the input queue, too: the worker would read what it writes; choose "
             "another name",
             config->queue);
    return -EINVAL;
}

static int check_ends(const struct rabbitmq_config *config, const struct settings *settings,
                      const char **bad_option, char *err, size_t err_size)
{
    if (settings_is(settings, "delivery", "exactly-once")) {
        *bad_option = "delivery";
        snprintf(err, err_size,
                 "RabbitMQ has at-least-once only; doubles carry the same message id");
        return -EINVAL;
    }
    if (config->rejects && settings_find(settings, "source") &&
        !settings_is(settings, "source", "rabbitmq")) {
        *bad_option = "rabbitmq.dead_letters";
        snprintf(err, err_size,
                 "only messages of a RabbitMQ queue can be rejected; expected queue, or "
                 "source rabbitmq");
        return -EINVAL;
    }
    if (config->rejects && (strstr(config->output_queue, SETTINGS_MODEL) ||
                            strstr(config->output_exchange, SETTINGS_MODEL))) {
        *bad_option = "rabbitmq.dead_letters";
        snprintf(err, err_size,
                 "a message that one of several models cannot embed cannot be rejected, for the "
                 "others have it, too; expected queue");
        return -EINVAL;
    }
    return check_loop(config, settings, bad_option, err, err_size);
}

static int config_read(void *out, const struct settings *settings, const char **bad_option,
                       char *err, size_t err_size)
{
    struct rabbitmq_config config = {.prefetch = 1};
    int rc = read_urls(&config, settings, bad_option, err, err_size);
    if (rc == 0)
        rc = read_names(&config, settings, bad_option, err, err_size);
    if (rc == 0) {
        config.rejects = settings_is(settings, "rabbitmq.dead_letters", "reject");
        config.prefetch = (uint16_t)settings_number(settings, "rabbitmq.prefetch");
        config.consumer_ms = (uint64_t)settings_number(settings, "rabbitmq.consumer_timeout");
        config.timeout_ms = (uint64_t)settings_number(settings, "rabbitmq.timeout");
        rc = check_ends(&config, settings, bad_option, err, err_size);
    }
    if (rc)
        rabbitmq_config_clear(&config);
    else
        *(struct rabbitmq_config *)out = config;
    return rc;
}

int rabbitmq_config_read(struct rabbitmq_config *out, const struct settings *settings, char *err,
                         size_t err_size)
{
    return settings_read(config_read, out, settings, err, err_size);
}

int rabbitmq_config_check(const struct settings *settings, const char **bad_option, char *err,
                          size_t err_size)
{
    struct rabbitmq_config config = {0};
    int rc = config_read(&config, settings, bad_option, err, err_size);
    rabbitmq_config_clear(&config);
    return rc;
}

void rabbitmq_config_clear(struct rabbitmq_config *config)
{
    rabbitmq_urls_clear(&config->urls);
    rabbitmq_urls_clear(&config->output_urls);
    rabbitmq_urls_clear(&config->management);
    tls_context_close(config->tls);
    free(config->queue);
    free(config->output_queue);
    free(config->output_exchange);
    free(config->dead_letter_queue);
    *config = (struct rabbitmq_config){0};
}

void rabbitmq_connection_name(const char *what, char *out, size_t size)
{
    char host[65] = "";
    gethostname(host, sizeof host - 1);
    snprintf(out, size, "embedmill %s:%d %s", host, (int)getpid(), what);
}
