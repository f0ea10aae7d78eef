/*
 * nats_json.c: see nats_json.h.
 */
#include "connectors/nats/nats_json.h"

#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 32

static size_t skip_space(struct bytes json, size_t at)
{
    while (at < json.len && memchr(" \t\r\n", json.ptr[at], 4))
        at++;
    return at;
}

/* Behind the string that begins at `at`; 0: it has no end. */
static size_t skip_string(struct bytes json, size_t at)
{
    for (at++; at < json.len; at++) {
        if (json.ptr[at] == '"')
            return at + 1;
        /* Whatever is escaped, a quote above all, is passed over. */
        at += json.ptr[at] == '\\';
    }
    return 0;
}

/* Behind the value that begins at `at`; 0: it has no end. */
static size_t skip_value(struct bytes json, size_t at)
{
    size_t depth = 0, start = at;
    while (at < json.len) {
        char c = json.ptr[at];
        if (c == '"') {
            at = skip_string(json, at);
            if (!at)
                return 0;
        } else if (c == '{' || c == '[') {
            if (++depth > DEPTH_MAX)
                return 0;
            at++;
        } else if (c == '}' || c == ']') {
            /* The end of what is around it: of a number, true, false or null. */
            if (!depth)
                return at > start ? at : 0;
            depth--;
            at++;
        } else if (depth || !memchr(", \t\r\n", c, 5)) {
            at++;
            continue;
        } else {
            return at > start ? at : 0;
        }
        if (!depth)
            return at;
    }
    return depth ? 0 : at;
}

/* The value of that member of an object. */
static struct bytes find_member(struct bytes json, const char *name, size_t len)
{
    const struct bytes none = {NULL, 0};
    size_t at = skip_space(json, 0);
    if (at >= json.len || json.ptr[at] != '{')
        return none;
    for (at = skip_space(json, at + 1); at < json.len && json.ptr[at] == '"';) {
        size_t key = at + 1, end = skip_string(json, at);
        if (!end)
            return none;
        at = skip_space(json, end);
        if (at >= json.len || json.ptr[at] != ':')
            return none;
        size_t value = skip_space(json, at + 1), after = skip_value(json, value);
        if (!after)
            return none;
        if (end - 1 - key == len && memcmp(json.ptr + key, name, len) == 0)
            return (struct bytes){json.ptr + value, after - value};
        at = skip_space(json, after);
        if (at < json.len && json.ptr[at] == ',')
            at = skip_space(json, at + 1);
    }
    return none;
}

struct bytes nats_json_find(struct bytes json, const char *path)
{
    while (json.ptr && *path) {
        size_t len = strcspn(path, ".");
        json = find_member(json, path, len);
        path += len + (path[len] == '.');
    }
    return json;
}

int64_t nats_json_number(struct bytes json, const char *path, int64_t fallback)
{
    struct bytes value = nats_json_find(json, path);
    char text[32], *end;
    /* No int64 has 32 digits. */
    if (!value.ptr || value.len >= sizeof text)
        return fallback;
    memcpy(text, value.ptr, value.len);
    text[value.len] = '\0';
    int64_t number = strtoll(text, &end, 10);
    return end == text ? fallback : number;
}

bool nats_json_bool(struct bytes json, const char *path)
{
    struct bytes value = nats_json_find(json, path);
    return value.len == 4 && memcmp(value.ptr, "true", 4) == 0;
}

void nats_json_string(struct bytes value, char *out, size_t size)
{
    size_t len = 0;
    if (value.len >= 2 && value.ptr[0] == '"')
        for (size_t i = 1; i + 1 < value.len && len + 1 < size; i++) {
            bool is_escaped = value.ptr[i] == '\\';
            if (is_escaped) /* of what servers write, \" and \\ and \u003e for > */
                i++;
            if (is_escaped && value.ptr[i] == 'u' && i + 5 < value.len) {
                char digits[5] = {0};
                memcpy(digits, value.ptr + i + 1, 4);
                long code = strtol(digits, NULL, 16);
                out[len++] = code > 0 && code < 128 ? (char)code : '?';
                i += 4;
                continue;
            }
            out[len++] = value.ptr[i];
        }
    out[len] = '\0';
}

void nats_json_text(struct bytes json, const char *path, char *out, size_t size)
{
    nats_json_string(nats_json_find(json, path), out, size);
}

bool nats_json_next(struct bytes array, size_t *at, struct bytes *out)
{
    size_t i = *at ? *at : skip_space(array, 0);
    if (*at == 0) {
        if (i >= array.len || array.ptr[i] != '[')
            return false;
        i++;
    }
    i = skip_space(array, i);
    if (i < array.len && array.ptr[i] == ',')
        i = skip_space(array, i + 1);
    if (i >= array.len || array.ptr[i] == ']')
        return false;
    size_t end = skip_value(array, i);
    if (!end)
        return false;
    *out = (struct bytes){array.ptr + i, end - i};
    *at = end;
    return true;
}
