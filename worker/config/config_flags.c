/*
 * config_flags.c: see config_flags.h.
 *
 * Why:     getopt_long would want a second table, takes abbreviations, and prints its own errors.
 */
#include "worker/config/config_flags.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "worker/config/config_environment.h"
#include "worker/config/config_file.h"

/* The command line, as far as it is read. */
struct flag_line {
    const struct flag_syntax *syntax;
    const char *const *positional; /* the next one; NULL: none */
    const char *repeated;          /* the positional that takes all further words */
    int argc, at;
    char *const *argv;
};

/* "--name[=value]" split. value is NULL without '='. */
static void split(const char *argument, char *name, size_t size, const char **value)
{
    size_t n = strcspn(argument, "=");
    *value = argument[n] ? argument + n + 1 : NULL;
    snprintf(name, size, "%.*s", (int)n, argument);
}

static const struct option *find_by_name(const struct options *options, const char *name)
{
    const struct option *option;
    for (size_t i = 0; (option = options_at(options, i)); i++)
        if (strcmp(option->name, name) == 0)
            return option;
    return NULL;
}

/* The option that `word` ("--output", "-o") is short for in this command. */
static const struct option *find_alias(const struct options *options,
                                       const struct flag_syntax *syntax, const char *word)
{
    const struct flag_alias *alias = syntax->aliases;
    for (; alias && alias->flag; alias++)
        if (strcmp(alias->flag, word) == 0)
            return find_by_name(options, alias->option);
    return NULL;
}

static const struct option *find(const struct options *options, const struct flag_syntax *syntax,
                                 const char *flag)
{
    char name[140];
    const struct option *option;
    snprintf(name, sizeof name, "--%s", flag);
    if ((option = find_alias(options, syntax, name)))
        return option;
    for (size_t i = 0; (option = options_at(options, i)); i++) {
        options_flag_name(option->name, name, sizeof name);
        /* Pairs of a map are given behind its letter (read_short), not by a flag of its name. */
        if (option->type != OPTION_MAP && strcmp(name, flag) == 0)
            return option;
    }
    return NULL;
}

static int refuse_unknown(const struct options *options, const char *flag, char *err,
                          size_t err_size)
{
    const char *near = options_nearest(options, flag);
    char name[128];
    if (near)
        options_flag_name(near, name, sizeof name);
    snprintf(err, err_size, "--%s: unknown flag%s%s%s", flag,
             near ? "; did you mean --" : "; --help lists all", near ? name : "", near ? "?" : "");
    return -EINVAL;
}

/* The argument behind the flag; it may begin with a dash only where a number could ("-1"). */
static int take_value(struct flag_line *line, const char *flag, const char *arg, const char **value,
                      char *err, size_t err_size)
{
    if (*value)
        return 0;
    if (line->at + 1 >= line->argc || strncmp(line->argv[line->at + 1], "--", 2) == 0) {
        snprintf(err, err_size, "%s: expected a value: %s %s", flag, flag, arg ? arg : "VALUE");
        return -EINVAL;
    }
    *value = line->argv[++line->at];
    return 0;
}

/* where: the flag as it was written, dashes included. */
static int set(struct options *options, struct flag_line *line, const struct option *option,
               const char *where, const char *value, char *err, size_t err_size)
{
    if (option->type == OPTION_BOOL && !value)
        /* A switch: "--json", but also "--json=false". */
        value = "true";
    if (take_value(line, where, option->arg, &value, err, err_size) != 0)
        return -EINVAL;
    return options_set(options, option->name, value, ORIGIN_FLAG, where, err, err_size);
}

static int read_option(struct options *options, struct flag_line *line, const char *flag,
                       const char *value, char *err, size_t err_size)
{
    const struct option *option = find(options, line->syntax, flag);
    char where[140];
    snprintf(where, sizeof where, "--%s", flag);
    if (option)
        return set(options, line, option, where, value, err, err_size);
    /* Second: an option may begin with "no-" itself. */
    if (strncmp(flag, "no-", 3) == 0)
        option = find(options, line->syntax, flag + 3);
    if (!option || option->type != OPTION_BOOL)
        return refuse_unknown(options, flag, err, err_size);
    if (value) {
        snprintf(err, err_size, "--%s: takes no value", flag);
        return -EINVAL;
    }
    return options_set(options, option->name, "false", ORIGIN_FLAG, where, err, err_size);
}

static int refuse_argument(const struct flag_line *line, const char *argument, char *err,
                           size_t err_size)
{
    bool none = !line->syntax->positionals;
    snprintf(err, err_size, "%.60s: %s; --help lists all", argument,
             argument[0] == '-' ? "unknown flag"
             : none             ? "expected a flag"
                                : "one argument too many");
    return -EINVAL;
}

/* A word without a flag. */
static int read_word(struct options *options, struct flag_line *line, const char *word, char *err,
                     size_t err_size)
{
    const struct settings *settings = options_settings(options);
    char joined[4096];
    bool again = false;
    const char *name = line->positional ? *line->positional : NULL;
    if (name) {
        /* The last of them takes all further words where the command says so. */
        line->positional++;
        if (!*line->positional && line->syntax->repeats)
            line->repeated = name;
    } else {
        name = line->repeated;
        again = name != NULL;
    }
    if (!name)
        return refuse_argument(line, word, err, err_size);
    if (again && (size_t)snprintf(joined, sizeof joined, "%s,%s", settings_text(settings, name),
                                  word) >= sizeof joined) {
        snprintf(err, err_size, "too many arguments");
        return -EINVAL;
    }
    const struct option *option = find_by_name(options, name);
    assert(option);
    return options_set(options, name, again ? joined : word, ORIGIN_FLAG,
                       option->arg ? option->arg : name, err, err_size);
}

/* "-X name=value" or "-Xname=value", the flag of a map. */
static int read_pair(struct options *options, struct flag_line *line, const struct option *map,
                     char *err, size_t err_size)
{
    const char *argument = line->argv[line->at], *pair = argument + 2;
    char name[200], where[220];
    if (!*pair)
        pair = line->at + 1 < line->argc ? line->argv[++line->at] : "";
    size_t len = strcspn(pair, "=");
    if (len == 0 || !pair[len] || len > 100) {
        snprintf(err, err_size, "-%c: expected -%c NAME=VALUE", argument[1], argument[1]);
        return -EINVAL;
    }
    snprintf(name, sizeof name, "%.60s.%.*s", map->name, (int)len, pair);
    snprintf(where, sizeof where, "-%c %.*s", argument[1], (int)len, pair);
    return options_set(options, name, pair + len + 1, ORIGIN_FLAG, where, err, err_size);
}

/* "-o OUT", "-oOUT", "-o=OUT", or a pair. */
static int read_short(struct options *options, struct flag_line *line, char *err, size_t err_size)
{
    const char *argument = line->argv[line->at], *value = argument[2] ? argument + 2 : NULL;
    char flag[3] = {'-', argument[1], '\0'};
    const struct option *option = find_alias(options, line->syntax, flag);
    if (option)
        return set(options, line, option, flag, value && *value == '=' ? value + 1 : value, err,
                   err_size);
    for (size_t i = 0; (option = options_at(options, i)); i++)
        if (option->type == OPTION_MAP && option->arg && option->arg[0] == argument[1])
            return read_pair(options, line, option, err, err_size);
    return refuse_argument(line, argument, err, err_size);
}

static int read_long(struct options *options, struct flag_line *line, struct flags *flags,
                     char *err, size_t err_size)
{
    char flag[128];
    const char *value;
    split(line->argv[line->at] + 2, flag, sizeof flag, &value);
    bool with_files = !line->syntax->flags_only;
    bool is_print = strcmp(flag, "print-config") == 0 && with_files;
    if (strcmp(flag, "help") == 0 || is_print) {
        if (value) {
            snprintf(err, err_size, "--%s: takes no value", flag);
            return -EINVAL;
        }
        *(is_print ? &flags->print_config : &flags->help) = true;
        return 0;
    }
    if (strcmp(flag, "config") != 0 || !with_files)
        return read_option(options, line, flag, value, err, err_size);
    int rc = take_value(line, "--config", "FILE", &value, err, err_size);
    flags->config = value;
    return rc;
}

static int read_flags(struct options *options, struct flag_line *line, struct flags *flags,
                      char *err, size_t err_size)
{
    bool only_words = false; /* behind "--" */
    int rc = 0;
    for (; line->at < line->argc && rc == 0 && !flags->help; line->at++) {
        const char *argument = line->argv[line->at];
        if (strcmp(argument, "-h") == 0 && !only_words)
            flags->help = true;
        else if (strcmp(argument, "--") == 0 && line->syntax->positionals && !only_words)
            only_words = true;
        else if (argument[0] != '-' || argument[1] == '\0' || only_words)
            /* "-" alone is a word: standard input. */
            rc = read_word(options, line, argument, err, err_size);
        else if (argument[1] != '-')
            rc = read_short(options, line, err, err_size);
        else if (argument[2] == '\0')
            rc = refuse_argument(line, argument, err, err_size);
        else
            rc = read_long(options, line, flags, err, err_size);
    }
    return rc;
}

int config_read(struct options *options, const struct flag_syntax *syntax, int argc,
                char *const *argv, char *const *environment, struct flags *flags, char *err,
                size_t err_size)
{
    static const struct flag_syntax none = {.aliases = NULL};
    struct flag_line line = {.syntax = syntax ? syntax : &none, .argc = argc, .argv = argv};
    line.positional = line.syntax->positionals;
    *flags = (struct flags){0};
    /* Flags first, for they name the file; which value counts its origin decides. */
    int rc = read_flags(options, &line, flags, err, err_size);
    if (rc != 0 || flags->help || line.syntax->flags_only)
        return rc;
    rc = config_environment_read(options, environment, err, err_size);
    if (rc == 0 && flags->config)
        rc = config_file_read(options, flags->config, environment, err, err_size);
    return rc == 0 || rc == -ENOMEM ? rc : -EBADMSG;
}
