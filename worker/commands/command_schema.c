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
#include "worker/commands/work_options.h"

static const struct command_ending endings[] = {
    {COMMAND_OK, NULL},       {COMMAND_USAGE, NULL},  {COMMAND_NO_MODEL, NULL},
    {COMMAND_INTERNAL, NULL}, {COMMAND_CONFIG, NULL}, COMMAND_END,
};

static int prepare(const struct invocation *invocation)
{
    return command_line_check("schema", invocation->options, config_check);
}

/* path: of one of several models; NULL: the only one. *dim is 0 for a reranker, which has no table.
 * COMMAND_OK, or the exit code and all is said. */
static int find_dim(const struct settings *settings, const char *path, size_t *dim)
{
    char err[700];
    struct model *model;
    *dim = strtoul(settings_text(settings, "dim"), NULL, 10);
    if (*dim)
        return COMMAND_OK;
    int code = path ? command_line_open_file(settings, path, &model, err, sizeof err)
                    : command_line_open_model(settings, &model, err, sizeof err);
    if (code != COMMAND_OK)
        return command_line_fail("schema", code, err);
    *dim = model_info(model)->is_reranker ? 0 : model_info(model)->dim;
    model_close(model);
    return COMMAND_OK;
}

static int print(const struct settings *settings, const struct connector *sink, const char *path)
{
    char err[700];
    size_t dim;
    int code = find_dim(settings, path, &dim);
    if (code != COMMAND_OK || dim == 0)
        return code;
    int rc = sink->schema(settings, dim, stdout, err, sizeof err);
    if (rc)
        return command_line_fail("schema", rc == -ENOMEM ? COMMAND_INTERNAL : COMMAND_CONFIG, err);
    return COMMAND_OK;
}

static int run(const struct invocation *invocation)
{
    const struct settings *settings = invocation->settings;
    const struct connector *sink = connector_find(settings_text(settings, "sink"));
    struct setting model;
    char err[100];
    int code = COMMAND_OK;
    if (!sink->schema) {
        snprintf(err, sizeof err, "the sink %s needs no schema", sink->name);
        return command_line_fail("schema", COMMAND_USAGE, err);
    }
    if (!work_options_have_outputs(settings))
        return print(settings, sink, NULL);
    /* The tables of each model have its name in theirs. */
    for (size_t i = 0; code == COMMAND_OK && (model = settings_pair(settings, "models", i)).name;
         i++) {
        struct settings *own;
        if (settings_of_model(&own, settings, model.name))
            return command_line_fail("schema", COMMAND_INTERNAL, "out of memory");
        code = print(own, sink, model.value);
        settings_close(own);
    }
    return code;
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
