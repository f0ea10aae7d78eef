/*
 * command.h: the subcommands, each described by one table, and their exit codes.
 *
 * Owns:    what a command is: its words, options, help and the function that runs it.
 * Refuses: exit() itself: main.c alone leaves the process.
 * Threads: the main thread, which is the loop thread.
 * Why:     one description, so that --help, the manual page, shell completion and the parser cannot
 *          disagree.
 */
#ifndef COMMAND_H
#define COMMAND_H

#include <stdbool.h>
#include <stdio.h>

#include "worker/config/config_flags.h"
#include "worker/config/options.h"

/* After sysexits.h where it has a word for it, so that systemd's RestartPreventExitStatus= and
 * scripts can tell what a restart may cure (69, 75) from what it cannot (64, 66, 78). */
enum command_exit {
    COMMAND_OK = 0,
    COMMAND_USAGE = 64,       /* a wrong command or flag, or a wrong value of a flag */
    COMMAND_DATA = 65,        /* some inputs could not be embedded; stderr says which */
    COMMAND_NO_MODEL = 66,    /* model missing, unreadable or corrupt */
    COMMAND_UNAVAILABLE = 69, /* a broker refuses for good */
    COMMAND_INTERNAL = 70,    /* out of memory, no threads */
    COMMAND_IO = 74,          /* embed, index: input or output failed or was closed */
    COMMAND_DEADLINE = 75,    /* drain_timeout passed; what was not finished is delivered again */
    COMMAND_CONFIG = 78,      /* a wrong name or value in the environment or the file */
    COMMAND_HANGUP = 129,     /* ended by SIGHUP, SIGINT, SIGTERM */
    COMMAND_INTERRUPTED = 130,
    COMMAND_TERMINATED = 143,
};

/* One way a command ends. */
struct command_ending {
    int code;         /* of enum command_exit */
    const char *when; /* NULL: what all commands say of that code */
};

#define COMMAND_END                                                                                \
    {                                                                                              \
        -1, NULL                                                                                   \
    }
/* The endings of whatever a signal stops. */
#define COMMAND_SIGNALLED                                                                          \
    {COMMAND_HANGUP, NULL}, {COMMAND_INTERRUPTED, NULL},                                           \
    {                                                                                              \
        COMMAND_TERMINATED, NULL                                                                   \
    }

/* A command with the options that it was given. */
struct invocation {
    const struct command *command;
    const struct command *const *commands; /* all of them, ended by NULL */
    struct options *options;
    const struct settings *settings; /* of options */
    void (*leave)(int code);         /* ends the process at once, for the second signal */
};

#define COMMAND_DETAILS 1000 /* bytes of a paragraph of details */

struct command {
    const char *name;
    const char *summary;  /* half a line, for the list of commands */
    const char *synopsis; /* what follows the name; one form a line */
    const char *text;     /* paragraphs between empty lines; lines that begin with a space stay */
    /* One more paragraph, about what this build has. NULL: none. */
    void (*details)(char *out, size_t size);
    const struct command_ending *endings; /* ended by COMMAND_END */
    const struct option *own;             /* beside the worker's, ended by name NULL; NULL: none */
    const struct preset *presets;         /* other defaults, ended by name NULL; NULL: none */
    struct flag_syntax syntax;        /* flags_only: takes `own` and none of the worker's options */
    bool (*wanted)(const char *name); /* the options that --help lists; NULL: all */
    bool (*printed)(const char *name); /* those that --print-config prints; NULL: wanted */
    /* Settles what depends on other options and checks them, before --print-config prints or run
     * starts. COMMAND_OK, or the exit code and all is said. NULL: nothing to do. */
    int (*prepare)(const struct invocation *invocation);
    int (*run)(const struct invocation *invocation); /* its exit code */
};

extern const struct command command_run, command_serve, command_embed, command_index,
    command_search, command_compact, command_migrate, command_rerank, command_models, command_push,
    command_pull, command_dlq, command_check, command_doctor, command_top, command_probe,
    command_bench, command_schema, command_version, command_completion, command_manual;

/* The list of commands. */
void command_print_all(FILE *to);
/* NULL: there is none of that name. */
const struct command *command_find(const char *name);
/* Read argv[0 .. argc), the words behind the command's name, and run it. Its exit code. */
int command_start(const struct command *command, int argc, char *const *argv,
                  void (*leave)(int code));

#endif
