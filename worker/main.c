/*
 * main.c: from the name of a command to its exit code; the one place that exits.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "worker/commands/command.h"
#include "worker/commands/command_help.h"

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
    signal(SIGXFSZ,
           SIG_IGN); /* a limit on the size of files is an error of write(), like a full disk */
    const char *name = argc > 1 ? argv[1] : "";
    bool is_help =
        strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0;
    if (strcmp(name, "--version") == 0)
        name = "version";
    const struct command *command = command_find(name);
    if (command)
        return finish(command_start(command, argc - 2, argv + 2, leave));
    if (is_help && argc > 2 && (command = command_find(argv[2]))) {
        char *help[] = {"--help", NULL};
        return finish(command_start(command, 1, help, leave));
    }
    if (is_help) {
        command_print_all(stdout);
        return finish(COMMAND_OK);
    }
    if (name[0])
        fprintf(stderr, "embedmill: %s: unknown command\n\n", name);
    command_print_all(stderr);
    return COMMAND_USAGE;
}
