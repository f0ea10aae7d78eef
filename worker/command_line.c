/*
 * command_line.c: see command_line.h.
 */
#include "worker/command_line.h"

#include <errno.h>
#include <stdio.h>

#include "worker/command.h"
#include "worker/config_print.h"

extern char **environ;

int command_line_fail(const char *command, int code, const char *why)
{
    fprintf(stderr, "embedmill %s: %s\n", command, why);
    return code;
}

bool command_line_read(const struct command_line *line, int argc, char *const *argv,
                       struct options **options, struct flags *flags, int *code)
{
    char err[1200];
    if (options_open_command(options, line->own, line->presets, environ) != 0) {
        *code = command_line_fail(line->command, COMMAND_INTERNAL, "out of memory");
        return false;
    }
    int rc = config_read(*options, argc, argv, environ, flags, err, sizeof err);
    if (rc == 0 && !flags->help)
        return true;
    if (rc == 0) {
        fputs(line->usage, stdout);
        config_print_help(*options, line->wanted, stdout);
        *code = COMMAND_OK;
    } else {
        *code = command_line_fail(line->command,
                                  rc == -EINVAL    ? COMMAND_USAGE
                                  : rc == -EBADMSG ? COMMAND_CONFIG
                                                   : COMMAND_INTERNAL,
                                  err);
    }
    options_close(*options);
    return false;
}
