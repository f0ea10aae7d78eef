/*
 * registry.c: the connectors there are. Adding one is its files and one line here.
 */
#include <string.h>

#include "connectors/check.h"
#include "connectors/connector.h"
#include "connectors/file/file.h"
#include "connectors/kafka/kafka.h"
#include "connectors/kafka/kafka_dead_letters.h"
#include "connectors/dead_letters.h"
#include "connectors/redis/redis.h"
#include "connectors/redis/redis_dead_letters.h"
#include "connectors/file/lines.h"

const struct source_ops *const all_sources[] = {
    &redis_source_ops, &kafka_source_ops, &stdin_source, &file_source, NULL,
};

const struct sink_ops *const all_sinks[] = {
    &redis_sink_ops, &kafka_sink_ops, &stdout_sink, &file_sink, NULL,
};

static const struct connector_check *const all_checks[] = {
    &redis_check,
    &kafka_check,
    NULL,
};

const struct connector_check *check_find(const char *name)
{
    for (size_t i = 0; all_checks[i]; i++)
        if (strcmp(all_checks[i]->name, name) == 0)
            return all_checks[i];
    return NULL;
}

static const struct dead_letters_ops *const all_dead_letters[] = {
    &redis_dead_letters,
    &kafka_dead_letters,
    NULL,
};

const struct source_ops *source_find(const char *name)
{
    for (size_t i = 0; all_sources[i]; i++)
        if (strcmp(all_sources[i]->name, name) == 0)
            return all_sources[i];
    return NULL;
}

const struct sink_ops *sink_find(const char *name)
{
    for (size_t i = 0; all_sinks[i]; i++)
        if (strcmp(all_sinks[i]->name, name) == 0)
            return all_sinks[i];
    return NULL;
}

const struct dead_letters_ops *dead_letters_find(const char *sink)
{
    for (size_t i = 0; all_dead_letters[i]; i++)
        if (strcmp(all_dead_letters[i]->name, sink) == 0)
            return all_dead_letters[i];
    return NULL;
}
