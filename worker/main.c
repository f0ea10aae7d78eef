/*
 * main.c: from the name of a command to its exit code; the one place that exits.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "worker/command.h"

static const char usage[] =
    "Usage: embedmill COMMAND [OPTION...]\n"
    "\n"
    "  run       the worker: texts from a message queue, embeddings to a message queue\n"
    "  embed     texts on standard input, embeddings on standard output; needs no broker\n"
    "  dlq       dead letters: list them, put them back on the input\n"
    "  version   what this program is and was built with\n"
    "\n"
    "embedmill COMMAND --help lists the options of a command.\n";

static void leave(int code)
{
    _exit(code);
}

/* Output that could not be written (a full disk under --print-config) is a failure, too. */
static int finish(int code)
{
    if (fflush(stdout) != 0 && code == COMMAND_OK)
        return COMMAND_IO;
    return code;
}

/*
 * A descriptor below 3 that came closed would be given to the next file or socket opened, and
 * results would be written into it. It is taken up in the mode it cannot be used in, so that using
 * it is the error it was before.
 */
static void keep_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)!open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

int main(int argc, char **argv)
{
    keep_standard_descriptors();
    const char *command = argc > 1 ? argv[1] : "";
    if (strcmp(command, "run") == 0)
        return finish(command_run(argc - 2, argv + 2, leave));
    if (strcmp(command, "embed") == 0)
        return finish(command_embed(argc - 2, argv + 2, leave));
    if (strcmp(command, "dlq") == 0)
        return finish(command_dlq(argc - 2, argv + 2));
    if (strcmp(command, "version") == 0 || strcmp(command, "--version") == 0)
        return finish(command_version(argc - 2, argv + 2));
    if (strcmp(command, "help") == 0 || strcmp(command, "--help") == 0 ||
        strcmp(command, "-h") == 0) {
        fputs(usage, stdout);
        return finish(COMMAND_OK);
    }
    if (command[0])
        fprintf(stderr, "embedmill: %s: there is no such command\n\n", command);
    fputs(usage, stderr);
    return COMMAND_USAGE;
}
