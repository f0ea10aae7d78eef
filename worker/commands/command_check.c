/*
 * command_check.c: `embedmill check`: would `run` start with these options on this machine?
 *
 * Threads: the main thread; no network.
 */
#include "worker/commands/checkup.h"
#include "worker/commands/command.h"

static const struct command_ending endings[] = {
    {COMMAND_OK, "Nothing is bad."},
    {COMMAND_USAGE, NULL},
    {COMMAND_NO_MODEL, NULL},
    {COMMAND_INTERNAL, "Too little memory, or too few open files."},
    {COMMAND_CONFIG, NULL},
    COMMAND_END,
};

static int run(const struct invocation *invocation)
{
    return checkup_run(invocation->options, NULL);
}

const struct command command_check = {
    .name = "check",
    .summary = "says whether `run` would start with these options; no network",
    .synopsis = "[--json] [--config FILE] [OPTION...]",
    .text = "Check the options of `run`, the model file, CPU, memory and limits, without using the "
            "network. It prints one line for each thing it checked; a line that says `bad` says "
            "what to do.",
    .endings = endings,
    .own = checkup_options,
    .printed = checkup_is_of_run,
    .run = run,
};
