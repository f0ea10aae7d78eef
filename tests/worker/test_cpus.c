/*
 * test_cpus.c: quotas of CPU and limits of memory as the kernel writes them, in a folder that
 * stands for the root.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <ftw.h>
#include <cmocka.h>

#include "worker/config/cpus.h"
#include "connectors/memory.h"

static char root[64];

static int root_make(void **state)
{
    (void)state;
    strcpy(root, "/tmp/embedmill-cpus-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static int root_remove(void **state)
{
    (void)state;
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void put(const char *path, const char *text)
{
    char whole[400];
    snprintf(whole, sizeof whole, "%s%s", root, path);
    for (char *slash = whole + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(whole, 0700);
        *slash = '/';
    }
    FILE *f = fopen(whole, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void test_no_cgroups_no_quota(void **state)
{
    (void)state;
    assert_int_equal(cpus_quota(root), 0);
    put("/proc/self/cgroup", "0::/\n");
    assert_int_equal(cpus_quota(root), 0);
}

static void test_version_2(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/cpu.max", "max 100000\n");
    assert_int_equal(cpus_quota(root), 0);
    put("/sys/fs/cgroup/cpu.max", "400000 100000\n");
    assert_int_equal(cpus_quota(root), 4);
    put("/sys/fs/cgroup/cpu.max", "250000 100000\n"); /* 2.5 */
    assert_int_equal(cpus_quota(root), 2);
    put("/sys/fs/cgroup/cpu.max", "50000 100000\n"); /* half a CPU is still one thread */
    assert_int_equal(cpus_quota(root), 1);
    put("/sys/fs/cgroup/cpu.max", "nonsense\n");
    assert_int_equal(cpus_quota(root), 0);
}

static void test_version_2_smallest_on_the_way_up(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "0::/kubepods/pod1/box\n");
    put("/sys/fs/cgroup/kubepods/cpu.max", "1600000 100000\n");
    put("/sys/fs/cgroup/kubepods/pod1/cpu.max", "300000 100000\n");
    put("/sys/fs/cgroup/kubepods/pod1/box/cpu.max", "max 100000\n");
    assert_int_equal(cpus_quota(root), 3);
}

static void test_version_1(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "12:cpuset:/a\n5:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n");
    put("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cpus_quota(root), 0);
    put("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "150000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "50000\n");
    assert_int_equal(cpus_quota(root), 3);
}

/* The path is the host's and the container's own group is mounted as the root, at the short name.
 */
static void test_version_1_inside_a_container(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "5:cpuacct,cpu:/docker/abc\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cpus_quota(root), 2);
}

static void test_lines_that_are_not_for_us(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "\nnonsense\n3:cpuset:/a\n2:cpuacct:/b\n:\n::\n0::\n");
    put("/sys/fs/cgroup/cpuset/a/cpu.cfs_quota_us", "100000\n");
    put("/sys/fs/cgroup/cpuset/a/cpu.cfs_period_us", "100000\n");
    assert_int_equal(cpus_quota(root), 0);
}

static void test_usable_is_the_smaller_one(void **state)
{
    (void)state;
    cpu_set_t set;
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    size_t allowed = (size_t)CPU_COUNT(&set);
    assert_int_equal(cpus_usable(root), allowed);
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/cpu.max", "99900000 100000\n");
    assert_int_equal(cpus_usable(root), allowed);
    put("/sys/fs/cgroup/cpu.max", "100000 100000\n");
    assert_int_equal(cpus_usable(root), 1);

    cpu_set_t one;
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &set))
            CPU_SET(i, &one);
    put("/sys/fs/cgroup/cpu.max", "max 100000\n");
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    size_t pinned = cpus_usable(root);
    assert_int_equal(sched_setaffinity(0, sizeof set, &set), 0);
    assert_int_equal(pinned, 1);
    assert_true(cpus_usable("") >= 1);
}

#define WITH_ROOT(test) cmocka_unit_test_setup_teardown(test, root_make, root_remove)

static void test_memory(void **state)
{
    (void)state;
    assert_true(memory_limit(root) == UINT64_MAX);
    assert_int_equal(memory_total(root), 0);
    put("/proc/meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:   600 kB\n");
    assert_int_equal(memory_total(root), 1000 * 1024);
    assert_int_equal(memory_available(root), 600 * 1024);

    put("/proc/self/cgroup", "0::/system.slice/mill\n");
    put("/sys/fs/cgroup/system.slice/mill/memory.max", "max\n");
    assert_true(memory_limit(root) == UINT64_MAX);
    put("/sys/fs/cgroup/system.slice/memory.max", "536870912\n");
    assert_int_equal(memory_limit(root), 536870912); /* of the cgroup above */
    put("/sys/fs/cgroup/memory.max", "1024\n");
    assert_int_equal(memory_limit(root), 1024);

    put("/proc/self/cgroup", "9:memory:/docker/1234\n4:cpu,cpuacct:/\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"); /* none */
    assert_true(memory_limit(root) == UINT64_MAX);
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2048\n"); /* its own, seen as the root */
    assert_int_equal(memory_limit(root), 2048);
    assert_true(memory_total("") > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ROOT(test_no_cgroups_no_quota),
        WITH_ROOT(test_version_2),
        WITH_ROOT(test_version_2_smallest_on_the_way_up),
        WITH_ROOT(test_version_1),
        WITH_ROOT(test_version_1_inside_a_container),
        WITH_ROOT(test_lines_that_are_not_for_us),
        WITH_ROOT(test_usable_is_the_smaller_one),
        WITH_ROOT(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
