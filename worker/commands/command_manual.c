/*
 * command_manual.c: `embedmill manual`: the manual page, for man(1).
 *
 * Owns:    the roff of embedmill.1, made of the same tables as --help.
 * Source:  man-pages(7), groff_man(7).
 */
#include <stdio.h>
#include <string.h>

#include "worker/commands/command.h"
#include "worker/commands/command_help.h"
#include "worker/commands/command_line.h"
#include "worker/config/config_print.h"

/* The page is not about who builds it. */
static char *const no_environment[] = {NULL};

/* Text for roff: a backslash and a minus are escaped, a leading dot or quote is not a request. */
static void print_text(const char *text, size_t len)
{
    bool starts = true;
    for (size_t i = 0; i < len; i++) {
        if (starts && (text[i] == '.' || text[i] == '\''))
            fputs("\\&", stdout);
        if (text[i] == '\\')
            fputs("\\e", stdout);
        else if (text[i] == '-')
            fputs("\\-", stdout);
        else
            putchar(text[i]);
        starts = text[i] == '\n';
    }
}

static void print_string(const char *text)
{
    print_text(text, strlen(text));
}

/* Paragraphs between empty lines; one that begins with a space keeps its lines. */
static void print_paragraphs(const char *text)
{
    while (*text) {
        const char *end = strstr(text, "\n\n");
        size_t n = end ? (size_t)(end - text) : strlen(text);
        puts(*text == ' ' ? ".PP\n.nf" : ".PP");
        print_text(text, n);
        puts(*text == ' ' ? "\n.fi" : "");
        text += n + (end ? 2 : 0);
    }
}

static void print_option(const struct option *option, const struct flag_alias *aliases)
{
    char flags[256], help[1024];
    if (option->type == OPTION_MAP && !option->arg)
        return;
    config_print_flags(option, aliases, flags, sizeof flags);
    config_print_sentence(option, help, sizeof help);
    fputs(".TP\n.B ", stdout);
    print_string(flags);
    putchar('\n');
    print_string(help);
    putchar('\n');
}

/* The options of the command itself and those that have a short name in it. */
static void print_own(const struct command *command)
{
    struct options *options;
    const struct option *option;
    const struct flag_alias *alias = command->syntax.aliases;
    for (option = command->own; option && option->name; option++)
        print_option(option, command->syntax.aliases);
    if (command->syntax.flags_only || !alias ||
        options_open_command(&options, NULL, command->presets, no_environment) != 0)
        return;
    for (size_t i = 0; (option = options_at(options, i)); i++) {
        for (alias = command->syntax.aliases; alias->flag; alias++)
            if (strcmp(alias->option, option->name) == 0)
                break;
        if (alias->flag)
            print_option(option, command->syntax.aliases);
    }
    options_close(options);
}

static void print_command(const struct command *command)
{
    const char *form = command->synopsis;
    char details[COMMAND_DETAILS];
    fputs(".SS ", stdout);
    print_string(command->name);
    putchar('\n');
    do {
        size_t n = strcspn(form, "\n");
        printf(".B embedmill %s\n", command->name);
        print_text(form, n);
        form += n + (form[n] == '\n');
        if (*form)
            puts("\n.br");
    } while (*form);
    putchar('\n');
    print_paragraphs(command->text);
    if (command->details) {
        command->details(details, sizeof details);
        print_paragraphs(details);
    }
    print_own(command);
    puts(".PP\nExit codes:");
    for (const struct command_ending *ending = command->endings; ending->code >= 0; ending++) {
        printf(".TP\n.B %d\n", ending->code);
        print_string(command_help_ending(ending));
        putchar('\n');
    }
}

static void print_shared(const struct options *options)
{
    const struct option *option;
    puts(".SH OPTIONS\nThe commands that embed or talk to a broker share these options. Each is a "
         "flag, a variable of the environment and a key of the YAML file.");
    for (const struct common_flag *flag = common_flags; flag->flag; flag++) {
        fputs(".TP\n.B ", stdout);
        print_string(flag->flag);
        printf("\n%s\n", flag->help);
    }
    for (size_t i = 0; (option = options_at(options, i)); i++)
        print_option(option, NULL);
}

static int run(const struct invocation *invocation)
{
    struct options *options;
    if (options_open_command(&options, NULL, NULL, no_environment) != 0)
        return command_line_fail("manual", COMMAND_INTERNAL, "out of memory");
    puts(".TH EMBEDMILL 1 \"\" \"embedmill " EMBEDMILL_VERSION "\" \"User commands\"\n"
         ".SH NAME\nembedmill \\- texts from a message queue in, embeddings out\n"
         ".SH SYNOPSIS\n.B embedmill\n.I COMMAND\n[OPTION...]\n"
         ".SH COMMANDS");
    for (size_t i = 0; invocation->commands[i]; i++)
        print_command(invocation->commands[i]);
    print_shared(options);
    puts(".SH ENVIRONMENT\nAn option \\-\\-metrics\\-listen is also EMBEDMILL_METRICS_LISTEN. An "
         "empty "
         "variable counts as not set. EMBEDMILL_<NAME>_FILE names a file that holds the value of a "
         "secret.\n"
         ".SH FILES\n.TP\n.I ~/.cache/embedmill/\nwhere scripts/get\\-model puts the model.");
    options_close(options);
    return COMMAND_OK;
}

static const struct command_ending endings[] = {
    {COMMAND_OK, NULL}, {COMMAND_USAGE, NULL}, COMMAND_END};

const struct command command_manual = {
    .name = "manual",
    .summary = "prints the manual page: embedmill manual | man -l -",
    .synopsis = ">embedmill.1",
    .text = "Print the manual page in the form that man(1) reads.",
    .endings = endings,
    .syntax = {.flags_only = true},
    .run = run,
};
