/*
 * memory.c: see memory.h. The limit of a process is the smallest on the way from its own cgroup up
 * to the root; folders that are not there (a container sees its cgroup as the root) are passed
 * over.
 *
 * Threads: no state.
 */
#include "connectors/memory.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_SIZE = 4096 };

/* A number alone in a file; UINT64_MAX for "max", a file that is not there, or an absurd one. */
static uint64_t read_limit(const char *folder, const char *file)
{
    char path[PATH_SIZE + 64];
    uint64_t limit;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *f = fopen(path, "re");
    bool got = f && fscanf(f, "%" SCNu64, &limit) == 1;
    if (f)
        fclose(f);
    /* cgroup v1 writes no limit as 2^63 less a page. */
    return got && limit < (UINT64_C(1) << 62) ? limit : UINT64_MAX;
}

static uint64_t limit_above(const char *root, const char *mount, const char *path, const char *file)
{
    char folder[PATH_SIZE];
    int base = snprintf(folder, sizeof folder, "%s/sys/fs/cgroup%s", root, mount);
    uint64_t smallest = UINT64_MAX;
    /* A path cut short would be another group's: no limit is better than a wrong one. */
    if (snprintf(folder, sizeof folder, "%s/sys/fs/cgroup%s%s", root, mount, path) >=
        (int)sizeof folder)
        return UINT64_MAX;
    for (;;) {
        uint64_t limit = read_limit(folder, file);
        smallest = limit < smallest ? limit : smallest;
        /* The limit of every group above counts, too; `base` keeps us below the mount. */
        char *last = strrchr(folder + base, '/');
        if (!last)
            return smallest;
        *last = '\0';
    }
}

uint64_t memory_limit(const char *root)
{
    char path[PATH_SIZE], line[PATH_SIZE];
    uint64_t smallest = UINT64_MAX;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        /* "ID:CONTROLLERS:PATH", and nothing between the colons for cgroup v2 (cgroups(7)). */
        *group++ = '\0';
        uint64_t limit = UINT64_MAX;
        if (controllers[1] == '\0')
            limit = limit_above(root, "", group, "memory.max");
        else if (strstr(controllers, "memory"))
            limit = limit_above(root, "/memory", group, "memory.limit_in_bytes");
        smallest = limit < smallest ? limit : smallest;
    }
    if (f)
        fclose(f);
    return smallest;
}

static uint64_t meminfo(const char *root, const char *key)
{
    char path[PATH_SIZE], line[256];
    uint64_t kilobytes = 0;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, key, strlen(key)) == 0)
            kilobytes = strtoull(line + strlen(key), NULL, 10);
    if (f)
        fclose(f);
    return kilobytes * 1024;
}

uint64_t memory_total(const char *root)
{
    return meminfo(root, "MemTotal:");
}

uint64_t memory_available(const char *root)
{
    return meminfo(root, "MemAvailable:");
}
