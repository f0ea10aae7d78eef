/*
 * metrics_process.c: process_* as Prometheus' own client libraries name them, from /proc.
 *
 * Threads: the loop thread.
 * Why:     the model is mapped and shared by all workers of a machine, and counts as resident in
 *          each of them; what a worker has for itself is told apart.
 */
#include <dirent.h>
#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "worker/telemetry/metrics.h"

static void print_value(FILE *to, const char *name, const char *type, const char *help,
                        double value)
{
    fprintf(to, "# HELP %s %s\n# TYPE %s %s\n%s %.15g\n", name, help, name, type, name, value);
}

/* Kilobytes of a line of /proc/self/status, in bytes; 0 when there is none. */
static double status_bytes(const char *status, const char *key)
{
    uint64_t kilobytes = 0;
    /* The key begins with the end of the line before: a process may have such a name. */
    const char *at = strstr(status, key);
    if (!at || sscanf(at + strlen(key), " %" SCNu64, &kilobytes) != 1)
        return 0;
    return (double)kilobytes * 1024;
}

static size_t read_file(const char *path, char *out, size_t size)
{
    FILE *f = fopen(path, "re");
    size_t len = f ? fread(out, 1, size - 1, f) : 0;
    if (f)
        fclose(f);
    out[len] = '\0';
    return len;
}

static void print_memory(FILE *to)
{
    char status[4096];
    if (!read_file("/proc/self/status", status, sizeof status))
        return;
    print_value(to, "process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.",
                status_bytes(status, "\nVmSize:"));
    print_value(to, "process_resident_memory_bytes", "gauge",
                "Resident memory in bytes, the mapped model included.",
                status_bytes(status, "\nVmRSS:"));
    print_value(to, "embedmill_private_memory_bytes", "gauge",
                "Resident memory of this process alone, without the mapped model.",
                status_bytes(status, "\nRssAnon:"));
}

static void print_descriptors(FILE *to)
{
    struct rlimit limit;
    DIR *folder = opendir("/proc/self/fd");
    size_t n = 0;
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        n += entry->d_name[0] != '.';
    if (folder) {
        closedir(folder);
        print_value(to, "process_open_fds", "gauge", "Number of open file descriptors.",
                    (double)n - 1); /* without the folder's own */
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        print_value(to, "process_max_fds", "gauge", "Maximum number of open file descriptors.",
                    (double)limit.rlim_cur);
}

double metrics_process_start(void)
{
    char stat[1024];
    uint64_t ticks;
    struct timespec now, up;
    if (!read_file("/proc/self/stat", stat, sizeof stat))
        return 0;
    const char *at = strrchr(stat, ')'); /* the name before it may hold anything */
    /* Field 22 of proc(5): ticks from the machine's start to the process's. */
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (!at || sscanf(at, " %" SCNu64, &ticks) != 1)
        return 0;
    clock_gettime(CLOCK_REALTIME, &now);
    clock_gettime(CLOCK_BOOTTIME, &up);
    return (double)(now.tv_sec - up.tv_sec) + (double)(now.tv_nsec - up.tv_nsec) * 1e-9 +
           (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

void metrics_print_process(FILE *to, double start)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        print_value(to, "process_cpu_seconds_total", "counter",
                    "Total user and system CPU time spent in seconds.",
                    (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                        (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6);
    print_memory(to);
    print_descriptors(to);
    if (start > 0)
        print_value(to, "process_start_time_seconds", "gauge",
                    "Start time of the process since unix epoch in seconds.", start);
}
