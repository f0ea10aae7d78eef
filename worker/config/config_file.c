/*
 * config_file.c: see config_file.h.
 *
 * Owns:    walking libyaml's events; no tree is built, so every error has its place in the file.
 * Why:     libyaml's scanner holds its own stack on the heap, and what could nest (maps) is bounded
 *          here, so no file can exhaust the stack.
 */
#include "worker/config/config_file.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "connectors/buffer.h"
#include "worker/config/environment.h"

#define MAX_FILE  (1 << 20)
#define MAX_DEPTH 8
#define MAX_NAME  200

/* A key that was given, to find it a second time. */
struct key {
    char *name;
    size_t line;
};

struct walk {
    struct options *options;
    const char *path;
    char *const *environment;
    yaml_parser_t parser;
    char name[MAX_NAME + 1]; /* of the value that comes next: "redis.stream" */
    size_t ends[MAX_DEPTH];  /* length of name outside each open map */
    size_t depth;
    bool expect_key, began, ended;
    struct key *keys;
    size_t n_keys, room;
    char *err;
    size_t err_size;
};

static int refuse(struct walk *walk, yaml_mark_t mark, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int refuse(struct walk *walk, yaml_mark_t mark, const char *format, ...)
{
    char why[600];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    snprintf(walk->err, walk->err_size, "%s:%zu:%zu: %s", walk->path, mark.line + 1,
             mark.column + 1, why);
    return -EBADMSG;
}

static int refuse_memory(struct walk *walk)
{
    snprintf(walk->err, walk->err_size, "out of memory");
    return -ENOMEM;
}

static int remember(struct walk *walk, yaml_mark_t mark)
{
    for (size_t i = 0; i < walk->n_keys; i++)
        if (strcmp(walk->keys[i].name, walk->name) == 0)
            return refuse(walk, mark, "%s: given already in line %zu; expected each key once",
                          walk->name, walk->keys[i].line);
    if (walk->n_keys == walk->room) {
        size_t room = walk->room ? walk->room * 2 : 32;
        struct key *keys = realloc(walk->keys, room * sizeof keys[0]);
        if (!keys)
            return refuse_memory(walk);
        walk->keys = keys;
        walk->room = room;
    }
    char *copy = strdup(walk->name);
    if (!copy)
        return refuse_memory(walk);
    walk->keys[walk->n_keys++] = (struct key){copy, mark.line + 1};
    return 0;
}

static bool is_group(const struct options *options, const char *name)
{
    const struct option *option;
    size_t len = strlen(name);
    for (size_t i = 0; (option = options_at(options, i)); i++)
        if (strncmp(option->name, name, len) == 0 &&
            (option->name[len] == '.' || (option->type == OPTION_MAP && !option->name[len])))
            return true;
    option = settings_find(options_settings(options), name);
    return option && option->type == OPTION_MAP; /* names below a map nest as they like */
}

static bool is_option(const struct options *options, const char *name)
{
    return settings_find(options_settings(options), name) != NULL;
}

static int refuse_unknown(struct walk *walk, yaml_mark_t mark)
{
    const char *near = options_nearest(walk->options, walk->name);
    if (near)
        return refuse(walk, mark, "%s: unknown option; did you mean %s?", walk->name, near);
    return refuse(walk, mark, "%s: unknown option; --help lists all", walk->name);
}

/* A key may be dotted itself: "redis.stream: x" is the same as "redis: {stream: x}". */
static int on_key(struct walk *walk, const yaml_event_t *event)
{
    const char *key = (const char *)event->data.scalar.value;
    size_t outside = walk->ends[walk->depth - 1];
    size_t dot = outside ? 1 : 0;
    if (event->data.scalar.anchor || event->data.scalar.tag)
        return refuse(walk, event->start_mark, "anchors and tags are not read here");
    /* A NUL in a key would end it early and hide what follows. */
    if (event->data.scalar.length != strlen(key) || event->data.scalar.length == 0 ||
        outside + dot + event->data.scalar.length > MAX_NAME)
        return refuse(walk, event->start_mark, "expected the name of an option");
    /* Over the key that stood before it in the same map. */
    snprintf(walk->name + outside, sizeof walk->name - outside, "%s%s", dot ? "." : "", key);
    walk->expect_key = false;
    if (!is_group(walk->options, walk->name) && !is_option(walk->options, walk->name))
        return refuse_unknown(walk, event->start_mark);
    return remember(walk, event->start_mark);
}

/* at: behind "${". Appends the value and moves *at behind "}". */
static int expand_one(struct walk *walk, yaml_mark_t mark, const char **at, struct buffer *to)
{
    const char *name = *at;
    size_t n = 0;
    while (isalnum((unsigned char)name[n]) || name[n] == '_')
        n++;
    /* The first brace: a default cannot hold one. */
    const char *end = strchr(name + n, '}');
    bool has_default = strncmp(name + n, ":-", 2) == 0;
    if (n == 0 || isdigit((unsigned char)name[0]) || !end || (!has_default && name[n] != '}'))
        return refuse(walk, mark,
                      "%s: expected ${NAME} or ${NAME:-default} (write $${ for a literal ${)",
                      walk->name);
    const char *value = environment_get(walk->environment, name, n);
    *at = end + 1;
    if (has_default && (!value || !value[0]))
        return buffer_put(to, name + n + 2, (size_t)(end - (name + n + 2)));
    if (!value)
        return refuse(walk, mark,
                      "%s: the variable %.*s is not set; set it or write ${%.*s:-default}",
                      walk->name, (int)n, name, (int)n, name);
    return buffer_put_text(to, value);
}

/* Ended by a NUL. */
static int expand(struct walk *walk, yaml_mark_t mark, const char *from, struct buffer *to)
{
    int rc = 0;
    while (rc == 0 && *from) {
        size_t n = strcspn(from, "$");
        rc = buffer_put(to, from, n);
        from += n;
        if (rc != 0 || !*from)
            break;
        if (strncmp(from, "$${", 3) == 0) {
            rc = buffer_put(to, "${", 2);
            from += 3;
        } else if (strncmp(from, "${", 2) == 0) {
            from += 2;
            rc = expand_one(walk, mark, &from, to);
        } else {
            rc = buffer_put(to, from++, 1);
        }
    }
    if (rc == 0)
        rc = buffer_put(to, "", 1);
    return rc == -ENOMEM ? refuse_memory(walk) : rc;
}

static bool is_null(const yaml_event_t *event)
{
    const char *value = (const char *)event->data.scalar.value;
    return event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (!value[0] || strcmp(value, "~") == 0 || strcmp(value, "null") == 0);
}

static int on_value(struct walk *walk, const yaml_event_t *event)
{
    const char *value = (const char *)event->data.scalar.value;
    walk->expect_key = true;
    if (event->data.scalar.anchor)
        return refuse(walk, event->start_mark, "%s: anchors are not read here", walk->name);
    if (event->data.scalar.tag)
        return refuse(walk, event->start_mark, "%s: tags are not read here", walk->name);
    if (!is_option(walk->options, walk->name)) {
        if (is_null(event)) /* "redis:" with everything under it commented out */
            return 0;
        return refuse(walk, event->start_mark, "%s: expected a map of options, such as %s",
                      walk->name, "{name: value}");
    }
    if (is_null(event))
        return refuse(walk, event->start_mark,
                      "%s: expected a value; leave the line out for the default, or write \"\"",
                      walk->name);
    if (event->data.scalar.length != strlen(value))
        return refuse(walk, event->start_mark, "%s: holds a NUL byte", walk->name);

    struct buffer text = {0};
    int rc = expand(walk, event->start_mark, value, &text);
    if (rc == 0) {
        char where[400];
        snprintf(where, sizeof where, "%.300s:%zu:%zu", walk->path, event->start_mark.line + 1,
                 event->start_mark.column + 1);
        rc = options_set(walk->options, walk->name, text.ptr, ORIGIN_FILE, where, walk->err,
                         walk->err_size);
    }
    if (text.ptr)
        explicit_bzero(text.ptr, text.len); /* it may be a secret */
    buffer_close(&text);
    /* Whatever options_set calls it, the file is at fault. */
    return rc == 0 || rc == -ENOMEM ? rc : -EBADMSG;
}

static int on_map(struct walk *walk, const yaml_event_t *event)
{
    if (event->data.mapping_start.anchor || event->data.mapping_start.tag)
        return refuse(walk, event->start_mark, "anchors and tags are not read here");
    if (walk->depth > 0 && walk->expect_key)
        return refuse(walk, event->start_mark, "expected the name of an option, got a map");
    if (walk->depth > 0 && !is_group(walk->options, walk->name))
        return refuse(walk, event->start_mark, "%s: expected a single value, got a map",
                      walk->name);
    /* `ends` has room for no more. */
    if (walk->depth == MAX_DEPTH)
        return refuse(walk, event->start_mark, "maps are nested too deeply");
    walk->ends[walk->depth++] = strlen(walk->name);
    walk->expect_key = true;
    return 0;
}

static int on_event(struct walk *walk, const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (walk->began)
            return refuse(walk, event->start_mark, "expected one document, got a second");
        walk->began = true;
        return 0;
    case YAML_MAPPING_START_EVENT:
        return on_map(walk, event);
    case YAML_MAPPING_END_EVENT:
        /* libyaml balances starts and ends, or reports an error before this. */
        assert(walk->depth > 0);
        walk->name[walk->ends[--walk->depth]] = '\0';
        walk->expect_key = true;
        return 0;
    case YAML_SCALAR_EVENT:
        if (walk->depth == 0)
            return is_null(event)
                       ? 0
                       : refuse(walk, event->start_mark, "expected options as `name: value`");
        return walk->expect_key ? on_key(walk, event) : on_value(walk, event);
    case YAML_SEQUENCE_START_EVENT:
        return refuse(walk, event->start_mark, "%s%sexpected a single value, got a list",
                      walk->depth ? walk->name : "", walk->depth ? ": " : "");
    case YAML_ALIAS_EVENT:
        return refuse(walk, event->start_mark, "%s: aliases are not read here", walk->name);
    case YAML_STREAM_END_EVENT:
        walk->ended = true;
        return 0;
    default:
        return 0;
    }
}

static int walk_events(struct walk *walk)
{
    int rc = 0;
    while (rc == 0 && !walk->ended) {
        yaml_event_t event;
        if (!yaml_parser_parse(&walk->parser, &event)) {
            if (walk->parser.error == YAML_MEMORY_ERROR)
                return refuse_memory(walk);
            const char *problem = walk->parser.problem;
            return refuse(walk, walk->parser.problem_mark, "not valid YAML: %s",
                          problem ? problem : "cannot be read");
        }
        rc = on_event(walk, &event);
        yaml_event_delete(&event);
    }
    return rc;
}

int config_file_parse(struct options *options, const char *path, const char *bytes, size_t len,
                      char *const *environment, char *err, size_t err_size)
{
    struct walk walk = {.options = options,
                        .path = path,
                        .environment = environment,
                        .err = err,
                        .err_size = err_size};
    if (!yaml_parser_initialize(&walk.parser))
        return refuse_memory(&walk);
    yaml_parser_set_input_string(&walk.parser, (const unsigned char *)bytes, len);
    int rc = walk_events(&walk);
    yaml_parser_delete(&walk.parser);
    for (size_t i = 0; i < walk.n_keys; i++)
        free(walk.keys[i].name);
    free(walk.keys);
    return rc;
}

int config_file_read(struct options *options, const char *path, char *const *environment, char *err,
                     size_t err_size)
{
    int rc = -ENOMEM;
    char *bytes = malloc(MAX_FILE + 1);
    FILE *file = bytes ? fopen(path, "rbe") : NULL;
    if (!bytes) {
        snprintf(err, err_size, "out of memory");
        goto done;
    }
    size_t len = file ? fread(bytes, 1, MAX_FILE + 1, file) : 0;
    if (!file || ferror(file)) {
        rc = errno ? -errno : -EIO;
        snprintf(err, err_size, "%s: cannot be read: %s", path, strerror(-rc));
        goto done;
    }
    if (len > MAX_FILE) {
        rc = -EBADMSG;
        snprintf(err, err_size, "%s: expected a configuration file of at most 1 MiB", path);
        goto done;
    }
    rc = config_file_parse(options, path, bytes, len, environment, err, err_size);
done:
    if (file)
        fclose(file);
    if (bytes)
        explicit_bzero(bytes, MAX_FILE + 1);
    free(bytes);
    return rc;
}
