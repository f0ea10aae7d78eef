/*
 * options.h: the one table of options and the values that flags, environment and file give it.
 *
 * Owns:    the core options, their union with every connector's table, precedence (flag over
 *          environment over file over default), and where each value came from.
 * Refuses: what the values are for. An unknown name or a bad value is always an error.
 * Threads: the main thread, before the loop runs.
 * Why:     one table, so that a flag, a variable, a key of the file and a line of --help can never
 *          disagree.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "connectors/settings.h"

/* In order of precedence. */
enum origin { ORIGIN_DEFAULT, ORIGIN_FILE, ORIGIN_ENVIRONMENT, ORIGIN_FLAG };

/* Default of an option where a command wants another than the table. */
struct preset {
    const char *name, *fallback;
};

struct options;

/*
 * The core table and those of all connectors in the registry, or `tables` (NULL-terminated) beside
 * the core one when tests name some. presets: ended by name NULL, may be NULL; environment: as
 * environ. Both tables and presets are borrowed until close. 0 or -ENOMEM.
 */
int options_open(struct options **out, const struct option *const *tables,
                 const struct preset *presets, char *const *environment);
/* The core table, those of all connectors, and `own` of a command (may be NULL). */
int options_open_command(struct options **out, const struct option *own,
                         const struct preset *presets, char *const *environment);
/* `own` alone, for commands that take none of the worker's options. */
int options_open_own(struct options **out, const struct option *own);
void options_close(struct options *options); /* accepts NULL */

const struct settings *options_settings(const struct options *options);
/* Of a map: the highest of its pairs. */
enum origin options_origin(const struct options *options, const char *name);
/* "worker.yaml:3:5", "EMBEDMILL_THREADS", "--threads" or "default"; valid until the next set. */
const char *options_where(const struct options *options, const char *name);

/* All options in order, for help and tests. NULL behind the last. */
const struct option *options_at(const struct options *options, size_t i);

/*
 * Give a value from somewhere. `where` goes before err ("worker.yaml:3:5", "--threads"). A value
 * of lower origin than the one there is checked and then dropped.
 */
int options_set(struct options *options, const char *name, const char *value, enum origin origin,
                const char *where, char *err, size_t err_size);

/* A file in the folder where models are kept; empty when there is no home to look in. */
void options_model_path(const struct options *options, const char *file, char *out, size_t size);

/* What is wrong with the value an option has, as a sentence that names its flag, its variable or
 * its place in the file. */
void options_explain(const struct options *options, const char *name, const char *why, char *err,
                     size_t err_size);

/* The name of the option nearest to a misspelt one, or NULL when none is near. */
const char *options_nearest(const struct options *options, const char *name);

/* "redis.stream": "redis-stream" for flags, "REDIS_STREAM" for the environment. Cuts at size. */
void options_flag_name(const char *name, char *out, size_t size);
void options_variable_name(const char *name, char *out, size_t size);

#endif
