/*
 * command.h: the subcommands and their exit codes.
 *
 * Owns:    what each subcommand does, from argv to exit code.
 * Refuses: exit() itself: main.c alone leaves the process.
 * Threads: the main thread, which is the loop thread.
 */
#ifndef COMMAND_H
#define COMMAND_H

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
};

/*
 * argv[0 .. argc) are the arguments behind the command's name. leave ends the process at once, for
 * the second signal; nothing else calls it.
 */
int command_run(int argc, char **argv, void (*leave)(int code));
int command_embed(int argc, char **argv, void (*leave)(int code));
int command_check(int argc, char **argv);
int command_doctor(int argc, char **argv);
int command_top(int argc, char **argv);
int command_probe(int argc, char **argv);
int command_index(int argc, char **argv, void (*leave)(int code));
int command_search(int argc, char **argv);
int command_push(int argc, char **argv, void (*leave)(int code));
int command_pull(int argc, char **argv, void (*leave)(int code));
int command_bench(int argc, char **argv);
int command_version(int argc, char **argv);
int command_dlq(int argc, char **argv);

#endif
