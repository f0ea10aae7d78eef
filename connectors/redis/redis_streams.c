/*
 * redis_streams.c: see redis_streams.h.
 *
 * Threads: no state.
 */
#include "connectors/redis/redis_streams.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "a, b" is meant as "a,b": nobody's key begins or ends with a space. */
static struct bytes without_spaces(const char *from, size_t len)
{
    while (len && from[0] == ' ') {
        from++;
        len--;
    }
    while (len && from[len - 1] == ' ')
        len--;
    return (struct bytes){from, len};
}

/* A copy of what the user has named, or of name and suffix. */
static char *name_or(const char *named, struct bytes name, const char *suffix)
{
    size_t suffix_len = strlen(suffix);
    char *copy;

    if (named && *named)
        return strdup(named);
    copy = malloc(name.len + suffix_len + 1);
    if (copy) {
        memcpy(copy, name.ptr, name.len);
        memcpy(copy + name.len, suffix, suffix_len + 1);
    }
    return copy;
}

static int streams_add(struct redis_streams *streams, struct bytes name, const char *output,
                       const char *dead_letters, char *err, size_t err_size)
{
    struct redis_stream *stream;

    if (!name.len) {
        snprintf(err, err_size, "expected a name, got nothing; commas stand between names");
        return -EINVAL;
    }
    if (redis_streams_find(streams, name)) {
        snprintf(err, err_size, "'%.*s' is named twice; name each stream once",
                 (int)(name.len < 60 ? name.len : 60), name.ptr);
        return -EINVAL;
    }
    /* Counted before it is filled: redis_streams_clear frees what there is of it. */
    stream = &streams->items[streams->n++];
    stream->name = name_or(NULL, name, "");
    stream->output = name_or(output, name, ":embeddings");
    stream->dead_letters = name_or(dead_letters, name, ":dlq");
    return stream->name && stream->output && stream->dead_letters ? 0 : -ENOMEM;
}

int redis_streams_read(struct redis_streams *out, const char *list, const char *output,
                       const char *dead_letters, char *err, size_t err_size)
{
    struct redis_streams streams = {0};
    size_t n = 1;
    int rc = 0;

    for (const char *p = list; *p; p++)
        n += *p == ',';
    streams.items = calloc(n, sizeof(*streams.items));
    streams.list = strdup(list);
    if (!streams.items || !streams.list)
        rc = -ENOMEM;
    for (const char *from = list; rc == 0 && streams.n < n;) {
        size_t len = strcspn(from, ",");
        rc = streams_add(&streams, without_spaces(from, len), output, dead_letters, err, err_size);
        /* After the last one it is behind the NUL, and the loop is over: n counts the commas. */
        from += len + 1;
    }
    if (rc)
        redis_streams_clear(&streams);
    else
        *out = streams;
    return rc;
}

void redis_streams_clear(struct redis_streams *streams)
{
    for (size_t i = 0; i < streams->n; i++) {
        free(streams->items[i].name);
        free(streams->items[i].output);
        free(streams->items[i].dead_letters);
    }
    free(streams->items);
    free(streams->list);
    *streams = (struct redis_streams){0};
}

/* Either the user has named one for all, or each has its own. */
size_t redis_streams_targets(const struct redis_streams *streams, bool outputs)
{
    const struct redis_stream *first = &streams->items[0], *last = &streams->items[streams->n - 1];
    bool is_one = outputs ? strcmp(first->output, last->output) == 0
                          : strcmp(first->dead_letters, last->dead_letters) == 0;

    return is_one ? 1 : streams->n;
}

struct redis_stream *redis_streams_find(const struct redis_streams *streams, struct bytes name)
{
    for (size_t i = 0; i < streams->n; i++)
        if (strlen(streams->items[i].name) == name.len &&
            memcmp(streams->items[i].name, name.ptr, name.len) == 0)
            return &streams->items[i];
    return NULL;
}
