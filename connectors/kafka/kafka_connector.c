/*
 * kafka_connector.c: what the worker knows of Kafka, and how a URL becomes options.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "connectors/kafka/kafka.h"
#include "connectors/queue.h"

#define FORM "kafka://HOST:PORT/TOPIC"

static const char *const schemes[] = {"kafka", NULL};

/* kafka://BROKERS/TOPIC, where name stands in for the topic. 0 or -EINVAL. */
static int read_url(const char *url, char brokers[600], const char **name, char *err,
                    size_t err_size)
{
    const char *at = url + strlen("kafka://");
    size_t n = strcspn(at, "/");
    if (!*name && at[n] == '/')
        *name = at + n + 1;
    /* Several brokers may stand there, separated by commas, as in kafka.brokers. */
    if (n == 0 || n >= 600 || !*name || !**name) {
        snprintf(err, err_size, "expected " FORM);
        return -EINVAL;
    }
    snprintf(brokers, 600, "%.*s", (int)n, at);
    return 0;
}

/* Workers read `name`; the sink of a push must not take it for its own input. */
static int kafka_push(const char *url, const char *name, const struct queue_setter *to, char *err,
                      size_t err_size)
{
    char brokers[600], dead_letters[600];
    int rc = read_url(url, brokers, &name, err, err_size);
    if (rc == 0)
        rc = queue_check_single("kafka.topic", name, err, err_size);
    if (rc != 0)
        return rc;
    snprintf(dead_letters, sizeof dead_letters, "%s-dlq", name);
    const struct queue_option options[] = {
        {"kafka.brokers", brokers},
        {"kafka.output_topic", name},
        {"kafka.dead_letter_topic", dead_letters},
        {"kafka.topic", "none"},
    };
    return queue_set(to, options, sizeof options / sizeof options[0]);
}

static int kafka_pull(const char *url, const char *name, const struct queue_setter *to, char *err,
                      size_t err_size)
{
    char brokers[600];
    int rc = read_url(url, brokers, &name, err, err_size);
    if (rc != 0)
        return rc;
    const struct queue_option options[] = {
        {"kafka.brokers", brokers},
        {"kafka.topic", name},
        {"kafka.group", "embedmill-pull"},
    };
    return queue_set(to, options, sizeof options / sizeof options[0]);
}

static const struct queue_ops queue = {
    .schemes = schemes,
    .form = FORM,
    .place = "kafka.topic",
    .push = kafka_push,
    .pull = kafka_pull,
};

static const char *names_output(const struct settings *settings)
{
    return settings_model_from(settings, "kafka.output_topic", "kafka.topic");
}

static const char *names_input(const struct settings *settings)
{
    (void)settings;
    return "kafka.topic";
}

const struct connector kafka_connector = {
    .name = "kafka",
    .options = kafka_options,
    .source = &kafka_source_ops,
    .sink = &kafka_sink_ops,
    .check = &kafka_check,
    .dead_letters = &kafka_dead_letters,
    .queue = &queue,
    .gives_order = true,
    .gives_times = true,
    .exactly_once = true,
    .names_output = names_output,
    .names_input = names_input,
};
