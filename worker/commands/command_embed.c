/*
 * command_embed.c: `embedmill embed`, a filter: texts on standard input, embeddings on standard
 * output, in the same order. The same pipeline as the worker's, without a broker.
 */
#include <string.h>

#include "worker/commands/command.h"
#include "worker/commands/command_work.h"

static const char usage[] =
    "Usage: embedmill embed [OPTION...] <texts >embeddings\n"
    "\n"
    "Embed the lines of standard input: plain text, or JSON objects with `text`. One JSON object\n"
    "for each line goes to standard output, in the same order; its id is the line's number unless\n"
    "the line has one. Empty lines are skipped but counted. A line that cannot be embedded is "
    "told\n"
    "on standard error as `line 12: code: reason`, and the exit code is then 65.\n"
    "\n"
    "  --config FILE                   YAML file with any of the options, shared with `run`.\n"
    "  --format json|msgpack           The same as --output-format.\n"
    "  --print-config                  Check all values, print them and where each is from, and "
    "exit.\n"
    "  -h, --help                      Print this and exit.\n"
    "\n"
    "Exit codes: 0 all lines embedded; 64 a wrong flag; 65 some lines not embedded; 66 no usable\n"
    "model; 70 internal; 74 standard input or output failed or was closed; 75 told to stop and "
    "not\n"
    "done within drain_timeout; 78 a wrong environment or file; 129, 130, 143 told to stop by a "
    "signal.\n"
    "\n";

static const struct preset presets[] = {{"source", "stdin"},
                                        {"sink", "stdout"},
                                        {"output_format", "json"},
                                        {"log_level", "warn"},
                                        {NULL, NULL}};

static bool is_wanted(const char *name)
{
    static const char *const others[] = {"source", "sink", "max_deliveries",
                                         "undeliverable"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(name, others[i]) == 0)
            return false;
    return !strchr(name, '.') || strncmp(name, "stdin.", 6) == 0;
}

int command_embed(int argc, char **argv, void (*leave)(int code))
{
    const struct work work = {.command = "embed",
                              .usage = usage,
                              .presets = presets,
                              .wanted = is_wanted,
                              .is_filter = true,
                              .leave = leave};
    return command_work(&work, argc, argv);
}
