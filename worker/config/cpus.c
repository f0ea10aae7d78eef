/*
 * cpus.c: see cpus.h. The quota of a process is the smallest on the way from its own cgroup up to
 * the root. A container may see its own cgroup as the root while /proc names a path from outside
 * (cgroup v1 without a cgroup namespace), so folders that are not there are passed over.
 *
 * A quota of 2.5 CPUs is counted as 2: a third thread would use it up before the period ends and
 * all threads, the loop with its heartbeats and acks too, would then be throttled until the next.
 * The half CPU left over is the loop's.
 */
#define _GNU_SOURCE /* CPU_ALLOC */
#include "worker/config/cpus.h"

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_SIZE = 4096 };

static bool file_read(const char *folder, const char *file, char *out, size_t size)
{
    char path[PATH_SIZE];
    int n = snprintf(path, sizeof path, "%s/%s", folder, file);
    if (n < 0 || (size_t)n >= sizeof path)
        return false;
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    size_t len = fread(out, 1, size - 1, f);
    fclose(f);
    out[len] = '\0';
    return len > 0;
}

/* 0: no limit. */
static double quota_here(const char *folder, bool v2)
{
    char text[128];
    long long quota = 0, period = 0;
    if (v2) {
        if (!file_read(folder, "cpu.max", text, sizeof text) ||
            sscanf(text, "%lld %lld", &quota, &period) != 2) /* "max 100000": none */
            return 0;
    } else {
        if (!file_read(folder, "cpu.cfs_quota_us", text, sizeof text))
            return 0;
        quota = atoll(text); /* -1: none */
        if (!file_read(folder, "cpu.cfs_period_us", text, sizeof text))
            return 0;
        period = atoll(text);
    }
    return quota > 0 && period > 0 ? (double)quota / (double)period : 0;
}

/* The smallest quota from mount/path up to mount; 0: none. */
static double quota_above(const char *root, const char *mount, const char *path, bool v2)
{
    char folder[PATH_SIZE];
    int base = snprintf(folder, sizeof folder, "%s/sys/fs/cgroup%s", root, mount);
    if (base < 0 || (size_t)base >= sizeof folder)
        return 0;
    if (snprintf(folder + base, sizeof folder - (size_t)base, "%s", path) >=
        (int)(sizeof folder - (size_t)base))
        return 0;
    double smallest = 0;
    for (;;) {
        /* A folder that is not there has none: a container may see its own cgroup as the root, and
         * the path that it has on the host. */
        double quota = quota_here(folder, v2);
        if (quota > 0 && (smallest == 0 || quota < smallest))
            smallest = quota;
        char *last = strrchr(folder + base, '/');
        if (!last)
            return smallest;
        *last = '\0';
    }
}

static bool list_has(const char *list, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = list; at && *at; at = strchr(at, ','), at += at != NULL)
        if (strncmp(at, word, len) == 0 && (at[len] == ',' || at[len] == '\0'))
            return true;
    return false;
}

/* One line of /proc/self/cgroup: "0::/path" (version 2) or "4:cpu,cpuacct:/path". */
static double quota_line(const char *root, char *line)
{
    line[strcspn(line, "\n")] = '\0';
    char *controllers = strchr(line, ':');
    char *path = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!path)
        return 0;
    controllers++;
    *path++ = '\0';
    if (*controllers == '\0') {
        /* Version 2 is mounted at the root, or beside version 1 under "unified". */
        double quota = quota_above(root, "", path, true);
        double hybrid = quota_above(root, "/unified", path, true);
        return quota > 0 ? quota : hybrid;
    }
    if (!list_has(controllers, "cpu"))
        return 0;
    char mount[256];
    if (snprintf(mount, sizeof mount, "/%s", controllers) >= (int)sizeof mount)
        return 0;
    /* The mount has the name of all its controllers, "cpu,cpuacct"; "cpu" is often a link to it. */
    double quota = quota_above(root, mount, path, false);
    return quota > 0 ? quota : quota_above(root, "/cpu", path, false);
}

size_t cpus_quota(const char *root)
{
    char path[PATH_SIZE];
    if (snprintf(path, sizeof path, "%s/proc/self/cgroup", root) >= (int)sizeof path)
        return 0;
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    double smallest = 0;
    char line[PATH_SIZE];
    while (fgets(line, sizeof line, f)) {
        double quota = quota_line(root, line);
        if (quota > 0 && (smallest == 0 || quota < smallest))
            smallest = quota;
    }
    fclose(f);
    if (smallest == 0)
        return 0;
    /* Rounded down: with a thread more than the quota pays for all would be throttled. */
    return smallest < 1 ? 1 : smallest > 1e6 ? 0 : (size_t)smallest;
}

/* A cpu_set_t ends at 1,024 CPUs; the kernel refuses a mask smaller than its own. */
static size_t cpus_allowed(void)
{
    for (int n = CPU_SETSIZE; n <= 1 << 16; n *= 2) {
        cpu_set_t *set = CPU_ALLOC(n);
        if (!set)
            return 1;
        size_t size = CPU_ALLOC_SIZE(n);
        int got = sched_getaffinity(0, size, set) == 0 ? CPU_COUNT_S(size, set) : 0;
        CPU_FREE(set);
        if (got > 0)
            return (size_t)got;
    }
    return 1;
}

size_t cpus_usable(const char *root)
{
    size_t allowed = cpus_allowed();
    size_t quota = cpus_quota(root);
    return quota && quota < allowed ? quota : allowed;
}
