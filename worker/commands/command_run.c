/*
 * command_run.c: `embedmill run`, the worker: from a source to a sink until it is told to stop.
 */
#include "worker/commands/command.h"
#include "worker/commands/command_work.h"

static const struct command_ending endings[] = {
    {COMMAND_OK, "Stopped by a signal; all messages taken are finished."},
    {COMMAND_USAGE, NULL},
    {COMMAND_NO_MODEL, NULL},
    {COMMAND_UNAVAILABLE, "Source or sink refuses, and retrying would not help."},
    {COMMAND_INTERNAL, NULL},
    {COMMAND_DEADLINE,
     "The drain deadline passed, or the last acks were not confirmed. What was not "
     "finished or not acked is delivered again."},
    {COMMAND_CONFIG, NULL},
    {COMMAND_HANGUP, "A second signal, SIGHUP."},
    {COMMAND_INTERRUPTED, "A second signal, SIGINT."},
    {COMMAND_TERMINATED, "A second signal, SIGTERM."},
    COMMAND_END,
};

static const struct flag_alias aliases[] = {{"--format", "output_format"}, {NULL, NULL}};

static int run(const struct invocation *invocation)
{
    const struct work work = {.command = "run", .leave = invocation->leave};
    return command_work_run(&work, invocation->settings);
}

static int prepare(const struct invocation *invocation)
{
    const struct work work = {.command = "run"};
    return command_work_prepare(&work, invocation->options);
}

const struct command command_run = {
    .name = "run",
    .summary = "the worker: embeds texts from a message queue into a queue or a store",
    .synopsis = "[--config FILE] [OPTION...]",
    .text =
        "Read texts from a source, embed them, and write the embeddings to a sink. SIGTERM, "
        "SIGINT and SIGHUP finish what was taken; a second signal exits at once. SIGUSR1 logs "
        "counters.\n\n"
        "An option --metrics-listen is also EMBEDMILL_METRICS_LISTEN in the environment and "
        "metrics.listen in the file. A flag overrides the environment, the environment overrides "
        "the file. An empty variable counts as not set. A secret can be read from a file: "
        "EMBEDMILL_<NAME>_FILE=/run/secrets/name.",
    .endings = endings,
    .syntax = {.aliases = aliases},
    .prepare = prepare,
    .run = run,
};
