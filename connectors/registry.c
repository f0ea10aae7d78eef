/*
 * registry.c: the connectors of this build.
 *
 * Owns:    the list, which CMakeLists.txt makes: EMBEDMILL_CONNECTORS is CONNECTOR(redis)
 *          CONNECTOR(kafka) ... in the order of --help; each names a struct, `redis_connector`.
 */
#include <string.h>

#include "connectors/connector.h"

#define CONNECTOR(name) extern const struct connector name##_connector;
EMBEDMILL_CONNECTORS
#undef CONNECTOR

#define CONNECTOR(name) &name##_connector,
const struct connector *const all_connectors[] = {EMBEDMILL_CONNECTORS NULL};

const struct option shared_options[] = {
    {"delivery", OPTION_CHOICE, "at-least-once", "at-least-once|exactly-once", 0, 0, "WHAT",
     "exactly-once publishes an output and acknowledges its input in one step: from Kafka to Kafka "
     "in a transaction, from Kafka to PostgreSQL with the offsets in a table. From Redis to Redis "
     "on one server every message comes out exactly once anyway."},
    {NULL, OPTION_TEXT, NULL, NULL, 0, 0, NULL, NULL},
};

const struct connector *connector_find(const char *name)
{
    for (size_t i = 0; all_connectors[i]; i++)
        if (strcmp(all_connectors[i]->name, name) == 0)
            return all_connectors[i];
    return NULL;
}

const struct source_ops *source_find(const char *name)
{
    const struct connector *connector = connector_find(name);
    return connector ? connector->source : NULL;
}

const struct sink_ops *sink_find(const char *name)
{
    const struct connector *connector = connector_find(name);
    return connector ? connector->sink : NULL;
}
