/*
 * command_check.c: `embedmill check`: would `run` start with these options on this machine?
 *
 * Threads: the main thread; no network.
 */
#include "worker/commands/checkup.h"
#include "worker/commands/command.h"

static const char usage[] =
    "Usage: embedmill check [--json] [--config FILE] [OPTION...]\n"
    "\n"
    "Check the options of `run`, the model file, CPU, memory and limits, without any network. One\n"
    "line for each thing looked at; what is `bad` says what to do.\n"
    "\n"
    "  --print-config                  Print all values and where each is from, and exit.\n"
    "\n"
    "Exit codes: 0 nothing bad; 64 wrong usage; 66 no usable model; 70 too little memory or "
    "files;\n"
    "78 wrong configuration.\n"
    "\n";

int command_check(int argc, char **argv)
{
    const struct checkup checkup = {.command = "check", .usage = usage};
    return checkup_run(&checkup, argc, argv);
}
