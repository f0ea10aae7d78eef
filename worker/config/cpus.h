/*
 * cpus.h: how many inference threads are worth starting.
 *
 * Owns:    reading the CPU affinity of the process and its cgroup CPU quota (version 1 and 2).
 * Refuses: CPU features (inference/cpu.h), pinning.
 * Threads: at start, on the loop thread.
 * Why:     in a container the machine's CPU count is a lie: 64 threads on a quota of 2 CPUs spend
 *          most of each period throttled, the loop thread with them.
 */
#ifndef CPUS_H
#define CPUS_H

#include <stddef.h>

/*
 * CPUs this process may use, at least 1: the smaller of its affinity mask and its cgroup quota.
 * root: "" for this machine; a folder that stands for / in tests (affinity is always real).
 */
size_t cpus_usable(const char *root);

/* The quota alone, rounded down but at least 1; 0 when there is none. */
size_t cpus_quota(const char *root);

#endif
