/*
 * settings.h: named options and their values, the currency in which connectors are configured.
 *
 * Owns:    what an option is (name, type, bounds, default, help) and how its text is read.
 * Refuses: where a value came from (flag, environment, file: the worker's business) and what it
 *          is for.
 * Threads: read-only after start, any thread.
 * Why:     a connector declares its options in its own file; the worker turns that one table into
 *          flags, environment, YAML and --help. Adding a connector changes no table elsewhere.
 */
#ifndef SETTINGS_H
#define SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum option_type {
    OPTION_TEXT,     /* any UTF-8 */
    OPTION_SECRET,   /* as text; never printed */
    OPTION_CHOICE,   /* one of `choices`, "a|b|c" */
    OPTION_BOOL,     /* true false yes no on off 1 0 */
    OPTION_COUNT,    /* integer within [min, max] */
    OPTION_DURATION, /* 500ms 5s 2m 1h, kept in milliseconds, within [min, max] */
    OPTION_SIZE,     /* 512 64KiB 16MiB 1GiB (also kB MB GB), kept in bytes, within [min, max] */
    OPTION_MAP,      /* any name below its own ("kafka.linger.ms") holds a text for somebody else */
};

struct option {
    const char
        *name; /* "redis.stream": dots nest in YAML; --redis-stream, EMBEDMILL_REDIS_STREAM */
    enum option_type type;
    const char *fallback; /* default as text; NULL: none */
    const char *choices;  /* CHOICE; MAP: "a|b", parts of names whose values are secret; or NULL */
    int64_t min, max;     /* COUNT, DURATION (ms), SIZE (bytes); both 0: anything from 0 up */
    const char *arg;      /* what --help calls the value: "URL"; MAP: its flag, "X", or NULL */
    const char *help;     /* one sentence */
};

/* A checked set of values. Opaque here; built by the worker, or by tests with settings_set. */
struct settings;

/* tables: NULL-terminated array of option tables, each ended by an option with name NULL. */
int settings_open(struct settings **out, const struct option *const *tables);
void settings_close(struct settings *settings); /* accepts NULL */

/* The option of that name in any table, else the nearest map that it lies below, or NULL. */
const struct option *settings_find(const struct settings *settings, const char *name);

/*
 * Check value against the option's type and bounds and keep a copy. 0; -ENOENT: no such option;
 * -EINVAL: bad value, and err says what was expected.
 */
int settings_set(struct settings *settings, const char *name, const char *value, char *err,
                 size_t err_size);

/* Readers. Naming an option that no table has is our own mistake (assert). */
const char *settings_text(const struct settings *settings, const char *name); /* may be NULL */
/* Of an OPTION_CHOICE that has a value: its index in `choices`. */
int settings_choice(const struct settings *settings, const char *name);
/* Is it set, and not empty? */
bool settings_has(const struct settings *settings, const char *name);
/* Has an option of that name this value? False when no table has it. */
bool settings_is(const struct settings *settings, const char *name, const char *value);
bool settings_bool(const struct settings *settings, const char *name);
/* count, ms or bytes; 0 when there is neither a value nor a default */
int64_t settings_number(const struct settings *settings, const char *name);

/*
 * A copy in which each text, secrets and maps but `models` among them, has the name of a model
 * where it had SETTINGS_MODEL. 0 or -ENOMEM.
 */
#define SETTINGS_MODEL "{model}"
int settings_of_model(struct settings **out, const struct settings *settings, const char *model);
/* Has it SETTINGS_MODEL in it? */
bool settings_has_model(const struct settings *settings, const char *name);
/* Of an option whose value is made of that of `from` where it is not set: `from` when that gives it
 * SETTINGS_MODEL, else the option. */
const char *settings_model_from(const struct settings *settings, const char *name,
                                const char *from);

/* A copy of a text, to be freed; NULL when it is not set or empty. 0 or -ENOMEM. */
int settings_copy(const struct settings *settings, const char *name, char **out);

/* How a connector reads its options into a struct of its own. 0; -EINVAL: *bad_option is the one to
 * be changed, err says how; -ENOMEM. On failure *config is as it was. */
typedef int settings_reader(void *config, const struct settings *settings, const char **bad_option,
                            char *err, size_t err_size);
/* The same, with the option in the sentence: "option: how". */
int settings_read(settings_reader *read, void *config, const struct settings *settings, char *err,
                  size_t err_size);
/* The other way: the option that a sentence begins with, which is taken off it, or else that one.
 * Good until the next call; the loop thread only. */
const char *settings_blame(const struct settings *settings, const char *otherwise, char *sentence);

/* One value of a map. */
struct setting {
    const char *name, *value; /* name: without that of the map; both NULL behind the last */
    bool secret;
};
/* The i-th value of a map, in the order given. */
struct setting settings_pair(const struct settings *settings, const char *map, size_t i);

#endif
