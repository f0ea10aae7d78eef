/*
 * command_run.c: `embedmill run`, the worker: from a source to a sink until it is told to stop.
 */
#include "worker/commands/command.h"
#include "worker/commands/command_work.h"

static const char usage[] =
    "Usage: embedmill run [--config FILE] [OPTION...]\n"
    "\n"
    "Read texts from a source, embed them, write the embeddings to a sink.\n"
    "SIGTERM, SIGINT and SIGHUP finish what was taken; a second one exits at once. SIGUSR1 logs\n"
    "counters.\n"
    "\n"
    "  --config FILE                   YAML file with any of the options below.\n"
    "  --print-config                  Check all values, print them and where each is from, and "
    "exit.\n"
    "  -h, --help                      Print this and exit.\n"
    "\n"
    "An option --redis-stream is also EMBEDMILL_REDIS_STREAM in the environment and redis.stream\n"
    "in the file. Flags go before the environment, the environment before the file. A variable\n"
    "that is empty counts as not set.\n"
    "A secret can be read from a file: EMBEDMILL_<NAME>_FILE=/run/secrets/name.\n"
    "\n"
    "Exit codes: 0 stopped when told to, everything finished; 64 a wrong flag; 66 no usable "
    "model;\n"
    "69 source or sink refuses for good; 70 internal; 75 the drain deadline passed, or the last\n"
    "acks were not confirmed (what was not finished or not acked is delivered again); 78 a wrong\n"
    "environment or file; 129, 130, 143 a second signal.\n"
    "\n";

int command_run(int argc, char **argv, void (*leave)(int code))
{
    const struct work work = {.command = "run", .usage = usage, .leave = leave};
    return command_work(&work, argc, argv);
}
