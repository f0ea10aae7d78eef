/*
 * command_completion.c: `embedmill completion bash|zsh`: a script that completes commands, flags
 * and the choices of options.
 *
 * Owns:    the scripts, made of the same tables as --help.
 */
#include <stdio.h>
#include <string.h>

#include "worker/commands/command.h"
#include "worker/commands/command_help.h"
#include "worker/commands/command_line.h"
#include "worker/config/config_print.h"

/* One flag of a command: its name with dashes, its option (NULL: a common flag), its sentence. */
typedef void on_flag(const char *flag, const struct option *option, const char *help);

static void each_name(const struct option *option, const struct flag_alias *aliases, on_flag *call)
{
    char flag[140], name[128];
    for (; aliases && aliases->flag; aliases++)
        if (strcmp(aliases->option, option->name) == 0)
            call(aliases->flag, option, option->help);
    options_flag_name(option->name, name, sizeof name);
    if (option->type == OPTION_MAP)
        snprintf(flag, sizeof flag, "-%s", option->arg);
    else
        snprintf(flag, sizeof flag, "--%s", name);
    call(flag, option, option->help);
    if (option->type == OPTION_BOOL) {
        snprintf(flag, sizeof flag, "--no-%s", name);
        call(flag, option, option->help);
    }
}

/* 0 or -ENOMEM. */
static int each_flag(const struct command *command, on_flag *call)
{
    /* What it prints must not depend on who runs it: it is installed with the package. */
    char *const no_environment[] = {NULL};
    struct options *options;
    const struct option *option;
    int rc = command->syntax.flags_only
                 ? options_open_own(&options, command->own)
                 : options_open_command(&options, command->own, command->presets, no_environment);
    if (rc != 0)
        return rc;
    for (size_t i = 0; (option = options_at(options, i)); i++)
        if ((!command->wanted || command->wanted(option->name)) &&
            !(option->type == OPTION_MAP && !option->arg))
            each_name(option, command->syntax.aliases, call);
    options_close(options);
    call("--help", NULL, "Print the help and exit.");
    if (!command->syntax.flags_only) {
        call("--config", NULL, "Read options from this YAML file, too.");
        call("--print-config", NULL, "Check all values, print each with its origin, and exit.");
    }
    return 0;
}

static bool is_file(const char *flag, const struct option *option)
{
    if (!option)
        return strcmp(flag, "--config") == 0;
    const char *arg = option->arg ? option->arg : "";
    return strcmp(arg, "FILE") == 0 || strcmp(arg, "FOLDER") == 0 || strcmp(arg, "OUT") == 0;
}

/* Choices with spaces between; a switch and free text have none. */
static void print_choices(const char *flag, const struct option *option)
{
    if (!option || option->type != OPTION_CHOICE || !option->choices)
        return;
    printf("    %s) words=\"", flag);
    for (const char *c = option->choices; *c; c++)
        putchar(*c == '|' ? ' ' : *c);
    puts("\" ;;");
}

static void bash_flag(const char *flag, const struct option *option, const char *help)
{
    (void)option, (void)help;
    printf(" %s", flag);
}

static void bash_value(const char *flag, const struct option *option, const char *help)
{
    (void)help;
    if (is_file(flag, option))
        printf("    %s) COMPREPLY=($(compgen -f -- \"$word\")); return ;;\n", flag);
    else
        print_choices(flag, option);
}

/* The option that takes the command's first word, when that is one of a few. */
static const struct option *first_word(const struct command *command)
{
    const char *const *names = command->syntax.positionals;
    for (const struct option *option = command->own; names && option && option->name; option++)
        if (strcmp(option->name, names[0]) == 0 && option->type == OPTION_CHOICE)
            return option;
    return NULL;
}

static int print_bash(const struct command *const *commands)
{
    int rc = 0;
    puts("# bash completion of embedmill: source it, or put it where bash-completion looks.\n"
         "_embedmill() {\n"
         "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words=\n"
         "  case ${COMP_WORDS[1]}/$before in");
    for (size_t i = 0; commands[i] && rc == 0; i++) {
        printf("  %s/-*)\n    case $before in\n", commands[i]->name);
        rc = each_flag(commands[i], bash_value);
        puts("    esac ;;");
    }
    fputs("  esac\n  if [ $COMP_CWORD -eq 1 ]; then words='", stdout);
    for (size_t i = 0; commands[i]; i++)
        printf("%s ", commands[i]->name);
    puts(
        "help'\n  elif [ -z \"$words\" ] && [[ $word == -* ]]; then\n    case ${COMP_WORDS[1]} in");
    for (size_t i = 0; commands[i] && rc == 0; i++) {
        printf("    %s) words='", commands[i]->name);
        rc = each_flag(commands[i], bash_flag);
        puts("' ;;");
    }
    puts("    esac\n  elif [ -z \"$words\" ] && [ $COMP_CWORD -eq 2 ]; then\n"
         "    case ${COMP_WORDS[1]} in");
    for (size_t i = 0; commands[i]; i++) {
        const struct option *first = first_word(commands[i]);
        if (first)
            print_choices(commands[i]->name, first);
    }
    puts("    esac\n  fi\n"
         "  if [ -n \"$words\" ]; then COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
         "  else COMPREPLY=($(compgen -f -- \"$word\")); fi\n"
         "}\ncomplete -o filenames -F _embedmill embedmill");
    return rc;
}

/* Inside of '...[...]' of _arguments: quotes end the word, brackets the sentence, colons the part.
 */
static void zsh_text(const char *text)
{
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", stdout);
        else if (strchr("[]:\\", *text))
            printf("\\%c", *text);
        else
            putchar(*text);
    }
}

static void zsh_flag(const char *flag, const struct option *option, const char *help)
{
    bool has_value = option ? option->type != OPTION_BOOL : strcmp(flag, "--config") == 0;
    printf("      '*%s[", flag);
    zsh_text(help);
    putchar(']');
    if (has_value) {
        putchar(':');
        zsh_text(option ? config_print_argument(option) : "FILE");
        putchar(':');
    }
    if (has_value && is_file(flag, option)) {
        fputs("_files", stdout);
    } else if (has_value && option && option->type == OPTION_CHOICE && option->choices) {
        putchar('(');
        for (const char *c = option->choices; *c; c++)
            putchar(*c == '|' ? ' ' : *c);
        putchar(')');
    }
    puts("' \\");
}

static int print_zsh(const struct command *const *commands)
{
    int rc = 0;
    puts("#compdef embedmill\n# zsh completion of embedmill: put it into a folder of $fpath as "
         "_embedmill.\n_embedmill() {\n  local -a commands=(");
    for (size_t i = 0; commands[i]; i++) {
        printf("    '%s:", commands[i]->name);
        zsh_text(commands[i]->summary);
        puts("'");
    }
    puts("  )\n  if (( CURRENT == 2 )); then _describe command commands; return; fi\n"
         "  local command=$words[2]\n  shift words; (( CURRENT-- ))\n  case $command in");
    for (size_t i = 0; commands[i] && rc == 0; i++) {
        printf("    %s) _arguments -S \\\n", commands[i]->name);
        rc = each_flag(commands[i], zsh_flag);
        const struct option *first = first_word(commands[i]);
        if (first) {
            fputs("      '1:word:(", stdout);
            for (const char *c = first->choices; *c; c++)
                putchar(*c == '|' ? ' ' : *c);
            puts(")' ;;");
        } else {
            puts("      '*:file:_files' ;;");
        }
    }
    puts("  esac\n}\n_embedmill \"$@\"");
    return rc;
}

static int run(const struct invocation *invocation)
{
    const char *shell = settings_text(invocation->settings, "shell");
    if (!shell)
        return command_line_fail("completion", COMMAND_USAGE, "expected bash or zsh");
    int rc = (strcmp(shell, "zsh") == 0 ? print_zsh : print_bash)(invocation->commands);
    return rc == 0 ? COMMAND_OK
                   : command_line_fail("completion", COMMAND_INTERNAL, "out of memory");
}

static const struct command_ending endings[] = {
    {COMMAND_OK, NULL}, {COMMAND_USAGE, NULL}, COMMAND_END};

static const struct option table[] = {
    {"shell", OPTION_CHOICE, NULL, "bash|zsh", 0, 0, NULL, "The shell that reads the script."},
    {NULL, 0, NULL, NULL, 0, 0, NULL, NULL},
};

static const char *const positionals[] = {"shell", NULL};

const struct command command_completion = {
    .name = "completion",
    .summary = "prints a script that completes commands and flags in bash or zsh",
    .synopsis = "bash|zsh",
    .text = "Print a completion script. For bash: source <(embedmill completion bash). For zsh: "
            "embedmill completion zsh >FOLDER/_embedmill, with FOLDER in $fpath.",
    .endings = endings,
    .own = table,
    .syntax = {.positionals = positionals, .flags_only = true},
    .run = run,
};
