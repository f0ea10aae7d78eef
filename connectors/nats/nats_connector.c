/*
 * nats_connector.c: what the worker knows of NATS, and how a URL becomes options.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "connectors/nats/nats.h"
#include "connectors/queue.h"

static const char *const schemes[] = {"nats", "tls", NULL};

/* nats://HOST:PORT/NAME, where name goes before NAME and fallback behind it. 0 or -EINVAL. */
static int read_url(const char *url, char server[600], const char **name, const char *fallback,
                    char *err, size_t err_size)
{
    const char *at = strstr(url, "://") + 3;
    size_t n = (size_t)(at - url) + strcspn(at, "/");
    if (!*name)
        *name = url[n] == '/' && url[n + 1] ? url + n + 1 : fallback;
    if (!*at || *at == '/' || n >= 600 || !**name) {
        snprintf(err, err_size, "expected nats://HOST:PORT/NAME or tls://HOST:PORT/NAME");
        return -EINVAL;
    }
    snprintf(server, 600, "%.*s", (int)n, url);
    return 0;
}

/* name: the subject of the inputs. The sink must not take it for its own input. */
static int nats_push(const char *url, const char *name, const struct queue_setter *to, char *err,
                     size_t err_size)
{
    char server[600], dead_letters[600];
    int rc = read_url(url, server, &name, "texts", err, err_size);
    if (rc == 0)
        rc = queue_check_single("nats.stream", name, err, err_size);
    if (rc != 0)
        return rc;
    snprintf(dead_letters, sizeof dead_letters, "%.590s-dlq", name);
    const struct queue_option options[] = {
        {"nats.url", server},          {"nats.subject", ""},
        {"nats.output_subject", name}, {"nats.dead_letter_subject", dead_letters},
        {"nats.stream", "none"},
    };
    return queue_set(to, options, sizeof options / sizeof options[0]);
}

/* name: the stream that holds the outputs. */
static int nats_pull(const char *url, const char *name, const struct queue_setter *to, char *err,
                     size_t err_size)
{
    char server[600];
    int rc = read_url(url, server, &name, "texts-embeddings", err, err_size);
    if (rc != 0)
        return rc;
    const struct queue_option options[] = {
        {"nats.url", server},
        {"nats.subject", ""},
        {"nats.stream", name},
        {"nats.consumer", "embedmill-pull"},
    };
    return queue_set(to, options, sizeof options / sizeof options[0]);
}

static const struct queue_ops queue = {
    .schemes = schemes,
    .form = "nats://HOST:PORT/NAME",
    .place = "nats.stream",
    .push = nats_push,
    .pull = nats_pull,
};

static const char *names_output(const struct settings *settings)
{
    return settings_model_from(settings, "nats.output_subject", "nats.stream");
}

/* A stream of each model, or subjects of one stream. */
static const char *names_input(const struct settings *settings)
{
    return settings_has_model(settings, "nats.subject") ? "nats.subject" : "nats.stream";
}

const struct connector nats_connector = {
    .name = "nats",
    .options = nats_options,
    .source = &nats_source_ops,
    .sink = &nats_sink_ops,
    .check = &nats_check,
    .dead_letters = &nats_dead_letters,
    .queue = &queue,
    .gives_times = true,
    .names_output = names_output,
    .names_input = names_input,
};
