/*
 * environment.c: see environment.h.
 */
#include "worker/config/environment.h"

#include <string.h>

const char *environment_get(char *const *environment, const char *name, size_t name_len)
{
    for (; environment && *environment; environment++)
        if (strncmp(*environment, name, name_len) == 0 && (*environment)[name_len] == '=')
            return *environment + name_len + 1;
    return NULL;
}
