/*
 * redis_connector.c: what the worker knows of Redis, and how a URL becomes options.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "connectors/queue.h"
#include "connectors/redis/redis.h"
#include "connectors/redis/redis_migration.h"
#include "connectors/redis/redis_reply.h"
#include "connectors/redis/redis_slot.h"

static const char *const schemes[] = {
    "redis",           "rediss",        "unix",           "redis+sentinel",
    "rediss+sentinel", "redis+cluster", "rediss+cluster", NULL};

/* The names of a cluster hold a tag, so that all keys of a worker are in one slot. */
static bool is_cluster(const char *url)
{
    size_t len = strcspn(url, ":");
    return len > 8 && strncasecmp(url + len - 8, "+cluster", 8) == 0;
}

/* Workers read `name`; the sink of a push must not take it for its own input. */
static int redis_push(const char *url, const char *name, const struct queue_setter *to, char *err,
                      size_t err_size)
{
    char dead_letters[600];
    struct bytes tag;
    const char *stream = name ? name : is_cluster(url) ? "{texts}" : "texts";
    int rc = queue_check_single("redis.stream", stream, err, err_size);
    if (rc != 0)
        return rc;
    if (is_cluster(url) && !redis_slot_tag(bytes_of(stream), &tag)) {
        snprintf(err, err_size,
                 "redis.stream: workers on a cluster read streams with a tag in braces: name it "
                 "'{%.200s}'",
                 stream);
        return -EINVAL;
    }
    snprintf(dead_letters, sizeof dead_letters, "%s:dlq", stream);
    const struct queue_option options[] = {
        {"redis.url", url},
        {"redis.output", "stream"},
        {"redis.output_url", ""},
        {"redis.maxlen", "0"},
        {"redis.output_stream", stream},
        {"redis.dead_letters", dead_letters},
        {"redis.stream", "none"},
    };
    return queue_set(to, options, sizeof options / sizeof options[0]);
}

static int redis_pull(const char *url, const char *name, const struct queue_setter *to, char *err,
                      size_t err_size)
{
    const char *texts = is_cluster(url) ? "{texts}:embeddings" : "texts:embeddings";
    const char *stream = name ? name : texts;
    const struct queue_option options[] = {
        {"redis.url", url},
        {"redis.stream", stream},
        {"redis.group", "embedmill-pull"},
        {"redis.body", ""},
    };
    (void)err;
    (void)err_size;
    return queue_set(to, options, sizeof options / sizeof options[0]);
}

static const struct queue_ops queue = {
    .schemes = schemes,
    .form = "redis://HOST:PORT/DB",
    .place = "redis.stream",
    .push = redis_push,
    .pull = redis_pull,
};

static const char *names_output(const struct settings *settings)
{
    bool is_stream = settings_is(settings, "redis.output", "stream");
    return is_stream ? settings_model_from(settings, "redis.output_stream", "redis.stream")
                     : "redis.output_prefix";
}

static const char *names_input(const struct settings *settings)
{
    (void)settings;
    return "redis.stream";
}

const struct connector redis_connector = {
    .name = "redis",
    .options = redis_options,
    .source = &redis_source_ops,
    .sink = &redis_sink_ops,
    .check = &redis_check,
    .dead_letters = &redis_dead_letters,
    .queue = &queue,
    .gives_order = true,
    .gives_times = true,
    .migration = &redis_migration_ops,
    .keeps_versions = true,
    .exactly_once = true,
    .names_output = names_output,
    .names_input = names_input,
};
