/*
 * name.c: see name.h.
 */
#include "worker/config/name.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

bool name_ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), len = strlen(end);
    return n >= len && strcmp(name + n - len, end) == 0;
}

bool name_has_errors(const char *output, char *out, size_t size)
{
    struct stat about;
    snprintf(out, size, "%s.errors.jsonl", output);
    return stat(out, &about) == 0 && about.st_size > 0;
}

bool name_in(const char *name, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}
