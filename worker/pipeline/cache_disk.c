/*
 * cache_disk.c: see cache_internal.h. One LMDB database in a folder: digests to vectors.
 *
 * Owns:    the form of the folder, batches of writes, what is said of a folder that is not usable.
 * Refuses: to take vectors out again. A full cache stays as it is: it is the corpus of yesterday.
 * Why:     LMDB, because any number of processes may share the folder, readers never wait, and a
 *          process that is killed at any time leaves what was there before its write. So that this
 *          holds for a machine that loses its power too, pages are synced before the page that
 *          makes them valid is written: MDB_NOSYNC and MDB_WRITEMAP, which would be faster, are
 *          left out. MDB_NOMETASYNC is safe and halves the syncs; one write a second makes them
 *          cheap. Each value has a checksum that its key is part of, for disks that forget; LMDB's
 *          own pages have none.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lmdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <uv.h>
#include <xxhash.h>

#include "worker/pipeline/cache_internal.h"

/* Rows kept back for one write, and for how long: a crash loses them. */
enum { PENDING_ROWS = 256, READERS = 1024, SLACK = 64 << 10 };
#define PENDING_NS 1000000000u

/* What stands in a folder that is a cache; another form needs another number. */
static const char mark_name[] = "embedmill cache", mark_form[] = "1";

/* Beside errno and LMDB's own codes, which are negative. */
enum { IS_FOREIGN = 1 << 20, IS_OTHER_FORM, IS_CUT_SHORT, IS_REMOTE };

struct head {
    uint64_t check; /* of the rest, and of the key */
    uint32_t n_tokens, truncated;
};

struct cache_disk {
    MDB_env *env;
    MDB_dbi dbi;
    bool is_guest; /* env is another's */
    char *folder;
    size_t row_bytes, value_bytes;

    uv_mutex_t lock;        /* of what is pending; held while it is written */
    unsigned char *pending; /* [PENDING_ROWS]: key, head, row */
    size_t n_pending;
    uint64_t pending_since_ns;

    atomic_bool unwritable, unreadable; /* given up, for the life of the process */
    atomic_int trouble;                 /* why, and not yet told */
};

static const char *advice(int rc)
{
    switch (rc) {
    case IS_FOREIGN:
        return "the database there is not one of embedmill: name another folder";
    case IS_OTHER_FORM:
        return "it was written by another version of embedmill: remove it, or name another folder";
    case IS_CUT_SHORT:
    case MDB_INVALID:
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
        return "it is damaged: remove it, or name another folder";
    case MDB_VERSION_MISMATCH:
        return "it was written by another version of LMDB: remove it, or name another folder";
    case IS_REMOTE:
        return "a network file system, where LMDB is not safe: name a folder on a disk of this "
               "machine";
    case MDB_MAP_FULL:
        return "it has reached cache_size: what it holds is used, nothing more is stored; raise "
               "cache_size, or remove the folder to start over";
    case MDB_MAP_RESIZED:
        return "another worker has a larger cache_size for it: give all the same; until the next "
               "start texts are embedded without it";
    case ENOSPC:
    case EFBIG:
    case EDQUOT:
    case EIO: /* LMDB's for a write that was cut short */
        return "the disk is full or fails: what it holds is used, nothing more is stored until "
               "the next start";
    case EACCES:
    case EPERM:
    case EROFS:
        return "this user may not write there: change its owner, or name another folder";
    case ENOENT:
    case ENOTDIR:
        return "expected a folder, or a new one in an existing folder";
    case EAGAIN:
        return "a process in another container uses it: a cache is shared by processes of one "
               "host or one container; name another folder";
    case ENOMEM:
        return "there is not enough address space for cache_size: lower it, or raise ulimit -v";
    default:
        return "texts are embedded without it";
    }
}

static void explain(const char *folder, int rc, char *out, size_t size)
{
    if (rc >= IS_FOREIGN)
        snprintf(out, size, "cache %s: %s", folder, advice(rc));
    else
        snprintf(out, size, "cache %s: %s (%s)", folder, advice(rc), mdb_strerror(rc));
}

static int make_folder(const char *folder)
{
    struct stat about;
    /* There already, perhaps made just now by a worker that starts beside this one. */
    if (mkdir(folder, 0700) != 0 && errno != EEXIST)
        return errno;
    if (stat(folder, &about) != 0)
        return errno;
    return S_ISDIR(about.st_mode) ? 0 : ENOTDIR;
}

/* Numbers of statfs(2): NFS, CIFS, SMB2. A FUSE mount may be either, and is taken as it is. */
static bool is_remote(const char *folder)
{
    struct statfs about;
    if (statfs(folder, &about) != 0)
        return false;
    uint32_t type = (uint32_t)about.f_type;
    return type == 0x6969 || type == 0xff534d42 || type == 0xfe534d42;
}

/*
 * A page behind the end of the file would be a SIGBUS. LMDB may allocate a few pages and not write
 * them, so a file that lacks no more than these is filled with zeros, which LMDB takes for damage
 * where it expected something; never made shorter, for another process may be writing.
 */
static int check_length(MDB_env *env, const char *folder)
{
    MDB_envinfo info;
    MDB_stat stat;
    struct stat about;
    char path[4200];
    int rc = mdb_env_info(env, &info);
    if (!rc)
        rc = mdb_env_stat(env, &stat);
    if (rc)
        return rc;
    uint64_t wanted = ((uint64_t)info.me_last_pgno + 1) * stat.ms_psize;
    snprintf(path, sizeof path, "%s/data.mdb", folder);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &about) != 0)
        rc = errno;
    else if ((uint64_t)about.st_size + SLACK < wanted)
        rc = IS_CUT_SHORT;
    else if ((uint64_t)about.st_size < wanted)
        /* Never ftruncate: what another process has just written behind it would be lost. */
        rc = posix_fallocate(fd, 0, (off_t)wanted);
    if (fd >= 0)
        close(fd);
    return rc;
}

static int write_mark(MDB_env *env, MDB_dbi dbi)
{
    MDB_txn *txn;
    MDB_val key = {sizeof mark_name - 1, (void *)mark_name};
    MDB_val value = {sizeof mark_form - 1, (void *)mark_form};
    int rc = mdb_txn_begin(env, NULL, 0, &txn);
    if (rc)
        return rc;
    /* Processes that found the folder empty at the same time all write it: the same bytes. */
    rc = mdb_put(txn, dbi, &key, &value, 0);
    if (!rc)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return rc;
}

/* Is it a cache, and how many vectors are in it? MDB_NOTFOUND: nothing at all. */
static int read_mark(MDB_env *env, MDB_dbi *dbi, uint64_t *n)
{
    MDB_txn *txn;
    MDB_stat stat = {0};
    unsigned flags = 0;
    MDB_val key = {sizeof mark_name - 1, (void *)mark_name}, value;
    int rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);
    if (rc)
        return rc;
    /* The handle of the unnamed database is a constant: it outlives this transaction, as others do
     * not. */
    rc = mdb_dbi_open(txn, NULL, 0, dbi);
    if (!rc)
        rc = mdb_stat(txn, *dbi, &stat);
    if (!rc)
        rc = mdb_dbi_flags(txn, *dbi, &flags);
    if (!rc)
        rc = mdb_get(txn, *dbi, &key, &value);
    if (rc == MDB_NOTFOUND && stat.ms_entries)
        rc = IS_FOREIGN;
    /* Ours has no flags: one with sorted duplicates, say, is another program's. */
    if (!rc && flags)
        rc = IS_FOREIGN;
    if (!rc && (value.mv_size != sizeof mark_form - 1 ||
                memcmp(value.mv_data, mark_form, value.mv_size) != 0))
        rc = IS_OTHER_FORM;
    if (!rc)
        /* Without the mark itself. */
        *n = stat.ms_entries - 1;
    mdb_txn_abort(txn);
    return rc;
}

static int open_env_once(MDB_env **out, const char *folder, uint64_t max_bytes, unsigned flags)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    MDB_env *env;
    int rc = mdb_env_create(&env);
    if (rc)
        return rc;
    /* LMDB wants whole pages of the system. */
    rc = mdb_env_set_mapsize(env, (size_t)(max_bytes + page - 1) / page * page);
    if (!rc)
        /* Readers of all processes together: a thread of a worker holds one while it reads. */
        rc = mdb_env_set_maxreaders(env, READERS);
    if (!rc)
        /* MDB_NOTLS: a reader's slot is free as its transaction ends, not as its thread does. */
        rc = mdb_env_open(env, folder, flags | MDB_NOTLS | MDB_NOMETASYNC, 0600);
    if (!rc)
        rc = check_length(env, folder);
    if (rc)
        /* LMDB wants that of an env that failed to open, too. */
        mdb_env_close(env);
    else
        *out = env;
    return rc;
}

/*
 * A process that is killed while it makes the lock file leaves it to those that waited for it,
 * empty (EINVAL, from mmap) or full of zeros (MDB_INVALID); the first to ask again makes it anew.
 */
static int open_env(MDB_env **out, const char *folder, uint64_t max_bytes, unsigned flags)
{
    int rc = open_env_once(out, folder, max_bytes, flags);
    /* Five times at most, 155 ms in all. */
    for (int again = 0; (rc == MDB_INVALID || rc == EINVAL) && again < 5; again++) {
        uv_sleep(5u << again); /* waiters that failed together come back apart */
        rc = open_env_once(out, folder, max_bytes, flags);
    }
    return rc;
}

/* The folder as a cache, made where there is none. */
static int open_folder(struct cache_disk *disk, uint64_t max_bytes)
{
    uint64_t n;
    int dead;
    int rc = make_folder(disk->folder);
    if (!rc && is_remote(disk->folder))
        rc = IS_REMOTE;
    if (!rc)
        rc = open_env(&disk->env, disk->folder, max_bytes, 0);
    if (rc)
        return rc;
    rc = mdb_reader_check(disk->env, &dead); /* killed while reading: their pages are free again */
    if (!rc)
        rc = read_mark(disk->env, &disk->dbi, &n);
    return rc == MDB_NOTFOUND ? write_mark(disk->env, disk->dbi) : rc;
}

/* Without its env; NULL: out of memory. */
static struct cache_disk *disk_new(const char *folder, size_t dim)
{
    struct cache_disk *disk = calloc(1, sizeof *disk);
    if (!disk || uv_mutex_init(&disk->lock)) {
        free(disk);
        return NULL;
    }
    disk->row_bytes = dim * sizeof(float);
    disk->value_bytes = sizeof(struct head) + disk->row_bytes;
    disk->folder = strdup(folder);
    disk->pending = malloc(PENDING_ROWS * (sizeof(struct cache_key) + disk->value_bytes));
    if (disk->folder && disk->pending)
        return disk;
    cache_disk_close(disk);
    return NULL;
}

int cache_disk_join(struct cache_disk **out, const struct cache_disk *first, size_t dim)
{
    struct cache_disk *disk = disk_new(first->folder, dim);
    if (!disk)
        return -ENOMEM;
    disk->env = first->env;
    disk->dbi = first->dbi;
    disk->is_guest = true;
    *out = disk;
    return 0;
}

int cache_disk_open(struct cache_disk **out, const char *folder, uint64_t max_bytes, size_t dim,
                    char *err, size_t err_size)
{
    struct cache_disk *disk = disk_new(folder, dim);
    int rc = disk ? open_folder(disk, max_bytes) : -ENOMEM;
    if (rc == 0) {
        *out = disk;
        return 0;
    }
    /* An errno is positive here, and LMDB's own codes are far below: only -ENOMEM is disk_new's. */
    if (rc == -ENOMEM)
        snprintf(err, err_size, "out of memory");
    else
        explain(folder, rc, err, err_size);
    cache_disk_close(disk);
    return rc == -ENOMEM ? rc : -EINVAL;
}

/* The last "/" of a path and what is behind it cut off. */
static void find_parent(const char *folder, char *out, size_t size)
{
    size_t len = strlen(folder);
    while (len > 1 && folder[len - 1] == '/')
        len--;
    while (len > 0 && folder[len - 1] != '/')
        len--;
    snprintf(out, size, "%.*s", len ? (int)len : 1, len ? folder : ".");
}

int cache_disk_look(const char *folder, uint64_t max_bytes, char *said, size_t size)
{
    char path[4200];
    MDB_env *env = NULL;
    MDB_dbi dbi;
    uint64_t n = 0;
    struct stat about = {0};
    bool is_there = stat(folder, &about) == 0;
    if (is_there)
        snprintf(path, sizeof path, "%s", folder);
    else
        find_parent(folder, path, sizeof path);
    int rc = is_there && !S_ISDIR(about.st_mode) ? ENOTDIR : 0;
    if (!rc && access(path, W_OK | X_OK) != 0)
        rc = errno;
    if (!rc && is_remote(path))
        rc = IS_REMOTE;
    snprintf(path, sizeof path, "%s/data.mdb", folder);
    bool is_cache = !rc && is_there && stat(path, &about) == 0;
    if (is_cache && access(path, W_OK) != 0)
        rc = errno;
    else if (is_cache) /* without a lock file, which would be this user's and not the worker's */
        rc = open_env(&env, folder, max_bytes, MDB_RDONLY | MDB_NOLOCK);
    if (env) {
        rc = read_mark(env, &dbi, &n);
        mdb_env_close(env);
    }
    if (rc && rc != MDB_NOTFOUND) {
        explain(folder, rc, said, size);
        return -EINVAL;
    }
    if (is_cache)
        snprintf(said, size, "%s: %" PRIu64 " vectors, %llu of at most %llu MiB", folder, n,
                 (unsigned long long)about.st_size >> 20, (unsigned long long)max_bytes >> 20);
    else
        snprintf(said, size, "%s: nothing there yet", folder);
    return 0;
}

void cache_disk_close(struct cache_disk *disk)
{
    if (!disk)
        return;
    if (disk->env)
        cache_disk_flush(disk);
    if (disk->env && !disk->is_guest) {
        /* MDB_NOMETASYNC leaves the last commit to the kernel; a clean end makes it durable. */
        mdb_env_sync(disk->env, 1);
        mdb_env_close(disk->env);
    }
    uv_mutex_destroy(&disk->lock);
    free(disk->folder);
    free(disk->pending);
    free(disk);
}

uint64_t cache_disk_entries(const struct cache_disk *disk)
{
    MDB_stat stat;
    return mdb_env_stat(disk->env, &stat) == 0 && stat.ms_entries ? stat.ms_entries - 1 : 0;
}

static void give_up(struct cache_disk *disk, atomic_bool *what, int rc)
{
    /* Only the first trouble is reported; the cache is not used for that any more. */
    if (!atomic_exchange(what, true))
        atomic_store(&disk->trouble, rc);
}

bool cache_disk_complaint(struct cache_disk *disk, char *why, size_t size)
{
    int rc = atomic_exchange(&disk->trouble, 0);
    if (rc)
        explain(disk->folder, rc, why, size);
    return rc != 0;
}

static uint64_t check_of(const struct cache_key *key, const void *value, size_t len)
{
    uint64_t seed;
    memcpy(&seed, key->bytes, sizeof seed);
    const char *rest = (const char *)value + sizeof(uint64_t);
    return XXH3_64bits_withSeed(rest, len - sizeof(uint64_t), seed);
}

struct MDB_txn *cache_disk_begin(struct cache_disk *disk)
{
    MDB_txn *moment = NULL;
    if (atomic_load(&disk->unreadable))
        return NULL;
    int rc = mdb_txn_begin(disk->env, NULL, MDB_RDONLY, &moment);
    if (rc && rc != MDB_READERS_FULL) /* that passes */
        give_up(disk, &disk->unreadable, rc);
    return rc ? NULL : moment;
}

void cache_disk_end(struct MDB_txn *moment)
{
    mdb_txn_abort(moment);
}

bool cache_disk_get(struct cache_disk *disk, struct MDB_txn *moment, const struct cache_key *key,
                    float *row, struct embed_result *result)
{
    MDB_val wanted = {sizeof key->bytes, (void *)key->bytes}, found;
    struct head head;
    int rc = mdb_get(moment, disk->dbi, &wanted, &found);
    if (rc && rc != MDB_NOTFOUND)
        give_up(disk, &disk->unreadable, rc);
    /* The dimension is part of the key, so another size is damage. */
    if (rc || found.mv_size != disk->value_bytes)
        return false;
    memcpy(&head, found.mv_data, sizeof head);
    if (head.check != check_of(key, found.mv_data, found.mv_size))
        return false; /* will be computed, and written anew */
    memcpy(row, (const char *)found.mv_data + sizeof head, disk->row_bytes);
    *result = (struct embed_result){
        .n_tokens = head.n_tokens, .truncated = head.truncated != 0, .cached = true};
    return true;
}

/* All that is pending, in one transaction. */
static int write_rows(const struct cache_disk *disk)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(disk->env, NULL, 0, &txn);
    if (rc)
        return rc;
    unsigned char *at = disk->pending;
    /* Key, head and row, as cache_disk_put has laid them out. */
    for (size_t i = 0; i < disk->n_pending && !rc; i++) {
        MDB_val key = {sizeof(struct cache_key), at};
        MDB_val value = {disk->value_bytes, at + sizeof(struct cache_key)};
        rc = mdb_put(txn, disk->dbi, &key, &value, 0);
        at += sizeof(struct cache_key) + disk->value_bytes;
    }
    if (!rc)
        return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return rc;
}

/* Under the lock. */
static void write_pending(struct cache_disk *disk)
{
    int rc = disk->n_pending ? write_rows(disk) : 0;
    /* Dropped if that failed: what is lost is a vector to compute again. */
    disk->n_pending = 0;
    if (rc)
        give_up(disk, &disk->unwritable, rc);
}

void cache_disk_flush(struct cache_disk *disk)
{
    uv_mutex_lock(&disk->lock);
    write_pending(disk);
    uv_mutex_unlock(&disk->lock);
}

void cache_disk_put(struct cache_disk *disk, const struct cache_key *key, const float *row,
                    const struct embed_result *result)
{
    if (atomic_load(&disk->unwritable))
        return;
    uv_mutex_lock(&disk->lock);
    uint64_t now = uv_hrtime();
    if (disk->n_pending == 0)
        disk->pending_since_ns = now;
    size_t each = sizeof *key + disk->value_bytes;
    assert(disk->n_pending < PENDING_ROWS); /* a full one was written by whoever filled it */
    unsigned char *at = disk->pending + disk->n_pending++ * each;
    struct head head = {.n_tokens = result->n_tokens, .truncated = result->truncated};
    memcpy(at, key, sizeof *key);
    at += sizeof *key;
    memcpy(at, &head, sizeof head);
    memcpy(at + sizeof head, row, disk->row_bytes);
    /* Over all that stands behind it, so it is found last and written into its place again. */
    head.check = check_of(key, at, disk->value_bytes);
    memcpy(at, &head, sizeof head);
    /* No timer: the next row finds that a second has passed, or cache_flush at the end. */
    if (disk->n_pending == PENDING_ROWS || now - disk->pending_since_ns > PENDING_NS)
        write_pending(disk);
    uv_mutex_unlock(&disk->lock);
}
