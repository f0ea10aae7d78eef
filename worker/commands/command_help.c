/*
 * command_help.c: see command_help.h.
 */
#include "worker/commands/command_help.h"

#include <string.h>

#include "worker/config/config_print.h"

enum { WIDTH = 100, COLUMN = 34 };

const struct common_flag common_flags[] = {
    {"--config FILE", "Read options from this YAML file, too.", true},
    {"--print-config", "Check all values, print each with its origin, and exit.", true},
    {"-h, --help", "Print this and exit.", false},
    {NULL, NULL, false},
};

const char *command_help_ending(const struct command_ending *ending)
{
    static const struct command_ending common[] = {
        {COMMAND_OK, "Done."},
        {COMMAND_USAGE, "A wrong flag, or a wrong value of one."},
        {COMMAND_NO_MODEL, "The model file is missing, unreadable or damaged."},
        {COMMAND_UNAVAILABLE, "A broker refuses, and retrying would not help."},
        {COMMAND_INTERNAL, "Out of memory, or no threads."},
        {COMMAND_IO, "Reading or writing failed."},
        {COMMAND_CONFIG, "A wrong value in the environment or the file."},
        {COMMAND_HANGUP, "Stopped by SIGHUP."},
        {COMMAND_INTERRUPTED, "Stopped by SIGINT."},
        {COMMAND_TERMINATED, "Stopped by SIGTERM."},
    };
    for (size_t i = 0; !ending->when && i < sizeof common / sizeof common[0]; i++)
        if (common[i].code == ending->code)
            return common[i].when;
    return ending->when ? ending->when : "";
}

/* Words of text up to `end`, wrapped; lines after the first are indented. */
static void print_wrapped(FILE *to, const char *text, const char *end, size_t indent)
{
    size_t column = indent;
    while (text < end) {
        size_t n = strcspn(text, " \n");
        if (column > indent && column + 1 + n > WIDTH) {
            fprintf(to, "\n%*s", (int)indent, "");
            column = indent;
        }
        column += (size_t)fprintf(to, "%s%.*s", column > indent ? " " : "", (int)n, text);
        text += n;
        text += strspn(text, " \n");
    }
    fputc('\n', to);
}

static void print_text(FILE *to, const char *text)
{
    while (*text) {
        const char *end = strstr(text, "\n\n");
        if (!end)
            end = text + strlen(text);
        fputc('\n', to);
        if (*text == ' ')
            fprintf(to, "%.*s\n", (int)(end - text), text);
        else
            print_wrapped(to, text, end, 0);
        text = *end ? end + 2 : end;
    }
}

static void print_synopsis(FILE *to, const struct command *command)
{
    const char *form = command->synopsis, *before = "Usage:";
    do {
        size_t n = strcspn(form, "\n");
        fprintf(to, "%-6s embedmill %s %.*s\n", before, command->name, (int)n, form);
        before = "";
        form += n + (form[n] == '\n');
    } while (*form);
}

void command_help_print(const struct command *command, const struct options *options, FILE *to)
{
    char details[COMMAND_DETAILS];
    print_synopsis(to, command);
    print_text(to, command->text);
    if (command->details) {
        command->details(details, sizeof details);
        print_text(to, details);
    }
    fputc('\n', to);
    config_print_help(options, command->wanted, command->syntax.aliases, to);
    fputs("\nCommon to all commands:\n", to);
    for (const struct common_flag *flag = common_flags; flag->flag; flag++)
        if (!flag->of_files || !command->syntax.flags_only)
            fprintf(to, "  %-*s%s\n", COLUMN - 2, flag->flag, flag->help);
    fputs("\nExit codes:\n", to);
    for (const struct command_ending *ending = command->endings; ending->code >= 0; ending++) {
        const char *when = command_help_ending(ending);
        fprintf(to, "  %-4d", ending->code);
        print_wrapped(to, when, when + strlen(when), 6);
    }
}
