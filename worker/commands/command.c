/*
 * command.c: see command.h.
 */
#include "worker/commands/command.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "worker/commands/command_help.h"
#include "worker/commands/command_line.h"
#include "worker/config/config_print.h"

extern char **environ;

static const struct command *const all_commands[] = {
    &command_run,     &command_serve,
    &command_embed,   &command_index,
    &command_search,  &command_compact,
    &command_migrate, &command_rerank,
    &command_models,  &command_push,
    &command_pull,    &command_dlq,
    &command_check,   &command_doctor,
    &command_top,     &command_probe,
    &command_bench,   &command_schema,
    &command_version, &command_completion,
    &command_manual,  NULL,
};

const struct command *command_find(const char *name)
{
    for (size_t i = 0; all_commands[i]; i++)
        if (strcmp(all_commands[i]->name, name) == 0)
            return all_commands[i];
    return NULL;
}

void command_print_all(FILE *to)
{
    fputs("Usage: embedmill COMMAND [OPTION...]\n\n", to);
    for (size_t i = 0; all_commands[i]; i++)
        fprintf(to, "  %-11s %s\n", all_commands[i]->name, all_commands[i]->summary);
    fputs("\nembedmill COMMAND --help lists the options of a command.\n", to);
}

static int exit_of_reading(int rc)
{
    return rc == -EINVAL ? COMMAND_USAGE : rc == -EBADMSG ? COMMAND_CONFIG : COMMAND_INTERNAL;
}

static int start(const struct invocation *invocation, bool print_config)
{
    const struct command *command = invocation->command;
    int code = command->prepare ? command->prepare(invocation) : COMMAND_OK;
    if (code != COMMAND_OK)
        return code;
    if (!print_config)
        return command->run(invocation);
    config_print_effective(invocation->options,
                           command->printed ? command->printed : command->wanted, stdout);
    return COMMAND_OK;
}

int command_start(const struct command *command, int argc, char *const *argv,
                  void (*leave)(int code))
{
    struct options *options;
    struct flags flags;
    char err[1200];
    int code = COMMAND_OK;
    if ((command->syntax.flags_only
             ? options_open_own(&options, command->own)
             : options_open_command(&options, command->own, command->presets, environ)) != 0)
        return command_line_fail(command->name, COMMAND_INTERNAL, "out of memory");
    int rc = config_read(options, &command->syntax, argc, argv, environ, &flags, err, sizeof err);
    const struct invocation invocation = {.command = command,
                                          .commands = all_commands,
                                          .options = options,
                                          .settings = options_settings(options),
                                          .leave = leave};
    if (rc != 0)
        code = command_line_fail(command->name, exit_of_reading(rc), err);
    else if (flags.help)
        command_help_print(command, options, stdout);
    else
        code = start(&invocation, flags.print_config);
    options_close(options);
    return code;
}
