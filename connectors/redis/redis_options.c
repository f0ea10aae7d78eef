/*
 * redis_options.c: the redis.* options and what they mean.
 *
 * Owns:    names, defaults and help of the options; the default consumer name.
 * Refuses: nothing but what cannot be one (a URL that is none, an empty name).
 * Threads: the loop thread, at open.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "connectors/redis/redis.h"
#include "connectors/redis/redis_reply.h"
#include "connectors/redis/redis_tags.h"
#include "connectors/worker_name.h"

const struct option redis_options[] = {
    {"redis.url", OPTION_SECRET, "redis://127.0.0.1:6379/0", NULL, 0, 0, "URL",
     "Server to read from: redis://[user[:password]@]host[:port][/db], unix:///path[?db=N], "
     "redis+sentinel://[user[:password]@]host[,host...]/master[/db] or "
     "redis+cluster://[user[:password]@]host[,host...]; rediss: over TLS"},
    {"redis.stream", OPTION_TEXT, "texts", NULL, 0, 0, "KEY,...",
     "Streams to read, in fair turns; all on this server and database. In a cluster their names "
     "share a hash tag: {texts}. With {model} in each of them every model reads its own"},
    {"redis.group", OPTION_TEXT, "embedmill", NULL, 0, 0, "NAME",
     "Consumer group of each stream; a missing one is created at the start of its stream"},
    {"redis.consumer", OPTION_TEXT, NULL, NULL, 0, 0, "NAME",
     "Name in the group; must be stable over restarts and no two living workers may share it "
     "(default: HOST-N with the lowest N no other worker of this machine has)"},
    {"redis.body", OPTION_TEXT, "", NULL, 0, 0, "FIELD",
     "Field that holds the payload; the others travel along (default: body, else text)"},
    {"redis.claim_idle", OPTION_DURATION, "60s", NULL, 0, INT64_C(7) * 24 * 3600 * 1000, "TIME",
     "Take over the messages of a worker that has been silent for this long; 0: never"},
    {"redis.timeout", OPTION_DURATION, "5s", NULL, 100, 3600 * 1000, "TIME",
     "Drop a connection that takes longer to open or to answer, and reconnect"},
    {"redis.tls_ca", OPTION_TEXT, NULL, NULL, 0, 0, "FILE",
     "CA certificates to verify the server with, PEM (default: the system's)"},
    {"redis.tls_cert", OPTION_TEXT, NULL, NULL, 0, 0, "FILE",
     "Client certificate, PEM, for servers that ask for one"},
    {"redis.tls_key", OPTION_TEXT, NULL, NULL, 0, 0, "FILE", "Its key, PEM"},
    {"redis.output", OPTION_CHOICE, "stream", "stream|key|hash", 0, 0, NULL,
     "Where embeddings go: an entry per message (XADD), a key per text (SET), or a hash per text "
     "whose field `embedding` is the raw little-endian vector that vector search reads (HSET)"},
    {"redis.output_url", OPTION_SECRET, NULL, NULL, 0, 0, "URL",
     "Server to write to (default: redis.url); when it is the server and database of the source, "
     "each message comes out exactly once"},
    {"redis.output_stream", OPTION_TEXT, NULL, NULL, 0, 0, "KEY",
     "Stream for output=stream (default: the name of each input stream with :embeddings)"},
    {"redis.output_prefix", OPTION_TEXT, "embedding:", NULL, 0, 0, "TEXT",
     "Prefix of the keys of output=key and hash; the id of the text follows"},
    {"redis.maxlen", OPTION_COUNT, "0", NULL, 0, INT64_C(1) << 53, "N",
     "Trim the output stream to about N entries, read or not; 0 keeps all"},
    {"redis.expire", OPTION_DURATION, "0s", NULL, 0, INT64_C(3650) * 24 * 3600 * 1000, "TIME",
     "Expiry of the keys of output=key and hash; 0: never"},
    {"redis.dead_letters", OPTION_TEXT, NULL, NULL, 0, 0, "KEY",
     "Stream for messages that cannot be embedded (default: the name of each input stream with "
     ":dlq)"},
    {NULL, OPTION_TEXT, NULL, NULL, 0, 0, NULL, NULL},
};

enum sink_layout redis_layout(const struct settings *settings)
{
    static const enum sink_layout layouts[] = {SINK_PER_MESSAGE, SINK_PER_TEXT, SINK_VECTORS};
    return layouts[settings_choice(settings, "redis.output")];
}

/* bad_option: the option that is being read. */
static int read_urls(struct redis_config *config, const struct settings *settings,
                     const char **bad_option, char *err, size_t err_size)
{
    const char *output_url = settings_text(settings, "redis.output_url");

    *bad_option = "redis.url";
    int rc = redis_url_parse(&config->url, settings_text(settings, *bad_option), err, err_size);
    if (rc)
        return rc;
    if (output_url && *output_url)
        *bad_option = "redis.output_url";
    /* Without redis.output_url the same text, parsed once more. */
    return redis_url_parse(&config->output_url, settings_text(settings, *bad_option), err,
                           err_size);
}

static int read_tls(struct redis_config *config, const struct settings *settings,
                    const char **bad_option, char *err, size_t err_size)
{
    struct tls_files files = {settings_text(settings, "redis.tls_ca"),
                              settings_text(settings, "redis.tls_cert"),
                              settings_text(settings, "redis.tls_key"),
                              "redis.tls_ca",
                              "redis.tls_cert",
                              "redis.tls_key"};

    if (!config->url.tls && !config->output_url.tls)
        return 0;
    return tls_context_open(&config->tls, &files, bad_option, err, err_size);
}

static int read_streams(struct redis_config *config, const struct settings *settings,
                        const char **bad_option, char *err, size_t err_size)
{
    static const char *const names[] = {"redis.output_stream", "redis.dead_letters"};
    const char *to[2];

    for (size_t i = 0; i < 2; i++) {
        to[i] = settings_text(settings, names[i]);
        if (!to[i] || !strchr(to[i], ','))
            continue;
        *bad_option = names[i];
        snprintf(err, err_size,
                 "expected one name without a comma; leave it out, and each input "
                 "stream has one of its own");
        return -EINVAL;
    }
    *bad_option = "redis.dead_letters";
    if (settings_has_model(settings, "redis.stream") && settings_has(settings, *bad_option) &&
        !settings_has_model(settings, *bad_option)) {
        snprintf(err, err_size,
                 "each model has an input stream of its own, which its dead letters go back to: "
                 "put " SETTINGS_MODEL " into this name, too, or leave it out");
        return -EINVAL;
    }
    *bad_option = "redis.stream";
    return redis_streams_read(&config->streams, settings_text(settings, *bad_option), to[0], to[1],
                              err, err_size);
}

static int read_texts(struct redis_config *config, const struct settings *settings)
{
    const char *prefix = settings_text(settings, "redis.output_prefix");

    config->group = strdup(settings_text(settings, "redis.group"));
    config->output_prefix = strdup(prefix ? prefix : "");
    if (settings_copy(settings, "redis.body", &config->body) ||
        settings_copy(settings, "redis.consumer", &config->consumer))
        return -ENOMEM;
    return config->group && config->output_prefix ? 0 : -ENOMEM;
}

const char *redis_config_loop(const struct redis_config *config, const char **stream)
{
    const struct redis_streams *streams = &config->streams;

    for (size_t i = 0; i < streams->n; i++) {
        const struct redis_stream *from = &streams->items[i];
        *stream = from->output;
        if (config->output == REDIS_OUTPUT_STREAM &&
            redis_streams_find(streams, bytes_of(from->output)))
            return "redis.output_stream";
        *stream = from->dead_letters;
        if (redis_streams_find(streams, bytes_of(from->dead_letters)))
            return "redis.dead_letters";
    }
    return NULL;
}

/* A sink alone does not read what it writes. */
static bool is_read(const struct settings *settings)
{
    return !settings_find(settings, "source") || settings_is(settings, "source", "redis");
}

static int check_names(const struct redis_config *config, const struct settings *settings,
                       const char **bad_option, char *err, size_t err_size)
{
    const char *stream;

    *bad_option = "redis.group";
    if (!*config->group) {
        snprintf(err, err_size, "expected a name, got nothing");
        return -EINVAL;
    }
    *bad_option = is_read(settings) ? redis_config_loop(config, &stream) : NULL;
    if (*bad_option && redis_url_same(&config->url, &config->output_url)) {
        snprintf(err, err_size, REDIS_LOOP_PHRASE, stream);
        return -EINVAL;
    }
    /* Two hosts may be one server, which the sink finds out; two databases never are one. */
    if (config->exactly_once && is_read(settings) && settings_is(settings, "sink", "redis") &&
        config->url.db != config->output_url.db) {
        *bad_option = "redis.output_url";
        snprintf(err, err_size, REDIS_APART_PHRASE);
        return -EINVAL;
    }
    return 0;
}

static int find_slots(struct redis_config *config, const struct settings *settings,
                      const char **bad_option, char *err, size_t err_size)
{
    bool is_written = !settings_find(settings, "sink") || settings_is(settings, "sink", "redis");
    const struct redis_tags_use use = {
        .is_read = is_read(settings) && config->url.is_cluster,
        .is_written = is_written && config->output_url.is_cluster,
        .is_same = redis_url_same(&config->url, &config->output_url),
        .output_is_named = settings_has(settings, "redis.output_stream"),
        .dead_letters_are_named = settings_has(settings, "redis.dead_letters"),
    };

    return redis_tags_check(config, &use, bad_option, err, err_size);
}

static int config_read(void *out, const struct settings *settings, const char **bad_option,
                       char *err, size_t err_size)
{
    struct redis_config config = {.slot = -1, .output_slot = -1};
    int rc = read_urls(&config, settings, bad_option, err, err_size);

    if (rc == 0)
        rc = read_tls(&config, settings, bad_option, err, err_size);
    if (rc == 0)
        rc = read_streams(&config, settings, bad_option, err, err_size);
    if (rc == 0)
        rc = read_texts(&config, settings);
    if (rc)
        goto fail;
    config.claim_idle_ms = (uint64_t)settings_number(settings, "redis.claim_idle");
    config.timeout_ms = (uint64_t)settings_number(settings, "redis.timeout");
    config.maxlen = (uint64_t)settings_number(settings, "redis.maxlen");
    config.expire_ms = (uint64_t)settings_number(settings, "redis.expire");
    config.output = (enum redis_output)settings_choice(settings, "redis.output");
    config.exactly_once = settings_is(settings, "delivery", "exactly-once");
    rc = check_names(&config, settings, bad_option, err, err_size);
    if (rc == 0)
        rc = find_slots(&config, settings, bad_option, err, err_size);
    if (rc)
        goto fail;
    /* From here on the caller clears it. */
    *(struct redis_config *)out = config;
    return 0;
fail:
    redis_config_clear(&config);
    return rc;
}

int redis_config_read(struct redis_config *out, const struct settings *settings, char *err,
                      size_t err_size)
{
    return settings_read(config_read, out, settings, err, err_size);
}

int redis_config_check(const struct settings *settings, const char **bad_option, char *err,
                       size_t err_size)
{
    struct redis_config config = {0};
    int rc = config_read(&config, settings, bad_option, err, err_size);

    redis_config_clear(&config);
    return rc;
}

void redis_config_clear(struct redis_config *config)
{
    redis_url_clear(&config->url);
    redis_url_clear(&config->output_url);
    tls_context_close(config->tls);
    redis_streams_clear(&config->streams);
    free(config->group);
    free(config->consumer);
    free(config->body);
    free(config->output_prefix);
    *config = (struct redis_config){0};
}

int redis_consumer_name(const struct redis_config *config, char **out, int *locks)
{
    size_t n = config->streams.n;
    const char **names;

    for (size_t i = 0; i < n; i++)
        locks[i] = -1;
    if (config->consumer) {
        *out = strdup(config->consumer);
        return *out ? 0 : -ENOMEM;
    }
    names = malloc(n * sizeof(*names));
    if (!names)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        names[i] = config->streams.items[i].name;
    /* Not by address: localhost, 127.0.0.1 and a socket may all be the one server. */
    int rc = worker_name_hold("redis", names, n, config->group, out, locks);
    free(names);
    return rc;
}
