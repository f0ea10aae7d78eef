/*
 * test_cache_disk.c: the vectors on disk. Found again by another process; never a wrong one,
 * whatever became of the file; folders that are not usable are refused with what to do; a full
 * cache or disk is reported once and hurts nobody.
 */
#define _GNU_SOURCE      /* memmem */
#undef _FILE_OFFSET_BITS /* set by the flags of hiredis; the worker calls plain statfs */
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/support/assert_between.h"
#include "tests/support/cache_folder.h"
#include "worker/pipeline/cache_internal.h"

enum { DIM = 768, ROOM = 64 << 20 };

/* In place of libc's: there is no network file system to be had here. 0: as it is. */
static long fs_type;

int statfs(const char *path, struct statfs *about)
{
    long rc = syscall(SYS_statfs, path, about);
    if (rc == 0 && fs_type)
        about->f_type = fs_type;
    return (int)rc;
}

static void row_of(unsigned n, float row[DIM])
{
    unsigned random = n * 2654435761u + 1;
    for (size_t i = 0; i < DIM; i++) {
        random = random * 1103515245 + 12345;
        row[i] = (float)(random >> 8) / (1 << 24);
    }
}

static struct cache_key key_of(unsigned n)
{
    struct cache_key key;
    for (size_t i = 0; i < sizeof key.bytes; i++)
        key.bytes[i] = (unsigned char)((n * 2654435761u + 77) >> (i % 4 * 8));
    return key;
}

static void put(struct cache_disk *disk, unsigned n)
{
    float row[DIM];
    struct cache_key key = key_of(n);
    struct embed_result result = {.n_tokens = n, .truncated = n % 3 == 0};
    row_of(n, row);
    cache_disk_put(disk, &key, row, &result);
}

/* 1: there and its own; 0: not there; -1: wrong. */
static int get(struct cache_disk *disk, unsigned n)
{
    float row[DIM], wanted[DIM];
    struct cache_key key = key_of(n);
    struct embed_result result;
    struct MDB_txn *moment = cache_disk_begin(disk);
    if (!moment)
        return 0;
    bool found = cache_disk_get(disk, moment, &key, row, &result);
    cache_disk_end(moment);
    if (!found)
        return 0;
    row_of(n, wanted);
    return memcmp(row, wanted, sizeof row) == 0 && result.n_tokens == n && result.status == 0 &&
                   result.truncated == (n % 3 == 0)
               ? 1
               : -1;
}

static struct cache_disk *disk_open(uint64_t room)
{
    struct cache_disk *disk = NULL;
    char err[600] = "";
    if (cache_disk_open(&disk, cache_folder, room, DIM, err, sizeof err) != 0)
        fail_msg("%s", err);
    return disk;
}

static void assert_refused(const char *path, const char *because)
{
    struct cache_disk *disk = NULL;
    char err[600] = "", said[600] = "";
    assert_int_equal(cache_disk_open(&disk, path, ROOM, DIM, err, sizeof err), -EINVAL);
    if (!strstr(err, because) || !strstr(err, path))
        fail_msg("expected '%s', got '%s'", because, err);
    assert_int_equal(cache_disk_look(path, ROOM, said, sizeof said), -EINVAL);
    assert_non_null(strstr(said, because));
}

static void disk_fill(unsigned n)
{
    struct cache_disk *disk = disk_open(ROOM);
    for (unsigned i = 0; i < n; i++)
        put(disk, i);
    cache_disk_close(disk);
}

static void test_found_again(void **state)
{
    (void)state;
    char said[600];
    disk_fill(1000); /* not a multiple of a write's */
    struct cache_disk *disk = disk_open(ROOM);
    assert_int_equal(cache_disk_entries(disk), 1000);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(get(disk, i), 1);
    assert_int_equal(get(disk, 1000), 0);
    assert_false(cache_disk_complaint(disk, said, sizeof said));
    cache_disk_close(disk);
    assert_int_equal(cache_disk_look(cache_folder, ROOM, said, sizeof said), 0);
    assert_non_null(strstr(said, ": 1000 vectors, "));

    char err[600];
    assert_int_equal(cache_disk_open(&disk, cache_folder, ROOM, DIM / 2, err, sizeof err), 0);
    assert_int_equal(get(disk, 1), 0); /* of another size */
    cache_disk_close(disk);
}

/* Two models in one process: one folder, vectors of two lengths. */
static void test_joined(void **state)
{
    (void)state;
    struct cache_disk *disk = disk_open(ROOM), *guest;
    struct embed_result result;
    float row[DIM], wanted[DIM];
    char said[600];
    assert_int_equal(cache_disk_join(&guest, disk, DIM / 2), 0);
    for (unsigned i = 0; i < 600; i++)
        put(i % 2 ? guest : disk, i); /* written by turns, some of it on closing */
    cache_disk_close(guest);
    for (unsigned i = 0; i < 600; i += 2)
        put(disk, 1000 + i);
    cache_disk_close(disk);
    disk = disk_open(ROOM);
    assert_int_equal(cache_disk_entries(disk), 900);
    assert_int_equal(cache_disk_join(&guest, disk, DIM / 2), 0);
    struct MDB_txn *moment = cache_disk_begin(guest), *other = cache_disk_begin(disk);
    for (unsigned i = 0; i < 600; i++) {
        const struct cache_key key = key_of(i);
        assert_true(
            cache_disk_get(i % 2 ? guest : disk, i % 2 ? moment : other, &key, row, &result));
        assert_false(cache_disk_get(i % 2 ? disk : guest, moment, &key, row + DIM / 2, &result));
        row_of(i, wanted);
        assert_memory_equal(row, wanted, (i % 2 ? DIM / 2 : DIM) * sizeof *row);
    }
    cache_disk_end(moment);
    cache_disk_end(other);
    assert_false(cache_disk_complaint(guest, said, sizeof said));
    cache_disk_close(guest);
    cache_disk_close(disk);
}

static void test_folder_is_made(void **state)
{
    (void)state;
    char said[600], deep[100];
    assert_int_equal(rmdir(cache_folder), 0);
    assert_int_equal(cache_disk_look(cache_folder, ROOM, said, sizeof said), 0);
    assert_int_not_equal(access(cache_folder, F_OK), 0); /* a look makes nothing */
    snprintf(deep, sizeof deep, "%s/a/b", cache_folder);
    assert_refused(deep, "expected a folder");
    disk_fill(1);
    struct stat about;
    assert_int_equal(stat(cache_folder, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0700);
}

/* A byte of a row or of its head: the row is gone, and can be written again. */
static void test_damaged_rows_are_misses(void **state)
{
    (void)state;
    enum { N = 40 };
    disk_fill(N);
    FILE *f = fopen(cache_file, "r+b");
    static char bytes[1 << 20];
    size_t len = fread(bytes, 1, sizeof bytes, f);
    assert_between(len, N * DIM * 4, sizeof bytes - 1);
    for (unsigned i = 0; i < N; i++) {
        float row[DIM];
        row_of(i, row);
        const char *at = memmem(bytes, len, row, sizeof row);
        assert_non_null(at);
        /* The checksum, n_tokens or truncated before the row, or anything in it. */
        long off = at - bytes + (i < 16 ? (long)i - 16 : (long)(i * 131 % sizeof row));
        fseek(f, off, SEEK_SET);
        fputc(bytes[off] ^ (1 << i % 8), f);
    }
    fclose(f);
    struct cache_disk *disk = disk_open(ROOM);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(get(disk, i), 0);
        put(disk, i);
    }
    cache_disk_flush(disk);
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(get(disk, i), 1);
    cache_disk_close(disk);
}

static void file_write(const void *bytes, size_t len, long at)
{
    FILE *f = fopen(cache_file, "r+b");
    if (!f)
        f = fopen(cache_file, "wb");
    assert_non_null(f);
    fseek(f, at, SEEK_SET);
    assert_int_equal(fwrite(bytes, 1, len, f), len);
    fclose(f);
}

static void test_damaged_files_are_refused(void **state)
{
    (void)state;
    static const char zeros[8192];
    disk_fill(300);
    struct stat about;
    assert_int_equal(stat(cache_file, &about), 0);
    assert_true(about.st_size > 300 * 4096);
    assert_int_equal(truncate(cache_file, about.st_size / 2), 0);
    assert_refused(cache_folder, "is damaged: remove it");
    assert_int_equal(truncate(cache_file, 5000), 0);
    assert_refused(cache_folder, "is damaged: remove it");
    file_write(zeros, sizeof zeros, 0); /* the pages that say where all else is */
    assert_refused(cache_folder, "is damaged: remove it");
    file_write("text of somebody", 16, 0);
    assert_refused(cache_folder, "is damaged: remove it");
}

/* A database with one entry. */
static void database_write(const char *name, const char *text)
{
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_val key = {strlen(name), (void *)name}, value = {strlen(text), (void *)text};
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_open(env, cache_folder, 0, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
    assert_int_equal(mdb_put(txn, dbi, &key, &value, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static void test_foreign_folders_are_refused(void **state)
{
    (void)state;
    assert_refused("/dev/null", "expected a folder");
    database_write("phone", "book");
    assert_refused(cache_folder, "not one of embedmill");
    database_write("embedmill cache", "0");
    assert_refused(cache_folder, "another version of embedmill");
}

static void test_network_file_systems_are_refused(void **state)
{
    (void)state;
    static const long types[] = {0x6969, 0xff534d42, 0xfe534d42}; /* NFS, CIFS, SMB2; statfs(2) */
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        fs_type = types[i];
        assert_refused(cache_folder, "network file system");
    }
    fs_type = 0xef53; /* ext4 */
    disk_fill(1);
    fs_type = 0;
}

/* fork, so that it may lose rights, lower limits and die. The child's answer, or -1 when killed. */
static int in_child(int (*work)(void))
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(work());
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int open_as_nobody(void)
{
    struct cache_disk *disk;
    char err[600] = "", said[600] = "";
    if (getuid() == 0 && setuid(65534) != 0)
        return 2;
    if (cache_disk_open(&disk, cache_folder, ROOM, DIM, err, sizeof err) != -EINVAL ||
        cache_disk_look(cache_folder, ROOM, said, sizeof said) != -EINVAL)
        return 3;
    return strstr(err, "may not write") && strstr(said, "may not write") ? 0 : 4;
}

static void test_no_permission(void **state)
{
    (void)state;
    disk_fill(1);
    assert_int_equal(chmod(cache_folder, 0500), 0);
    assert_int_equal(chmod(cache_file, 0400), 0);
    assert_int_equal(in_child(open_as_nobody), 0);
    assert_int_equal(chmod(cache_folder, 0700), 0);
    assert_int_equal(chmod(cache_file, 0600), 0);
}

static void assert_complains_once(struct cache_disk *disk, const char *of)
{
    char why[600] = "";
    assert_true(cache_disk_complaint(disk, why, sizeof why));
    if (!strstr(why, of))
        fail_msg("expected '%s', got '%s'", of, why);
    assert_false(cache_disk_complaint(disk, why, sizeof why));
}

static void test_full_cache(void **state)
{
    (void)state;
    struct cache_disk *disk = disk_open(2 << 20);
    for (unsigned i = 0; i < 1000; i++)
        put(disk, i);
    cache_disk_flush(disk);
    assert_complains_once(disk, "has reached cache_size");
    for (unsigned i = 1000; i < 1500; i++)
        put(disk, i);
    cache_disk_flush(disk);
    char why[600];
    assert_false(cache_disk_complaint(disk, why, sizeof why));
    unsigned n = 0;
    for (unsigned i = 0; i < 1500; i++) {
        assert_true(get(disk, i) >= 0);
        n += get(disk, i) == 1;
    }
    assert_between(n, 200, 500); /* 2 MiB of 4 KiB each, but for a write that had no room */
    cache_disk_close(disk);
    disk_fill(1000); /* a larger one takes all */
    disk = disk_open(ROOM);
    assert_int_equal(cache_disk_entries(disk), 1000);
    cache_disk_close(disk);
}

static int write_beyond_limit(void)
{
    struct rlimit limit = {1 << 20, 1 << 20};
    char why[600] = "";
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    struct cache_disk *disk = disk_open(ROOM);
    for (unsigned i = 0; i < 1000; i++)
        put(disk, i);
    cache_disk_flush(disk);
    if (!cache_disk_complaint(disk, why, sizeof why) || !strstr(why, "disk is full"))
        return 1;
    for (unsigned i = 0; i < 100; i++)
        if (get(disk, i) != 1)
            return 2;
    cache_disk_close(disk);
    return 0;
}

static void test_full_disk(void **state)
{
    (void)state;
    disk_fill(100);
    assert_int_equal(in_child(write_beyond_limit), 0);
    disk_fill(1000); /* and what was cut short does no harm */
    struct cache_disk *disk = disk_open(ROOM);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(get(disk, i), 1);
    cache_disk_close(disk);
}

static int outgrow(void)
{
    disk_fill(1000);
    return 0;
}

static void test_other_worker_has_a_larger_size(void **state)
{
    (void)state;
    struct cache_disk *disk = disk_open(1 << 20);
    put(disk, 1);
    cache_disk_flush(disk);
    assert_int_equal(get(disk, 1), 1);
    assert_int_equal(in_child(outgrow), 0);
    assert_int_equal(get(disk, 1), 0);
    assert_complains_once(disk, "give all the same");
    put(disk, 2);
    cache_disk_close(disk);
}

/* Reads and writes at random until it is killed, or for 2000 steps. Wrong: 1. */
static int work_at_random(void)
{
    unsigned random = (unsigned)getpid();
    struct cache_disk *disk = disk_open(ROOM);
    for (unsigned step = 0; step < 2000; step++) {
        random = random * 1103515245 + 12345;
        unsigned n = random / 65536 % 600;
        int got = get(disk, n);
        if (got < 0)
            return 1;
        if (got == 0)
            put(disk, n);
        if (step % 16 == 0)
            cache_disk_flush(disk);
    }
    cache_disk_close(disk);
    return 0;
}

static unsigned count_all(unsigned n)
{
    struct cache_disk *disk = disk_open(ROOM);
    unsigned n_found = 0;
    for (unsigned i = 0; i < n; i++) {
        int got = get(disk, i);
        if (got < 0)
            fail_msg("row %u is not its own", i);
        n_found += got == 1;
    }
    cache_disk_close(disk);
    return n_found;
}

static void test_two_processes(void **state)
{
    (void)state;
    pid_t pids[2];
    for (size_t i = 0; i < 2; i++) {
        pids[i] = fork();
        if (pids[i] == 0)
            _exit(work_at_random());
    }
    for (size_t i = 0; i < 2; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    assert_true(count_all(600) > 550);
}

/* Holds LMDB's lock on a lock file of so many zeros, until it is killed. */
static int make_lock_file(off_t size)
{
    char path[80];
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    snprintf(path, sizeof path, "%s/lock.mdb", cache_folder);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || fcntl(fd, F_SETLK, &whole) != 0 || ftruncate(fd, size) != 0)
        return 1;
    pause();
    return 1;
}

static void kill_while_it_makes_the_folder(off_t size)
{
    pid_t pids[4];
    for (size_t i = 0; i < 4; i++) {
        pids[i] = fork();
        if (pids[i] == 0)
            _exit(i ? work_at_random() : make_lock_file(size));
        nanosleep(&(struct timespec){0, 50000000}, NULL);
    }
    kill(pids[0], SIGKILL);
    for (size_t i = 0; i < 4; i++) {
        int status;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_true(i == 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
    }
    assert_true(count_all(600) > 550);
}

static void test_killed_while_it_made_the_folder(void **state)
{
    (void)state;
    kill_while_it_makes_the_folder(0);
}

static void test_killed_while_it_filled_the_folder(void **state)
{
    (void)state;
    kill_while_it_makes_the_folder(1 << 20);
}

/* One is killed at any moment, while another goes on. */
static void test_killed(void **state)
{
    (void)state;
    for (long round = 0; round < 10; round++) {
        pid_t other = fork();
        if (other == 0)
            _exit(work_at_random());
        pid_t pid = fork();
        if (pid == 0)
            _exit(work_at_random());
        nanosleep(&(struct timespec){0, (3 + round * 4) * 1000000}, NULL);
        kill(pid, SIGKILL);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(waitpid(other, &status, 0), other);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        count_all(600);
    }
}

#define IN_A_FOLDER(test)                                                                          \
    cmocka_unit_test_setup_teardown(test, cache_folder_make, cache_folder_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_FOLDER(test_found_again),
        IN_A_FOLDER(test_joined),
        IN_A_FOLDER(test_folder_is_made),
        IN_A_FOLDER(test_damaged_rows_are_misses),
        IN_A_FOLDER(test_damaged_files_are_refused),
        IN_A_FOLDER(test_foreign_folders_are_refused),
        IN_A_FOLDER(test_network_file_systems_are_refused),
        IN_A_FOLDER(test_no_permission),
        IN_A_FOLDER(test_full_cache),
        IN_A_FOLDER(test_full_disk),
        IN_A_FOLDER(test_other_worker_has_a_larger_size),
        IN_A_FOLDER(test_two_processes),
        IN_A_FOLDER(test_killed),
        IN_A_FOLDER(test_killed_while_it_made_the_folder),
        IN_A_FOLDER(test_killed_while_it_filled_the_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
