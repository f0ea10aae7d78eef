/*
 * memory.h: how much memory this process may use.
 *
 * Owns:    reading the limit of its cgroup (version 1 and 2) and the machine's memory.
 * Threads: any one; reads /proc and /sys.
 */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdint.h>

/* Bytes; UINT64_MAX: no limit. root: "" for this machine, a folder that stands for / in tests. */
uint64_t memory_limit(const char *root);
/* Bytes of the machine: in all, and to be had without swapping. 0 when it cannot be read. */
uint64_t memory_total(const char *root);
uint64_t memory_available(const char *root);

#endif
