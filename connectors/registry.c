/*
 * registry.c: the connectors there are. Adding one is its files and one line here.
 */
#include <string.h>

#include "connectors/check.h"
#include "connectors/connector.h"
#include "connectors/file.h"
#include "connectors/kafka.h"
#include "connectors/kafka_letters.h"
#include "connectors/letters.h"
#include "connectors/redis.h"
#include "connectors/redis_letters.h"
#include "connectors/stdio.h"

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

static const struct letters_ops *const all_letters[] = {
    &redis_letters,
    &kafka_letters,
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

const struct letters_ops *letters_find(const char *sink)
{
    for (size_t i = 0; all_letters[i]; i++)
        if (strcmp(all_letters[i]->name, sink) == 0)
            return all_letters[i];
    return NULL;
}
