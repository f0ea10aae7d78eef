/*
 * config_print.c: see config_print.h.
 */
#include "worker/config/config_print.h"

#include <string.h>

#define WIDTH  100
#define COLUMN 34

static size_t prefix_length(const struct option *option)
{
    const char *dot = strchr(option->name, '.');
    if (!dot && option->type == OPTION_MAP)
        return strlen(option->name);
    return dot ? (size_t)(dot - option->name) : 0;
}

/* Words of text from COLUMN on; lines after the first are indented to it. */
static void print_wrapped(FILE *to, const char *text)
{
    size_t column = COLUMN;
    while (*text) {
        size_t n = strcspn(text, " ");
        if (column > COLUMN && column + 1 + n > WIDTH) {
            fprintf(to, "\n%*s", COLUMN, "");
            column = COLUMN;
        }
        column += (size_t)fprintf(to, "%s%.*s", column > COLUMN ? " " : "", (int)n, text);
        text += n + (text[n] == ' ');
    }
    fputc('\n', to);
}

const char *config_print_argument(const struct option *option)
{
    if (option->type == OPTION_CHOICE && option->choices && strlen(option->choices) < 22)
        return option->choices; /* they are few enough to stand for themselves */
    if (option->arg)
        return option->arg;
    static const char *const words[] = {
        [OPTION_TEXT] = "TEXT", [OPTION_SECRET] = "SECRET", [OPTION_CHOICE] = "WORD",
        [OPTION_COUNT] = "N",   [OPTION_DURATION] = "TIME", [OPTION_SIZE] = "SIZE",
        [OPTION_BOOL] = "",     [OPTION_MAP] = "",
    };
    return words[option->type];
}

void config_print_flags(const struct option *option, const struct flag_alias *aliases, char *out,
                        size_t size)
{
    char flag[128];
    const char *argument = config_print_argument(option);
    size_t used = 0;
    out[0] = '\0';
    for (; aliases && aliases->flag; aliases++)
        if (strcmp(aliases->option, option->name) == 0 && used < size)
            used += (size_t)snprintf(out + used, size - used, "%s, ", aliases->flag);
    if (used >= size)
        return;
    options_flag_name(option->name, flag, sizeof flag);
    if (option->type == OPTION_MAP)
        snprintf(out + used, size - used, "-%s NAME=VALUE", option->arg);
    else if (option->type == OPTION_BOOL)
        snprintf(out + used, size - used, "--[no-]%s", flag);
    else
        snprintf(out + used, size - used, "--%s %s", flag, argument);
}

void config_print_sentence(const struct option *option, char *out, size_t size)
{
    bool list = option->type == OPTION_CHOICE && config_print_argument(option) != option->choices;
    bool show_default = option->fallback && option->fallback[0];
    snprintf(out, size, "%s%s%s%s%s%s%s", option->help, list ? " One of " : "",
             list ? option->choices : "", list ? "." : "", show_default ? " (default: " : "",
             show_default ? option->fallback : "", show_default ? ")" : "");
}

static void print_option(FILE *to, const struct option *option, const struct flag_alias *aliases)
{
    char flags[256], help[1024];
    if (option->type == OPTION_MAP && !option->arg)
        return; /* the help of the map above it says so */
    config_print_flags(option, aliases, flags, sizeof flags);
    if (strlen(flags) + 4 > COLUMN)
        fprintf(to, "  %s\n%*s", flags, COLUMN, "");
    else
        fprintf(to, "  %-*s", COLUMN - 2, flags);
    config_print_sentence(option, help, sizeof help);
    print_wrapped(to, help);
}

static void print_heading(FILE *to, const char *name, size_t len)
{
    if (len == 0)
        fprintf(to, "General:\n");
    else
        fprintf(to, "\n%.*s:\n", (int)len, name);
}

/* Is the option at i the first shown of its prefix? */
static bool is_first(const struct options *options, bool (*wanted)(const char *name), size_t at)
{
    const char *name = options_at(options, at)->name;
    size_t len = prefix_length(options_at(options, at));
    for (size_t i = 0; i < at; i++) {
        const struct option *other = options_at(options, i);
        if (prefix_length(other) == len && memcmp(other->name, name, len) == 0 &&
            (!wanted || wanted(other->name)))
            return false;
    }
    return true;
}

void config_print_help(const struct options *options, bool (*wanted)(const char *name),
                       const struct flag_alias *aliases, FILE *to)
{
    const struct option *first, *option;
    for (size_t i = 0; (first = options_at(options, i)); i++) {
        bool is_shown = first->type != OPTION_MAP || first->arg;
        if (!is_shown || (wanted && !wanted(first->name)) || !is_first(options, wanted, i))
            continue;
        size_t len = prefix_length(first);
        print_heading(to, first->name, len);
        for (size_t j = i; (option = options_at(options, j)); j++)
            if (prefix_length(option) == len && memcmp(option->name, first->name, len) == 0 &&
                (!wanted || wanted(option->name)))
                print_option(to, option, aliases);
    }
}

/* UTF-8 that YAML (1.1, chapter 5.1) lets in as an escape only: controls, the byte order mark, what
 * is not a character. Its length, 0 for others, and the escape. */
static size_t unprintable(const char *text, char escape[8])
{
    const unsigned char *byte = (const unsigned char *)text;
    size_t len = 0;
    if (byte[0] == 0xc2 && byte[1] >= 0x80 && byte[1] < 0xa0) {
        snprintf(escape, 8, "\\x%02x", byte[1]);
        len = 2;
    } else if (strncmp(text, "\xef\xbb\xbf", 3) == 0) {
        strcpy(escape, "\\ufeff");
        len = 3;
    } else if (byte[0] == 0xef && byte[1] == 0xbf && byte[2] >= 0xbe) {
        snprintf(escape, 8, "\\ufff%c", byte[2] == 0xbe ? 'e' : 'f');
        len = 3;
    }
    return len;
}

/* As a YAML string that the file reader gives back byte for byte. */
static void print_quoted(FILE *to, const char *text)
{
    char escape[8];
    size_t len;
    fputc('"', to);
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        if ((len = unprintable(text, escape)) > 0) {
            fputs(escape, to);
            text += len - 1;
            continue;
        }
        if (byte == '"' || byte == '\\')
            fprintf(to, "\\%c", byte);
        else if (byte < 0x20 || byte == 0x7f)
            fprintf(to, "\\x%02x", byte);
        else if (strncmp(text, "${", 2) == 0)
            /* Read back as ${ (config_file.c); the brace comes with the next turn. */
            fputs("$$", to);
        else
            fputc(byte, to);
    }
    fputc('"', to);
}

/* What may be shown of a secret: of a URL all but the password (all of the userinfo where no colon
 * tells which part that is). True when something is hidden. */
static bool mask(const struct option *option, const char *secret, char *out, size_t size)
{
    bool is_url = option->arg && strcmp(option->arg, "URL") == 0;
    /* The last @: a password may hold others. */
    const char *from = strstr(secret, "://"), *at = strrchr(secret, '@');
    if (!secret[0] || (is_url && from && !at)) {
        snprintf(out, size, "%s", secret);
        return false;
    }
    if (!is_url || !from || at < from) {
        snprintf(out, size, "********");
        return true;
    }
    from += 3;
    const char *colon = memchr(from, ':', (size_t)(at - from));
    if (colon)
        from = colon + 1;
    snprintf(out, size, "%.*s********%s", (int)(from - secret), secret, at);
    return true;
}

static void print_setting(const struct options *options, const char *name, const char *value,
                          bool masked, FILE *to)
{
    fprintf(to, "%s%s: ", masked ? "# " : "", name);
    print_quoted(to, value);
    fprintf(to, "  # %s\n", options_where(options, name));
}

static void print_map(const struct options *options, const char *map, FILE *to)
{
    struct setting setting;
    char name[256];
    for (size_t i = 0; (setting = settings_pair(options_settings(options), map, i)).name; i++) {
        bool masked = setting.secret && setting.value[0];
        snprintf(name, sizeof name, "%s.%s", map, setting.name);
        print_setting(options, name, masked ? "********" : setting.value, masked, to);
    }
}

void config_print_effective(const struct options *options, bool (*wanted)(const char *name),
                            FILE *to)
{
    const struct settings *settings = options_settings(options);
    bool has_models = options_origin(options, "models") != ORIGIN_DEFAULT;
    const struct option *option;
    for (size_t i = 0; (option = options_at(options, i)); i++) {
        char shown[4200];
        if ((wanted && !wanted(option->name)) ||
            (has_models && strcmp(option->name, "model") == 0)) /* not both */
            continue;
        if (option->type == OPTION_MAP) {
            print_map(options, option->name, to);
            continue;
        }
        const char *value = settings_text(settings, option->name);
        bool masked =
            value && option->type == OPTION_SECRET && mask(option, value, shown, sizeof shown);
        if (value)
            print_setting(options, option->name, masked ? shown : value, masked, to);
        else
            fprintf(to, "# %s: not set\n", option->name);
    }
}
