/*
 * redis_options.c: the redis.* options and what they mean.
 *
 * Owns:    names, defaults and help of the options; the default consumer name.
 * Refuses: nothing but what cannot be one (a URL that is none, an empty name).
 * Threads: the loop thread, at open.
 * Why:     the sink's table holds all of them, because a registry must show each name once.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/redis.h"
#include "connectors/worker_name.h"

const struct option redis_options[] = {
    {"redis.url", OPTION_SECRET, "redis://127.0.0.1:6379/0", NULL, 0, 0, "URL",
     "Server to read from: redis://[user[:password]@]host[:port][/db] or unix:///path"},
    {"redis.stream", OPTION_TEXT, "texts", NULL, 0, 0, "KEY", "Stream to read"},
    {"redis.group", OPTION_TEXT, "embedmill", NULL, 0, 0, "NAME",
     "Consumer group; made from the start of the stream when missing"},
    {"redis.consumer", OPTION_TEXT, NULL, NULL, 0, 0, "NAME",
     "Name in the group; must be stable over restarts and no two living workers may share it "
     "(default: HOST-N with the lowest N no other worker of this machine has)"},
    {"redis.body", OPTION_TEXT, "", NULL, 0, 0, "FIELD",
     "Field that holds the payload; the others travel along (default: body, else text)"},
    {"redis.claim_idle", OPTION_DURATION, "60s", NULL, 0, INT64_C(7) * 24 * 3600 * 1000, "TIME",
     "Take over messages whose worker has not been heard of for this long; 0 never takes over"},
    {"redis.timeout", OPTION_DURATION, "5s", NULL, 100, 3600 * 1000, "TIME",
     "Give up a connection that takes longer to open or to answer, and make a new one"},
    {"redis.output", OPTION_CHOICE, "stream", "stream|key|hash", 0, 0, NULL,
     "Where embeddings go: an entry per message (XADD), a key per text (SET), or a hash per text "
     "whose field `embedding` is the raw little-endian vector that vector search reads (HSET)"},
    {"redis.output_url", OPTION_SECRET, NULL, NULL, 0, 0, "URL",
     "Server to write to (default: redis.url); the same URL host, port and database as the source "
     "makes each message come out exactly once"},
    {"redis.output_stream", OPTION_TEXT, NULL, NULL, 0, 0, "KEY",
     "Stream for output=stream (default: the name of the input stream and :embeddings)"},
    {"redis.output_prefix", OPTION_TEXT, "embedding:", NULL, 0, 0, "TEXT",
     "What the keys of output=key and hash begin with; the id of the text follows"},
    {"redis.maxlen", OPTION_COUNT, "0", NULL, 0, INT64_C(1) << 53, "N",
     "Trim the output stream to about N entries, read or not; 0 keeps all"},
    {"redis.expire", OPTION_DURATION, "0s", NULL, 0, INT64_C(3650) * 24 * 3600 * 1000, "TIME",
     "Life of the keys of output=key and hash; 0 is for ever"},
    {"redis.dead_letters", OPTION_TEXT, NULL, NULL, 0, 0, "KEY",
     "Stream for messages that cannot be embedded (default: the name of the input stream and "
     ":dlq)"},
    {NULL, OPTION_TEXT, NULL, NULL, 0, 0, NULL, NULL},
};

static int read_url(struct redis_url *out, const struct settings *settings, const char *name,
                    char *err, size_t err_size)
{
    char why[240] = "";
    int rc = redis_url_parse(out, settings_text(settings, name), why, sizeof(why));

    if (rc)
        snprintf(err, err_size, "%s: %s", name, why);
    return rc;
}

/* A copy of the option, or of stream and suffix when it was not set. */
static char *read_name(const struct settings *settings, const char *name, const char *suffix)
{
    const char *text = settings_text(settings, name), *stream;
    char *copy;

    if (text && *text)
        return strdup(text);
    stream = settings_text(settings, "redis.stream");
    copy = malloc(strlen(stream) + strlen(suffix) + 1);
    if (copy)
        sprintf(copy, "%s%s", stream, suffix);
    return copy;
}

static int read_texts(struct redis_config *config, const struct settings *settings)
{
    const char *body = settings_text(settings, "redis.body");
    const char *consumer = settings_text(settings, "redis.consumer");
    const char *prefix = settings_text(settings, "redis.output_prefix");

    config->stream = strdup(settings_text(settings, "redis.stream"));
    config->group = strdup(settings_text(settings, "redis.group"));
    config->output_stream = read_name(settings, "redis.output_stream", ":embeddings");
    config->dead_letters = read_name(settings, "redis.dead_letters", ":dlq");
    config->output_prefix = strdup(prefix ? prefix : "");
    if (body && *body && !(config->body = strdup(body)))
        return -ENOMEM;
    if (consumer && *consumer && !(config->consumer = strdup(consumer)))
        return -ENOMEM;
    return config->stream && config->group && config->output_stream && config->dead_letters &&
                   config->output_prefix
               ? 0
               : -ENOMEM;
}

int redis_config_read(struct redis_config *out, const struct settings *settings, char *err,
                      size_t err_size)
{
    struct redis_config config = {0};
    const char *output = settings_text(settings, "redis.output");
    const char *output_url = settings_text(settings, "redis.output_url");
    int rc = read_url(&config.url, settings, "redis.url", err, err_size);

    if (rc)
        goto fail;
    rc = read_url(&config.output_url, settings,
                  output_url && *output_url ? "redis.output_url" : "redis.url", err, err_size);
    if (rc)
        goto fail;
    rc = read_texts(&config, settings);
    if (rc) {
        snprintf(err, err_size, "out of memory");
        goto fail;
    }
    if (!*config.stream || !*config.group) {
        snprintf(err, err_size, "%s is empty; give it a name",
                 *config.stream ? "redis.group" : "redis.stream");
        rc = -EINVAL;
        goto fail;
    }
    if (redis_url_same(&config.url, &config.output_url) &&
        (strcmp(config.stream, config.output_stream) == 0 ||
         strcmp(config.stream, config.dead_letters) == 0)) {
        snprintf(err, err_size,
                 "redis.output_stream or redis.dead_letters is the input stream '%s' itself: the "
                 "worker would read what it writes; choose another name",
                 config.stream);
        rc = -EINVAL;
        goto fail;
    }
    config.claim_idle_ms = (uint64_t)settings_number(settings, "redis.claim_idle");
    config.timeout_ms = (uint64_t)settings_number(settings, "redis.timeout");
    config.maxlen = (uint64_t)settings_number(settings, "redis.maxlen");
    config.expire_ms = (uint64_t)settings_number(settings, "redis.expire");
    if (strcmp(output, "key") == 0)
        config.output = REDIS_OUTPUT_KEY;
    else if (strcmp(output, "hash") == 0)
        config.output = REDIS_OUTPUT_HASH;
    *out = config;
    return 0;
fail:
    redis_config_clear(&config);
    return rc;
}

void redis_config_clear(struct redis_config *config)
{
    redis_url_clear(&config->url);
    redis_url_clear(&config->output_url);
    free(config->stream);
    free(config->group);
    free(config->consumer);
    free(config->body);
    free(config->output_stream);
    free(config->output_prefix);
    free(config->dead_letters);
    *config = (struct redis_config){0};
}

int redis_consumer_name(const struct redis_config *config, char **out, int *lock)
{
    /* Not by address: localhost, 127.0.0.1 and a socket may all be the one server. */
    const char *const purpose[] = {config->stream, config->group};

    *lock = -1;
    if (!config->consumer)
        return worker_name_hold("redis", purpose, out, lock);
    *out = strdup(config->consumer);
    return *out ? 0 : -ENOMEM;
}
