/*
 * main.c: from the name of a command to its exit code; the one place that exits.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "worker/commands/command.h"

/* One of run and run_leaving. */
struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    int (*run_leaving)(int argc, char **argv, void (*leave)(int code));
    const char *help;
};

static const struct command commands[] = {
    {"run", NULL, command_run,
     "the worker: texts from a message queue, embeddings to a message queue"},
    {"embed", NULL, command_embed,
     "texts on standard input, embeddings on standard output; needs no broker"},
    {"index", NULL, command_index,
     "a file or a folder of texts to a file of embeddings; goes on where it stopped"},
    {"search", command_search, NULL, "the texts of such a file that are nearest to a query"},
    {"push", NULL, command_push, "a file or a folder of texts into a message queue"},
    {"pull", NULL, command_pull, "embeddings out of a message queue into a file"},
    {"dlq", command_dlq, NULL, "dead letters: list them, put them back on the input"},
    {"check", command_check, NULL, "would `run` start with these options here? No network"},
    {"doctor", command_doctor, NULL, "the same, and brokers, permissions, a test embedding"},
    {"top", command_top, NULL, "what workers do, refreshed on the terminal"},
    {"probe", command_probe, NULL, "is a worker ready? For health checks"},
    {"bench", command_bench, NULL, "how fast this machine embeds, and where the time goes"},
    {"version", command_version, NULL, "what this program is and was built with"},
};

#define N_COMMANDS (sizeof commands / sizeof commands[0])

static void print_usage(FILE *to)
{
    fputs("Usage: embedmill COMMAND [OPTION...]\n\n", to);
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(to, "  %-9s %s\n", commands[i].name, commands[i].help);
    fputs("\nembedmill COMMAND --help lists the options of a command.\n", to);
}

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
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "--version") == 0)
        name = "version";
    for (size_t i = 0; i < N_COMMANDS; i++) {
        const struct command *command = &commands[i];
        if (strcmp(name, command->name) == 0)
            return finish(command->run ? command->run(argc - 2, argv + 2)
                                       : command->run_leaving(argc - 2, argv + 2, leave));
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        print_usage(stdout);
        return finish(COMMAND_OK);
    }
    if (name[0])
        fprintf(stderr, "embedmill: %s: there is no such command\n\n", name);
    print_usage(stderr);
    return COMMAND_USAGE;
}
