/*
 * command_schema.c: `embedmill schema`: the statements that create what a sink writes into.
 *
 * Owns:    the dimension, which the model has unless an option says it.
 * Refuses: to run them: creating tables is the right of somebody else than the worker.
 * Threads: the main thread; there is no loop.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "connectors/connector.h"
#include "inference/embed.h"
#include "worker/commands/command.h"
#include "worker/commands/command_line.h"
#include "worker/commands/config_check.h"

static const struct command_ending endings[] = {
    {COMMAND_OK, NULL},       {COMMAND_USAGE, NULL},  {COMMAND_NO_MODEL, NULL},
    {COMMAND_INTERNAL, NULL}, {COMMAND_CONFIG, NULL}, COMMAND_END,
};

static int prepare(const struct invocation *invocation)
{
    return command_line_check("schema", invocation->options, config_check);
}

/* COMMAND_OK, or the exit code and all is said. */
static int find_dim(const struct settings *settings, size_t *dim)
{
    char err[700];
    struct model *model;
    *dim = strtoul(settings_text(settings, "dim"), NULL, 10);
    if (*dim)
        return COMMAND_OK;
    int code = command_line_open_model(settings, &model, err, sizeof err);
    if (code != COMMAND_OK)
        return command_line_fail("schema", code, err);
    *dim = model_info(model)->dim;
    model_close(model);
    return COMMAND_OK;
}

static int run(const struct invocation *invocation)
{
    const struct settings *settings = invocation->settings;
    const struct connector *sink = connector_find(settings_text(settings, "sink"));
    char err[700];
    size_t dim;
    if (!sink->schema) {
        snprintf(err, sizeof err, "the sink %s needs no schema", sink->name);
        return command_line_fail("schema", COMMAND_USAGE, err);
    }
    int code = find_dim(settings, &dim);
    if (code != COMMAND_OK)
        return code;
    int rc = sink->schema(settings, dim, stdout, err, sizeof err);
    if (rc)
        return command_line_fail("schema", rc == -ENOMEM ? COMMAND_INTERNAL : COMMAND_CONFIG, err);
    return COMMAND_OK;
}

const struct command command_schema = {
    .name = "schema",
    .summary = "prints the SQL that creates the tables of a sink",
    .synopsis = "--sink SINK [--config FILE] [OPTION...]",
    .text =
        "Print the SQL that creates the tables that the sink writes into, where they are missing: "
        "pipe it into the database's own client. Options are those of `run`. Without --dim a "
        "vector has as many values as the model gives.",
    .endings = endings,
    .prepare = prepare,
    .run = run,
};
