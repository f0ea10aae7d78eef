/*
 * rabbitmq_connector.c: what the worker knows of RabbitMQ, and how a URL becomes options.
 */
#include <stdio.h>
#include <string.h>

#include "connectors/queue.h"
#include "connectors/rabbitmq/rabbitmq.h"

static const char *const schemes[] = {"amqp", "amqps", NULL};

/* Workers read `name`; the sink of a push must not take it for its own input. */
static int rabbitmq_push(const char *url, const char *name, const struct queue_setter *to,
                         char *err, size_t err_size)
{
    char dead_letters[600];
    const char *queue = name ? name : "texts";
    (void)err;
    (void)err_size;
    snprintf(dead_letters, sizeof dead_letters, "%s-dlq", queue);
    const struct queue_option options[] = {
        {"rabbitmq.url", url},
        {"rabbitmq.output_url", ""},
        {"rabbitmq.output_exchange", ""},
        {"rabbitmq.output_queue", queue},
        {"rabbitmq.dead_letters", "queue"},
        {"rabbitmq.dead_letter_queue", dead_letters},
        {"rabbitmq.queue", "none"},
    };
    return queue_set(to, options, sizeof options / sizeof options[0]);
}

/* A queue has no groups: what is pulled is taken off it. */
static int rabbitmq_pull(const char *url, const char *name, const struct queue_setter *to,
                         char *err, size_t err_size)
{
    const struct queue_option options[] = {
        {"rabbitmq.url", url},
        {"rabbitmq.queue", name ? name : "texts-embeddings"},
    };
    (void)err;
    (void)err_size;
    return queue_set(to, options, sizeof options / sizeof options[0]);
}

static const struct queue_ops queue = {
    .schemes = schemes,
    .form = "amqp://HOST:PORT/VHOST",
    .place = "rabbitmq.queue",
    .push = rabbitmq_push,
    .pull = rabbitmq_pull,
};

/* An exchange may be of one model, too. */
static const char *names_output(const struct settings *settings)
{
    return settings_has_model(settings, "rabbitmq.output_exchange")
               ? "rabbitmq.output_exchange"
               : settings_model_from(settings, "rabbitmq.output_queue", "rabbitmq.queue");
}

static const char *names_input(const struct settings *settings)
{
    (void)settings;
    return "rabbitmq.queue";
}

const struct connector rabbitmq_connector = {
    .name = "rabbitmq",
    .options = rabbitmq_options,
    .source = &rabbitmq_source_ops,
    .sink = &rabbitmq_sink_ops,
    .check = &rabbitmq_check,
    .dead_letters = &rabbitmq_dead_letters,
    .queue = &queue,
    .gives_times = true,
    .names_output = names_output,
    .names_input = names_input,
};
