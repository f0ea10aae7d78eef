/*
 * settings.c: options and their checked values.
 *
 * Owns:    reading the text of a value by its type, and a copy of each value given.
 * Refuses: where values come from; suggestions for misspelt names (the worker knows the context).
 * Threads: filled on one thread at start, afterwards read-only.
 * Why:     one reader for every type, so that a flag, a variable and a file accept the same texts
 *          and refuse the others with the same words.
 */
#include "connectors/settings.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "connectors/utf8.h"

struct entry {
    const struct option *option;
    char *text;     /* owned; NULL: none */
    int64_t number; /* BOOL, COUNT, DURATION, SIZE */
};

/* A value of a map. */
struct pair {
    const struct option *map;
    char *name, *text; /* owned; name: the whole one */
};

struct settings {
    struct pair *pairs; /* [n_pairs] */
    size_t n_pairs;
    size_t n_entries;
    struct entry entries[];
};

struct unit {
    const char *name;
    int64_t factor;
};

static const struct unit count_units[] = {{"", 1}, {NULL, 0}};

static const struct unit duration_units[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 60 * 60 * 1000}, {NULL, 0}};

static const struct unit size_units[] = {
    {"", 1},          {"B", 1},     {"KiB", 1 << 10},    {"MiB", 1 << 20},
    {"GiB", 1 << 30}, {"kB", 1000}, {"MB", 1000 * 1000}, {"GB", 1000 * 1000 * 1000},
    {NULL, 0}};

/* Digits only: strtoll would also take blanks and "0x". -EINVAL, or -ERANGE beyond int64. */
static int read_integer(const char *text, int64_t *out, const char **end)
{
    bool negative = *text == '-';
    if (negative)
        text++;
    if (!isdigit((unsigned char)*text))
        return -EINVAL;
    int64_t value = 0;
    for (; isdigit((unsigned char)*text); text++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, *text - '0', &value))
            return -ERANGE;
    /* The magnitude is read as int64, so INT64_MIN is out of range; no option needs it. */
    *out = negative ? -value : value;
    *end = text;
    return 0;
}

static int read_with_unit(const char *text, const struct unit *units, int64_t *out)
{
    int64_t value = 0;
    const char *end = text;
    int rc = read_integer(text, &value, &end);
    if (rc != 0)
        return rc;
    for (; units->name; units++)
        if (strcmp(end, units->name) == 0)
            /* "60m" in milliseconds must fit, too. */
            return __builtin_mul_overflow(value, units->factor, out) ? -ERANGE : 0;
    /* Zero is zero in every unit. */
    if (value == 0 && *end == '\0') {
        *out = 0;
        return 0;
    }
    return -EINVAL;
}

static int read_bool(const char *text, int64_t *out)
{
    static const char *const yes[] = {"true", "yes", "on", "1"};
    static const char *const no[] = {"false", "no", "off", "0"};
    /* In any case, as people write them in YAML. */
    for (size_t i = 0; i < 4; i++) {
        if (strcasecmp(text, yes[i]) == 0)
            return *out = 1, 0;
        if (strcasecmp(text, no[i]) == 0)
            return *out = 0, 0;
    }
    return -EINVAL;
}

static bool is_choice(const char *text, const char *choices)
{
    size_t len = strlen(text);
    for (const char *at = choices; *at;) {
        size_t n = strcspn(at, "|");
        if (n == len && memcmp(at, text, n) == 0)
            return true;
        at += n + (at[n] == '|');
    }
    return false;
}

static void bounds_of(const struct option *option, int64_t *min, int64_t *max)
{
    *min = option->min;
    *max = option->max;
    if (*min == 0 && *max == 0)
        *max = INT64_MAX;
}

static int read_value(const struct option *option, const char *text, int64_t *out)
{
    int rc = 0;
    *out = 0;
    switch (option->type) {
    case OPTION_TEXT:
    case OPTION_SECRET:
    case OPTION_MAP:
        return utf8_is_valid(text, strlen(text)) ? 0 : -EINVAL;
    case OPTION_CHOICE:
        return is_choice(text, option->choices) ? 0 : -EINVAL;
    case OPTION_BOOL:
        return read_bool(text, out);
    case OPTION_COUNT:
        rc = read_with_unit(text, count_units, out);
        break;
    case OPTION_DURATION:
        rc = read_with_unit(text, duration_units, out);
        break;
    case OPTION_SIZE:
        rc = read_with_unit(text, size_units, out);
        break;
    }
    int64_t min, max;
    bounds_of(option, &min, &max);
    /* Bounds are those of milliseconds or bytes: the unit is applied. */
    return rc != 0 ? rc : *out < min || *out > max ? -ERANGE : 0;
}

/* The largest unit that divides the value: 60000 is "1m". */
static void print_unit(const struct unit *units, size_t n_units, int64_t value, char *out,
                       size_t size)
{
    const struct unit *best = &units[0];
    for (size_t i = 1; i < n_units; i++)
        /* The first unit is the smallest, of factor 1, and always divides. */
        if (value != 0 && value % units[i].factor == 0 && units[i].factor > best->factor)
            best = &units[i];
    snprintf(out, size, "%" PRId64 "%s", value / best->factor, best->name);
}

static void print_number(enum option_type type, int64_t value, char *out, size_t size)
{
    if (type == OPTION_DURATION)
        print_unit(duration_units, 4, value, out, size);
    else if (type == OPTION_SIZE)
        print_unit(size_units, 5, value, out, size);
    else
        snprintf(out, size, "%" PRId64, value);
}

/* "an integer from 1 to 65535" */
static void print_expected(const struct option *option, char *out, size_t size)
{
    static const char *const kinds[] = {
        [OPTION_TEXT] = "valid UTF-8",
        [OPTION_SECRET] = "valid UTF-8",
        [OPTION_MAP] = "valid UTF-8",
        [OPTION_BOOL] = "true or false",
        [OPTION_COUNT] = "an integer",
        [OPTION_DURATION] = "a duration such as 500ms, 5s, 2m or 1h",
        [OPTION_SIZE] = "a size such as 512, 64KiB or 16MiB",
    };
    if (option->type == OPTION_CHOICE) {
        size_t used = (size_t)snprintf(out, size, "one of ");
        for (const char *at = option->choices; *at && used < size;) {
            size_t n = strcspn(at, "|");
            used += (size_t)snprintf(out + used, size - used, "%.*s%s", (int)n, at,
                                     at[n] == '|' ? ", " : "");
            at += n + (at[n] == '|');
        }
        return;
    }
    if (option->type == OPTION_TEXT || option->type == OPTION_SECRET ||
        option->type == OPTION_MAP || option->type == OPTION_BOOL) {
        snprintf(out, size, "%s", kinds[option->type]);
        return;
    }
    int64_t min, max;
    char low[40], high[40];
    bounds_of(option, &min, &max);
    print_number(option->type, min, low, sizeof low);
    print_number(option->type, max, high, sizeof high);
    if (max == INT64_MAX)
        snprintf(out, size, "%s, at least %s", kinds[option->type], low);
    else
        snprintf(out, size, "%s%s from %s to %s", kinds[option->type],
                 option->type == OPTION_COUNT ? "" : ",", low, high);
}

/* At most 60 bytes of a value, fit for a terminal. */
static void print_value(const char *value, char out[80])
{
    size_t n = 0;
    for (; *value && n < 60; value++, n++) {
        unsigned char byte = (unsigned char)*value;
        out[n] = byte < 0x20 || byte == 0x7f ? '?' : (char)byte;
    }
    while (*value && n > 0 && ((unsigned char)out[n - 1] & 0x80))
        n--; /* never half a character */
    /* At most 60 bytes, and 4 of "...": `out` has 80. */
    strcpy(out + n, *value ? "..." : "");
}

static int refuse(const struct option *option, const char *value, char *err, size_t err_size)
{
    char expected[400], got[80];
    print_expected(option, expected, sizeof expected);
    bool hidden = option->type == OPTION_SECRET || option->type == OPTION_MAP ||
                  (option->type == OPTION_TEXT &&
                   !utf8_is_valid(value, strlen(value))); /* would break the terminal */
    if (hidden)
        snprintf(err, err_size, "%s: expected %s", option->name, expected);
    else {
        print_value(utf8_is_valid(value, strlen(value)) ? value : "(not UTF-8)", got);
        snprintf(err, err_size, "%s: expected %s, got '%s'", option->name, expected, got);
    }
    return -EINVAL;
}

static struct entry *entry_find(const struct settings *settings, const char *name)
{
    for (size_t i = 0; i < settings->n_entries; i++)
        if (strcmp(settings->entries[i].option->name, name) == 0)
            return (struct entry *)&settings->entries[i];
    return NULL;
}

/* For readers: asking for an option that no table has is our own mistake. */
static const struct entry *entry_get(const struct settings *settings, const char *name)
{
    const struct entry *entry = entry_find(settings, name);
    assert(entry && "no option table has this name");
    return entry;
}

int settings_open(struct settings **out, const struct option *const *tables)
{
    size_t n = 0;
    for (size_t t = 0; tables[t]; t++)
        for (const struct option *option = tables[t]; option->name; option++)
            n++;
    struct settings *settings = calloc(1, sizeof *settings + n * sizeof settings->entries[0]);
    if (!settings)
        return -ENOMEM;
    int rc = 0;
    for (size_t t = 0; tables[t]; t++)
        for (const struct option *option = tables[t]; option->name; option++) {
            rc = entry_find(settings, option->name) ? -EEXIST : 0;
            assert(rc == 0 && "two options of one name");
            struct entry *entry = &settings->entries[settings->n_entries++];
            entry->option = option;
            if (!option->fallback)
                continue;
            rc = read_value(option, option->fallback, &entry->number);
            assert(rc == 0 && "a default its own option refuses");
            entry->text = strdup(option->fallback);
            if (!entry->text)
                rc = -ENOMEM;
            /* Without asserts a bad default still ends the start. */
            if (rc != 0)
                goto fail;
        }
    *out = settings;
    return 0;
fail:
    settings_close(settings);
    return rc;
}

/* It may be a secret. */
static void free_text(char *text)
{
    if (text)
        /* Not memset, which the compiler may leave out before free. */
        explicit_bzero(text, strlen(text));
    free(text);
}

void settings_close(struct settings *settings)
{
    if (!settings)
        return;
    for (size_t i = 0; i < settings->n_pairs; i++) {
        free(settings->pairs[i].name);
        free_text(settings->pairs[i].text);
    }
    free(settings->pairs);
    for (size_t i = 0; i < settings->n_entries; i++) {
        free_text(settings->entries[i].text);
    }
    free(settings);
}

const struct option *settings_find(const struct settings *settings, const char *name)
{
    const struct option *nearest = NULL;
    size_t longest = 0;
    for (size_t i = 0; i < settings->n_entries; i++) {
        const struct option *option = settings->entries[i].option;
        size_t len = strlen(option->name);
        bool is_map = option->type == OPTION_MAP;
        if (strcmp(option->name, name) == 0)
            /* A map has no value of its own: only names below it have. */
            return is_map ? NULL : option;
        if (is_map && len > longest && strncmp(option->name, name, len) == 0 && name[len] == '.' &&
            name[len + 1]) {
            nearest = option;
            longest = len;
        }
    }
    return nearest;
}

/* Where the text of a value is kept: an option's, or a map's under that name. NULL: no memory. */
static char **text_of(struct settings *settings, const struct option *option, const char *name)
{
    if (option->type != OPTION_MAP)
        return &entry_find(settings, name)->text;
    for (size_t i = 0; i < settings->n_pairs; i++)
        if (strcmp(settings->pairs[i].name, name) == 0)
            return &settings->pairs[i].text;
    struct pair *pairs = realloc(settings->pairs, (settings->n_pairs + 1) * sizeof pairs[0]);
    if (!pairs)
        return NULL;
    /* The array may have moved: no pointer into it is kept beyond settings_set. */
    settings->pairs = pairs;
    struct pair *pair = &pairs[settings->n_pairs];
    *pair = (struct pair){.map = option, .name = strdup(name)};
    if (!pair->name)
        return NULL;
    settings->n_pairs++;
    return &pair->text;
}

int settings_set(struct settings *settings, const char *name, const char *value, char *err,
                 size_t err_size)
{
    const struct option *option = settings_find(settings, name);
    if (!option) {
        snprintf(err, err_size, "%s: unknown option", name);
        return -ENOENT;
    }
    int64_t number;
    /* Checked before the old value goes: a refused one changes nothing. */
    if (read_value(option, value, &number) != 0)
        return refuse(option, value, err, err_size);
    char *copy = strdup(value);
    char **text = copy ? text_of(settings, option, name) : NULL;
    if (!text) {
        free_text(copy);
        snprintf(err, err_size, "%s: out of memory", name);
        return -ENOMEM;
    }
    free_text(*text);
    *text = copy;
    /* Of a map it is the map's own entry, whose number nobody reads. */
    struct entry *entry = entry_find(settings, option->name);
    entry->number = number;
    return 0;
}

static bool has_part(const char *name, const char *parts)
{
    for (const char *at = parts; at && *at;) {
        size_t n = strcspn(at, "|");
        for (const char *from = name; *from; from++)
            if (strncmp(from, at, n) == 0)
                return true;
        at += n + (at[n] == '|');
    }
    return false;
}

struct setting settings_pair(const struct settings *settings, const char *map, size_t i)
{
    const struct option *option = entry_get(settings, map)->option;
    for (size_t p = 0; p < settings->n_pairs; p++) {
        const struct pair *pair = &settings->pairs[p];
        if (pair->map == option && i-- == 0)
            /* The name without that of its map and the dot. */
            return (struct setting){pair->name + strlen(map) + 1, pair->text,
                                    has_part(pair->name, option->choices)};
    }
    return (struct setting){0};
}

const char *settings_text(const struct settings *settings, const char *name)
{
    return entry_get(settings, name)->text;
}

bool settings_has(const struct settings *settings, const char *name)
{
    const char *text = settings_text(settings, name);
    return text && *text;
}

bool settings_is(const struct settings *settings, const char *name, const char *value)
{
    const char *text = settings_find(settings, name) ? settings_text(settings, name) : NULL;
    return text && strcmp(text, value) == 0;
}

int settings_choice(const struct settings *settings, const char *name)
{
    const struct entry *entry = entry_get(settings, name);
    assert(entry->option->type == OPTION_CHOICE && entry->text);
    const char *at = entry->option->choices;
    int index = 0;
    /* Ends without looking for the end of `choices`: settings_set let no other text in. */
    for (size_t n;
         (n = strcspn(at, "|")) != strlen(entry->text) || strncmp(at, entry->text, n) != 0; index++)
        at += n + 1;
    return index;
}

bool settings_bool(const struct settings *settings, const char *name)
{
    const struct entry *entry = entry_get(settings, name);
    assert(entry->option->type == OPTION_BOOL);
    return entry->number != 0;
}

int64_t settings_number(const struct settings *settings, const char *name)
{
    const struct entry *entry = entry_get(settings, name);
    assert(entry->option->type == OPTION_COUNT || entry->option->type == OPTION_DURATION ||
           entry->option->type == OPTION_SIZE);
    return entry->number;
}

/* NULL without memory. */
static char *text_of_model(const char *text, const char *model)
{
    size_t n = 0, mark = strlen(SETTINGS_MODEL), len = strlen(model);
    for (const char *at = text; (at = strstr(at, SETTINGS_MODEL)); at += mark)
        n++;
    char *copy = malloc(strlen(text) + n * len + 1), *to = copy;
    for (const char *at; copy && (at = strstr(text, SETTINGS_MODEL)); text = at + mark) {
        memcpy(to, text, (size_t)(at - text));
        memcpy(to + (at - text), model, len);
        to += (size_t)(at - text) + len;
    }
    if (copy)
        strcpy(to, text);
    return copy;
}

int settings_of_model(struct settings **out, const struct settings *from, const char *model)
{
    size_t n_bytes = from->n_entries * sizeof from->entries[0];
    struct settings *settings = calloc(1, sizeof *settings + n_bytes);
    if (!settings)
        return -ENOMEM;
    for (size_t i = 0; i < from->n_entries; i++) {
        const struct entry *entry = &from->entries[i];
        struct entry *copy = &settings->entries[settings->n_entries++];
        *copy = (struct entry){.option = entry->option, .number = entry->number};
        copy->text = entry->text ? text_of_model(entry->text, model) : NULL;
        if (entry->text && !copy->text)
            goto fail;
    }
    /* One more than there are: calloc of 0 may return NULL, which means no memory here. */
    settings->pairs = calloc(from->n_pairs + 1, sizeof from->pairs[0]);
    for (size_t i = 0; settings->pairs && i < from->n_pairs; i++) {
        const struct pair *pair = &from->pairs[i];
        struct pair *copy = &settings->pairs[settings->n_pairs++];
        *copy = (struct pair){.map = pair->map, .name = strdup(pair->name)};
        copy->text = strcmp(pair->map->name, "models") == 0 ? strdup(pair->text)
                                                            : text_of_model(pair->text, model);
        /* Counted already: settings_close frees the half of it that is there. */
        if (!copy->name || !copy->text)
            goto fail;
    }
    if (settings->pairs) {
        *out = settings;
        return 0;
    }
fail:
    settings_close(settings);
    return -ENOMEM;
}

bool settings_has_model(const struct settings *settings, const char *name)
{
    const char *text = settings_text(settings, name);
    return text && strstr(text, SETTINGS_MODEL);
}

const char *settings_model_from(const struct settings *settings, const char *name, const char *from)
{
    return !settings_has(settings, name) && settings_has_model(settings, from) ? from : name;
}

int settings_copy(const struct settings *settings, const char *name, char **out)
{
    const char *text = settings_text(settings, name);
    *out = text && *text ? strdup(text) : NULL;
    return !text || !*text || *out ? 0 : -ENOMEM;
}

int settings_read(settings_reader *read, void *config, const struct settings *settings, char *err,
                  size_t err_size)
{
    const char *bad_option = NULL;
    char why[600] = "";
    int rc = read(config, settings, &bad_option, why, sizeof why);
    if (rc == -ENOMEM)
        snprintf(err, err_size, "out of memory");
    else if (rc)
        snprintf(err, err_size, "%s: %s", bad_option, why);
    return rc;
}

const char *settings_blame(const struct settings *settings, const char *otherwise, char *sentence)
{
    static char name[128];
    /* The first word: refusals of options begin with the option and a colon. */
    snprintf(name, sizeof name, "%.*s", (int)strcspn(sentence, ": "), sentence);
    const char *option = settings_find(settings, name) ? name : otherwise;
    size_t len = strlen(option);
    if (strncmp(sentence, option, len) == 0 && strncmp(sentence + len, ": ", 2) == 0)
        memmove(sentence, sentence + len + 2, strlen(sentence + len + 2) + 1);
    return option;
}
