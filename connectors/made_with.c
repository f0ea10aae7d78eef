/*
 * made_with.c: see made_with.h.
 */
#include "connectors/made_with.h"

#include <stdio.h>
#include <string.h>

/* The value of a name; absent: there is no such line. */
static struct bytes find(struct bytes lines, const char *name, size_t name_len)
{
    const char *at = lines.ptr, *end = lines.ptr + lines.len;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *stop = newline ? newline : end;
        size_t len = (size_t)(stop - at);
        /* A line whose name only begins so is another's: behind it the colon must follow. */
        if (len >= name_len + 2 && memcmp(at, name, name_len) == 0 &&
            memcmp(at + name_len, ": ", 2) == 0)
            return (struct bytes){at + name_len + 2, len - name_len - 2};
        at = newline ? newline + 1 : end;
    }
    return (struct bytes){NULL, 0};
}

bool made_with_is_held(struct bytes there)
{
    size_t len = strlen(MADE_WITH_HELD);
    return there.len >= len && memcmp(there.ptr, MADE_WITH_HELD, len) == 0;
}

bool made_with_fits(struct bytes there, const char *ours, const char *option, const char *place,
                    const char *forget, char *why, size_t size)
{
    struct bytes all = {ours, strlen(ours)};
    for (const char *line = ours; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        size_t name_len = strcspn(line, ":\n");
        struct bytes mine = find(all, line, name_len), theirs = find(there, line, name_len);
        bool is_name = name_len == 5 && memcmp(line, "model", 5) == 0;
        /* A line of theirs that we do not have is ignored: a newer release may write more. */
        if (is_name || (theirs.ptr && bytes_equal(theirs, mine)))
            continue;
        if (!theirs.ptr)
            theirs = (struct bytes){"nothing", 7};
        snprintf(why, size,
                 "%s: the vectors in %.200s are made with %.*s: %.*s, and this worker's with "
                 "%.*s: %.*s, which a search cannot compare; write to another output and move its "
                 "readers (docs/operations.md, Changing the model), or set allow_mixed; if no "
                 "vectors are left there, %.300s",
                 option, place, (int)name_len, line, theirs.len > 64 ? 64 : (int)theirs.len,
                 theirs.ptr, (int)name_len, line, mine.len > 64 ? 64 : (int)mine.len, mine.ptr,
                 forget);
        return false;
    }
    return true;
}
