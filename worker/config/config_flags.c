/*
 * config_flags.c: see config_flags.h.
 *
 * Why:     getopt_long would want a second table, takes abbreviations, and prints its own errors.
 */
#include "worker/config/config_flags.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "worker/config/config_environment.h"
#include "worker/config/config_file.h"

struct flag_line {
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

static const struct option *find(const struct options *options, const char *flag)
{
    char name[128];
    const struct option *option;
    if (strcmp(flag, "format") == 0) /* what everyone tries first on a filter */
        flag = "output-format";
    for (size_t i = 0; (option = options_at(options, i)); i++) {
        options_flag_name(option->name, name, sizeof name);
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
    snprintf(err, err_size, "--%s: there is no such flag%s%s%s", flag,
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
        snprintf(err, err_size, "--%s: expected a value: --%s %s", flag, flag, arg ? arg : "VALUE");
        return -EINVAL;
    }
    *value = line->argv[++line->at];
    return 0;
}

static int read_option(struct options *options, struct flag_line *line, const char *flag,
                       const char *value, char *err, size_t err_size)
{
    const struct option *option = find(options, flag);
    bool no = false;
    if (!option && strncmp(flag, "no-", 3) == 0) {
        option = find(options, flag + 3);
        no = option && option->type == OPTION_BOOL;
        if (!no)
            option = NULL;
    }
    if (!option)
        return refuse_unknown(options, flag, err, err_size);
    if (no && value) {
        snprintf(err, err_size, "--%s: takes no value", flag);
        return -EINVAL;
    }
    if (option->type == OPTION_BOOL)
        value = value ? value : no ? "false" : "true";
    else if (take_value(line, flag, option->arg, &value, err, err_size) != 0)
        return -EINVAL;
    char where[140];
    snprintf(where, sizeof where, "--%s", flag);
    return options_set(options, option->name, value, ORIGIN_FLAG, where, err, err_size);
}

static int refuse_argument(const char *argument, char *err, size_t err_size)
{
    snprintf(err, err_size, "%.60s: expected a flag; --help lists all", argument);
    return -EINVAL;
}

/* "-X name=value" or "-Xname=value", the flag of a map. */
static int read_pair(struct options *options, struct flag_line *line, char *err, size_t err_size)
{
    const char *argument = line->argv[line->at], *pair = argument + 2;
    const struct option *option;
    char name[200], where[220];
    size_t i = 0;
    while ((option = options_at(options, i)) &&
           !(option->type == OPTION_MAP && option->arg && option->arg[0] == argument[1]))
        i++;
    if (!option)
        return refuse_argument(argument, err, err_size);
    if (!*pair)
        pair = line->at + 1 < line->argc ? line->argv[++line->at] : "";
    size_t len = strcspn(pair, "=");
    if (len == 0 || !pair[len] || len > 100) {
        snprintf(err, err_size, "-%c: expected -%c NAME=VALUE", argument[1], argument[1]);
        return -EINVAL;
    }
    snprintf(name, sizeof name, "%.60s.%.*s", option->name, (int)len, pair);
    snprintf(where, sizeof where, "-%c %.*s", argument[1], (int)len, pair);
    return options_set(options, name, pair + len + 1, ORIGIN_FLAG, where, err, err_size);
}

static int read_flags(struct options *options, struct flag_line *line, struct flags *flags,
                      char *err, size_t err_size)
{
    for (; line->at < line->argc; line->at++) {
        const char *argument = line->argv[line->at];
        char flag[128];
        const char *value;
        if (strcmp(argument, "-h") == 0 || strcmp(argument, "--help") == 0) {
            flags->help = true;
            return 0;
        }
        if (strcmp(argument, "--print-config") == 0) {
            flags->print_config = true;
            continue;
        }
        int rc;
        if (argument[0] == '-' && argument[1] && argument[1] != '-') {
            rc = read_pair(options, line, err, err_size);
            if (rc != 0)
                return rc;
            continue;
        }
        if (strncmp(argument, "--", 2) != 0 || argument[2] == '\0')
            return refuse_argument(argument, err, err_size);
        split(argument + 2, flag, sizeof flag, &value);
        if (strcmp(flag, "help") == 0 || strcmp(flag, "print-config") == 0) {
            snprintf(err, err_size, "--%s: takes no value", flag);
            return -EINVAL;
        }
        if (strcmp(flag, "config") == 0) {
            rc = take_value(line, flag, "FILE", &value, err, err_size);
            flags->config = value;
        } else {
            rc = read_option(options, line, flag, value, err, err_size);
        }
        if (rc != 0)
            return rc;
    }
    return 0;
}

int config_read(struct options *options, int argc, char *const *argv, char *const *environment,
                struct flags *flags, char *err, size_t err_size)
{
    struct flag_line line = {.argc = argc, .argv = argv};
    *flags = (struct flags){0};
    int rc = read_flags(options, &line, flags, err, err_size);
    if (rc != 0 || flags->help)
        return rc;
    rc = config_environment_read(options, environment, err, err_size);
    if (rc == 0 && flags->config)
        rc = config_file_read(options, flags->config, environment, err, err_size);
    return rc == 0 || rc == -ENOMEM ? rc : -EBADMSG;
}
