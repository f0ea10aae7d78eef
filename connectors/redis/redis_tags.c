/*
 * redis_tags.c: see redis_tags.h.
 */
#include "connectors/redis/redis_tags.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "connectors/redis/redis_reply.h"
#include "connectors/redis/redis_slot.h"

#define SHOWN 100 /* bytes of a name in the sentence */

/* What is compared, in the order in which it is looked at: the first key says which slot it is. */
struct search {
    const struct redis_config *config;
    const struct redis_tags_use *use;
    const char *first; /* NULL: no key yet */
    int slot;
    const char *other, *option; /* the first that is elsewhere, and what names it; NULL: none */
    bool is_spread;             /* the other one is a prefix of keys in any slots */
};

static void look(struct search *search, const char *key, const char *option)
{
    int slot = redis_slot_of(bytes_of(key));

    /* The first that differs is enough for the sentence. */
    if (search->other)
        return;
    if (!search->first) {
        search->first = key;
        search->slot = slot;
    } else if (slot != search->slot) {
        search->other = key;
        search->option = option;
    }
}

static void look_at_inputs(struct search *search)
{
    const struct redis_streams *streams = &search->config->streams;

    for (size_t i = 0; i < streams->n; i++)
        look(search, streams->items[i].name, "redis.stream");
}

/* The ids of texts follow the prefix: only a tag in it keeps them together. */
static void look_at_prefix(struct search *search)
{
    const char *prefix = search->config->output_prefix;
    struct bytes tag;

    if (search->other)
        return;
    if (redis_slot_tag(bytes_of(prefix), &tag)) {
        look(search, prefix, "redis.output_prefix");
    } else {
        search->other = prefix;
        search->option = "redis.output_prefix";
        search->is_spread = true;
    }
}

static void look_at_outputs(struct search *search)
{
    const struct redis_config *config = search->config;
    const struct redis_streams *streams = &config->streams;

    for (size_t i = 0; i < streams->n; i++)
        look(search, streams->items[i].dead_letters,
             search->use->dead_letters_are_named ? "redis.dead_letters" : "redis.stream");
    for (size_t i = 0; i < streams->n && config->output == REDIS_OUTPUT_STREAM; i++)
        look(search, streams->items[i].output,
             search->use->output_is_named ? "redis.output_stream" : "redis.stream");
    if (config->output != REDIS_OUTPUT_STREAM)
        look_at_prefix(search);
}

/* " redis.output_stream '{texts}:out'": the name with the tag, if it has none yet. */
static size_t advise(char *out, size_t size, const char *option, struct bytes tag, const char *name)
{
    struct bytes own;
    bool is_tag = strlen(name) == tag.len && memcmp(name, tag.ptr, tag.len) == 0;
    int len;

    if (redis_slot_tag(bytes_of(name), &own) && bytes_equal(own, tag))
        len = snprintf(out, size, ", %s '%.*s'", option, SHOWN, name);
    else if (is_tag)
        len = snprintf(out, size, ", %s '{%.*s}'", option, SHOWN, name);
    else
        len = snprintf(out, size, ", %s '{%.*s}:%.*s'", option, (int)tag.len, tag.ptr, SHOWN, name);
    return len > 0 && (size_t)len < size ? (size_t)len : 0;
}

/* The names to use: the first stream's tag, or the stream's name as one, on all that is named. */
static void advise_all(const struct search *search, char *out, size_t size)
{
    const struct redis_config *config = search->config;
    const struct redis_tags_use *use = search->use;
    const struct redis_stream *stream = &config->streams.items[0];
    struct bytes tag;
    size_t len = 0;

    out[0] = '\0';
    if (!redis_slot_tag(bytes_of(stream->name), &tag))
        tag = bytes_of(stream->name);
    if (tag.len > 40)
        tag = bytes_of("texts");
    if (use->is_read || !use->output_is_named || !use->dead_letters_are_named)
        for (size_t i = 0; i < config->streams.n && i < 2; i++)
            len += advise(out + len, size - len, i ? "and" : "redis.stream", tag,
                          config->streams.items[i].name);
    if (!use->is_written)
        return;
    if (use->output_is_named && config->output == REDIS_OUTPUT_STREAM)
        len += advise(out + len, size - len, "redis.output_stream", tag, stream->output);
    if (use->dead_letters_are_named)
        len += advise(out + len, size - len, "redis.dead_letters", tag, stream->dead_letters);
    if (config->output != REDIS_OUTPUT_STREAM)
        advise(out + len, size - len, "redis.output_prefix", tag, config->output_prefix);
}

static int refuse(const struct search *search, const char **bad_option, char *err, size_t err_size)
{
    char names[500];

    *bad_option = search->option;
    advise_all(search, names, sizeof(names));
    if (search->is_spread)
        snprintf(err, err_size,
                 "keys that begin with '%.*s' are all over the cluster, and those of a worker must "
                 "be in one slot: give all names one tag in braces%s",
                 SHOWN, search->other, names);
    else
        snprintf(err, err_size,
                 "'%.*s' is in another slot of the cluster than '%.*s', and the keys of a worker "
                 "must be in one: give all names one tag in braces%s",
                 SHOWN, search->other, SHOWN, search->first, names);
    return -EINVAL;
}

int redis_tags_check(struct redis_config *config, const struct redis_tags_use *use,
                     const char **bad_option, char *err, size_t err_size)
{
    struct search inputs = {.config = config, .use = use}, outputs = inputs;

    assert(config->streams.n);
    if (use->is_read)
        look_at_inputs(&inputs);
    if (inputs.other)
        return refuse(&inputs, bad_option, err, err_size);
    /* In another cluster they may be in another slot. */
    if (use->is_read && use->is_same)
        outputs = inputs;
    if (use->is_written)
        look_at_outputs(&outputs);
    if (outputs.other)
        return refuse(&outputs, bad_option, err, err_size);
    config->slot =
        config->url.is_cluster ? redis_slot_of(bytes_of(config->streams.items[0].name)) : -1;
    config->output_slot = config->output_url.is_cluster
                              ? redis_slot_of(bytes_of(config->streams.items[0].dead_letters))
                              : -1;
    return 0;
}
