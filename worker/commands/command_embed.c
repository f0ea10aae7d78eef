/*
 * command_embed.c: `embedmill embed`, a filter: texts on standard input, embeddings on standard
 * output, in the same order. The same pipeline as the worker's, without a broker.
 */
#include <string.h>

#include "worker/commands/command.h"
#include "worker/commands/command_work.h"
#include "worker/config/name.h"

static const struct command_ending endings[] = {
    {COMMAND_OK, "All lines are embedded."},
    {COMMAND_USAGE, NULL},
    {COMMAND_DATA, "Some lines are not embedded; standard error says which and why."},
    {COMMAND_NO_MODEL, NULL},
    {COMMAND_INTERNAL, NULL},
    {COMMAND_IO, "Standard input or output failed or was closed."},
    {COMMAND_DEADLINE, "Stopped by a signal, and not finished within drain_timeout."},
    {COMMAND_CONFIG, NULL},
    COMMAND_SIGNALLED,
    COMMAND_END,
};

static const struct flag_alias aliases[] = {{"--format", "output_format"}, {NULL, NULL}};

static const struct preset presets[] = {{"source", "stdin"},
                                        {"sink", "stdout"},
                                        {"output_format", "json"},
                                        {"log_level", "warn"},
                                        {NULL, NULL}};

static bool is_wanted(const char *name)
{
    static const char *const others[] = {"source", "sink", "max_deliveries", "undeliverable",
                                         "allow_mixed"};
    return !name_in(name, others, sizeof others / sizeof others[0]) &&
           (!strchr(name, '.') || strncmp(name, "stdin.", 6) == 0);
}

static const struct work embed = {.command = "embed", .wanted = is_wanted, .is_filter = true};

static int prepare(const struct invocation *invocation)
{
    return command_work_prepare(&embed, invocation->options);
}

static int run(const struct invocation *invocation)
{
    struct work work = embed;
    work.leave = invocation->leave;
    return command_work_run(&work, invocation->settings);
}

const struct command command_embed = {
    .name = "embed",
    .summary = "embeds the lines of standard input; needs no broker",
    .synopsis = "[OPTION...] <texts >embeddings",
    .text = "Embed the lines of standard input: plain text, or JSON objects with `text`. One JSON "
            "object for each line goes to standard output, in the same order. Its id is the line's "
            "number unless the line has an id. Empty lines are counted and skipped. A line that "
            "cannot be embedded is reported on standard error as `line 12: code: reason`, and the "
            "exit code is then 65.",
    .endings = endings,
    .presets = presets,
    .syntax = {.aliases = aliases},
    .wanted = is_wanted,
    .prepare = prepare,
    .run = run,
};
